"""Checksums of files, remembered: a start need not read again what has not changed since the last one."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from seq2seq.errors import UserError
from seq2seq.files import checksum_file, sealed_json, write_bytes

_SETTLED = 3_000_000_000  # nanoseconds; file systems stamp times with a coarseness of up to two seconds


class ChecksumMemory:
    """The checksums of files by path, kept in a JSON file.

    A checksum is taken from memory where the file's size, inode and times of last change are what they were. Two
    changes within one tick of the clock leave the same times, so a file that changed a moment before it was read is
    not remembered (git's rule for its index). Of the times, ctime is the one that no program can set back.
    """

    def __init__(self, path: Path) -> None:
        """``path`` need not exist; where it cannot be read or written, checksums are computed each time."""
        self._path = path
        self._known: dict[str, list[object]] = {}
        with suppress(OSError, ValueError, RecursionError):
            content = path.read_bytes()
            known = json.loads(content)
            if isinstance(known, dict) and sealed_json(known) == content:  # else damaged: a wrong checksum lies
                self._known = known["files"]

    def checksum(self, path: Path) -> str:
        """What :func:`checksum_file` gives for the file as it is now."""
        key, stamp = str(path.absolute()), _stamp(path)
        match self._known.get(key):
            case [known_stamp, str(known)] if stamp is not None and known_stamp == stamp:
                return known
        started = time.time_ns()
        found = checksum_file(path)
        if stamp is not None and stamp == _stamp(path) and max(stamp[2:]) < started - _SETTLED:
            self._known[key] = [stamp, found]
            with suppress(UserError):  # a folder that others have made for us may be read-only
                write_bytes(self._path, sealed_json({"files": self._known}))
        return found


def _stamp(path: Path) -> list[int] | None:
    """Size, inode, and times of last change; None where there is no file, which :func:`checksum_file` reports."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
