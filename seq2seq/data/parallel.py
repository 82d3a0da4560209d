"""Work in other processes or threads: an ordered ``map`` with bounded memory, and chunks of items to give to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import TypeVar

from seq2seq.errors import DataError
from seq2seq.signals import stop_signals

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # items submitted per process: one running, one waiting


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunks_of(items: Iterable[T], size: Callable[[T], int], most: int, most_size: int) -> Iterator[list[T]]:
    """Divide items into lists of ``most`` items, or fewer where their sizes together reach ``most_size``."""
    chunk: list[T] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += size(item)
        if len(chunk) == most or total >= most_size:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def map_ahead(pool: Executor, function: Callable[[T], R], items: Iterable[T], num_ahead: int) -> Iterator[R]:
    """Yield ``function(item)`` for every item, in order; ``num_ahead`` items are submitted in advance."""
    ahead: deque[Future[R]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > num_ahead:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


class Workers(AbstractContextManager["Workers"]):
    """One process per core, started at first use. Close it, or use it as a context manager.

    Processes are spawned, not forked: the threads and CUDA of the trainer do not survive a fork.
    """

    def __init__(self, niceness: int = 0) -> None:
        """``niceness`` lowers the priority of the processes, as in :func:`os.nice`."""
        self._count = num_cores()
        self._pool = ProcessPoolExecutor(
            self._count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(niceness,)
        )

    def __exit__(self, *error: object) -> None:
        self.close()

    def map(self, function: Callable[[T], R], items: Iterable[T], few: int = 4) -> Iterator[R]:
        """Yield ``function(item)`` for every item, in order; function, items and results must be picklable.

        At most ``AHEAD`` items per process are read in advance, so memory does not grow with their number. Up to
        ``few`` items are done in this process, which takes less time than starting others. Errors of ``function`` and
        ``items`` are raised unchanged. Raises DataError if a process is killed.
        """
        items = iter(items)
        first = list(islice(items, few + 1))
        if len(first) <= few:
            yield from map(function, first)
            return
        try:
            yield from map_ahead(self._pool, function, chain(first, items), AHEAD * self._count)
        except BrokenProcessPool:
            raise DataError(
                "a process that prepares data was killed or could not start; check the free memory. A Python script "
                "that calls train must do so under `if __name__ == '__main__':`"
            ) from None

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
