"""``train.batch_tokens``: its default, and ``auto``, for which dry runs find the largest step that fits into memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress

from seq2seq.config import Config, dump_config, load_saved_config
from seq2seq.data.corpus import Corpus
from seq2seq.errors import ConfigError, ModelError, OutOfMemoryError
from seq2seq.memory import show_bytes
from seq2seq.model_folder import CONFIG
from seq2seq.tensors import read_metadata
from seq2seq.train.checkpoint import list_checkpoints
from seq2seq.train.distributed import Processes
from seq2seq.train.dry_run import DryRun, dry_run

_MOST_PER_PROCESS = 25_000  # target tokens: the step of Vaswani et al. 2017
_STEPS_PER_EPOCH = 100  # at least, so that a small corpus is learnt in many steps
_ON_CPU = 4_096  # target tokens, by default; on a GPU, small steps leave most of it idle
_LEAST = 1_024  # target tokens; smaller steps are slower and no better


def with_batch_tokens(config: Config, corpus: Corpus, processes: Processes) -> Config:
    """``config`` with a number in train.batch_tokens, the same in every process.

    A continued run keeps its number.

    Args:
        corpus: the training corpus. The other data must be prepared, too.

    Raises:
        OutOfMemoryError: not even a small step fits.
    """
    if config.train.batch_tokens is None and processes.device.type == "cpu":
        return config.replace("train", batch_tokens=_ON_CPU)
    if isinstance(config.train.batch_tokens, int):
        return config
    number = _number_of(config)
    if number is None:
        number = min(processes.all_gather(_find(config, corpus, processes)))
        if number == 0:
            raise OutOfMemoryError(
                f"train.batch_tokens: auto: a step of {_LEAST:,} tokens, a validation and a search do not fit into "
                "memory; choose a smaller model, lower data.max_length or decode.batch_tokens, or free memory"
            )
    processes.say(f"train.batch_tokens: auto is {number:,}")
    return config.replace("train", batch_tokens=number)


def largest_sensible(epoch_tokens: int, num_processes: int) -> int:
    """Target tokens of the largest step that is useful, with any amount of memory."""
    return max(_LEAST, min(_MOST_PER_PROCESS * num_processes, epoch_tokens // _STEPS_PER_EPOCH))


def largest_that_fits(most: int, measure: Callable[[int], DryRun | None]) -> int:
    """Target tokens of the largest step that fits; 0 if not even a small one does.

    ``most`` is tried first; it usually fits. If not, memory is taken to grow linearly with the step: two small steps
    are measured and the largest step is predicted from them. The prediction is tried, then half of it, and so on.

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
            guess = middle // 2
    while guess > best:
        if fitting(guess):
            return guess
        guess //= 2
    return best


def _predicted(small: DryRun, large: DryRun, tokens: int) -> int:
    """The step that fills the memory that a run may use, on a straight line through steps of _LEAST and ``tokens``."""
    if large.room is None or large.peak <= small.peak:
        return 2**62
    slope = (large.peak - small.peak) / (tokens - _LEAST)
    tokens += int((large.usable * large.room - large.peak) / slope)
    return tokens // 128 * 128


def _find(config: Config, corpus: Corpus, processes: Processes) -> int:
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

    return largest_that_fits(largest_sensible(int(corpus.tgt_lengths.sum()), processes.world_size), measure)


def _number_of(config: Config) -> int | None:
    """The number that the run was started with. None if it was not, or with other settings and has no checkpoint."""
    for path in reversed(list_checkpoints(config.run_dir)):
        with suppress(ModelError, KeyError, TypeError, ValueError):  # a damaged one
            return int(json.loads(read_metadata(path)["config"])["train"]["batch_tokens"])
    with suppress(ConfigError):
        saved = load_saved_config(config.run_dir / CONFIG)
        again = config.replace("train", batch_tokens=saved.train.batch_tokens)
        if config.decode.split_sentences == "auto":  # the run has decided that, too
            again = again.replace("decode", split_sentences=saved.decode.split_sentences)
        if isinstance(saved.train.batch_tokens, int) and dump_config(saved) == dump_config(again):
            return saved.train.batch_tokens
    return None
