"""Signals that ask a run to end: its step is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from seq2seq.errors import EXIT_STOPPED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STUCK_SECONDS = 10.0  # torchrun, for one, kills after 30


class StopSignals:
    """While the block lasts, SIGINT (Ctrl-C) and SIGTERM are remembered; a second one ends the process at once.

    Files are whole at any moment, so that is safe, too: it costs the steps since the last checkpoint. A process that
    cannot notice the first one, as it waits in a library for another process that is dead, is ended after a while.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._before: dict[int, Any] = {}
        self.received: str | None = None  # the signal's name

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
            told, tell = os.pipe()
            os.set_blocking(tell, False)
            self._tell, self._tell_before = tell, signal.set_wakeup_fd(tell)  # written to even where no handler can run
            threading.Thread(target=self._end_if_stuck, args=(told,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before:
            signal.set_wakeup_fd(self._tell_before)
            os.close(self._tell)  # ends the thread
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end_if_stuck(self, told: int) -> None:
        """In a thread: wait for a signal, then for the main thread to notice it."""
        while (number := os.read(told, 1)) and number[0] not in _SIGNALS:
            pass  # a signal that somebody else handles
        os.close(told)
        if not number:
            return
        time.sleep(_STUCK_SECONDS)
        if self.received is None:
            self._say("a signal, and no answer from another process: stopping at once")
            os._exit(EXIT_STOPPED)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number).name
        self._say(f"{self.received}: finishing what is under way and saving; a second signal stops at once")
