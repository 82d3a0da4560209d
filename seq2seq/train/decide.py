"""From a config that leaves keys open to one that leaves none, and the prepared data.

A run that continues keeps what it was started with: nothing is chosen twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from seq2seq.config import Config, check_files
from seq2seq.config.keys import show
from seq2seq.data.formats.text_size import measure_text
from seq2seq.data.prepare import PreparedData, open_text, prepare_data
from seq2seq.data.subword_epochs import Resampler
from seq2seq.decode.pair_scorer import ModelScorer
from seq2seq.decode.sentences import with_split_sentences
from seq2seq.device import matmul_peak, training_dtype
from seq2seq.model.flops import training_flops
from seq2seq.model_folder import CONFIG
from seq2seq.train.distributed import Processes
from seq2seq.train.expectation import Expectation, expectation
from seq2seq.train.initial import Initial, check_embeddings_learn, initial_model
from seq2seq.train.pace import measure_pace
from seq2seq.train.recipe import (
    TEXT_KEYS,
    Choice,
    largest_step,
    needs_pace,
    run_choices,
    step_tokens,
    text_choices,
)
from seq2seq.train.resume import Earlier, check_continues, check_models_are_ours, kept_choices, new_start
from seq2seq.train.step_size import fitting_step

_SHARE_OF_PEAK = {"cpu": 0.4, "cuda": 0.15}  # that training reaches, about
_NO_END = 2**31  # steps, while their number is not known
_TO_SAMPLE = 2_000  # pairs, to see how much longer an epoch of sampled words is


@dataclass(frozen=True)
class Decided:
    """A config without open keys, the data for it, and what was chosen."""

    config: Config
    data: PreparedData
    choices: tuple[Choice, ...]  # none for a run that continues
    has_begun: bool  # the run keeps what it chose at its beginning
    initial: Initial | None = None  # the model to start from

    def __str__(self) -> str:
        """The choices as a table, and what to expect."""
        return "\n".join([self.head, *(f"  {choice}" for choice in self.choices), *map(str, self.expectation)])

    @property
    def head(self) -> str:
        """What the choices are."""
        if self.choices:
            return "chosen by this run (what the config states is not changed):"
        if self.has_begun:
            return f"nothing to choose: the run has begun, and keeps the settings in {self.config.run_dir / CONFIG}"
        return "nothing to choose: the config states all keys"

    @property
    def expectation(self) -> list[Expectation]:
        """What to expect of the run, in sentences; nothing of one that starts from a model: those measured did not."""
        corpus, train = self.data.train, self.config.train
        if train.max_steps is None or self.config.init.source is not None:
            return []
        return expectation(corpus.num_pairs, train.batch_tokens, train.max_steps)


def decide(config: Config, processes: Processes, earlier: Earlier, *, show_progress: bool = True) -> Decided:
    """Choose a value for every open key, and prepare the data. Every process gets the same values.

    Raises:
        ConfigError, DataError: the data cannot be used, or what is stated contradicts what was chosen.
        OutOfMemoryError: no step fits into memory.
        UserError: the run folder has a run with other settings or other text, or models of another run.
    """
    check_models_are_ours(config.run_dir)
    check_files(config)
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    initial = initial_model(config, earlier)
    if initial is not None:
        processes.check_same("the weights of the model of init.from", initial.checksum)
        config = initial.applied_to(config)
    kept = kept_choices(config, earlier)
    processes.check_same("what the run has chosen", kept)
    if earlier.checkpoint is not None and "train.max_steps" in kept:
        _explain_bounds(config, earlier, processes)
    config = config.with_choices(kept)
    choices: list[Choice] = []

    def take(config: Config, offered: Iterable[Choice]) -> Config:
        """Add those of the choices whose keys are open."""
        taken = [choice for choice in offered if choice.key in still_open]
        choices.extend(taken)
        return config.with_choices({choice.key: choice.value for choice in taken})

    size_is_open = {*TEXT_KEYS, "train.batch_tokens"}.intersection(config.open_choices())
    speed = _estimated_speed(config, processes) if size_is_open else {}
    largest = largest_step(processes.device.type, processes.world_size)
    shown, device = show_progress and processes.is_main, processes.device.type
    with processes.main_first():
        if (still_open := set(config.open_choices())).intersection(TEXT_KEYS):
            text = measure_text(open_text(config, ModelScorer(device), show_progress=shown).train())
            config = take(config, text_choices(config, text, speed, largest, still_open))
        tokenizers = None if initial is None else initial.tokenizers
        data = prepare_data(config, ModelScorer(device), initial=tokenizers, show_progress=shown)
    if initial is not None:
        check_embeddings_learn(initial, data.tokenizers, config.init.freeze)
    processes.check_same("the text's fingerprint", data.fingerprint)
    corpus, still_open = data.train, set(config.open_choices())
    if "train.batch_tokens" in still_open:
        tokens, rate = int(data.mixture.usual_lengths[1].sum()), speed[config.model.preset]
        number, why = step_tokens(config, corpus.num_pairs, tokens, rate, largest)
        if processes.device.type == "cuda":
            number = fitting_step(_with_any_end(config), number, processes)
        config = take(config, [Choice("train.batch_tokens", number, why)])
    if still_open:
        pace = measure_pace(_with_any_end(config), data, processes) if needs_pace(config, still_open) else None
        offered = run_choices(config, corpus.num_pairs, _steps_per_epoch(config, data), pace, still_open)
        config = take(config, offered)
    config = with_split_sentences(config.all_stated(), corpus, data.tokenizers.src)
    check_continues(config, data.fingerprint, earlier, processes.say)
    return Decided(config, data, tuple(choices), has_begun=bool(kept), initial=initial)


def _explain_bounds(config: Config, earlier: Earlier, processes: Processes) -> None:
    """Say that a run keeps its number of steps, if other bounds are stated now."""
    assert earlier.settings is not None
    before = json.loads(earlier.settings)["train"]
    for key in ("max_minutes", "max_epochs"):
        if (old := before.get(key)) != (new := getattr(config.train, key)):
            processes.say(
                f"train.{key} is {show(new)} now and was {show(old)} before; the run keeps the {before['max_steps']:,} "
                "steps that it chose at its beginning, because its learning rate falls until the last of them (a bound "
                "that comes earlier ends it with a high rate). For a run of another length choose another run_dir"
                f"{new_start(config.run_dir)}"
            )


def _estimated_speed(config: Config, processes: Processes) -> dict[str, float]:
    """By preset, the target tokens that all processes together learn in a second, about."""
    device = processes.device
    peaks = processes.all_gather(matmul_peak(device, training_dtype(config.train.precision, device)))
    peak = min(peaks) * processes.world_size
    speed = {}
    for preset in config.model.PRESETS:
        shape = type(config.model).model_validate({"architecture": config.model.architecture, "preset": preset})
        flops = training_flops(shape, config.tokenizer.vocab_size)
        speed[preset] = _SHARE_OF_PEAK[device.type] * peak / flops.total(1, 1)
    return speed


def _steps_per_epoch(config: Config, data: PreparedData) -> int:
    """With tokenizer.sampling, about: words that are cut in other ways have more tokens."""
    corpus = data.train
    steps = data.mixture.usual_steps(config.train.batch_tokens, config.seed)
    if not config.tokenizer.sampling:
        return steps
    chosen = range(0, corpus.num_pairs, max(1, corpus.num_pairs // _TO_SAMPLE))
    with Resampler(corpus, data.tokenizers, config.tokenizer.sampling, config.data.max_length) as resampler:
        growth = resampler.growth(chosen)
    return math.ceil(steps * growth)


def _with_any_end(config: Config) -> Config:
    """The config for a measurement: with some value for every key that is still open."""
    return config.with_choices({"train.max_steps": _NO_END, "optim.warmup_steps": 0}).all_stated()
