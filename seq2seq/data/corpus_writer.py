"""Writing a corpus: under a temporary name beside its place, made visible by one rename.

What the files hold is told in ``corpus``, which reads them.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.errors import DataError

Side = Literal["src", "tgt"]

VERSION = 1
SIDES: tuple[Side, Side] = ("src", "tgt")
FILES = ("src.ids", "src.offsets", "tgt.ids", "tgt.offsets", "lines")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class CorpusWriter:
    """Writes a corpus under a temporary name; :meth:`finish` makes it visible, without it nothing remains."""

    def __init__(self, folder: Path, tokenizers: TokenizerPair) -> None:
        self._folder = folder
        self._temporary = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
        self._vocab_sizes = {"src": tokenizers.src.vocab_size, "tgt": tokenizers.tgt.vocab_size}
        self._dtypes: dict[str, str] = {"lines": "<i8"}
        for side in SIDES:
            self._dtypes[f"{side}.ids"] = "<u2" if self._vocab_sizes[side] <= 1 << 16 else "<u4"
            self._dtypes[f"{side}.offsets"] = "<i8"

    def __enter__(self) -> "CorpusWriter":
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_dead_builds(self._folder)
            self._temporary.mkdir()
            self._files = {name: (self._temporary / name).open("wb") for name in FILES}
        except OSError as error:
            raise DataError(f"{self._folder}: cannot build a corpus there ({error.strerror})") from None
        self._hashes = {name: hashlib.blake2b(digest_size=16) for name in FILES}
        self._ends = dict.fromkeys(SIDES, 0)
        for side in SIDES:
            self._append(f"{side}.offsets", np.zeros(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with suppress(OSError):  # a full disk, reported already
                file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
            raise DataError(f"{self._folder}: no space left on the disk to build the corpus; free some") from error

    def add(self, src: list[list[int]], tgt: list[list[int]], lines: Sequence[int] | NDArray[np.int64]) -> None:
        """Append sentences, given without EOS."""
        for side, sentences in zip(SIDES, (src, tgt), strict=True):
            ends = self._ends[side] + np.cumsum([len(ids) + 1 for ids in sentences], dtype=np.int64)
            self._ends[side] = int(ends[-1]) if len(ends) else self._ends[side]
            self._append(f"{side}.offsets", ends)
            self._append(f"{side}.ids", np.array([i for ids in sentences for i in (*ids, EOS_ID)], dtype=np.int64))
        self._append("lines", np.asarray(lines))

    def finish(self, counts: Mapping[str, int], fingerprint: str) -> None:
        """Write the description, force everything to disk, and put the folder in its place."""
        files = {
            name: {"bytes": file.tell(), "blake2b": self._hashes[name].hexdigest()}
            for name, file in self._files.items()
        }
        meta = {
            "version": VERSION,
            "num_pairs": self._files["lines"].tell() // 8,
            "fingerprint": fingerprint,
            "vocab_sizes": self._vocab_sizes,
            "counts": dict(counts),
            "dtypes": self._dtypes,
            "files": files,
        }
        self._files["meta.json"] = (self._temporary / "meta.json").open("wb")
        self._files["meta.json"].write(json.dumps(meta, indent=2).encode())
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self._temporary)
        if self._folder.exists():  # a folder cannot be renamed over a full one
            old = self._temporary.with_suffix(".old.tmp")
            self._folder.rename(old)
            self._temporary.rename(self._folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            self._temporary.rename(self._folder)
        _sync_folder(self._folder.parent)

    def _append(self, name: str, values: NDArray[Any]) -> None:
        data = values.astype(self._dtypes[name]).tobytes()
        self._files[name].write(data)
        self._hashes[name].update(data)


def _remove_dead_builds(folder: Path) -> None:
    """Remove what killed builds of ``folder`` left behind: on this machine, by processes that are no more."""
    prefix = f".{folder.name}.{socket.gethostname()}."
    for leftover in folder.parent.iterdir():
        pid = leftover.name.removeprefix(prefix).split(".")[0]
        ours = leftover.name.startswith(prefix) and leftover.name.endswith(".tmp") and pid.isdecimal()
        if ours and (int(pid) == os.getpid() or not _is_running(int(pid))):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # someone else's
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
