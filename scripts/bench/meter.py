"""What a program costs: its memory and CPU time, and what else the machine did while the program ran."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_MOST_OTHERS, _MOST_STEAL = 0.1, 0.02  # shares of the machine's CPU time; beyond them a time says little


def peak_memory_bytes(device: str) -> int:
    """The most memory held so far: resident set of this process, or what PyTorch took of the GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory(device: str) -> None:
    """Let the peak start anew from what is held now, where the system can do that (Linux, CUDA)."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def tree_memory_bytes(pid: int) -> int:
    """The memory that a process and its children hold now, shared pages counted once; 0 where there is no /proc."""
    total, found = 0, [pid]
    for process in found:  # grows while it is read
        with contextlib.suppress(OSError):  # a process that has ended
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def synchronise(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def versions(*packages: str) -> dict[str, str]:
    """Versions of the installed ones among these packages."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


class Watch:
    """From its making to :meth:`end`, around a child process that has been waited for by then."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float, float]:
        """Seconds: wall; CPU time of children, of all processes, and what the host gave to other machines (steal)."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        except (OSError, ValueError):  # Linux alone has it
            user = nice = system = irq = soft = steal = 0
        ticks = os.sysconf("SC_CLK_TCK")
        busy = (user + nice + system + irq + soft) / ticks
        return time.perf_counter(), children.ru_utime + children.ru_stime, busy, steal / ticks

    def end(self) -> dict[str, Any]:
        """CPU seconds of the child, shares of the machine that others and the host took, the load, and ``disturbed``:
        what disturbed the child, or ''."""
        wall, own, busy, steal = (now - then for now, then in zip(self._now(), self._before, strict=True))
        machine = wall * (os.cpu_count() or 1)
        others, stolen = max(0.0, busy - own) / machine, steal / machine
        found = [f"other programs took {others:.0%} of the CPU"] * (others > _MOST_OTHERS)
        found += [f"the host took {stolen:.0%} (steal)"] * (stolen > _MOST_STEAL)
        numbers = {"cpu_seconds": own, "load": os.getloadavg()[0], "others": others, "steal": stolen}
        return {**numbers, "disturbed": ", ".join(found)}


def usage(run: dict[str, Any]) -> str:
    """What follows a run's speed in the output."""
    cpu = f", {run['cpu_seconds']:,.1f} CPU s in all" if "cpu_seconds" in run else ""
    return cpu + (f"; DISTURBED: {run['disturbed']}" if run.get("disturbed") else "")
