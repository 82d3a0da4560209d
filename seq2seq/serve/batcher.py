"""Dynamic batching: one thread owns the engine and translates together what many requests want at the same time.

Translations do not depend on their batch, so a text has the same translation alone and under load. The engine sorts the
lines of a batch by length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import perf_counter
from typing import Any, TypeVar

from seq2seq.config import DecodeConfig
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator

R = TypeVar("R")
Found = list[list[Translation]]  # of each line, its translations, best first

_MOMENT = 0.003  # seconds; requests that arrive within it are translated together
_BATCH_LINES = 64
_BATCH_CHARACTERS = 8192  # a line alone may have more


class QueueFullError(Exception):
    """Too much is waiting already; the request can be sent again later."""


class StoppedError(Exception):
    """The batcher accepts nothing more."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is ready to translate, and how it searches."""

    translator: Translator
    decode: DecodeConfig

    def translate(self, lines: Sequence[str], n_best: int) -> Found:
        """The ``n_best`` translations of each line. Sampled ones depend on the number of a line, so each is line 1."""
        decode = self.decode.model_copy(update={"n_best": n_best})
        batches = [[line] for line in lines] if decode.sample else [lines]
        return [found for batch in batches for found in self.translator.translate_stream(batch, decode)]


@dataclass(eq=False)
class _Job:
    """The lines of one request."""

    loaded: Loaded
    n_best: int
    lines: list[str]
    size: int  # of what is left to translate
    future: Future[Found] = field(default_factory=Future)
    found: Found = field(default_factory=list)

    @property
    def num_left(self) -> int:
        return len(self.lines) - len(self.found)


class Batcher:
    """Translates the lines of requests in batches, in a thread of its own; the only caller of engines.

    Requests take turns: one with many lines does not delay those with few. A cancelled future leaves the queue.
    """

    def __init__(self, max_waiting: int, on_batch: Callable[[int, float], None] = lambda lines, seconds: None) -> None:
        """``max_waiting``: characters in the queue, at most; ``on_batch`` gets the lines and seconds of each batch."""
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stopping = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, loaded: Loaded, lines: Sequence[str], n_best: int = 1) -> Future[Found]:
        """The translations of lines, later.

        Raises:
            QueueFullError: with these lines, more than ``max_waiting`` characters would wait.
            StoppedError: after :meth:`stop`.
        """
        job = _Job(loaded, n_best, list(lines), _size(lines))
        if not job.lines:
            job.future.set_result([])
            return job.future
        with self._changed:
            if self._stopping:
                raise StoppedError
            if self._waiting() + job.size > self._max_waiting:
                raise QueueFullError
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def call(self, function: Callable[[], R]) -> Future[R]:
        """The result of a function that uses an engine, later; for all but translation.

        Raises:
            StoppedError: after :meth:`stop`.
        """
        future: Future[R] = Future()
        with self._changed:
            if self._stopping:
                raise StoppedError
            self._calls.append((function, future))
            self._changed.notify()
        return future

    def waiting(self) -> int:
        """The number of characters in the queue."""
        with self._changed:
            return self._waiting()

    def stop(self) -> None:
        """Accept nothing more; returns when everything that was accepted is done."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _waiting(self) -> int:
        self._jobs = deque(job for job in self._jobs if not job.future.cancelled())
        return sum(job.size for job in self._jobs)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._calls or self._stopping)
                if self._jobs and not self._stopping:
                    self._changed.wait_for(self._enough, _MOMENT)
                calls, self._calls = self._calls, deque()
                batch = self._take()
                if not (batch or calls or self._jobs) and self._stopping:
                    return
            for function, future in calls:
                _settle(future, function)
            if batch:
                self._translate(batch)

    def _enough(self) -> bool:
        return bool(self._calls) or self._stopping or sum(job.num_left for job in self._jobs) >= _BATCH_LINES

    def _take(self) -> list[tuple[_Job, list[str]]]:
        """The lines of the next batch: of jobs with the same model and settings, an equal share of each."""
        self._waiting()  # without cancelled jobs
        if not self._jobs:
            return []
        first = self._jobs[0]
        alike = [job for job in self._jobs if job.loaded is first.loaded and job.n_best == first.n_best]
        share = max(1, _BATCH_LINES // len(alike))
        batch: list[tuple[_Job, list[str]]] = []
        room = _BATCH_CHARACTERS
        for job in alike[:_BATCH_LINES]:
            some: list[str] = []
            for line in job.lines[len(job.found) :][:share]:
                room -= len(line)
                if room < 0 and (batch or some):
                    break
                some.append(line)
            if some:
                batch.append((job, some))
            if room < 0:
                break
        taken = {id(job) for job, _ in batch}
        unfinished = [job for job, some in batch if len(some) < job.num_left]
        self._jobs = deque([*(job for job in self._jobs if id(job) not in taken), *unfinished])
        return batch

    def _translate(self, batch: list[tuple[_Job, list[str]]]) -> None:
        """Translate a batch; if that fails, each job alone, because one of them may be the cause."""
        started = perf_counter()
        job = batch[0][0]
        try:
            found = iter(job.loaded.translate([line for _, some in batch for line in some], job.n_best))
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    self._translate([one])
                return
            with suppress(InvalidStateError):
                job.future.set_exception(error)
            with self._changed:  # the rest of its lines is not translated
                self._jobs = deque(other for other in self._jobs if other is not job)
            return
        with self._changed:  # other threads add up what is left
            for job, some in batch:
                job.found += [next(found) for _ in some]
                job.size -= _size(some)
        self._on_batch(sum(len(some) for _, some in batch), perf_counter() - started)
        for job, _ in batch:
            if len(job.found) == len(job.lines):
                with suppress(InvalidStateError):  # it was cancelled
                    job.future.set_result(job.found)


def _size(lines: Sequence[str]) -> int:
    return sum(map(len, lines)) + len(lines)


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
