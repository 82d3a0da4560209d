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
from seq2seq.data.formats.text_size import SideSize, TextSize
from seq2seq.languages import UNSPACED_SCRIPTS

TEXT_KEYS = (  # of text_choices
    *("tokenizer.joint", "tokenizer.character_coverage", "tokenizer.vocab_size"),
    *("model.preset", "model.positions", "optim.name", "optim.embedding_lr_ratio"),
)
# By the number of training pairs, on straight lines between these points in logarithms of both.
_VOCABULARY = (
    *((1_000, 1_000), (3_000, 2_000), (30_000, 4_000)),
    *((200_000, 8_000), (1_000_000, 16_000), (5_000_000, 32_000)),
)
_PIECES_PER_WORD = 1.5  # more pieces than this are phrases, of which each is too rare to be learnt
_COVERAGE, _USUAL, _USUAL_SHARE = 0.9995, 10, 1e-6  # SentencePiece's; a usual character occurs so often, or more
_EPOCHS = ((1_000, 100), (3_000, 80), (30_000, 60), (200_000, 30), (1_000_000, 15), (5_000_000, 8))
_LEAST_PAIRS = {"base": 500_000, "small": 100_000, "tiny": 0}  # for which a model of this size is worth its time
_LEAST_EPOCHS = 10  # that a model must have time for; else a smaller one learns more in it
_MODERN_WIDTH = 256  # up to this d_model, models depart from the paper where that was better
_LEARNING_RATE = {  # by optimizer, up to these d_model; Muon was measured up to 384
    "muon": ((192, 9e-3), (384, 3e-3), (768, 1.5e-3), (math.inf, 1e-3)),
    "adamw": ((192, 3e-3), (384, 1.5e-3), (768, 7e-4), (math.inf, 5e-4)),
}
_DECAY = 0.2  # with Muon
_FINE_TUNING = 1 / 6  # share of these rates for a model that has been trained: with more it forgets more
_LEAST_STEP, _LARGEST_ON_CPU = 1_024, 4_096  # target tokens; smaller and larger ones learn less in the same time
_MOST_PER_PROCESS = 25_000  # target tokens of a step on a GPU: the step of Vaswani et al. 2017
_STEPS, _STEPS_PER_EPOCH = 2_000, 100  # of a run, and of an epoch, or more if the step can be so small
_FEW_EPOCHS = 25  # up to which small models learn more along a straight line than along a cosine
_DROPOUT = ((5, 0.0), (12, 0.1), (25, 0.2), (math.inf, 0.3))  # of small models, up to these epochs
_WARMUP, _MOST_WARMUP = 0.1, 4_000  # share of the steps, and steps
_AVERAGED = 0.05  # share of the steps that the moving average sees
_VALIDATIONS, _FEWEST_VALIDATIONS = 10, 2  # in a run; the fewest where they take long, and one more after a tenth
_VALIDATION_SHARE = 0.08  # of the time of the steps; no more for validations, unless the fewest take more
_SAVE_SECONDS = 600.0
_USED = 0.97  # of train.max_minutes: saving takes some. A slower machine loses steps that hardly learn: the last ones
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
        return f"{self.key:<28} {value:<10} {self.reason}"


@dataclass(frozen=True)
class Pace:
    """What the machine needs, in seconds."""

    step: float  # a usual step
    validation: float


def show_duration(seconds: float) -> str:
    """For a message, in seconds, minutes or hours, with few digits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _between(points: Sequence[tuple[int, int]], number: int) -> float:
    """The value at ``number`` on straight lines between the points, in logarithms; beyond them, that of the last."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    x = min(max(math.log(max(1, number)), logs[0][0]), logs[-1][0])
    for (x0, y0), (x1, y1) in pairwise(logs):
        if x <= x1:
            return math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    raise AssertionError("x is at most the last point")


def most_epochs(num_pairs: int) -> int:
    """Passes over a text of so many pairs after which more hardly help."""
    return round(_between(_EPOCHS, num_pairs))


def largest_step(device: str, num_processes: int) -> int:
    """Target tokens of the largest step that is useful, with any amount of memory. ``device``: "cpu" or "cuda"."""
    return _LARGEST_ON_CPU if device == "cpu" else _MOST_PER_PROCESS * num_processes


