"""Stop signals: the list of them, and the handling of the first and the second one.

Ctrl-C (SIGINT), kill (SIGTERM) and Ctrl-\\ (SIGQUIT) come from a user who wants the process to end. The others are
warnings: the terminal or the ssh connection is closed (SIGHUP), or a scheduler will soon end the job (SIGUSR1, SIGUSR2,
SIGXCPU). Warnings may come several times for one cause, so a repeated warning has no extra meaning.
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
    """The signals to handle: all except those that the process ignores from its start, such as SIGHUP with nohup.

    SIGINT is handled even if ignored: shell scripts start programs with ``&`` in this way, and users still send it.
    """
    ignored = [number for number in (*INSISTENT, *_WARNINGS) if signal.getsignal(number) is signal.SIG_IGN]
    kept = (signal.SIGINT, signal.SIGTERM)
    return [number for number in (*INSISTENT, *_WARNINGS) if number in kept or number not in ignored]


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[bool]:
    """Handle all stop signals with ``handler`` in the block; gives False outside the main thread: impossible there."""
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
    """In the block, the first stop signal raises :class:`Ended`; a second Ctrl-C or SIGTERM ends the process."""
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
    """End this process at once, with a one-line message and without cleaning up."""
    with suppress(OSError):
        os.write(2, f"\n{command}: {signal.Signals(number).name} again: ended at once\n".encode())
    os._exit(128 + number)


def silence_lost_terminal() -> None:
    """Send output to /dev/null if the terminal is closed, because each printed line would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            os.write(stream.fileno(), b"")
        except (OSError, ValueError, AttributeError):
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
