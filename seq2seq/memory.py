"""How much memory there is, how much was used at most, and one line for a person where it was not enough."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from seq2seq.errors import OutOfMemoryError

# How the libraries below say it, where they have no class of error for it.
_SAYINGS = re.compile(r"can't allocate memory|bad_alloc|out of memory|_ALLOC_FAILED", re.IGNORECASE)
_AMOUNT = re.compile(r"[Tt]ried to allocate ([\d.]+) ?(\w+)")


@contextmanager
def memory_explained(what: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory, in the block, into one line.

    Args:
        what: called then; says what was computed, in which shape, and what to lower.

    Raises:
        OutOfMemoryError: memory ran out, on the device or on the CPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # that of CUDA is a RuntimeError, too
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _SAYINGS.search(str(error)):
            raise
        amount = _AMOUNT.search(str(error))
        needed = ""
        if amount:
            more = show_bytes(int(amount[1])) if amount[2] == "bytes" else f"{amount[1]} {amount[2]}"
            needed = f" ({more} more needed)"
        raise OutOfMemoryError(f"out of memory{needed} at {what()}") from error


def show_bytes(number: int) -> str:
    """A number of bytes as people say it: ``1.50 GB``."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def memory_room(device: torch.device) -> int | None:
    """Bytes that this process may come to use in all: what it uses now and what is free. None: not known here."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    free_now, resident = _kilobytes(Path("/proc/meminfo"), "MemAvailable"), _of_this_process("VmRSS")
    if free_now is None or resident is None:
        return None
    limited = control_group_room(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return min(free_now, *limited) + resident if limited else free_now + resident


def peak_memory(device: torch.device) -> int | None:
    """Bytes that this process has used at most: on CUDA of the device, else of main memory. None: not known here."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if (peak := _of_this_process("VmHWM")) is not None:
        return peak
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_this_process(name: str) -> int | None:
    return _kilobytes(Path("/proc/self/status"), name)


def _kilobytes(file: Path, name: str) -> int | None:
    """The value, in bytes, of a line such as ``MemAvailable:   123 kB``; None where there is none."""
    with suppress(OSError):
        if found := re.search(
            rf"^{name}:\s*(\d+) kB", file.read_text(encoding="ascii", errors="replace"), re.MULTILINE
        ):
            return 1024 * int(found[1])
    return None


def control_group_room(membership: Path, root: Path) -> list[int]:
    """Bytes that are left in each control group with a limit that this process is in (containers, batch systems).

    Args:
        membership: lines of hierarchy:controllers:group, as in /proc/self/cgroup.
        root: where the hierarchies are mounted. Both versions of control groups are read; version 2 names no
            controllers in its line.
    """
    with suppress(OSError):
        left = []
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                top, names = root, ("memory.max", "memory.current")
            elif controllers == "memory":
                top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            else:
                continue
            inner = top / group.lstrip("/")
            for folder in (inner, *inner.parents):  # a limit above holds below; in a container the top is its own group
                with suppress(OSError, ValueError):  # no such group here, or the limit is the word "max"
                    limit, used = (int((folder / name).read_text()) for name in names)
                    left.append(limit - used + _idle_cache(folder))
                if folder == top:
                    break
        return left
    return []


def _idle_cache(group: Path) -> int:
    """Bytes of files that the system keeps in memory for a group and gives up when memory is asked for."""
    with suppress(OSError):
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        values = {name: int(value) for name, value in lines}
        return values.get("total_inactive_file", values.get("inactive_file", 0))
    return 0
