"""Available memory, peak memory, and clear errors when memory runs out."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from seq2seq.errors import OutOfMemoryError

_THIS_PROCESS = Path("/proc/self/status")
# Messages of libraries that have no error class for it.
_MESSAGES = re.compile(r"can't allocate memory|bad_alloc|out of memory|_ALLOC_FAILED", re.IGNORECASE)
_AMOUNT = re.compile(r"[Tt]ried to allocate ([\d.]+) ?(\w+)")


@contextmanager
def memory_explained(what: Callable[[], str]) -> Iterator[None]:
    """Turn an out-of-memory error in the block into a one-line :class:`OutOfMemoryError`.

    Args:
        what: called on an error; describes the computation, its sizes, and which setting to lower.

    Raises:
        OutOfMemoryError: memory ran out, on the device or on the CPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # CUDA's error is a RuntimeError
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _MESSAGES.search(str(error)):
            raise
        amount = _AMOUNT.search(str(error))
        needed = ""
        if amount:
            more = show_bytes(int(amount[1])) if amount[2] == "bytes" else f"{amount[1]} {amount[2]}"
            needed = f" ({more} more needed)"
        raise OutOfMemoryError(f"out of memory{needed} at {what()}") from error


def show_bytes(number: int) -> str:
    """A number of bytes for a message: ``1.50 GB``."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def memory_room(device: torch.device) -> int | None:
    """Bytes that this process can use: what it uses now and what is free. None: unknown on this system."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    free_now, resident = _kilobytes(Path("/proc/meminfo"), "MemAvailable"), _kilobytes(_THIS_PROCESS, "VmRSS")
    if free_now is None or resident is None:
        return None
    limited = control_group_room(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return min(free_now, *limited) + resident if limited else free_now + resident


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes, of the device on CUDA, else of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if (peak := _kilobytes(_THIS_PROCESS, "VmHWM")) is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _kilobytes(file: Path, name: str) -> int | None:
    """The value, in bytes, of a line such as ``MemAvailable:   123 kB``; None if there is no such line."""
    with suppress(OSError):
        if found := re.search(
            rf"^{name}:\s*(\d+) kB", file.read_text(encoding="ascii", errors="replace"), re.MULTILINE
        ):
            return 1024 * int(found[1])
    return None


def control_group_room(membership: Path, root: Path) -> list[int]:
    """Free bytes in each control group of this process that has a limit (containers, batch systems).

    Args:
        membership: file with lines of hierarchy:controllers:group, such as /proc/self/cgroup.
        root: where the hierarchies are mounted. Both versions of control groups are read; a line of version 2 has no
            controllers.
    """
    files = {
        "": (root, "memory.max", "memory.current"),
        "memory": (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    }
    left = []
    with suppress(OSError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers not in files:
                continue
            top, *names = files[controllers]
            inner = top / group.lstrip("/")
            for folder in (inner, *inner.parents):  # limits of parents count, too; a container's top is its own group
                with suppress(OSError, ValueError):  # no such group here, or the limit is "max"
                    limit, used = (int((folder / name).read_text()) for name in names)
                    left.append(limit - used + _idle_cache(folder))
                if folder == top:
                    break
    return left


def _idle_cache(group: Path) -> int:
    """Bytes of cached files of a group; the system frees them when a process needs memory."""
    with suppress(OSError):
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        values = {name: int(value) for name, value in lines}
        return values.get("total_inactive_file", values.get("inactive_file", 0))
    return 0
