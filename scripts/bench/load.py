"""How busy the machine was while a program ran: with what else it did, a time can be judged."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

_MOST_OTHERS, _MOST_STEAL = 0.1, 0.02  # shares of the machine's CPU time; beyond them a time says little


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
