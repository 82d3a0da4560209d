"""What a finished run means: how good its model is, whether it translates at all, and what would help most."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from seq2seq.config import Config
from seq2seq.evaluate.meaning import WHOLE_LINES, meaning_of
from seq2seq.faults import Faults
from seq2seq.train.checkpoint import Progress
from seq2seq.train.expectation import FEW_STEPS
from seq2seq.train.forgetting import Forgetting
from seq2seq.train.metrics import METRICS, read_metrics

_MANY_FAULTS = 0.5  # of the lines
_AT_THE_END = 0.1  # share of the steps
_ENOUGH_STEPS = 0.95  # share of the steps after which the learning rate is low
_MEMORISED = 0.7  # nats per token between validation and training loss


def outcome(config: Config, progress: Progress) -> Iterator[str]:
    """Sentences about the best model of a finished run; a warning if it translates nothing."""
    if not progress.best_step:
        return
    records = read_metrics(config.run_dir / METRICS)
    best = next((r for r in records if "valid_bleu" in r and r["step"] == progress.best_step), None)
    steps = [record for record in records if "nll" in record and "bad" not in record]
    if best is None or not steps:
        return
    bleu = best["valid_bleu"]
    faults = Faults(progress.best_empty, progress.best_looping, progress.best_copied)
    note = f"; validation lines: {faults}" if str(faults) else ""
    is_poor = faults.total > _MANY_FAULTS or bleu < WHOLE_LINES
    yield f"{'WARNING: ' if is_poor else ''}validation BLEU {bleu:.1f}: {meaning_of(bleu)}{note}"
    training = fmean(record["nll"] for record in steps[-max(1, int(_AT_THE_END * len(steps))) :])
    losses = [r["valid_loss"] for r in records if r.get("valid_loss") is not None and math.isfinite(r["valid_loss"])]
    help_ = _what_helps(config, progress, training, losses, is_poor=is_poor)
    yield _why_early(config, progress) or f"what would help most: {help_}"


def _what_helps(config: Config, progress: Progress, training: float, losses: list[float], *, is_poor: bool) -> str:
    """What would help most.

    Args:
        training: the loss of the last steps.
        losses: of all validations.
        is_poor: the model translates hardly anything. Its BLEU is chance, so that only the loss shows what it learns.
    """
    loss = losses[-1]  # of the end, as that of training, not of the best model, which may be much older
    is_memorised = loss - training > _MEMORISED
    is_learning = config.train.max_minutes is not None and progress.best_step > (1 - _AT_THE_END) * progress.step
    more_time = "more time (train.max_minutes, in a new run_dir); the model was still learning"
    doctor = "lines do not translate each other: seq2seq doctor examines them"
    left_out = config.model.ablate if config.model.architecture == "transformer" else ()
    if progress.step < FEW_STEPS:
        return f"many more steps than {progress.step:,}; {FEW_STEPS} are the least"
    if is_poor:
        if left_out:
            return f"the parts of the model that model.ablate leaves out ({', '.join(left_out)})"
        if is_learning and loss == min(losses):
            return f"{more_time}. If that does not help, {doctor}"
        if is_memorised:
            return (
                f"more text, or text that fits; the model knows its training text (loss {training:.2f}), but that does "
                f"not help it with other text ({loss:.2f}). Either there is too little of it, or {doctor}"
            )
        return f"text that fits; a loss this high ({loss:.2f}) after so many steps often means that {doctor}"
    if is_memorised:
        return (
            f"more parallel text; the model knows its training text (loss {training:.2f}) much better than the "
            f"validation text ({loss:.2f})"
        )
    return more_time if is_learning else "more parallel text, or cleaner text (seq2seq doctor)"


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
