"""The recipe: values for the keys that a config leaves open, from the text, the bounds and the speed of the machine.

Rules that need no tokenizer come first (:func:`text_choices`), those that need the speed of a step second
(:func:`run_choices`). Each choice has its reason in words. The numbers were fitted to runs of ours, which
``scripts/recipe`` has as a table. :mod:`seq2seq.train.decide` applies the rules.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from seq2seq.config import Config
from seq2seq.config.sections import PRESETS
from seq2seq.data.formats.text_size import SideSize, TextSize

# By the number of training pairs, on straight lines between these points in logarithms of both.
_VOCABULARY = (
    (1_000, 1_000),
    (3_000, 2_000),
    (30_000, 4_000),
    (200_000, 8_000),
    (1_000_000, 16_000),
    (5_000_000, 32_000),
)
_EPOCHS = ((1_000, 150), (3_000, 100), (30_000, 60), (200_000, 30), (1_000_000, 15), (5_000_000, 8))
_LEAST_PAIRS = {"base": 500_000, "small": 100_000, "tiny": 0}  # for which a model of this size is worth its time
_LEAST_EPOCHS = 10  # that a model must have time for; else a smaller one learns more in it
_MODERN = ("tiny", "small")  # presets that depart from the paper where that was better
_LEARNING_RATE = {"tiny": 3e-3, "small": 1.5e-3, "base": 7e-4, "big": 5e-4}
_LEAST_STEP, _LARGEST_ON_CPU = 1_024, 4_096  # target tokens; smaller and larger ones learn less in the same time
_MOST_PER_PROCESS = 25_000  # target tokens of a step on a GPU: the step of Vaswani et al. 2017
_STEPS, _STEPS_PER_EPOCH = 2_000, 100  # of a run, and of an epoch, or more if the step can be so small
_SAMPLED_EPOCHS = 10  # a run with more passes cuts words anew in every epoch
_WARMUP, _MOST_WARMUP = 0.1, 4_000  # share of the steps, and steps
_AVERAGED = 0.05  # share of the steps that the moving average sees
_VALIDATIONS, _VALIDATION_SHARE = 10, 0.15  # in a run, and of its time
_SAVE_SECONDS = 600.0
_USED = 0.9  # of train.max_minutes: the machine may become slower
_LONGEST = 8 * 3600.0  # seconds of a run without any bound: a night
_PATIENCE = 10


@dataclass(frozen=True)
class Choice:
    """A value for a dotted key of the config, and why."""

    key: str
    value: object
    reason: str

    def __str__(self) -> str:
        value = json.dumps(self.value).strip('"')
        return f"{self.key:<22}{value:<13} {self.reason}"


@dataclass(frozen=True)
class Pace:
    """What the machine needs, in seconds."""

    step: float  # a usual step
    validation: float


def _between(points: Sequence[tuple[int, int]], number: int) -> float:
    """The value at ``number`` on straight lines between the points, in logarithms; beyond them, that of the last."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    x = min(max(math.log(max(1, number)), logs[0][0]), logs[-1][0])
    for (x0, y0), (x1, y1) in pairwise(logs):
        if x <= x1:
            return math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    raise AssertionError("x is at most the last point")


