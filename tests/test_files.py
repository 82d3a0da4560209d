"""Promise: a file is whole or absent, nothing of a killed process stays, and one process at a time has a run folder."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from typing import BinaryIO

import pytest

from seq2seq.errors import UserError
from seq2seq.files import (
    check_space,
    fingerprint,
    is_sealed,
    locked_run,
    remove_leftovers,
    seal,
    temporary_folder,
    write_text,
    written_whole,
)
from tests.toy import environment

HOST = socket.gethostname()
DEAD = 2**22 + 1  # higher than any process id


_WRITING = """
import sys, time
from pathlib import Path
from seq2seq.files import temporary_folder, written_whole
path = Path(sys.argv[1])
with written_whole(path / "file") as file, temporary_folder(path / "folder") as folder:
    file.write_text("half")
    (folder / "part").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_leftovers_of_the_killed_go_and_what_is_being_written_stays(tmp_path):
    """Guards against kills that fill the disk bit by bit, and against pulling a file from under its writer."""
    command = [sys.executable, "-c", _WRITING, str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    others = {"file", f".file.elsewhere.{DEAD}.tmp", f".files.{HOST}.{DEAD}.tmp", "file.tmp"}
    for name in others:
        (tmp_path / name).write_text("half")
    half = {path for path in tmp_path.rglob("*") if path.name not in others}
    assert len(half) == 4  # the file; the folder, its part and its lock
    for _ in range(2):
        write_text(tmp_path / "file", "whole")
        with temporary_folder(tmp_path / "folder"):
            pass
        assert {path for path in tmp_path.rglob("*") if path.name not in others} == half
    child.kill()
    child.wait()
    child.stdout.close()
    remove_leftovers(tmp_path, "f[a-z]+e")
    assert half & set(tmp_path.rglob("*")) == {path for path in half if "folder" in str(path)}
    assert (tmp_path / f".files.{HOST}.{DEAD}.tmp").exists()
    remove_leftovers(tmp_path, "folder")
    assert {path.name for path in tmp_path.rglob("*")} == others


def test_two_writers_with_one_process_number(tmp_path):
    """Guards against containers that share a disk, a host name and process number 1, and write one file at one time:
    one took the other's temporary file for its own, or for a leftover, and removed it."""
    with written_whole(tmp_path / "x") as one, temporary_folder(tmp_path / "y") as folder:
        one.write_text("one")
        with written_whole(tmp_path / "x") as other, temporary_folder(tmp_path / "y") as other_folder:
            other.write_text("other")
            assert one.read_text() == "one"
            assert folder.is_dir()
            assert folder != other_folder
        assert (tmp_path / "x").read_text() == "other"
    assert (tmp_path / "x").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_process_number_that_is_used_again_keeps_no_leftover(tmp_path):
    """Guards against a leftover from before a restart of the machine that stays as long as anything has its number."""
    (tmp_path / f".x.{HOST}.{os.getppid()}.tmp").write_text("half")
    write_text(tmp_path / "x", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_that_is_removed_before_it_is_locked(tmp_path, monkeypatch):
    """Guards against a writer that loses its file to another one, which saw it in the moment before it was locked."""
    lock, removed = fcntl.flock, []

    def late(file: BinaryIO, operation: int) -> None:
        if not removed:
            removed.extend(tmp_path.glob(".x.*"))
            removed[0].unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with written_whole(tmp_path / "x") as temporary:
        assert temporary.exists()
        temporary.write_text("whole")
    assert len(removed) == 1
    assert (tmp_path / "x").read_text() == "whole"


def test_without_locks_nothing_is_judged(tmp_path, monkeypatch):
    """Guards against a file system without locks where nothing can be written, or where what is written is removed."""

    def unsupported(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with written_whole(tmp_path / "x") as one:
        one.write_text("one")
        write_text(tmp_path / "x", "other")
    assert (tmp_path / "x").read_text() == "one"
    with locked_run(tmp_path):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_exception_while_writing_leaves_the_old_file(tmp_path, error):
    """Guards against half-written files, and against temporary ones left behind."""
    path = tmp_path / "x.txt"
    write_text(path, "old\n")

    def write() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old\n"
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_no_temporary_name_is_taken_for_a_file_of_its_kind(tmp_path):
    """Guards against a temporary file that a search for ``*.safetensors`` finds after a kill."""
    with written_whole(tmp_path / "step-1.safetensors") as temporary:
        temporary.write_text("x")
        assert not list(tmp_path.glob("step-*.safetensors"))
        assert temporary.parent == tmp_path  # the same file system, so the rename is one step


def test_data_are_on_the_disk_before_they_are_visible(tmp_path, monkeypatch):
    """Guards against a rename that survives a power cut when the bytes do not: fsync, rename, fsync of the folder."""
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append("replace") or replace(a, b))
    write_text(tmp_path / "deep" / "x", "line\n")
    assert calls == ["fsync", "replace", "fsync"]
    assert (tmp_path / "deep" / "x").read_bytes() == b"line\n"


def test_an_unwritable_place_is_a_message(tmp_path):
    """Guards against a traceback where the folder is a file."""
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "x" / "y", "")


def test_space(tmp_path):
    """Guards against a check that never or always refuses; the folder need not be there yet."""
    check_space(tmp_path / "not" / "there", 1)
    check_space(tmp_path, -5)
    with pytest.raises(UserError, match=r"not.there: no space left .* [\d,.]+ MB are needed and [\d,.]+ MB are free"):
        check_space(tmp_path / "not" / "there", 2**62)


def test_a_locked_run_is_refused_until_its_process_is_gone(tmp_path):
    """Guards against two processes that write one run folder, and against a lock that outlives kill -9."""
    code = "import sys, pathlib, time\nfrom seq2seq.files import locked_run\n"
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


def test_a_fingerprint_is_made_of_named_values():
    """Guards against runs that are refused after an update which added a value that changes nothing for them."""
    known = fingerprint(text="abc", size=3)
    assert known == fingerprint(size=3, text="abc", added=None)
    assert (
        len({known, fingerprint(text="abc", size="3"), fingerprint(text="abc"), fingerprint(size=3, texts="abc")}) == 4
    )
