"""Cache of checksums of files and of the text in them, so that a new start reads only the files that changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from seq2seq.errors import UserError
from seq2seq.files import checksum_file, sealed_json, write_bytes

_SETTLED = 3_000_000_000  # nanoseconds; file times can be coarse: up to two seconds


class FileRecord(BaseModel):
    """What a stored folder says of one of its files, to find damage."""

    model_config = ConfigDict(strict=True)

    bytes: int
    blake2b: str


class ChecksumMemory:
    """The checksums of files by path, stored in a JSON file.

    A stored checksum is used if the file's size, inode, mtime and ctime are unchanged. Two changes in one tick of the
    clock give the same times, so a file that changed just before it was read is not stored (as in git's index). ctime
    counts because no program can set it back.
    """

    def __init__(self, path: Path) -> None:
        """``path`` may be missing; if it cannot be read or written, checksums are computed each time."""
        self._path = path
        self._known: dict[str, list[object]] = {}
        with suppress(OSError, ValueError, RecursionError):
            content = path.read_bytes()
            known = json.loads(content)
            if isinstance(known, dict) and sealed_json(known) == content:  # otherwise damaged
                self._known = known["files"]

    def checksum(self, path: Path) -> str:
        """Same result as :func:`checksum_file`."""
        return self.recall(path, "", lambda: checksum_file(path))

    def recall(self, path: Path, how: str, compute: Callable[[], str]) -> str:
        """What ``compute`` finds in the file, or found in it before; ``how``: what it depends on except the file."""
        key, stamp = f"{path.absolute()} {how}".rstrip(), _stamp(path)
        match self._known.get(key):
            case [known_stamp, str(known)] if stamp is not None and known_stamp == stamp:
                return known
        started = time.time_ns()
        found = compute()
        if stamp is not None and stamp == _stamp(path) and max(stamp[2:]) < started - _SETTLED:
            self._known[key] = [stamp, found]
            with suppress(UserError):  # the cache folder may be read-only
                write_bytes(self._path, sealed_json({"files": self._known}))
        return found


def _stamp(path: Path) -> list[int] | None:
    """Size, inode, mtime and ctime; None without a file, which :func:`checksum_file` reports."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
