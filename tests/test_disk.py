"""Promise: nothing of a killed process stays on the disk, and no two processes work on one run folder."""

import os
import socket
import subprocess
import sys

import pytest

from seq2seq.disk import check_space, is_sealed, locked_run, remove_leftovers, seal
from seq2seq.errors import UserError
from seq2seq.storage import write_text
from tests.toy import environment

HOST = socket.gethostname()
DEAD = 2**22 + 1  # higher than any process id


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    """Guards against kills that fill the disk bit by bit, and against pulling a file from under its writer."""
    mine = [f".x.{HOST}.{DEAD}.tmp", f".x.{HOST}.{os.getpid()}.tmp"]
    others = [f".x.{HOST}.{os.getppid()}.tmp", f".x.elsewhere.{DEAD}.tmp", f".xx.{HOST}.{DEAD}.tmp", "x.tmp"]
    for name in (*mine, *others):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "x", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"x", *others}
    remove_leftovers(tmp_path, "x+")
    assert {path.name for path in tmp_path.iterdir()} == {"x", *others} - {f".xx.{HOST}.{DEAD}.tmp"}


def test_space(tmp_path):
    """Guards against a check that never or always refuses; the folder need not be there yet."""
    check_space(tmp_path / "not" / "there", 1)
    check_space(tmp_path, -5)
    with pytest.raises(UserError, match=r"not.there: no space left .* [\d,.]+ MB are needed and [\d,.]+ MB are free"):
        check_space(tmp_path / "not" / "there", 2**62)


def test_a_locked_run_is_refused_until_its_process_is_gone(tmp_path):
    """Guards against two processes that write one run folder, and against a lock that outlives kill -9."""
    code = "import sys, pathlib, time\nfrom seq2seq.disk import locked_run\n"
    code += "with locked_run(pathlib.Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, env=environment()
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"locked\n"
    refused = rf"run: process {child.pid} on {HOST} works on it; wait"
    with pytest.raises(UserError, match=refused), locked_run(tmp_path / "run"):
        pytest.fail("two at once")
    child.kill()
    child.wait()
    child.stdout.close()
    for _ in range(2):
        with locked_run(tmp_path / "run"):
            assert (tmp_path / "run/.lock").read_text() == f"process {os.getpid()} on {HOST}\n"


def test_a_seal_covers_what_was_there(tmp_path):
    """Guards against a changed history; what was added later is none."""
    path = tmp_path / "x"
    path.write_text("one\ntwo\n")
    sealed = seal(path)
    path.write_text("one\ntwo\nthree\n")
    assert is_sealed(path, sealed)
    for content in ("one\ntwO\nthree\n", "one\n", ""):
        path.write_text(content)
        assert not is_sealed(path, sealed)
    path.unlink()
    assert not is_sealed(path, sealed)