def text_choices(
    config: Config, text: TextSize, tokens_per_second: Mapping[str, float], still_open: Collection[str]
) -> Iterator[Choice]:
    """Tokenizer and model.

    Args:
        tokens_per_second: by preset, the target tokens that all processes learn in a second, estimated.
        still_open: the keys to choose.
    """
    joint: bool = config.tokenizer.joint
    preset: str = config.model.preset
    if "tokenizer.joint" in still_open:
        scripts = [side.script or "no" for side in (text.src, text.tgt)]
        tied = "model.tie_embeddings" not in still_open and config.model.tie_embeddings == "all"
        joint = tied or scripts[0] == scripts[1]
        why = (
            f"both sides are in {scripts[0]} script" if scripts[0] == scripts[1] else f"{' and '.join(scripts)} script"
        )
        yield Choice("tokenizer.joint", joint, "model.tie_embeddings: all" if tied else why)
    size, characters = round(_between(_VOCABULARY, text.num_pairs), -2), _characters(text, joint, config)
    least = math.ceil((1.2 * characters + 300) / 100) * 100
    why = f"{text.num_pairs:,} pairs show rarer subwords too seldom"
    if least > size:
        size, why = least, f"the text has {characters:,} different characters"
    yield Choice("tokenizer.vocab_size", int(size), why)
    tokens = estimated_tokens(text.tgt)
    if "model.preset" in still_open:
        preset, why = _preset(config, text.num_pairs, tokens, tokens_per_second)
        yield Choice("model.preset", preset, why)
    shape = {**PRESETS[preset], **config.model.model_dump(exclude_unset=True)}
    odd = shape["d_model"] // shape["num_heads"] % 2 == 1
    rotary = preset in _MODERN and not odd
    why = "word order is learnt in fewer steps" if rotary else "as in the paper"
    yield Choice("model.positions", "rotary" if rotary else "sinusoidal", why)
    epochs = _planned_epochs(config, text.num_pairs, tokens, tokens_per_second[preset])
    if config.tokenizer.kind == "bpe" and epochs > _SAMPLED_EPOCHS:
        yield Choice("tokenizer.sampling", 0.1, f"about {epochs:,.0f} epochs: other cuts of the words in each")
    else:
        yield Choice("tokenizer.sampling", 0.0, f"about {epochs:,.0f} epochs are too few to need it")


def _characters(text: TextSize, joint: bool, config: Config) -> int:
    """The number of characters that a vocabulary must have."""
    src, tgt = (side.characters_to_cover(config.tokenizer.character_coverage) for side in (text.src, text.tgt))
    return len(src | tgt) if joint else max(len(src), len(tgt))


def estimated_tokens(side: SideSize) -> float:
    """About how many tokens a side has: words in scripts with many characters are short."""
    return side.num_characters / (1.6 if len(side.alphabet) > 1_000 else 4.0)


def _seconds(config: Config) -> float:
    """The time that there is."""
    train = config.train
    if train.max_minutes is not None:
        return _USED * 60 * train.max_minutes
    return math.inf if train.max_epochs is not None or train.max_steps is not None else _LONGEST


def _planned_epochs(config: Config, pairs: int, tokens: float, speed: float) -> float:
    """About how many passes over the text the run will make."""
    epochs = _seconds(config) * speed / max(1.0, tokens)
    if config.train.max_steps is not None:
        epochs = min(epochs, config.train.max_steps * config.train.batch_tokens / max(1.0, tokens))
    return min(epochs, config.train.max_epochs or _between(_EPOCHS, pairs))


def _preset(config: Config, pairs: int, tokens: float, speed: Mapping[str, float]) -> tuple[str, str]:
    enough = min(_LEAST_EPOCHS, round(_between(_EPOCHS, pairs)))
    for preset, least in _LEAST_PAIRS.items():
        epochs = _planned_epochs(config, pairs, tokens, speed[preset])
        if pairs >= least and (round(epochs) >= enough or preset == "tiny"):
            break
    larger = [name for name, least in _LEAST_PAIRS.items() if least > _LEAST_PAIRS[preset]]
    if not larger or pairs < _LEAST_PAIRS[larger[-1]]:
        return preset, f"{pairs:,} pairs"
    return preset, f"the time is too short for a larger model: {larger[-1]} needs {enough} epochs or more"


