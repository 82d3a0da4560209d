"""Writer of a corpus folder: a temporary folder, then one rename. ``corpus`` reads it and describes the files."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.errors import DataError
from seq2seq.files import CHECKSUM, is_full_disk, new_checksum, put_folder_in_place, sealed_json, temporary_folder

Side = Literal["src", "tgt"]
Ids = NDArray[np.uint16] | NDArray[np.uint32]

META = "meta.json"
VERSION = 2
SIDES: tuple[Side, Side] = ("src", "tgt")
FILES = ("src.ids", "src.offsets", "tgt.ids", "tgt.offsets", "lines")


class Sentences(NamedTuple):
    """Sentences of one side, in the stored types."""

    ids: Ids  # [tokens] all sentences, one after the other, each with its EOS
    lengths: NDArray[np.int64]  # [sentences] tokens, EOS included


def join_sentences(sentences: Sequence[Sequence[int]], vocab_size: int) -> Sentences:
    """Join sentences into one stream, and add EOS to each."""
    lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
    ids = np.fromiter(chain.from_iterable(sentences), _ids_dtype(vocab_size), int(lengths.sum()))
    return Sentences(np.insert(ids, np.cumsum(lengths), EOS_ID), lengths + 1)


def _ids_dtype(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class CorpusWriter:
    """Writes a corpus to a temporary folder. :meth:`finish` puts it in place; without it, nothing remains."""

    def __init__(self, folder: Path, tokenizers: TokenizerPair) -> None:
        self._folder = folder
        self._vocab_sizes = {"src": tokenizers.src.vocab_size, "tgt": tokenizers.tgt.vocab_size}
        self._dtypes: dict[str, str] = {"lines": "<i8"}
        for side in SIDES:
            self._dtypes[f"{side}.ids"] = _ids_dtype(self._vocab_sizes[side]).str
            self._dtypes[f"{side}.offsets"] = "<i8"

    def __enter__(self) -> "CorpusWriter":
        self._cleanup = ExitStack()
        try:
            self._temporary = self._cleanup.enter_context(temporary_folder(self._folder))
            self._files = {name: (self._temporary / name).open("wb") for name in FILES}
        except OSError as error:
            raise DataError(f"{self._folder}: cannot write here ({error.strerror}); check the folder") from None
        self._checksums = {name: new_checksum() for name in FILES}
        self._ends = dict.fromkeys(SIDES, 0)
        for side in SIDES:
            self._append(f"{side}.offsets", np.zeros(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with suppress(OSError):  # the disk is full, which is reported below
                file.close()
        self._cleanup.close()
        if is_full_disk(error):
            raise DataError(f"{self._folder}: no space left on the disk; free some to build the corpus") from error
        if isinstance(error, OSError):
            raise DataError(f"{self._folder}: cannot build the corpus: {error}") from error

    def add(self, src: Sentences, tgt: Sentences, lines: Sequence[int] | NDArray[np.int64]) -> None:
        """Append sentence pairs."""
        for side, sentences in zip(SIDES, (src, tgt), strict=True):
            ends = self._ends[side] + np.cumsum(sentences.lengths)
            self._ends[side] += sentences.ids.size
            self._append(f"{side}.offsets", ends)
            self._append(f"{side}.ids", sentences.ids)
        self._append("lines", np.asarray(lines))

    def finish(self, counts: Mapping[str, int], fingerprint: str) -> None:
        """Write ``meta.json``, force everything to disk, and rename the folder to its final name."""
        files = {
            name: {"bytes": file.tell(), CHECKSUM: self._checksums[name].hexdigest()}
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
        for file in self._files.values():
            file.close()
        (self._temporary / META).write_bytes(sealed_json(meta))
        put_folder_in_place(self._temporary, self._folder)

    def _append(self, name: str, values: NDArray[Any]) -> None:
        data = values.astype(self._dtypes[name], copy=False).data
        self._files[name].write(data)
        self._checksums[name].update(data)
