"""Promise: work spread over processes gives what one process gives, in order, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import pytest

from seq2seq.data import parallel
from seq2seq.data.parallel import Workers, num_cores
from seq2seq.errors import DataError

PROGRAM = """
import signal, sys, time
from pathlib import Path
from seq2seq.data import parallel
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data import corpus
from seq2seq.data.tokenizer import TokenizerPair

def pairs(ready):
    for line in range(10**9):
        if line == 5000:
            ready.touch()
        if line >= 5000:
            time.sleep(0.001)  # from now on the workers wait for work
        yield SentencePair("ka to mi", "mi to ka", line)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background of a shell have it off
    parallel.num_cores = lambda: 2
    corpus._CHUNK_PAIRS = 50
    folder = Path(sys.argv[1])
    tokenizers = TokenizerPair.load(folder / "tokenizer")
    corpus.build_corpus(folder / "data" / "c", pairs(folder / "ready"), tokenizers, "f")
"""


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setattr(parallel, "num_cores", lambda: 2)
    with Workers() as workers:
        yield workers


def slow_square(number: int) -> int:
    time.sleep(0.05 if number % 3 == 0 else 0.0)
    return number**2


def fail_at_three(number: int) -> int:
    if number == 3:
        raise DataError("text:3: planted")
    return number


def die(number: int) -> int:
    os._exit(1)


def test_results_come_in_order_and_items_are_read_in_time(workers):
    """Guards against results in order of completion, and against a corpus read into memory while it is encoded."""
    read = []

    def items():
        for number in count():
            read.append(number)
            yield number

    results = workers.map(slow_square, items())
    for number in range(20):
        assert next(results) == number**2
        assert len(read) <= number + 2 * parallel.AHEAD + 1
    results.close()
    assert list(workers.map(slow_square, range(5))) == [0, 1, 4, 9, 16]
    assert list(workers.map(slow_square, [])) == []


def test_errors_come_as_they_are(workers):
    """Guards against an error in a process, or in the reading, that is lost, wrapped, or stops the workers."""
    results = workers.map(fail_at_three, range(9))
    assert list(islice(results, 3)) == [0, 1, 2]
    with pytest.raises(DataError, match=r"^text:3: planted$"):
        next(results)

    def items():
        yield from range(2)
        raise DataError("text:2: cannot be read")

    with pytest.raises(DataError, match=r"^text:2: cannot be read$"):
        list(workers.map(fail_at_three, items()))
    assert list(workers.map(fail_at_three, range(3))) == [0, 1, 2]


def test_a_dead_process_is_an_error_for_people(workers):
    """Guards against waiting for ever, or a traceback, where the system kills a process for its memory."""
    with pytest.raises(DataError, match="was killed"):
        list(workers.map(die, range(9)))


def test_closing_ends_the_wait_for_results(workers):
    """Guards against a run that cannot end before all that was asked for ahead is made."""
    results = workers.map(slow_square, count())
    next(results)
    workers.close()
    with pytest.raises((CancelledError, RuntimeError)):
        list(results)


def test_only_the_cores_we_may_use():
    """Guards against as many processes as a machine has cores where a container gives us few of them."""
    if hasattr(os, "sched_getaffinity"):
        assert num_cores() == len(os.sched_getaffinity(0)) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_build_leaves_no_process_and_no_corpus(tiny_tokenizers, tmp_path, how):
    """Guards against workers that outlive a killed run, and against half a corpus and noise after Ctrl-C."""
    tiny_tokenizers.save(tmp_path / "tokenizer")
    (tmp_path / "program.py").write_text(PROGRAM)
    root = Path(parallel.__file__).parents[2]
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    build = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "ready").exists():
            assert build.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        if how == signal.SIGINT:
            os.killpg(build.pid, how)  # as the terminal does
        else:
            build.kill()
        _, errors = build.communicate(timeout=300)  # the end of the last process that has it open
    finally:
        with suppress(ProcessLookupError):
            os.killpg(build.pid, signal.SIGKILL)
    if how == signal.SIGINT:
        assert list((tmp_path / "data").iterdir()) == []
        assert errors.count("KeyboardInterrupt") == 1
    else:
        assert not (tmp_path / "data" / "c").exists()
