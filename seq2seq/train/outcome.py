"""What a finished run means: how good its model is, whether it translates at all, and what would help most."""

from __future__ import annotations

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
_AT_THE_END = 0.1  # share of the steps whose training loss counts as the final one
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
    bleu, loss = best["valid_bleu"], best["valid_loss"]
    faults = Faults(progress.best_empty, progress.best_looping, progress.best_copied)
    training = fmean(record["nll"] for record in steps[-max(1, int(_AT_THE_END * len(steps))) :])
    note = f"; validation lines: {faults}" if str(faults) else ""
    broken = faults.total > _MANY_FAULTS
    left_out = config.model.ablate if config.model.architecture == "transformer" else ()
    yield f"{'WARNING: ' if broken else ''}validation BLEU {bleu:.1f}: {meaning_of(bleu)}{note}"
    early = _why_early(config, progress)
    if early is not None:
        yield early
    elif loss - training > _MEMORISED:
        yield (
            "what would help most: more parallel text; the model knows its training text "
            f"(loss {training:.2f}) much better than the validation text ({loss:.2f})"
        )
    elif progress.step < FEW_STEPS:
        yield f"what would help most: more steps; {progress.step:,} are very few"
    elif left_out and (broken or bleu < WHOLE_LINES):
        yield f"what would help most: the parts of the model that model.ablate leaves out ({', '.join(left_out)})"
    elif broken or bleu < WHOLE_LINES:
        yield (
            f"what would help most: text that fits; a loss this high ({loss:.2f}) after so many steps often means that "
            "lines do not translate each other: seq2seq doctor examines them"
        )
    elif config.train.max_minutes is not None and progress.best_step > (1 - _AT_THE_END) * progress.step:
        yield "what would help most: more time (train.max_minutes, in a new run_dir); the model was still learning"
    else:
        yield "what would help most: more parallel text, or cleaner text (seq2seq doctor)"


def why_no_best(config: Config, progress: Progress) -> str:
    """Why a finished run has no best model, and what to do."""
    forgetting = Forgetting(progress.guard_start, config.train.max_forgetting)
    return forgetting.why_no_best(read_metrics(config.run_dir / METRICS)) or "no validation gave a finite number"


def _why_early(config: Config, progress: Progress) -> str | None:
    """That the time was over before the learning rate had fallen, which costs quality."""
    train, falls = config.train, config.optim.schedule in ("cosine", "linear")
    if not falls or train.max_steps is None or progress.step >= _ENOUGH_STEPS * train.max_steps:
        return None
    if train.max_minutes is None or progress.seconds < 60 * train.max_minutes:
        return None
    return (
        f"the time was over after {progress.step:,} of {train.max_steps:,} steps, before the learning rate had fallen: "
        "the machine was slower than at the start. A new run, with nothing else on the machine, would be better"
    )
