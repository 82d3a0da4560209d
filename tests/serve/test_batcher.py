"""Requests that are translated together get what they get alone, in order, and none waits for ever."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.serve.batcher import Batcher, Loaded, QueueFullError, StoppedError
from tests.toy import sentences


@dataclass(frozen=True, eq=False)
class Slow(Loaded):
    """A model that notes its batches and waits in each one until it may continue."""

    batches: list[list[str]] = field(default_factory=list)
    goes_on: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)

    def translate(self, lines: Sequence[str], n_best: int) -> list[list[Translation]]:
        self.batches.append(list(lines))
        self.started.set()
        assert self.goes_on.wait(10)
        if any("fails" in line for line in lines):
            raise MemoryError
        return super().translate(lines, n_best)


@pytest.fixture
def slow(model: Loaded) -> Slow:
    return Slow(model.translator, model.decode)


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    made = Batcher(max_waiting=10_000)
    yield made
    made.stop()


def texts(found: list[list[Translation]]) -> list[str]:
    return [translations[0].text for translations in found]


def test_together_is_as_alone(model: Loaded, batcher: Batcher) -> None:
    """Guards against answers that are mixed up between requests, and against lines in another order."""
    requests = [[src for src, _ in sentences(1 + n % 5, seed=n)] for n in range(40)]
    futures = [batcher.submit(model, lines) for lines in requests]
    for lines, future in zip(requests, futures, strict=True):
        assert texts(future.result(20)) == [model.translator.translate(line) for line in lines]


def test_samples_do_not_depend_on_the_request(model: Loaded, batcher: Batcher) -> None:
    """Guards against random numbers that depend on the number of a line in its batch."""
    sampling = Loaded(model.translator, model.decode.model_copy(update={"sample": True, "temperature": 2.0}))
    lines = [src for src, _ in sentences(4, seed=3)]
    together = texts(batcher.submit(sampling, lines).result(20))
    assert together == [texts(batcher.submit(sampling, [line]).result(20))[0] for line in lines]


def test_what_arrives_together_is_one_batch_and_requests_take_turns(slow: Slow, batcher: Batcher) -> None:
    """Guards against one engine call per request, and against a long request that all others wait for."""
    first = batcher.submit(slow, ["ka"])
    assert slow.started.wait(5)
    long, short = batcher.submit(slow, ["to"] * 100), batcher.submit(slow, ["mi"])
    slow.goes_on.set()
    for future in (first, long, short):
        future.result(20)
    assert sorted(slow.batches[1]) == ["mi", *["to"] * 32]
    assert [len(batch) for batch in slow.batches] == [1, 33, 64, 4]


def test_other_settings_are_another_batch(slow: Slow, batcher: Batcher) -> None:
    """Guards against a request that gets the number of alternatives of another one."""
    slow.goes_on.set()
    one, two = batcher.submit(slow, ["kato mi"]), batcher.submit(slow, ["kato mi"], n_best=2)
    assert [len(one.result(20)[0]), len(two.result(20)[0])] == [1, 2]
    assert one.result()[0][0].text == two.result()[0][0].text


def test_a_full_queue_refuses_and_a_cancelled_request_leaves_it(slow: Slow, batcher: Batcher) -> None:
    """Guards against a queue that grows without limit, and against work for clients that are gone."""
    batcher.submit(slow, ["ka"])
    assert slow.started.wait(5)
    gone = batcher.submit(slow, ["x" * 6000])
    with pytest.raises(QueueFullError):
        batcher.submit(slow, ["y" * 6000])
    assert gone.cancel()
    kept = batcher.submit(slow, ["ka " * 2000])
    slow.goes_on.set()
    kept.result(20)
    assert not any("x" * 6000 in batch for batch in slow.batches)
    with pytest.raises(CancelledError):
        gone.result()


def test_a_request_that_fails_fails_alone(slow: Slow, batcher: Batcher) -> None:
    """Guards against a text that takes the whole memory and takes the texts of others with it."""
    batcher.submit(slow, ["ka"])
    assert slow.started.wait(5)
    futures = [batcher.submit(slow, [line]) for line in ("ka", "fails", "to")]
    slow.goes_on.set()
    assert texts(futures[0].result(20)) == [slow.translator.translate("ka")]
    assert texts(futures[2].result(20)) == [slow.translator.translate("to")]
    with pytest.raises(MemoryError):
        futures[1].result(20)


def test_stop_finishes_what_it_has_and_refuses_what_comes(slow: Slow) -> None:
    """Guards against accepted requests that are lost when the server stops."""
    batcher = Batcher(max_waiting=5000)
    futures = [batcher.submit(slow, ["ka to"] * 100) for _ in range(3)]
    assert slow.started.wait(5)
    stopping = threading.Thread(target=batcher.stop)
    stopping.start()
    slow.goes_on.set()
    stopping.join(20)
    assert [len(future.result(0)) for future in futures] == [100, 100, 100]
    with pytest.raises(StoppedError):
        batcher.submit(slow, ["ka"])
    with pytest.raises(StoppedError):
        batcher.call(lambda: None)


def test_calls_run_in_the_thread_of_the_engine(batcher: Batcher) -> None:
    """Guards against two threads that use an engine at once, and against an error that ends the thread."""
    with pytest.raises(ValueError, match="wrong"):
        batcher.call(lambda: int("wrong")).result(5)
    assert batcher.call(lambda: threading.current_thread().name).result(5) == "batcher"


def test_no_lines_are_no_work(model: Loaded, batcher: Batcher) -> None:
    """Guards against a request without lines that never ends."""
    assert batcher.submit(model, []).result(5) == []


def test_the_model_of_a_run_folder(toy: Path) -> None:
    """The toy model depends on what it reads; else these tests would compare equal texts."""
    translator = Translator.load(toy, "cpu")
    assert len({translator.translate(src) for src, _ in sentences(20, seed=1)}) > 5
