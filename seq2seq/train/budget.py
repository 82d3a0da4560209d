"""``train.batch_tokens: auto``: the largest step that fits into memory, found before the run starts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import yaml
from tqdm import tqdm

from seq2seq.config import Config, dump_config
from seq2seq.data.corpus import Corpus
from seq2seq.errors import ModelError, OutOfMemoryError
from seq2seq.memory import show_bytes
from seq2seq.model_folder import CONFIG
from seq2seq.tensors import read_metadata
from seq2seq.train.checkpoint import list_checkpoints
from seq2seq.train.distributed import Processes
from seq2seq.train.rehearsal import Rehearsal, rehearse

_MOST_PER_PROCESS = 25_000  # target tokens: the step of Vaswani et al. 2017
_STEPS_PER_EPOCH = 100  # at least, so that small data is learnt in many steps
_LEAST = 1_024  # target tokens; smaller steps are slower and no better


def with_batch_tokens(config: Config, corpus: Corpus, processes: Processes) -> Config:
    """``config`` with a number in train.batch_tokens, the same in every process.

    A run that was started before goes on with its number.

    Args:
        corpus: the training corpus. The rest of the data is prepared, too.

    Raises:
        OutOfMemoryError: not even a small step fits.
    """
    if config.train.batch_tokens != "auto":
        return config
    number = _number_of(config)
    if number is None:
        number = min(processes.gather(_find(config, corpus, processes)))
        if number == 0:
            raise OutOfMemoryError(
                f"train.batch_tokens: auto: not even a step of {_LEAST:,} tokens, a validation and a search fit into "
                "memory; choose a smaller model, lower data.max_length or decode.batch_tokens, or free memory"
            )
    _say(f"train.batch_tokens: auto is {number:,}", processes)
    return _stating(config, number)


def largest_sensible(epoch_tokens: int, num_processes: int) -> int:
    """Target tokens of the largest step that is worth its time, whatever the memory."""
    return max(_LEAST, min(_MOST_PER_PROCESS * num_processes, epoch_tokens // _STEPS_PER_EPOCH))


def largest_that_fits(most: int, measure: Callable[[int], Rehearsal | None]) -> int:
    """Target tokens of the largest step that a run may take; 0 where not even a small one fits.

    ``most`` is tried first: mostly it fits. Where it does not, memory is taken for a line through two small steps, and
    what that promises is tried, then half of it, and so on.

    Args:
        measure: rehearses a run with steps of so many tokens; None where memory runs out.
    """
    measured: dict[int, Rehearsal | None] = {}

    def fits(tokens: int) -> bool:
        found = measured[tokens] = measure(tokens)
        return found is not None and found.fits

    if fits(most):
        return most
    if most <= _LEAST or not fits(_LEAST):
        return 0
    best, promised, middle = _LEAST, most // 2, max(2 * _LEAST, most // 8)
    if middle < most:
        if fits(middle):
            best, promised = middle, min(most * 9 // 10, _promised(measured, _LEAST, middle))
        else:
            promised = middle // 2
    while promised > best:
        if fits(promised):
            return promised
        promised //= 2
    return best


def _promised(measured: Mapping[int, Rehearsal | None], small: int, large: int) -> int:
    """The step whose memory, on a line through two measured ones, fills what a run may use."""
    first, second = measured[small], measured[large]
    assert first is not None
    assert second is not None
    if first.peak is None or second.peak is None or second.room is None or second.peak <= first.peak:
        return 2**62
    slope = (second.peak - first.peak) / (large - small)
    tokens = large + (second.usable * second.room - second.peak) / slope
    return int(tokens) // 128 * 128


def _find(config: Config, corpus: Corpus, processes: Processes) -> int:
    """The number for this process."""

    def measure(tokens: int) -> Rehearsal | None:
        _say(f"train.batch_tokens: auto: rehearsing the heaviest steps of {tokens:,} tokens", processes)
        started = time.monotonic()
        try:
            found = rehearse(_stating(config, tokens), processes)
        except OutOfMemoryError as error:
            _say(f"  too much: {str(error).split(':')[0]}", processes)
            return None
        seconds = time.monotonic() - started
        if found.peak is None or found.room is None:
            _say(f"  done in {seconds:.0f} s; how much memory it took cannot be told on this system", processes)
        else:
            verdict = "" if found.fits else ", too much"
            amounts = f"{show_bytes(found.peak)} of {show_bytes(found.room)}"
            _say(f"  {amounts} of memory{verdict} ({seconds:.0f} s)", processes)
        return found

    return largest_that_fits(largest_sensible(int(corpus.tgt_lengths.sum()), processes.count), measure)


def _number_of(config: Config) -> int | None:
    """What the run took when it was started; None where it was not, or with other settings and no checkpoint."""
    for path in reversed(list_checkpoints(config.run_dir)):
        with suppress(ModelError, KeyError, TypeError, ValueError):  # a damaged one
            return int(json.loads(read_metadata(path)["config"])["train"]["batch_tokens"])
    with suppress(OSError, yaml.YAMLError, KeyError, TypeError):
        text = (config.run_dir / CONFIG).read_text(encoding="utf-8")
        number = yaml.safe_load(text)["train"]["batch_tokens"]
        if isinstance(number, int) and text == dump_config(_stating(config, number)):
            return number
    return None


def _stating(config: Config, number: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_tokens": number})})


def _say(text: str, processes: Processes) -> None:
    if processes.is_main:
        tqdm.write(text, file=sys.stderr)
