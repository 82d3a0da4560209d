"""Promise: a signal ends a run in any case."""

import signal
import subprocess
import sys
import time

from tests.toy import environment

# The main thread locks a lock twice, in C: no handler of Python's will run. The first line says that it is about to.
PROGRAM = """
import ctypes
from seq2seq.train import stopping

stopping._STUCK_SECONDS = 0.3
with stopping.StopSignals(lambda text: print(text, flush=True)):
    print("ready", flush=True)
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    for _ in range(2):
        library.pthread_mutex_lock(lock)
"""


def test_a_process_that_waits_for_a_dead_one_is_ended() -> None:
    """Guards against processes that sit in an exchange after torchrun has asked them to end, until it kills them."""
    command = [sys.executable, "-c", PROGRAM]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 75
    assert told.count("stopping at once") == told.count("\n") == 1
