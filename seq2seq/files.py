"""Files on a disk: atomic writes, checksums, locks, free space, and what killed processes left behind.

A file is written under a temporary name beside its place, forced to the disk, and made visible by one rename. So it is
whole or absent. The writer holds a lock on the temporary file, which the system frees however the writer ends: a
temporary file that can be locked is a leftover, and is removed by the next writer of the same file. Locks hold between
containers, where process numbers repeat, and after a restart. A folder is written in the same way; its lock is an empty
file beside it. The names contain the host's name, because some network disks keep the locks of each machine apart.

Imports neither PyTorch nor numpy, so the processes that build a corpus start quickly.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from seq2seq.errors import DataError, UserError

CHECKSUM = "blake2b"  # the key of a checksum in JSON and in the metadata of tensors
_BLOCK = 1 << 20  # bytes read at a time
_NEW = ".new"  # the ending of a folder that is being written; that of its lock is .tmp
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def new_checksum() -> hashlib.blake2b:
    """A checksum (16 bytes) to be updated with one part of the content after another."""
    return hashlib.blake2b(digest_size=16)


def checksum(content: bytes | memoryview) -> str:
    """Hex checksum (16 bytes)."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_checksum(file: BinaryIO, size: int | None = None) -> hashlib.blake2b:
    """The checksum of the first ``size`` bytes of an open file, or of all where it has fewer.

    The file is read in blocks; its position is then behind them.
    """
    found = new_checksum()
    file.seek(0)
    left = sys.maxsize if size is None else size
    while block := file.read(min(left, _BLOCK)):
        found.update(block)
        left -= len(block)
    return found


def checksum_file(path: Path) -> str:
    """Hex checksum (16 bytes) of a file's bytes on the disk; raises DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return read_checksum(file).hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def fingerprint(**values: object) -> str:
    """What something was made from: the checksum of named values, which JSON can hold.

    Values that are None are left out. So a value that is added later, and is None where nothing changes, keeps the
    fingerprints that were there before.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return checksum(json.dumps(given, sort_keys=True).encode())


def sealed_json(tree: Mapping[str, Any]) -> bytes:
    """``tree`` as JSON, with a checksum of itself at its end; one that ``tree`` has already is replaced."""
    rest = {name: value for name, value in tree.items() if name != CHECKSUM}
    return json.dumps({**rest, CHECKSUM: checksum(json.dumps(rest, indent=2).encode())}, indent=2).encode()


def seal(path: Path, size: int | None = None) -> str:
    """Length and checksum of a file's first ``size`` bytes, or of all of it, forced to the disk; raises OSError."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        found = read_checksum(file, size)
        return f"{file.tell()} {found.hexdigest()}"


def is_sealed(path: Path, sealed: str) -> bool:
    """Whether a file still starts with what :func:`seal` saw."""
    try:
        return seal(path, int(sealed.split()[0])) == sealed
    except OSError:
        return False


def open_locked(path: Path, *, wait: bool = False) -> BinaryIO:
    """Open a file for reading and writing, and lock it until it is closed or the process ends.

    A missing file is made. A file system without locks gives the file without one.

    Raises:
        BlockingIOError: it is locked already, in this process or another, and ``wait`` is false.
        OSError: it cannot be opened.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # it was renamed or deleted between the two calls


@contextmanager
def locked_run(run_dir: Path) -> Iterator[None]:
    """Keep other processes from working on a run folder as long as the block lasts, or the process lives.

    Raises:
        UserError: another process works on it, or the folder cannot be made.
    """
    path = run_dir / ".lock"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = open_locked(path)
    except BlockingIOError:
        holder = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise UserError(f"{run_dir}: {holder} works on it; wait until that ends, or choose another run_dir") from None
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written: {error.strerror}") from None
    with file:
        with suppress(OSError):  # a full disk; the lock holds
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new locked file with a hidden name beside ``path``; leftovers of other writers of ``path`` are removed."""
    remove_leftovers(path.parent, re.escape(path.name))
    place = path.with_name(f".{path.name}.{socket.gethostname()}.{secrets.token_hex(4)}.tmp")
    with open_locked(place, wait=True):
        try:
            yield place
        finally:
            with suppress(OSError):  # it is gone after the rename
                place.unlink()


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove what killed writers, on this machine, of files or folders called ``names`` (a regular expression) left."""
    pattern = re.compile(rf"\.(?:{names})\.{re.escape(socket.gethostname())}\.[0-9a-f]+\.tmp")
    with suppress(OSError):  # a folder that may be written but not listed
        for leftover in folder.iterdir():
            if not pattern.fullmatch(leftover.name):
                continue
            with suppress(OSError), leftover.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where it is being written, or cannot be known
                if (new := leftover.with_suffix(_NEW)).exists():
                    shutil.rmtree(new)
                leftover.unlink()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes ``path`` when the block ends well, and vanishes otherwise.

    Raises:
        UserError: the folder cannot be written or the disk is full. ``path`` is then as it was before.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path) as temporary:
            yield temporary
            put_in_place(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole; raises what :func:`written_whole` does."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole; raises what :func:`written_whole` does."""
    write_bytes(path, text.encode())


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a file that is complete its name, so that it is whole after a loss of power, too."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder``; it vanishes after the block, except where it got its name by then."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(folder) as lock:
        new = lock.with_suffix(_NEW)
        new.mkdir()
        try:
            yield new
        finally:
            shutil.rmtree(new, ignore_errors=True)


def put_folder_in_place(new: Path, folder: Path) -> None:
    """Give the complete folder of :func:`temporary_folder` its name. What has that name now is replaced, except where
    it has the same files: another process was faster, and they may be in use."""
    for path in (*new.iterdir(), new):
        _sync(path)
    while not _are_equal(new, folder):
        try:
            new.rename(folder)
            break
        except OSError as error:  # a folder cannot be renamed over a full one
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
    _sync(folder.parent)


def _are_equal(new: Path, folder: Path) -> bool:
    """Whether ``folder`` has all files that ``new`` has, with the same bytes."""
    try:
        return all(filecmp.cmp(path, folder / path.name, shallow=False) for path in new.iterdir())
    except OSError:
        return False


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error says that a device or a quota is full, whichever library raises it."""
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL_DISK or "No space left" in str(error)


def unwritable(path: Path, error: OSError) -> UserError:
    """The error to raise after a failed attempt to write ``path``."""
    advice = "no space left on the device; free some and run the same command again"
    return UserError(f"{path}: cannot be written: {advice if is_full_disk(error) else error}")


def unreadable(path: Path | str, error: OSError) -> DataError:
    """The error to raise after a failed attempt to read ``path``."""
    return DataError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions")


def free_space(path: Path) -> int | None:
    """Free bytes where ``path`` lies or will lie; None where the file system does not say. A quota is not seen."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    try:
        found = os.statvfs(there)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None  # some network file systems have no blocks


def check_space(path: Path, needed: int) -> None:
    """Raise UserError where ``needed`` bytes do not fit where ``path`` lies or will lie. Quotas are not seen."""
    free = free_space(path)
    if free is not None and free < needed:
        raise UserError(
            f"{path}: no space left on the device: {max(needed, 0) / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB "
            "are free; free some and run the same command again"
        )
