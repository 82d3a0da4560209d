"""Pipes, terminals and open files as input and output; each line is translated when it arrives."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Thread
from typing import BinaryIO

from seq2seq.data.formats.lines import read_lines, read_stream
from seq2seq.errors import UserError
from seq2seq.files import unwritable

_MOMENT = 0.005  # seconds; a program that writes many lines writes the next one sooner
_AHEAD_LINES, _AHEAD_BYTES = 4096, 1 << 22  # read ahead during translation: one window


class Arrivals:
    """Iterates over ``lines``, which a separate thread reads; its errors are raised at the same line here."""

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
        """Whether no line arrives within a moment."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._lines, _MOMENT)

    def _read(self, lines: Iterator[bytes]) -> None:
        try:
            for line in lines:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._lines) < _AHEAD_LINES and self._num_bytes < _AHEAD_BYTES)
                    self._lines.append(line)
                    self._num_bytes += len(line)
                    self._changed.notify()
        except Exception as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()


class Texts:
    """Lines that are given themselves, not a file; a line break in a text ends a line, as in a file."""

    name = "--text"

    def __init__(self, texts: Sequence[str]) -> None:
        """``texts``: as they come from the command line, where invalid bytes are surrogates."""
        lines = [line for text in texts for line in os.fsencode(text).removesuffix(b"\n").split(b"\n")]
        self._lines = [line.removesuffix(b"\r") for line in lines]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._lines)


def incoming_lines(source: str) -> Iterable[bytes]:
    """The lines of a file or of a stream that is still being written; "-" is standard input."""
    if source != "-":
        path = Path(source)
        if path.is_fifo():
            return Arrivals(read_stream(path.open("rb"), source, gzip_only=True))
        return read_lines(path, gzip_only=True)
    try:
        number = sys.stdin.fileno()
    except io.UnsupportedOperation:  # sys.stdin was replaced by an object without a file descriptor
        return read_stream(sys.stdin.buffer, "stdin", gzip_only=True)
    # A separate file object: if a thread waits in that of sys.stdin, Python crashes at exit.
    lines = read_stream(open(number, "rb", closefd=False), "stdin", gzip_only=True)  # noqa: SIM115 - it stays open
    return lines if stat.S_ISREG(os.fstat(number).st_mode) else Arrivals(lines)


def refuse_same_file(source: str, target: str, option: str = "--input") -> None:
    """Raise UserError if input (of ``option``) and output are the same file, by any name or link."""
    try:
        read = os.fstat(sys.stdin.fileno()) if source == "-" else os.stat(source)
        written = os.fstat(sys.stdout.fileno()) if target == "-" else os.stat(target)
    except (OSError, ValueError):  # the output is new, or a stream has no file descriptor
        return
    if stat.S_ISREG(read.st_mode) and os.path.samestat(read, written):
        raise UserError(f"--output is the same file as {option}; choose another output file")


def is_stream(target: str) -> bool:
    """Whether an output is a stream: standard output ("-"), a pipe, a device, or the number of an open file."""
    if target == "-" or _descriptor(target) is not None:
        return True
    return os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target))


@contextmanager
def outgoing(target: str) -> Iterator[BinaryIO]:
    """Open a stream for output. A file that is already open is continued at its position, as with ``>>``."""
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
    """The number of the open file of this process that a name points to, like /dev/stdout; None for other names."""
    for _ in range(40):  # the most links that Linux follows
        folder, name = os.path.split(os.path.abspath(target))
        target = os.path.join(os.path.realpath(folder), name)
        if found := re.fullmatch(rf"/proc/{os.getpid()}/(?:task/\d+/)?fd/(\d+)", target):
            return int(found[1])
        if not os.path.islink(target):
            return None
        target = os.path.join(os.path.dirname(target), os.readlink(target))
    return None
