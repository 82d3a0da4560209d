"""What a finished run means: how good its model is, whether it translates at all, and what would help most."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from seq2seq.config import Config
from seq2seq.evaluate.meaning import WHOLE_LINES, meaning_of
from seq2seq.faults import Faults
from seq2seq.train.checkpoint import Progress
from seq2seq.train.expectation import FEW_STEPS, LITTLE_TEXT, too_little_text
from seq2seq.train.forgetting import Forgetting
from seq2seq.train.metrics import METRICS, is_number, read_metrics
from seq2seq.train.recipe import most_epochs

_MANY_FAULTS = 0.5  # of the lines
_END = 0.1  # share of the steps that count as the end of a run
_ENOUGH_STEPS = 0.95  # share of the steps after which the learning rate is low
_MEMORISED = 0.7  # nats per token between validation and training loss
_TIME_USED = 0.8  # share of train.max_minutes; a run that took less was not ended by them


def outcome(config: Config, progress: Progress, num_pairs: int) -> Iterator[str]:
    """Sentences about the best model of a finished run; a warning if it translates nothing.

    Args:
        config: with a value for every key, as the run was planned.
        num_pairs: of the training text.
    """
    if not progress.best_step:
        return
    records = read_metrics(config.run_dir / METRICS)
    best = next((r for r in records if is_number(r.get("valid_bleu")) and r["step"] == progress.best_step), None)
    losses = [r["valid_loss"] for r in records if is_number(r.get("valid_loss"))]
    steps = [r["nll"] for r in records if is_number(r.get("nll")) and "bad" not in r]
    if best is None or not losses or not steps:
        return
    bleu = best["valid_bleu"]
    faults = Faults(progress.best_empty, progress.best_looping, progress.best_copied)
    note = f"; validation lines: {faults}" if str(faults) else ""
    is_poor = faults.total > _MANY_FAULTS or bleu < WHOLE_LINES
    yield f"{'WARNING: ' if is_poor else ''}validation BLEU {bleu:.1f}: {meaning_of(bleu)}{note}"
    if early := _why_early(config, progress):
        yield early
        return
    training = fmean(steps[-max(1, int(_END * len(steps))) :])
    if is_poor:
        help_ = _what_helps_a_poor_model(config, progress, num_pairs, training, losses)
    else:
        help_ = _what_helps_a_good_model(config, progress, num_pairs, training, losses[-1])
    yield f"what would help most: {help_}"


def _what_helps_a_poor_model(
    config: Config, progress: Progress, num_pairs: int, training: float, losses: list[float]
) -> str:
    """For one that translates hardly anything. Its BLEU is chance, so that only the loss shows what it learns.

    Args:
        training: the loss of the last steps.
        losses: of all validations.
    """
    loss = losses[-1]  # not that of the best model, which may be much older than the training loss
    unaligned = "lines may not translate each other: seq2seq doctor examines them"
    if config.model.architecture == "transformer" and config.model.ablate:
        return f"the parts of the model that model.ablate leaves out ({', '.join(config.model.ablate)})"
    if num_pairs < LITTLE_TEXT:
        return f"more text; {too_little_text(num_pairs)}"
    if progress.step < FEW_STEPS:
        return f"many more steps than {progress.step:,}; {FEW_STEPS} are the least"
    if loss == min(losses) and (longer := _longer_training(config, progress, num_pairs)):
        return f"{longer}. If that does not help, {unaligned}"
    if loss - training > _MEMORISED:
        return (
            f"more text, or text that fits; the model knows its training text (loss {training:.2f}), but that does not "
            f"help it with other text ({loss:.2f}). There may be too little text, or {unaligned}"
        )
    return f"text that fits; the loss is still high ({loss:.2f}), so {unaligned}"


def _what_helps_a_good_model(config: Config, progress: Progress, num_pairs: int, training: float, loss: float) -> str:
    """``training`` and ``loss`` of validation are those of the end of the run."""
    if loss - training > _MEMORISED:
        return (
            f"more parallel text; the model knows its training text (loss {training:.2f}) much better than the "
            f"validation text ({loss:.2f})"
        )
    return _longer_training(config, progress, num_pairs) or "more parallel text, or cleaner text (seq2seq doctor)"


def _longer_training(config: Config, progress: Progress, num_pairs: int) -> str | None:
    """What to set for a longer run if that would help: the best step is one of the last, and the text has more to give.

    None otherwise.
    """
    exhausted = progress.epoch + 1 >= most_epochs(num_pairs)
    if exhausted or progress.best_step <= (1 - _END) * progress.step:
        return None
    minutes, used = config.train.max_minutes, progress.seconds / 60
    if minutes is not None and used >= _TIME_USED * minutes:
        return "more time (train.max_minutes, in a new run_dir); the model was still learning"
    advice = f"more steps than {progress.step:,} (train.max_steps or max_epochs, in a new run_dir)"
    if minutes is None:
        return f"{advice}; the model was still learning"
    return (
        f"{advice}; the model was still learning, and {used:.1f} of its {minutes:g} minutes were used. A run plans "
        "fewer steps if other programs use the machine when it starts"
    )


def why_no_best(config: Config, progress: Progress) -> str:
    """Why a finished run has no best model, and what to do."""
    forgetting = Forgetting(progress.guard_start, config.train.max_forgetting)
    return forgetting.why_no_best(read_metrics(config.run_dir / METRICS)) or "no validation gave a finite number"


def _why_early(config: Config, progress: Progress) -> str | None:
    """That a bound ended the run before the learning rate had fallen, which costs quality."""
    train, falls = config.train, config.optim.schedule in ("cosine", "linear")
    if not falls or train.max_steps is None or progress.step >= _ENOUGH_STEPS * train.max_steps:
        return None
    if train.max_minutes is not None and progress.seconds >= 60 * train.max_minutes:
        bound, advice = "train.max_minutes", ", best with nothing else on the machine"
    elif train.max_epochs is not None and progress.epoch >= train.max_epochs:
        bound, advice = "train.max_epochs", ""
    else:
        return None
    return (
        f"{bound} ended the run after {progress.step:,} of {train.max_steps:,} steps, before the learning rate had "
        f"fallen. A new run with train.max_steps: auto, which plans for this bound, would be better{advice}"
    )
