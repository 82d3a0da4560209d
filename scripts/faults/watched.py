"""Commands in processes of their own: what one takes, and trainings whose marks (see ``marked``) are read meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.toy import environment


class Mark(NamedTuple):
    """What a process said, and when."""

    rank: int
    pid: int
    begins: bool
    phase: str
    step: int
    seconds: float  # since the start


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    cpu_seconds: float
    mib: float  # the most memory of its main process


def measure(command: Sequence[str], log: Path, folder: Path | None = None) -> Cost:
    """Run ``command`` in ``folder`` to its end; what it says is appended to ``log``.

    Raises:
        SystemExit: it failed.
    """
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=output, stderr=output)
        _, process.returncode, usage = os.wait4(process.pid, 0)
    if process.returncode:
        raise SystemExit(f"a command failed; see {log}")
    return Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def killed_after(seconds: float, command: Sequence[str], log: Path, folder: Path | None = None) -> bool:
    """Kill (-9) ``command`` in ``folder`` after some seconds; returns False if it was done before.

    What it says is appended to ``log``.
    """
    with log.open("ab") as output, suppress(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=folder, env=environment(), stdout=output, stderr=output, timeout=seconds)
        return False
    return True


class Watched:
    """A command that is started at once, with all the processes it starts in a session of their own."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path) -> None:
        """Run ``command`` in ``folder``; what it says is appended to ``log``."""
        self.marks: list[Mark] = []
        self._news, self._silent = threading.Condition(), False
        self.log, self._started = log, time.monotonic()
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, env=environment(), start_new_session=True
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Until the last process that could write has ended."""
        assert self.process.stdout is not None
        with self.log.open("ab") as log:
            for line in self.process.stdout:
                match line.decode("utf-8", "replace").split():
                    case ["mark", rank, pid, what, phase, step]:
                        seconds = time.monotonic() - self._started
                        mark = Mark(int(rank), int(pid), what == "begin", phase, int(step), seconds)
                        with self._news:
                            self.marks.append(mark)
                            self._news.notify_all()
                    case _:
                        log.write(line)
        with self._news:
            self._silent = True
            self._news.notify_all()

    def wait_for(self, wanted: Callable[[Mark], bool], timeout: float) -> Mark | None:
        """The first mark that is wanted; None where the processes end, or time runs out, without it."""
        end, seen = time.monotonic() + timeout, 0
        with self._news:
            while True:
                for mark in self.marks[seen:]:
                    if wanted(mark):
                        return mark
                seen = len(self.marks)
                if self._silent or not self._news.wait(max(0.0, end - time.monotonic())):
                    return None

    def wait(self, timeout: float) -> int | None:
        """The exit status of the command once all processes are gone; None where they are not in time."""
        self._reader.join(timeout)
        return None if self._reader.is_alive() else self.process.wait()

    def end_all(self) -> None:
        """Kill every process that is left, so that none outlives the attack."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if not self._silent:
            for pid in {mark.pid for mark in self.marks}:  # torchrun gives each a session of its own
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def phase(self) -> tuple[str, int, bool]:
        """What the main process was at last: the phase, the step, and whether the next epoch was being sampled."""
        open_phases: list[str] = []
        for mark in self.marks:
            if mark.begins:
                open_phases.append(mark.phase)
            else:
                open_phases.remove(mark.phase)
        others = [phase for phase in open_phases if phase != "sampling"]
        between = "between" if self.marks else "starting"
        name = others[-1] if others else "sampling" if open_phases else between
        return name, self.marks[-1].step if self.marks else 0, "sampling" in open_phases

    def seconds_of(self, phase: str) -> float:
        """How long a phase took on average."""
        begins = [mark.seconds for mark in self.marks if mark.phase == phase and mark.begins]
        ends = [mark.seconds for mark in self.marks if mark.phase == phase and not mark.begins]
        return (sum(ends) - sum(begins)) / max(1, len(begins))