def text_choices(
    config: Config,
    text: TextSize,
    tokens_per_second: Mapping[str, float],
    largest: int,
    still_open: Collection[str],
) -> Iterator[Choice]:
    """Tokenizer, model and optimizer.

    Args:
        tokens_per_second: by preset, the target tokens that all processes learn in a second, estimated.
        largest: of :func:`largest_step`.
        still_open: the keys to choose.
    """
    joint: bool = config.tokenizer.joint
    preset: str = config.model.preset
    if "tokenizer.joint" in still_open:
        src, tgt = text.src.script, text.tgt.script
        tied = "model.tie_embeddings" not in still_open and config.model.tie_embeddings == "all"
        joint = tied or src == tgt
        same = f"both sides are in {src} script" if src else "the text has no letters"
        why = same if src == tgt else f"{src or 'no'} script and {tgt or 'no'} script"
        yield Choice("tokenizer.joint", joint, "model.tie_embeddings is all" if tied else why)
    coverage: float = config.tokenizer.character_coverage
    if "tokenizer.character_coverage" in still_open:
        coverage, why = _coverage(text, joint)
        yield Choice("tokenizer.character_coverage", coverage, why)
    yield Choice("tokenizer.vocab_size", *_vocabulary(text, joint, coverage))
    tokens = _estimated_tokens(text.tgt)
    if "model.preset" in still_open:
        preset, why = _preset(config, text.num_pairs, tokens, tokens_per_second, largest)
        yield Choice("model.preset", preset, why)
    shape = {**config.model.PRESETS[preset], **config.model.model_dump(exclude_unset=True)}
    if config.model.architecture == "transformer":
        rotary = shape["d_model"] <= _MODERN_WIDTH and shape["d_model"] // shape["num_heads"] % 2 == 0
        why = "learns word order in fewer steps" if rotary else "as in the paper"
        yield Choice("model.positions", "rotary" if rotary else "sinusoidal", why)
    modern = shape["d_model"] <= _MODERN_WIDTH  # decided here, because the speed of a step depends on it
    why = "learns more in the same time" if modern else "as in the paper"
    yield Choice("optim.name", "muon" if modern else "adamw", why)
    why = "a word is in few of the steps, and must learn more in each" if modern else "as in the paper"
    yield Choice("optim.embedding_lr_ratio", 4.0 if modern else 1.0, why)


def _vocabulary(text: TextSize, joint: bool, coverage: float) -> tuple[int, str]:
    """The number of pieces, and the reason."""
    size, why = _between(_VOCABULARY, text.num_pairs), f"usual for {text.num_pairs:,} pairs"
    characters = _characters(text, joint, coverage)
    least = math.ceil((1.2 * characters + 300) / 100) * 100
    if least > size:
        return least, f"the text has {characters:,} different characters"
    if words := [side.num_words for side in (text.src, text.tgt) if side.num_words is not None]:
        different = sum(words) if joint else max(words)
        if (enough := max(least, _PIECES_PER_WORD * different)) < size:
            size, why = enough, f"the text has {different:,} different words"
    return int(round(size, -2)), why


def _coverage(text: TextSize, joint: bool) -> tuple[float, str]:
    """The share of the text that a vocabulary spells without bytes, and the reason."""
    alphabets = [text.src.alphabet, text.tgt.alphabet]
    shares = []
    for counts in [alphabets[0] + alphabets[1]] if joint else alphabets:
        total = counts.total()
        usual = sum(count for count in counts.values() if count >= max(_USUAL, _USUAL_SHARE * total))
        shares.append(usual / max(1, total))
    share = round(min(shares), 6)
    if share > _COVERAGE:
        return share, f"all characters that occur {_USUAL} times or more"
    return _COVERAGE, "all but the rarest characters"


def _characters(text: TextSize, joint: bool, coverage: float) -> int:
    """The number of characters that a vocabulary must have."""
    src, tgt = (side.characters_to_cover(coverage) for side in (text.src, text.tgt))
    return len(src | tgt) if joint else max(len(src), len(tgt))


def _estimated_tokens(side: SideSize) -> float:
    """About how many tokens a side has: a word has fewer characters in scripts without spaces."""
    return max(1.0, side.num_characters / (1.6 if side.script in UNSPACED_SCRIPTS else 4.0))


def _seconds(config: Config) -> float:
    """The time that there is."""
    train = config.train
    if train.max_minutes is not None:
        return _USED * 60 * train.max_minutes
    return math.inf if train.max_epochs is not None or train.max_steps is not None else _LONGEST


