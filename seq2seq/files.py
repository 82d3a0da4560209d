"""Files on a disk: atomic writes, checksums, locks, free space, and leftovers of killed processes.

A file is written under a temporary name in the same folder, forced to the disk, and renamed. So it is complete or
absent. The writer locks the temporary file; the system frees the lock when the writer ends for any reason. So a
temporary file that can be locked is a leftover, and the next writer of the same file removes it. Locks, unlike process
numbers, also work between containers and after a restart. A folder is written in the same way; its lock is an empty
file beside it. The names contain the host's name, because some network disks have separate locks for each machine.

This module imports neither PyTorch nor numpy, so the processes that build a corpus start quickly.
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
_NEW = ".new"  # ending of a folder that is being written; its lock ends in .tmp
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE = "no space left on the disk; free some space and repeat the command"
_DISK_ERRORS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "a file would exceed the size limit; raise the limit (ulimit -f) and repeat the command",
    errno.EIO: "the disk failed to read or write (input/output error); copy your files to another disk",
    errno.EROFS: "the disk is mounted read-only; mount it for writing and repeat the command",
}


def new_checksum() -> hashlib.blake2b:
    """A new checksum (16 bytes), to update with the parts of the content."""
    return hashlib.blake2b(digest_size=16)


def checksum(content: bytes | memoryview) -> str:
    """Hex checksum (16 bytes)."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_checksum(file: BinaryIO, size: int | None = None) -> hashlib.blake2b:
    """The checksum of the first ``size`` bytes of an open file, or of all if it has fewer.

    The file is read in blocks; its position is then after these bytes.
    """
    found = new_checksum()
    file.seek(0)
    left = sys.maxsize if size is None else size
    while block := file.read(min(left, _BLOCK)):
        found.update(block)
        left -= len(block)
    return found


def checksum_file(path: Path) -> str:
    """Hex checksum (16 bytes) of a file's bytes; raises DataError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return read_checksum(file).hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def fingerprint(**values: object) -> str:
    """A checksum of named values (JSON types), to identify what something was made from.

    Values that are None do not count. So a new name does not change earlier fingerprints while its value is None.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return checksum(json.dumps(given, sort_keys=True).encode())


def sealed_json(tree: Mapping[str, Any]) -> bytes:
    """``tree`` as JSON, with a checksum of the rest as its last key; replaces an earlier checksum."""
    rest = {name: value for name, value in tree.items() if name != CHECKSUM}
    return json.dumps({**rest, CHECKSUM: checksum(json.dumps(rest, indent=2).encode())}, indent=2).encode()


def seal(path: Path, size: int | None = None) -> str:
    """Force a file to the disk; returns length and checksum of its first ``size`` bytes, or of all; raises OSError."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        found = read_checksum(file, size)
        return f"{file.tell()} {found.hexdigest()}"


def is_sealed(path: Path, sealed: str) -> bool:
    """Whether a file still starts with the bytes that :func:`seal` read."""
    try:
        return seal(path, int(sealed.split()[0])) == sealed
    except OSError:
        return False


def open_locked(path: Path, *, wait: bool = False) -> BinaryIO:
    """Open a file for reading and writing, and lock it until it is closed or the process ends.

    A missing file is created. On a file system without locks, the file is opened without a lock.

    Raises:
        BlockingIOError: this process or another has locked it, and ``wait`` is false.
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
        file.close()  # it was renamed or deleted before it was locked


@contextmanager
def locked_run(run_dir: Path) -> Iterator[None]:
    """Lock a run folder against other processes until the block or the process ends.

    Raises:
        UserError: another process works on it, or the folder cannot be created.
    """
    path = run_dir / ".lock"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = open_locked(path)
    except BlockingIOError:
        holder = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise UserError(f"{run_dir}: {holder} works on it; wait until it ends, or choose another run_dir") from None
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written: {error.strerror}") from None
    with file:
        with suppress(OSError):  # the disk is full; the lock still works
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new locked file with a hidden name beside ``path``; removes leftovers of other writers of ``path``."""
    remove_leftovers(path.parent, re.escape(path.name))
    place = path.with_name(f".{path.name}.{socket.gethostname()}.{secrets.token_hex(4)}.tmp")
    with open_locked(place, wait=True):
        try:
            yield place
        finally:
            with suppress(OSError):  # after the rename it does not exist
                place.unlink()


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove leftovers of killed writers on this machine; ``names``: their files or folders (regular expression)."""
    pattern = re.compile(rf"\.(?:{names})\.{re.escape(socket.gethostname())}\.[0-9a-f]+\.tmp")
    with suppress(OSError):  # the folder may be writable but not readable
        for leftover in folder.iterdir():
            if not pattern.fullmatch(leftover.name):
                continue
            with suppress(OSError), leftover.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if it is being written, or without locks
                if (new := leftover.with_suffix(_NEW)).exists():
                    shutil.rmtree(new)
                leftover.unlink()


@contextmanager
def disk_explained() -> Iterator[None]:
    """Turn an error of the disk in the block into one line, where no file is named: in those that grow line by line.

    Raises:
        UserError: the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        message = _DISK_ERRORS.get(error.errno or 0)
        if message is None:
            raise
        raise UserError(message) from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it is renamed to ``path`` if the block succeeds, else deleted.

    Raises:
        UserError: the folder cannot be written or the disk is full. ``path`` is then not changed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path) as temporary:
            yield temporary
            put_in_place(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; raises the errors of :func:`written_whole`."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; raises the errors of :func:`written_whole`."""
    write_bytes(path, text.encode())


def put_in_place(temporary: Path, path: Path) -> None:
    """Force a complete file to the disk and rename it to ``path``, safe against power failure."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder``; it is deleted after the block, unless it was put in place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(folder) as lock:
        new = lock.with_suffix(_NEW)
        new.mkdir()
        try:
            yield new
        finally:
            shutil.rmtree(new, ignore_errors=True)


def put_folder_in_place(new: Path, folder: Path) -> None:
    """Rename the complete folder of :func:`temporary_folder` to ``folder``. An existing folder is replaced, except one
    with the same files, from another process that was faster: they may be in use."""
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
    """Whether ``folder`` has all files of ``new``, with the same bytes."""
    try:
        return all(filecmp.cmp(path, folder / path.name, shallow=False) for path in new.iterdir())
    except OSError:
        return False


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error of any library means that a disk or a quota is full."""
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL_DISK or "No space left" in str(error)


def unwritable(path: Path, error: OSError) -> UserError:
    """The error to raise after a failed attempt to write ``path``."""
    reason = "it is a folder" if path.is_dir() else str(error)
    if is_full_disk(error):
        reason = "no space left on the device; free some space and run the same command again"
    return UserError(f"{path}: cannot be written: {reason}")


def unreadable(path: Path | str, error: OSError) -> DataError:
    """The error to raise after a failed attempt to read ``path``."""
    return DataError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions")


def free_space(path: Path) -> int | None:
    """Free bytes on the file system of ``path``; None if it does not report them. Quotas are not considered."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    try:
        found = os.statvfs(there)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None  # some network file systems have no blocks


def check_space(path: Path, needed: int) -> None:
    """Raise UserError if the file system of ``path`` has less than ``needed`` bytes. Quotas are not considered."""
    free = free_space(path)
    if free is not None and free < needed:
        raise UserError(
            f"{path}: no space left on the device: {max(needed, 0) / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB "
            "are free; free some space and run the same command again"
        )
