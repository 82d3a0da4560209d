"""Signals that stop a run: the current step is finished and saved first."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import FrameType

from seq2seq.errors import EXIT_STOPPED
from seq2seq.signals import INSISTENT, end_at_once, handled, silence_lost_terminal, stop_signals

_LOOK_EVERY = 10.0  # seconds between checks for dead processes; torchrun, for example, kills after 30
_LAST_LOOK = 10.0  # seconds at most that the end of a run waits for such a check


class StopSignals(ExitStack):
    """Remembers a stop signal during the block; a second Ctrl-C or SIGTERM ends the process or the block at once.

    That is safe, as files are whole at any moment: only the steps since the last checkpoint are lost. A process that
    waits in a library for another process cannot act on the first signal. It waits as long as the other one lives.
    """

    def __init__(
        self, say: Callable[[str], None], others_live: Callable[[], bool] = lambda: True, *, ends_process: bool = True
    ) -> None:
        """How to act on signals.

        Args:
            others_live: returns whether all other processes of the run are alive; it may take some seconds.
            ends_process: a second Ctrl-C or SIGTERM ends the process. False, for a notebook, whose process has more
                than this run: it raises KeyboardInterrupt.
        """
        super().__init__()
        self._say, self._others_live, self._ends_process = say, others_live, ends_process
        self._insisted = False
        self._over = threading.Event()
        self.received: str | None = None  # the signal's name

    def __enter__(self) -> StopSignals:
        self._numbers = stop_signals()
        if self.enter_context(handled(self._handle)):
            read, write = os.pipe()
            os.set_blocking(write, False)
            watch = threading.Thread(target=self._watch, args=(read,), daemon=True)
            # Python aborts if it ends while this thread asks the other processes, in a library.
            self.callback(watch.join, _LAST_LOOK)
            self.callback(os.close, write)  # ends the thread
            self.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write))  # works while no handler can run
            watch.start()
        self.callback(self._over.set)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            silence_lost_terminal()
        if self.received is None:
            self.received = signal.Signals(number).name
        if number in INSISTENT:
            if self._insisted and not self._ends_process:
                raise KeyboardInterrupt(
                    "stopped at once; the same call continues from the last checkpoint, if there is one"
                )
            self._insisted = True

    def _watch(self, read: int) -> None:
        """In a thread, which runs even while the main thread waits: report the first signal, act on the second."""
        insistent, seen = 0, False
        while True:
            if not select.select([read], [], [], _LOOK_EVERY if seen else None)[0]:
                # Also if the handler has run: the main thread may have begun to wait for another process after that.
                if not self._others_live() and not self._over.is_set():
                    self._report("received a signal, and another process does not answer: stopping at once")
                    os._exit(EXIT_STOPPED)
                continue
            byte = os.read(read, 1)
            if not byte:
                os.close(read)
                return
            if byte[0] not in self._numbers:
                continue  # a signal that other code handles
            insistent += byte[0] in INSISTENT
            if insistent > 1 and self._ends_process:
                end_at_once("seq2seq train", byte[0])
            if not seen:
                name = signal.Signals(byte[0]).name
                self._report(f"{name}: finishing the step and saving; a second Ctrl-C or SIGTERM stops at once")
            seen = True

    def _report(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal or pipe is closed
            self._say(text)
