"""What a disk asks of those who write to it: space, order among processes, and nothing left behind.

Knows no tensors, so the processes that build a corpus start without PyTorch.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from seq2seq.errors import UserError

_BLOCK = 1 << 20  # bytes read at a time
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error says that a device or a quota is full, whoever raises it."""
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL_DISK or "No space left" in str(error)


def free_space(path: Path) -> int | None:
    """Free bytes where ``path`` lies or will lie; None where the file system does not tell. A quota is not seen."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    try:
        found = os.statvfs(there)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None  # some network file systems have no blocks


def check_space(path: Path, needed: int) -> None:
    """Make sure that ``needed`` bytes fit where ``path`` lies or will lie. A quota shows only when it is met.

    Raises:
        UserError: they do not.
    """
    free = free_space(path)
    if free is not None and free < needed:
        raise UserError(
            f"{path}: no space left on the device: {max(needed, 0) / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB "
            "are free; free some and run the same command again"
        )


def temporary_name(path: Path) -> Path:
    """A hidden name beside ``path`` that tells whose it is; what dead processes left under such names is removed."""
    remove_leftovers(path.parent, re.escape(path.name))
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove what writers of files called ``names`` (a regular expression) left behind when they were killed: those of
    this machine whose processes are no more."""
    pattern = re.compile(rf"\.(?:{names})\.{re.escape(socket.gethostname())}\.(\d+)(?:\.old)?\.tmp")
    with suppress(OSError):  # a folder that may be written but not listed
        for leftover in folder.iterdir():
            found = pattern.fullmatch(leftover.name)
            if found is None or (int(found[1]) != os.getpid() and _is_running(int(found[1]))):
                continue
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # someone else's
    return True


def sync_folder(folder: Path) -> None:
    """Force a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(file: BinaryIO, size: int | None = None) -> hashlib.blake2b:
    """Of the first ``size`` bytes of a file (16 bytes long), or of all or of fewer where there are no more.

    The file is read in blocks, and stands behind them.
    """
    digest = hashlib.blake2b(digest_size=16)
    file.seek(0)
    left = sys.maxsize if size is None else size
    while block := file.read(min(left, _BLOCK)):
        digest.update(block)
        left -= len(block)
    return digest


def seal(path: Path, size: int | None = None) -> str:
    """Length and digest of a file's first ``size`` bytes, or of all of it as it is on the disk from now on.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = digest_of(file, size)
        return f"{file.tell()} {digest.hexdigest()}"


def is_sealed(path: Path, sealed: str) -> bool:
    """Whether a file still starts with what :func:`seal` saw."""
    try:
        return seal(path, int(sealed.split()[0])) == sealed
    except OSError:
        return False


@contextmanager
def locked_run(run_dir: Path) -> Iterator[None]:
    """Keep other processes from working on a run folder for as long as the block lasts, or the process lives.

    Raises:
        UserError: another process works on it, or the folder cannot be made.
    """
    path = run_dir / ".lock"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: children must not keep it
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another process"
            raise UserError(
                f"{run_dir}: {holder} works on it; wait until that ends, or choose another run_dir"
            ) from None
        except OSError:
            pass  # a file system without locks; the user has to see to it
        with suppress(OSError):  # a full disk; the lock holds
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)
