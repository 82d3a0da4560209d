"""Work on the corpus spread over all cores: results come in the order of the items, and few are held at a time."""

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

AHEAD = 2  # items handed out for each process: one in work, one waiting


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """One process for each core, started when first needed. Close it, or use it as a context manager.

    The processes are spawned, not forked: the trainer has threads, and perhaps CUDA, which do not survive a fork.
    """

    def __init__(self, niceness: int = 0) -> None:
        """``niceness`` is how readily the processes give way to others, as in :func:`os.nice`."""
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
        """``function(item)`` of every item, in order; function, items and results travel by pickle.

        At most ``AHEAD`` items per process are read before their turn, so memory does not grow with their number.
        Errors of ``function`` and of ``items`` are raised as they are. Raises DataError where a process is killed.
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
                "a process that prepares data was ended from outside, or could not start; is there memory enough? "
                "A script that trains by itself must do so under `if __name__ == '__main__':`"
            ) from None
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        """End the processes after the item each is at; whoever waits for other items gets CancelledError."""
        self._pool.shutdown(cancel_futures=True)


def _begin(niceness: int) -> None:
    """In a new process: leave signals to the main process, and do not outlive it, even where it is killed."""
    for number in stop_signals():
        if number != signal.SIGTERM:  # with which the pool ends its processes where one of them is killed
            signal.signal(number, signal.SIG_IGN)
    os.nice(niceness)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
