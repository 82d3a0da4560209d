"""The largest step that fits into memory, found by dry runs: ``train.batch_tokens: auto`` on CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable

from seq2seq.config import Config
from seq2seq.errors import OutOfMemoryError
from seq2seq.memory import show_bytes
from seq2seq.train.distributed import Processes
from seq2seq.train.dry_run import DryRun, dry_run

_LEAST = 1_024  # target tokens


def fitting_step(config: Config, most: int, processes: Processes) -> int:
    """Target tokens of the largest step up to ``most`` that fits into the memory of every process, found by dry runs.

    The data must be prepared.

    Args:
        config: without open keys.

    Raises:
        OutOfMemoryError: not even a small step fits.
    """
    number: int = min(processes.all_gather(_find(config, most, processes)))
    if number == 0:
        raise OutOfMemoryError(
            f"train.batch_tokens: auto: a step of {_LEAST:,} tokens, a validation and a search do not fit into "
            "memory; choose a smaller model, lower data.max_length or decode.batch_tokens, or free memory"
        )
    return number


def largest_that_fits(most: int, measure: Callable[[int], DryRun | None]) -> int:
    """Target tokens of the largest step that fits; 0 if not even a small one does.

    ``most`` is tried first; it usually fits. If not, memory is taken to grow linearly with the step: two small steps
    are measured and the largest step is predicted from them. The prediction is tried, then 3/4 of it, and so on.

    Args:
        measure: makes a dry run with steps of this number of tokens; gives None if memory runs out.
    """

    def fitting(tokens: int) -> DryRun | None:
        found = measure(tokens)
        return found if found is not None and found.fits else None

    if fitting(most):
        return most
    if most <= _LEAST or not (small := fitting(_LEAST)):
        return 0
    best, guess, middle = _LEAST, most // 2, max(2 * _LEAST, most // 8)
    if middle < most:
        if large := fitting(middle):
            best, guess = middle, min(most * 9 // 10, _predicted(small, large, middle))
        else:
            guess = middle * 3 // 4
    while guess > best:
        if fitting(guess):
            return guess
        guess = guess * 3 // 4
    return best


def _predicted(small: DryRun, large: DryRun, tokens: int) -> int:
    """The step that fills the memory that a run may use, on a straight line through steps of _LEAST and ``tokens``."""
    if large.room is None or large.peak <= small.peak:
        return 2**62
    slope = (large.peak - small.peak) / (tokens - _LEAST)
    tokens += int((large.usable * large.room - large.peak) / slope)
    return tokens // 128 * 128


def _find(config: Config, most: int, processes: Processes) -> int:
    """The number for this process."""

    def measure(tokens: int) -> DryRun | None:
        processes.say(f"train.batch_tokens: auto: dry run with steps of {tokens:,} tokens")
        started = time.monotonic()
        try:
            found = dry_run(config.replace("train", batch_tokens=tokens), processes)
        except OutOfMemoryError as error:
            processes.say(f"  does not fit: {str(error).split(':')[0]}")
            return None
        seconds = time.monotonic() - started
        if found.room is None:
            processes.say(f"  done in {seconds:.0f} s; this system does not report how much memory was used")
        else:
            verdict = "" if found.fits else ", which is too much"
            amounts = f"{show_bytes(found.peak)} of {show_bytes(found.room)}"
            processes.say(f"  {amounts} of memory{verdict} ({seconds:.0f} s)")
        return found

    return largest_that_fits(most, measure)
