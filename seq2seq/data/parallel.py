"""Worker processes, one per core: an ordered parallel ``map`` with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

from seq2seq.errors import DataError
from seq2seq.signals import stop_signals

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # items submitted per process: one running, one waiting


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """One process per core, started at first use. Close it, or use it as a context manager.

    Processes are spawned, not forked: the threads and CUDA of the trainer do not survive a fork.
    """

    def __init__(self, niceness: int = 0) -> None:
        """``niceness`` lowers the priority of the processes, as in :func:`os.nice`."""
        self._count = num_cores()
        self._pool = ProcessPoolExecutor(
            self._count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(niceness,)
        )

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield ``function(item)`` for every item, in order; function, items and results must be picklable.

        At most ``AHEAD`` items per process are read in advance, so memory does not grow with their number. Errors of
        ``function`` and ``items`` are raised unchanged. Raises DataError if a process is killed.
        """
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(self._pool.submit(function, item))
                if len(ahead) > AHEAD * self._count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a process that prepares data was killed or could not start; check the free memory. A Python script "
                "that calls train must do so under `if __name__ == '__main__':`"
            ) from None
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        """End the processes after their current items; waiting for other items then raises CancelledError."""
        self._pool.shutdown(cancel_futures=True)


def _begin(niceness: int) -> None:
    """Set up a new process: it ignores signals that the main process handles, and ends when the main process ends."""
    for number in stop_signals():
        if number != signal.SIGTERM:  # the pool ends its processes with it after one is killed
            signal.signal(number, signal.SIG_IGN)
    os.nice(niceness)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
