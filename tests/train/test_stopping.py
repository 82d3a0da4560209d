"""Promise: a signal ends a run in any case, and a busy process is not taken for a dead one."""

import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seq2seq.train import stopping
from seq2seq.train.checkpoint import list_checkpoints
from tests.forked import Process
from tests.toy import command, environment, environments, start_command, write_config, write_text_files

# The main thread locks a lock twice, in C: no handler of Python's will run. The first line says that it is about to.
STUCK = """
import ctypes
from seq2seq.train import stopping

stopping._LOOK_EVERY = 0.3
with stopping.StopSignals(lambda text: print(text, flush=True), lambda: False):
    print("ready", flush=True)
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    for _ in range(2):
        library.pthread_mutex_lock(lock)
"""

# Two processes of a run: the second waits for the first, which is busy (or stopped, as good as dead) and then comes.
# The handler of a signal to the second runs before it waits: in STUCK it cannot run.
WAITING = """
import os, sys, time
from seq2seq.train import distributed, stopping

stopping._LOOK_EVERY, distributed._BEAT_SECONDS = 0.3, 0.2
with distributed.joined_processes("cpu") as processes:
    with stopping.StopSignals(lambda text: None, processes.others_live) as signals:
        processes.barrier()
        print("ready", flush=True)
        if processes.rank == 0:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                time.sleep(0.1)
        else:
            time.sleep(1)
        stop = processes.any(signals.received is not None)
        print("saved" if stop else "not asked", flush=True)
sys.exit(75)
"""


def start(program: str, env: dict[str, str] | None = None, stderr: int | None = None) -> Process:
    return Process(run_program, (program,), env=env or environment(), stdout=subprocess.PIPE, stderr=stderr)


def run_program(program: str) -> None:
    exec(program, {"__name__": "__main__"})


def line_of(process: Process) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_process_that_waits_for_a_dead_one_is_ended() -> None:
    """Guards against processes that sit in an exchange after torchrun has asked them to end, until it kills them."""
    process = start(STUCK)
    assert line_of(process) == b"ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 75
    assert told.count(b"stopping at once") == 1


def test_a_second_signal_ends_a_process_that_cannot_run_a_handler() -> None:
    """Guards against a process that can only be killed, while the main thread is inside a library."""
    process = start(STUCK.replace("lambda: False", "lambda: True"))
    assert line_of(process) == b"ready\n"
    for _ in range(2):
        time.sleep(1)  # busy, and not taken for dead
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 143


@pytest.fixture
def two() -> Iterator[list[Process]]:
    _store, variables = environments(2)
    processes = [start(WAITING, env) for env in variables]
    assert [line_of(process) for process in processes] == [b"ready\n"] * 2
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_the_end_waits_for_the_last_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ended while a thread asked whether the others live was aborted by Python: exit code -6, not 75."""
    checking, done = threading.Event(), threading.Event()

    def others_live() -> bool:
        checking.set()
        time.sleep(0.3)
        done.set()
        return True

    monkeypatch.setattr(stopping, "_LOOK_EVERY", 0.01)
    with stopping.StopSignals(lambda text: None, others_live):
        os.kill(os.getpid(), signal.SIGTERM)
        assert checking.wait(60)
    assert done.is_set()


def test_a_process_that_waits_for_a_busy_one_saves(two: list[Process]) -> None:
    """Guards against a run that ends without saving because one process validates or writes for long."""
    for process in two:
        process.send_signal(signal.SIGTERM)
    assert [process.communicate(timeout=300)[0] for process in two] == [b"saved\n"] * 2
    assert [process.returncode for process in two] == [75, 75]


def test_a_process_that_waits_for_one_without_a_heartbeat_ends(two: list[Process]) -> None:
    """Guards against a wait without end for a process whose machine is gone."""
    two[0].send_signal(signal.SIGSTOP)
    two[1].send_signal(signal.SIGTERM)
    assert two[1].wait(timeout=300) == 75
    assert b"saved" not in two[1].communicate()[0]


ENDLESS = ("train.max_steps=100000", "train.validate_every=100000", "train.save_every=100000")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder to be; the config is beside it."""
    write_config(write_text_files(tmp_path / "text"), tmp_path / "run")
    return tmp_path / "run"


TRAIN = """
import sys
from seq2seq.cli.main import main
sys.exit(main({}))
"""


def wait_for_steps(run: Path) -> None:
    for _ in range(3000):
        if (run / "timing.jsonl").exists() and (run / "timing.jsonl").stat().st_size:
            return
        time.sleep(0.1)
    raise AssertionError("no step was logged")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGXCPU"])
def test_every_way_to_ask_for_the_end_saves(name: str, run: Path) -> None:
    """Guards against steps lost because a terminal or a scheduler sends another signal than SIGTERM."""
    process = start_command("train", run.with_suffix(".yaml"), *ENDLESS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_steps(run)
    for _ in range(1 if name == "SIGQUIT" else 3):  # a warning may come several times for one cause
        process.send_signal(getattr(signal, name))
    _, told = process.communicate(timeout=300)
    assert process.returncode == 75
    assert list_checkpoints(run)
    assert f"{name}: finishing the step".encode() in told


def test_a_terminal_that_is_gone_saves(run: Path) -> None:
    """Guards against a run that ends in an error of its own output after the terminal or the ssh connection is lost."""
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = command("train", run.with_suffix(".yaml"), *ENDLESS)
        os.execve(arguments[0], arguments, environment())
    wait_for_steps(run)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    assert list_checkpoints(run)


def test_nohup_is_respected(run: Path) -> None:
    """Guards against a run under nohup that the end of its terminal stops."""
    arguments = ["train", str(run.with_suffix(".yaml")), *ENDLESS]
    program = f"import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)  # all that nohup does to it\n{TRAIN}"
    process = start(program.format(arguments), stderr=subprocess.DEVNULL)
    wait_for_steps(run)
    process.send_signal(signal.SIGHUP)
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 75


# The first signal is being answered, by saving or by cleaning up, when the second one comes.
ANSWERING = {
    "saving": """
from seq2seq.train.stopping import StopSignals

with StopSignals(lambda text: None) as signals:
    print("ready", flush=True)
    while signals.received is None:
        time.sleep(0.01)
    print("answering", flush=True)
    time.sleep(60)
""",
    "cleaning up": """
from seq2seq.cli import translate as command
from seq2seq.cli.main import main

def translate(args):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("answering", flush=True)
        time.sleep(60)

command.run = translate
main(["translate", "x"])
""",
}


@pytest.mark.parametrize("state", ANSWERING)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_quietly(state: str, number: signal.Signals) -> None:
    """Guards against a traceback for somebody who presses Ctrl-C twice; a closed terminal is no second signal."""
    process = start("import time\n" + ANSWERING[state], stderr=subprocess.PIPE)
    assert line_of(process) == b"ready\n"
    process.send_signal(number)
    assert line_of(process) == b"answering\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert told.strip().count(b"\n") == 0
    assert f"{number.name} again: ended at once".encode() in told
