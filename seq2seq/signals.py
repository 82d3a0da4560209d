"""Signals that ask a process to end: which they are, and how a command ends with the first one and with the second.

Ctrl-C (SIGINT), kill (SIGTERM) and Ctrl-\\ (SIGQUIT) come from somebody who wants the end. The others are warnings: the
terminal or the ssh connection is gone (SIGHUP), or a scheduler is about to end the job (SIGUSR1, SIGUSR2, SIGXCPU).
They may come several times for one cause, so a repeated one does not mean more than the first.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

INSISTENT = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
_WARNINGS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class Ended(KeyboardInterrupt):
    """A signal asks this command to clean up and end, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def stop_signals() -> list[signal.Signals]:
    """The signals to handle: all except those that this process was started to ignore, as SIGHUP with nohup.

    A shell script starts programs with ``&`` such that they ignore SIGINT; who sends it by its number means it.
    """
    ignored = [number for number in (*INSISTENT, *_WARNINGS) if signal.getsignal(number) is signal.SIG_IGN]
    kept = (signal.SIGINT, signal.SIGTERM)
    return [number for number in (*INSISTENT, *_WARNINGS) if number in kept or number not in ignored]


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[bool]:
    """Handle all stop signals with ``handler`` in the block; gives False in a thread, where that is impossible."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before: dict[int, Any] = {number: signal.signal(number, handler) for number in stop_signals()}
    try:
        yield True
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def ended_by_signals(command: str) -> Iterator[None]:
    """In the block the first stop signal raises :class:`Ended`; a second Ctrl-C or SIGTERM ends the process at once."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            silence_lost_terminal()
        if number in INSISTENT and any(earlier in INSISTENT for earlier in received):
            end_at_once(command, number)
        received.append(number)
        if len(received) == 1:
            raise Ended(number)

    with handled(handle):
        yield


def end_at_once(command: str, number: int) -> NoReturn:
    """End this process with one line, without cleaning up."""
    with suppress(OSError):
        os.write(2, f"\n{command}: {signal.Signals(number).name} again: ended at once\n".encode())
    os._exit(128 + number)


def silence_lost_terminal() -> None:
    """Let what this process prints vanish where its terminal is gone; each line would be an error otherwise."""
    for stream in (sys.stdout, sys.stderr):
        try:
            os.write(stream.fileno(), b"")
        except (OSError, ValueError, AttributeError):
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
