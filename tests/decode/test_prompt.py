"""The prompt in a terminal, in a terminal."""

import os
import pty
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.toy import environment, run_command, start_command


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self._ours, theirs = pty.openpty()
        env = {**environment(), "TERM": "xterm"}
        self.process = start_command(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        self.seen = b""

    def enter(self, after: bytes, keys: bytes) -> None:
        """Type ``keys`` when ``after`` appeared behind what was typed before."""
        start, end = len(self.seen), time.monotonic() + 300
        while after not in self.seen[start:]:
            assert select.select([self._ours], [], [], max(0, end - time.monotonic()))[0], self.seen
            self.seen += os.read(self._ours, 4096)
        os.write(self._ours, keys)

    def interrupt(self) -> None:
        """Press Ctrl-C until the program ends: Python misses one that comes between its prompt and its wait for keys.

        This terminal controls no session: the signal is sent by hand.
        """
        for _ in range(300):
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
                return

    def end(self) -> int:
        """Read what is left; the exit code."""
        end = time.monotonic() + 300
        try:
            while select.select([self._ours], [], [], max(0, end - time.monotonic()))[0]:
                self.seen += os.read(self._ours, 4096)
        except OSError:  # Linux reports the end of the other side so
            pass
        os.close(self._ours)
        return self.process.wait(300)


def lines(terminal: Terminal) -> list[str]:
    return terminal.seen.decode().replace("\r", "").split("\n")


@pytest.fixture(scope="module")
def best(model: Path) -> Path:
    return model / "best"


def test_each_line_is_answered(best: Path) -> None:
    """Guards against a terminal that shows nothing until Ctrl-D, and a prompt or a bar among the translations; a blank
    line has a blank answer, keys move and the line before comes back."""
    terminal = Terminal("translate", best, "--device", "cpu")
    terminal.enter(b"> ", b"kato miren\r")
    terminal.enter(b"> ", b"\r")
    terminal.enter(b"> ", b"\x1b[A\r")  # arrow up
    terminal.enter(b"> ", b"\x04")
    assert terminal.end() == 0
    first, *rest = lines(terminal)
    assert first == "enter a line to translate it; Ctrl-D ends"
    answer = rest[1]
    assert answer
    assert rest == ["xx> kato miren", answer, "xx> ", "", "xx> kato miren", answer, "xx> ", ""]
    piped = run_command("translate", best, "--device", "cpu", stdin=b"kato miren\n")
    assert piped.stdout.decode() == f"{answer}\n"
    assert piped.stderr == b""


def test_control_c_ends_with_one_line(best: Path) -> None:
    """Guards against a traceback, and a program that only Ctrl-D ends."""
    terminal = Terminal("translate", best, "--device", "cpu")
    terminal.enter(b"> ", b"kato\r")
    terminal.enter(b"> ", b"")
    terminal.interrupt()
    assert terminal.end() == 130
    assert [line for line in lines(terminal) if line][-1] == "seq2seq translate: interrupted"
    assert b"Traceback" not in terminal.seen


def test_a_line_in_no_encoding(best: Path) -> None:
    """Guards against a traceback for bytes that are not UTF-8; they are reported as in a file."""
    terminal = Terminal("translate", best, "--device", "cpu")
    terminal.enter(b"> ", b"ka\xffto\r")
    terminal.enter(b"\r\nxx> ", b"\x04")
    assert terminal.end() == 0
    assert b"line:1: not valid UTF-8 (byte 0xff)" in terminal.seen