def step_tokens(
    config: Config, num_pairs: int, epoch_tokens: int, tokens_per_second: float, processes: int, device: str
) -> tuple[int, str]:
    """Target tokens of a step, before it is known whether it fits into memory, and the reason.

    Args:
        tokens_per_second: as in :func:`text_choices`, of the model that was chosen.
    """
    most = _LARGEST_ON_CPU if device == "cpu" else _MOST_PER_PROCESS * processes
    planned = _planned_epochs(config, num_pairs, epoch_tokens, tokens_per_second) * epoch_tokens
    fitting = min(planned / (config.train.max_steps or _STEPS), epoch_tokens / _STEPS_PER_EPOCH)
    tokens = max(_LEAST_STEP, min(most, int(fitting) // 128 * 128))
    return tokens, "small enough for many steps, which learn more than a few large ones"


def run_choices(
    config: Config, num_pairs: int, steps_per_epoch: int, pace: Pace | None, still_open: Collection[str]
) -> Iterator[Choice]:
    """How long to train, how the learning rate moves, and how often to validate and save.

    Args:
        config: with every choice of :func:`text_choices` and train.batch_tokens.
        pace: None if train.max_steps is stated, so that nothing needs to be measured.
        still_open: the keys to choose.
    """
    steps, schedule = config.train.max_steps, config.optim.schedule
    if "train.max_steps" in still_open:
        assert pace is not None
        steps, reason = _number_of_steps(config, num_pairs, steps_per_epoch, pace)
        yield Choice("train.max_steps", steps, reason)
    if "optim.schedule" in still_open:
        schedule = "inverse_sqrt" if steps is None else "cosine"
        why = "there is no last step" if steps is None else "the learning rate falls until the last step"
        yield Choice("optim.schedule", schedule, why)
    timed = "train.max_steps" in still_open  # a stated number of steps gives equal runs on machines of any speed
    if steps is None:  # train.max_steps: null; the other bounds say how many there will be
        steps = _number_of_steps(config, num_pairs, steps_per_epoch, pace)[0] if pace else 10 * steps_per_epoch
    muon = config.model.preset in _MODERN
    why = "learns more in the same time" if muon else "as in the paper"
    yield Choice("optim.name", "muon" if muon else "adamw", why)
    warmup = min(max(1, round(_WARMUP * steps)), _MOST_WARMUP, steps - 1)
    yield Choice("optim.warmup_steps", warmup, f"{_WARMUP:.0%} of the steps, at most {_MOST_WARMUP:,}")
    yield Choice("optim.lr", _LEARNING_RATE[config.model.preset], f"for models of the size {config.model.preset}")
    averaged = max(5.0, _AVERAGED * steps)
    yield Choice("train.ema_decay", round(1 - 1 / averaged, 6), f"averages the weights of about {averaged:,.0f} steps")
    validations, reason = min(_VALIDATIONS, steps), f"{_VALIDATIONS} times in the run"
    if timed and pace is not None and pace.validation * validations > _VALIDATION_SHARE * pace.step * steps:
        validations = max(3, int(_VALIDATION_SHARE * pace.step * steps / pace.validation))
        reason = f"{validations} times in the run, because one takes about {pace.validation:.0f} s"
    every = max(1, -(-steps // validations))
    yield Choice("train.validate_every", every, reason)
    save = every if pace is None else min(every, max(1, round(_SAVE_SECONDS / pace.step)))
    yield Choice("train.save_every", save, "after each validation" if save == every else "every ten minutes")
    patience = None if schedule in ("cosine", "linear") else _PATIENCE
    why = "the score rises until the last step" if patience is None else "validations without a better score"
    yield Choice("train.patience", patience, why)


def _number_of_steps(config: Config, num_pairs: int, steps_per_epoch: int, pace: Pace) -> tuple[int, str]:
    """The fewest steps of any bound, and the reason. A text has a bound, too: more epochs of it do not help."""
    train = config.train
    epochs = train.max_epochs or round(_between(_EPOCHS, num_pairs))
    why = "train.max_epochs" if train.max_epochs else f"more do not help with {num_pairs:,} pairs"
    bounds = [(epochs * steps_per_epoch, f"{epochs:,} epochs of {steps_per_epoch:,} steps; {why}")]
    if (seconds := _seconds(config)) != math.inf:
        training = max(seconds - _VALIDATIONS * pace.validation, (1 - _VALIDATION_SHARE) * seconds)
        steps = max(1, int(training / pace.step))
        minutes = f"{train.max_minutes:g} minutes" if train.max_minutes else f"a night of {_LONGEST / 3600:g} hours"
        reason = f"{minutes} at {pace.step:.2f} s for a step, {steps / steps_per_epoch:.3g} epochs"
        bounds.append((steps, reason))
    return min(bounds)