def _planned_epochs(config: Config, pairs: int, tokens: float, speed: float, largest: int) -> float:
    """About how many passes over the text the run will make. ``tokens``: target tokens of an epoch."""
    train, epochs = config.train, _seconds(config) * speed / tokens
    if train.max_steps is not None:
        step = train.batch_tokens
        if "train.batch_tokens" in config.open_choices():
            step = max(_LEAST_STEP, min(largest, int(tokens) // _STEPS_PER_EPOCH))
        return min(epochs, train.max_steps * step / tokens, train.max_epochs or math.inf)
    return min(epochs, train.max_epochs or _between(_EPOCHS, pairs))


def _preset(config: Config, pairs: int, tokens: float, speed: Mapping[str, float], largest: int) -> tuple[str, str]:
    enough = min(_LEAST_EPOCHS, most_epochs(pairs), config.train.max_epochs or _LEAST_EPOCHS)
    for preset, least in _LEAST_PAIRS.items():
        epochs = _planned_epochs(config, pairs, tokens, speed[preset], largest)
        if pairs >= least and (round(epochs) >= enough or preset == "tiny"):
            break
    larger = [name for name, least in _LEAST_PAIRS.items() if least > _LEAST_PAIRS[preset]]
    if not larger or pairs < _LEAST_PAIRS[larger[-1]]:
        return preset, f"{pairs:,} pairs"
    return preset, f"there is no time for {enough} epochs with a larger model"


def step_tokens(
    config: Config, num_pairs: int, epoch_tokens: int, tokens_per_second: float, largest: int
) -> tuple[int, str]:
    """Target tokens of a step, before it is known whether it fits into memory, and the reason.

    Args:
        tokens_per_second: as in :func:`text_choices`, of the model that was chosen.
    """
    most = epoch_tokens / _STEPS_PER_EPOCH
    if config.train.max_steps is None:
        epochs = _planned_epochs(config, num_pairs, epoch_tokens, tokens_per_second, largest)
        most = min(most, epochs * epoch_tokens / _STEPS)
    tokens = max(_LEAST_STEP, min(largest, int(most) // 128 * 128))
    if config.train.max_steps is not None:
        few = tokens == _LEAST_STEP
        why = "the text is small" if few else "the number of steps is stated, and each learns more from more text"
        return tokens, why
    if tokens == largest:
        return tokens, "there is time for many steps, and large ones are computed faster"
    return tokens, "many small steps learn more than a few large ones"


def needs_pace(config: Config, still_open: Collection[str]) -> bool:
    """Whether the speed must be measured: the number of steps, or how often to save, depends on it."""
    return _is_timed(config, still_open) or "train.save_every" in still_open


def _is_timed(config: Config, still_open: Collection[str]) -> bool:
    """Whether the number of steps depends on the speed. If not, equal configs give equal runs on every machine."""
    return "train.max_steps" in still_open or config.train.max_steps is None or config.train.max_minutes is not None


def run_choices(
    config: Config, num_pairs: int, steps_per_epoch: int, pace: Pace | None, still_open: Collection[str]
) -> Iterator[Choice]:
    """How long to train, dropout, how the learning rate moves, and how often to validate and save.

    Args:
        config: with every choice of :func:`text_choices` and train.batch_tokens.
        pace: None if it is not needed (:func:`needs_pace`).
        still_open: the keys to choose.
    """
    train, schedule = config.train, config.optim.schedule
    steps, why = _number_of_steps(config, num_pairs, steps_per_epoch, pace)
    last = steps if "train.max_steps" in still_open else train.max_steps
    yield Choice("train.max_steps", last, why)
    width, epochs = config.model.d_model, steps / steps_per_epoch
    if "optim.schedule" in still_open:
        schedule, why = "cosine", "the learning rate falls until the last step"
        if last is None:
            schedule, why = "inverse_sqrt", "there is no last step"
        elif width <= _MODERN_WIDTH and epochs <= _FEW_EPOCHS:
            schedule, why = "linear", f"{why}; small models learn more this way in up to {_FEW_EPOCHS} epochs"
        yield Choice("optim.schedule", schedule, why)
    dropout, why = config.model.PRESETS[config.model.preset]["dropout"], f"that of {config.model.preset}"
    if width <= _MODERN_WIDTH:
        dropout = next(value for most, value in _DROPOUT if epochs <= most)
        effect = "in which it keeps the model from learning" if dropout else "too few to learn"
        why = f"about {epochs:.1f} epochs, {effect} the text by heart"
    yield Choice("model.dropout", dropout, why)
    warmup = min(max(1, round(_WARMUP * steps)), _MOST_WARMUP, max(0, steps - 1))
    yield Choice("optim.warmup_steps", warmup, f"{_WARMUP:.0%} of the steps, at most {_MOST_WARMUP:,}")
    name = config.optim.name
    lr = next(rate for most, rate in _LEARNING_RATE[name] if width <= most)
    why = f"for {name} and models that are {width} wide"
    if config.init.source is not None:
        lr = round(_FINE_TUNING * lr, 6)
        why = f"a sixth of that {why}: the model has been trained, and more would forget more"
    yield Choice("optim.lr", lr, why)
    decay, why = 0.0, f"as in the paper, with {name}"
    if config.init.source is not None:
        why = "the model has been trained, and would forget"
    elif name == "muon":
        decay, why = _DECAY, "weights that stay small learn more from later steps"
    yield Choice("optim.weight_decay", decay, why)
    averaged = max(5.0, _AVERAGED * steps)
    yield Choice("train.ema_decay", round(1 - 1 / averaged, 6), f"averages the weights of about {averaged:,.0f} steps")
    every = train.validate_every
    if "train.validate_every" in still_open:
        every, why = _validate_every(steps, pace if _is_timed(config, still_open) else None)
        yield Choice("train.validate_every", every, why)
        if (first := -(-steps // _VALIDATIONS)) < every:
            yield Choice("train.first_validation", first, "shows after a tenth of the run whether it learns")
    save = every if pace is None else min(every, max(1, round(_SAVE_SECONDS / pace.step)))
    yield Choice("train.save_every", save, "after each validation" if save == every else "every ten minutes")
    falls = schedule in ("cosine", "linear")
    why = "the learning rate falls until the last step" if falls else "validations without a better score end the run"
    yield Choice("train.patience", None if falls else _PATIENCE, why)


def _validate_every(steps: int, pace: Pace | None) -> tuple[int, str]:
    """Steps between validations, and the reason."""
    number, because = _VALIDATIONS, ""
    if pace is not None and pace.validation * number > _VALIDATION_SHARE * pace.step * steps:
        affordable = int(_VALIDATION_SHARE * pace.step * steps / pace.validation)
        number = max(_FEWEST_VALIDATIONS, affordable)
        because = f", because a validation takes about {pace.validation:.2g} s"
    every = -(-steps // number)
    times = -(-steps // every)
    return every, (f"{times} times in the run" if times > 1 else "at the end of the run") + because


def _seconds_of_steps(config: Config, seconds: float, pace: Pace) -> float:
    """What validations leave of ``seconds``, the time of a run; as many as are stated, or as of _validate_every."""
    each = pace.validation
    if "train.validate_every" not in config.open_choices():
        return seconds * pace.step / (pace.step + each / config.train.validate_every)
    without_first = seconds - each  # of a run with fewer than _VALIDATIONS; it comes after a tenth
    fewer = min(without_first / (1 + _VALIDATION_SHARE), without_first - _FEWEST_VALIDATIONS * each)
    return max(seconds - _VALIDATIONS * each, fewer, seconds / 2)  # if nothing is left, the bound ends the run


def _number_of_steps(config: Config, num_pairs: int, steps_per_epoch: int, pace: Pace | None) -> tuple[int, str]:
    """The fewest steps of any bound, and the reason. A text has a bound, too: more epochs of it do not help."""
    train = config.train
    bounds: list[tuple[int, str]] = []
    if train.max_steps is not None:
        bounds.append((train.max_steps, "train.max_steps"))
    if train.max_epochs is not None or train.max_steps is None:
        epochs = train.max_epochs or most_epochs(num_pairs)
        why = "train.max_epochs" if train.max_epochs else f"more do not help with {num_pairs:,} pairs"
        steps, time = epochs * steps_per_epoch, ""
        if pace is not None:
            time = f"; about {show_duration(steps * pace.step)}, plus validation"
        bounds.append((steps, f"{epochs:,} epochs of {steps_per_epoch:,} steps: {why}{time}"))
    if pace is not None and (seconds := _seconds(config)) != math.inf:
        steps = max(1, int(_seconds_of_steps(config, seconds, pace) / pace.step))
        bound = f"train.max_minutes is {train.max_minutes:g}" if train.max_minutes else "a night is long enough"
        why = f"{bound}, and a step takes {pace.step:.2g} s; about {steps / steps_per_epoch:.3g} epochs"
        bounds.append((steps, why))
    return min(bounds)
