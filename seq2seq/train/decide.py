"""From a config that leaves keys open to one that leaves none, and the prepared data.

A run that continues keeps what it was started with: nothing is chosen twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import torch

from seq2seq.config import Config, ModelConfig, check_files, dump_config, load_saved_config
from seq2seq.config.keys import get_key
from seq2seq.config.sections import PRESETS
from seq2seq.data.corpus import Corpus
from seq2seq.data.formats.pairs import read_pairs
from seq2seq.data.formats.text_size import measure_text
from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.prepare import PreparedData, prepare_data
from seq2seq.decode.sentences import with_split_sentences
from seq2seq.device import compute_dtype, matmul_peak
from seq2seq.errors import ConfigError, ModelError
from seq2seq.model.flops import training_flops
from seq2seq.model_folder import CONFIG
from seq2seq.tensors import read_metadata
from seq2seq.train.checkpoint import list_checkpoints
from seq2seq.train.distributed import Processes
from seq2seq.train.expectation import expectation
from seq2seq.train.pace import measure_pace
from seq2seq.train.recipe import Choice, run_choices, step_tokens, text_choices
from seq2seq.train.step_size import fitting_step

_TEXT_KEYS = ("tokenizer.joint", "tokenizer.vocab_size", "tokenizer.sampling", "model.preset", "model.positions")
_MEASURED_KEYS = ("train.max_steps", "train.save_every")
_SHARE_OF_PEAK = {"cpu": 0.4, "cuda": 0.15}  # that training reaches, about
_NO_END = 2**31  # steps, while their number is not known
_ABSENT = object()


@dataclass(frozen=True)
class Decided:
    """A config without open keys, the data for it, and what was chosen."""

    config: Config
    data: PreparedData
    choices: tuple[Choice, ...]  # none for a run that continues

    def __str__(self) -> str:
        """The choices as a table, and what to expect."""
        return "\n".join([*(f"  {choice}" for choice in self.choices), *self.expectation])

    @property
    def expectation(self) -> list[str]:
        """What to expect of the run, in sentences."""
        corpus, train = self.data.train, self.config.train
        steps = train.max_steps or (train.max_epochs or 0) * _steps_per_epoch(self.config, corpus)
        return expectation(corpus.num_pairs, int(corpus.tgt_lengths.sum()), train.batch_tokens, steps) if steps else []


def decide(config: Config, processes: Processes, *, show_progress: bool = True) -> Decided:
    """Choose a value for every open key, and prepare the data. Every process gets the same values.

    Raises:
        ConfigError, DataError: the data cannot be used.
        OutOfMemoryError: no step fits into memory.
    """
    check_files(config)
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    config = config.with_choices(_choices_of_run(config))
    choices: list[Choice] = []

    def take(config: Config, offered: Iterable[Choice]) -> Config:
        """Add those of the choices whose keys are open."""
        taken = [choice for choice in offered if choice.key in still_open]
        choices.extend(taken)
        return config.with_choices({choice.key: choice.value for choice in taken})

    speed = _estimated_speed(config, processes) if config.open_choices() else {}
    with processes.main_first():
        if (still_open := set(config.open_choices())).intersection(_TEXT_KEYS):
            text = measure_text(read_pairs(config.data.train))
            config = take(config, text_choices(config, text, speed, still_open))
        data = prepare_data(config, show_progress=show_progress and processes.is_main)
    corpus, still_open = data.train, set(config.open_choices())
    if "train.batch_tokens" in still_open:
        size, tokens = processes.world_size, int(corpus.tgt_lengths.sum())
        rate, kind = speed[config.model.preset], processes.device.type
        number, why = step_tokens(config, corpus.num_pairs, tokens, rate, size, kind)
        if processes.device.type == "cuda":
            number = fitting_step(_with_any_end(config), number, processes)
        config = take(config, [Choice("train.batch_tokens", number, why)])
    if still_open:
        pace = None
        if still_open.intersection(_MEASURED_KEYS):
            pace = measure_pace(_with_any_end(config), data, processes)
        config = take(config, run_choices(config, corpus.num_pairs, _steps_per_epoch(config, corpus), pace, still_open))
    return Decided(with_split_sentences(config.all_stated(), corpus, data.tokenizers.src), data, tuple(choices))


def _choices_of_run(config: Config) -> dict[str, object]:
    """What the run in the folder was started with, for the keys that ``config`` leaves open.

    Nothing if there is no run, or if it has no checkpoint and other settings are stated now.
    """
    still_open = config.open_choices()
    for path in reversed(list_checkpoints(config.run_dir)):
        with suppress(ModelError, ConfigError, KeyError, TypeError, ValueError):  # a damaged one
            saved = json.loads(read_metadata(path)["config"])
            found = {key: get_key(saved, tuple(key.split(".")), _ABSENT) for key in still_open}
            values = {key: value for key, value in found.items() if value is not _ABSENT}
            config.with_choices(values)
            return values
    with suppress(ConfigError):
        before = load_saved_config(config.run_dir / CONFIG)
        tree = before.model_dump(mode="json")
        values = {key: get_key(tree, tuple(key.split("."))) for key in still_open}
        again = config.with_choices(values).all_stated()
        if config.decode.split_sentences == "auto":  # the run has decided that, too
            again = again.replace("decode", split_sentences=before.decode.split_sentences)
        if dump_config(before) == dump_config(again):
            return values
    return {}


def _estimated_speed(config: Config, processes: Processes) -> dict[str, float]:
    """By preset, the target tokens that all processes together learn in a second, about."""
    device = processes.device
    peaks = processes.all_gather(matmul_peak(device, compute_dtype(config.train.precision, device)))
    peak = min(peaks) * processes.world_size
    speed = {}
    for preset in PRESETS:
        flops = training_flops(ModelConfig.model_validate({"preset": preset}), config.tokenizer.vocab_size)
        speed[preset] = _SHARE_OF_PEAK[device.type] * peak / flops.total(1, 1)
    return speed


def _steps_per_epoch(config: Config, corpus: Corpus) -> int:
    lengths = corpus.src_lengths, corpus.tgt_lengths
    return plan_epoch(*lengths, step_budgets(*lengths, config.train.batch_tokens), config.seed, 0).num_steps


def _with_any_end(config: Config) -> Config:
    """The config for a measurement: with some value for every key that is still open."""
    return config.with_choices({"train.max_steps": _NO_END, "optim.warmup_steps": 0}).all_stated()
