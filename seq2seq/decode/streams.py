"""Pipes, terminals and open files as input and output: lines are answered as they arrive, and links are followed."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Thread
from typing import BinaryIO

from seq2seq.data.formats.lines import read_lines, read_stream
from seq2seq.errors import UserError
from seq2seq.files import unwritable

_MOMENT = 0.005  # seconds; whoever writes many lines writes the next one sooner
_AHEAD_LINES, _AHEAD_BYTES = 4096, 1 << 22  # read while others are translated: a window


class Arrivals:
    """Iterates over ``lines``, which a thread of its own reads; an error of theirs is raised where it occurred."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines: deque[bytes] = deque()
        self._num_bytes = 0
        self._ended = False
        self._error: Exception | None = None
        self._changed = Condition()
        Thread(target=self._read, args=(lines,), daemon=True).start()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._ended)
                if not self._lines:
                    break
                line = self._lines.popleft()
                self._num_bytes -= len(line)
                self._changed.notify()
            yield line
        if self._error is not None:
            raise self._error

    def none_is_there(self) -> bool:
        """Whether the next line has not come within a moment."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._lines, _MOMENT)

    def _read(self, lines: Iterator[bytes]) -> None:
        try:
            for line in lines:
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    self._lines.append(line)
                    self._num_bytes += len(line)
                    self._changed.notify()
        except Exception as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _has_room(self) -> bool:
        return len(self._lines) < _AHEAD_LINES and self._num_bytes < _AHEAD_BYTES


def incoming_lines(source: str) -> Iterable[bytes]:
    """The lines of a file, or of what others are still writing; "-" is standard input."""
    if source != "-":
        path = Path(source)
        return Arrivals(read_stream(path.open("rb"), source)) if path.is_fifo() else read_lines(path)
    try:
        number = sys.stdin.fileno()
    except io.UnsupportedOperation:  # a stand-in for standard input, without a file behind it
        return read_stream(sys.stdin.buffer, "stdin")
    # A file object of our own: a thread that waits in that of sys.stdin would make the end of the process a crash.
    lines = read_stream(open(number, "rb", closefd=False), "stdin")  # noqa: SIM115 - it stays open
    return lines if stat.S_ISREG(os.fstat(number).st_mode) else Arrivals(lines)


def refuse_same_file(source: str, target: str) -> None:
    """Raise UserError where the output would go into the file that is read, whatever names lead to it."""
    try:
        read = os.fstat(sys.stdin.fileno()) if source == "-" else os.stat(source)
        written = os.fstat(sys.stdout.fileno()) if target == "-" else os.stat(target)
    except (OSError, ValueError):  # the output is new, or a stream has no file behind it
        return
    if stat.S_ISREG(read.st_mode) and os.path.samestat(read, written):
        raise UserError("--output is the same file as --input; name another file")


def is_stream(target: str) -> bool:
    """Whether an output is written as it comes: "-" for standard output, a pipe, a device, an open file's number."""
    if target == "-" or _descriptor(target) is not None:
        return True
    return os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target))


@contextmanager
def outgoing(target: str) -> Iterator[BinaryIO]:
    """Where a stream's translations go. What is open already is written on where it stands, as ``>>`` asks for."""
    if target == "-":
        yield sys.stdout.buffer
        return
    number = _descriptor(target)
    try:
        file = open(target if number is None else number, "wb", closefd=number is None)  # noqa: SIM115 - closed below
    except OSError as error:
        raise unwritable(Path(target), error) from error
    with file:
        yield file


def _descriptor(target: str) -> int | None:
    """The number of this process' open file that a name leads to, as /dev/stdout does; None for any other name."""
    for _ in range(40):  # links; Linux follows no more
        folder, name = os.path.split(os.path.abspath(target))
        target = os.path.join(os.path.realpath(folder), name)
        if found := re.fullmatch(rf"/proc/{os.getpid()}/(?:task/\d+/)?fd/(\d+)", target):
            return int(found[1])
        if not os.path.islink(target):
            return None
        target = os.path.join(os.path.dirname(target), os.readlink(target))
    return None
