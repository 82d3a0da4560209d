"""The progress bar, the messages and the metrics files of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from seq2seq.config import TrainConfig
from seq2seq.data.formats.lines import printable
from seq2seq.data.loader import Step
from seq2seq.model.flops import FlopsPerToken
from seq2seq.train.checkpoint import Progress
from seq2seq.train.distributed import Processes
from seq2seq.train.forgetting import Forgetting
from seq2seq.train.metrics import BAD_LINES, METRICS, SAMPLES, TIMING, MetricsLog
from seq2seq.train.validation import Validation

_READ_BACK_EVERY = 20  # steps between readings of the loss on CUDA, each of which waits for the device

_SHOWN = 100  # characters of an example
_TEXTS = ("source", "translation", "reference")  # of an example
_TOO_LARGE = "a gradient was too large for fp16; the loss scale is now lower"


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. ``numbers`` stay on the device until they are read."""

    step: int
    epoch: int  # counted from 1
    lr: float
    work: Step  # without its batches, which need memory
    # fp32 [5]: loss and negative log-likelihood, summed over the tokens; the gradient norm; 1 if bad; 1 if skipped
    numbers: Tensor


# From a step's number, loss, gradient norm and whether it is bad, to what is wrong with it (None: nothing).
Judge = Callable[[int, float, float, bool], str | None]


class Speedometer:
    """Speed in tokens and in floating-point operations: a running mean over about 20 steps."""

    def __init__(self, flops: FlopsPerToken, peak: float) -> None:
        """``peak``: the measured maximum of floating-point operations per second, of all devices of the run."""
        self._flops, self._peak = flops, peak
        self._seconds = self._tokens = self._operations = self._waited = 0.0

    def add(self, records: Sequence[StepRecord], seconds: float) -> dict[str, float]:
        """Add the steps of the last ``seconds``; returns their speed, for the log."""
        tokens, src_tokens = sum(r.work.num_labels for r in records), sum(r.work.num_src for r in records)
        operations, waited = self._flops.total(src_tokens, tokens), sum(r.work.waited for r in records)
        self._peak = max(self._peak, operations / seconds)  # no step can be faster, so the measured peak was too low
        kept = 0.95 ** len(records)
        self._seconds, self._tokens = kept * self._seconds + seconds, kept * self._tokens + tokens
        self._operations, self._waited = kept * self._operations + operations, kept * self._waited + waited
        return {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "src_tokens_per_second": src_tokens / seconds,
            "share_of_peak": operations / seconds / self._peak,
            "waited": waited,
        }

    def __str__(self) -> str:
        """For the progress bar."""
        share = self._operations / self._seconds / self._peak
        waiting = self._waited / self._seconds
        note = f", {waiting:.0%} waiting for data" if waiting > 0.01 else ""
        return f"{self._tokens / self._seconds:,.0f} tokens/s ({share:.0%} of matmul peak{note})"


class Reporter:
    """Collects the records of steps. Every process has a reporter; that of the main process writes and prints."""

    def __init__(self, processes: Processes, log: MetricsLog | None, first_step: int, speedometer: Speedometer) -> None:
        self._processes, self._log = processes, log
        self._unread: list[StepRecord] = []
        self._last_read = time.monotonic()
        self._speedometer = speedometer
        self.best = ""  # what the bar shows of the best validation
        self._noted: set[str] = set()
        self._bar = tqdm(
            initial=first_step,
            unit=" steps",
            desc="training",
            mininterval=0.2 if sys.stderr.isatty() else 15.0,
            dynamic_ncols=True,
            disable=not processes.is_main,
        )

    def notes(self, notes: Iterable[str]) -> None:
        """Print notes on scores, each of them once."""
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                self._processes.say(f"note: {note}")

    def step(self, record: StepRecord) -> None:
        """Add the record of a step."""
        self._unread.append(record)

    def is_due(self, step: int) -> bool:
        """Whether to read back after this step. On CUDA that is rare, as it waits for the device."""
        return self._processes.device.type == "cpu" or step % _READ_BACK_EVERY == 0

    def read_back(self, judge: Judge) -> Iterator[tuple[StepRecord, str]]:
        """Fetch the losses of the latest steps from the device, log them, and show the speed.

        Yields:
            The bad steps among them with what is wrong, each before the next step is judged.
        """
        if not self._unread:
            return
        records, self._unread = self._unread, []
        for record, numbers in zip(records, torch.stack([r.numbers for r in records]).tolist(), strict=True):
            tokens, norm = record.work.num_labels, numbers[2]
            loss, nll = numbers[0] / tokens, numbers[1] / tokens
            fields: dict[str, float | str] = {"epoch": record.epoch, "loss": loss, "nll": nll, "grad_norm": norm}
            fields |= {"lr": record.lr, "tokens": tokens}
            reason = judge(record.step, loss, norm, bool(numbers[3]))
            if reason is not None:
                fields["bad"] = reason
            elif numbers[4]:
                fields["skipped"] = _TOO_LARGE
            if self._log is not None:
                self._log.add(METRICS, record.step, fields)
            if reason is not None:
                yield record, reason
        now = time.monotonic()
        speed, self._last_read = self._speedometer.add(records, now - self._last_read), now
        if self._log is not None:
            self._log.add(TIMING, record.step, speed)
        text = f"epoch {record.epoch}, loss {nll:.3f}, {self._speedometer}{self.best}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(record.step - self._bar.n)

    def bad_step(self, step: int, reason: str, lines: Iterable[Mapping[str, object]]) -> None:
        """Print a message about a bad step and save its lines."""
        if self._log is not None:
            self._log.add_texts(BAD_LINES, step, lines)
            self.flush()
        self._processes.say(f"step {step:,} skipped: {reason}; its sentence pairs are in {BAD_LINES}")

    def start(self, valid: Validation, guard: Validation, seconds: float) -> None:
        """Log and print the scores of the model before the first step."""
        if self._log is not None:
            self._log.add(METRICS, 0, valid.metrics())
            self._add_samples(self._log, 0, valid)
        self._processes.say(
            f"before training: valid BLEU {valid.scores.bleu:.2f}, guard BLEU {guard.scores.bleu:.2f} ({seconds:.0f} s)"
        )
        self.restart_clock()

    def validation(self, step: int, result: Validation, seconds: float, forgetting: Forgetting) -> None:
        """Log a validation, and print its line, its examples and notes on its scores."""
        values = result.metrics()
        if self._log is not None:
            self._log.add(METRICS, step, values)
            self._log.add(TIMING, step, {"validation_seconds": seconds})
            self._add_samples(self._log, step, result)
        lines = [
            f"step {step:,}: validation loss {values['valid_loss']:.3f}, perplexity {values['valid_ppl']:.2f}, "
            f"BLEU {values['valid_bleu']:.2f}, chrF {values['valid_chrf']:.2f} ({seconds:.0f} s)"
            + (f"; {_guard_text(result.guard, forgetting)}" if result.guard else "")
            + (f"; translations: {result.faults}" if str(result.faults) else "")
        ]
        for texts in result.examples:
            for name, text in zip(_TEXTS, texts, strict=True):
                lines.append(f"  {name:<12} {printable(text, _SHOWN)}")
        self._processes.say("\n".join(lines))
        self.notes([*result.scores.notes, *(result.guard.scores.notes if result.guard else ())])
        self.restart_clock()

    @staticmethod
    def _add_samples(log: MetricsLog, step: int, result: Validation) -> None:
        log.add_texts(SAMPLES, step, (dict(zip(_TEXTS, texts, strict=True)) for texts in result.examples))

    def restart_clock(self) -> None:
        """Leave the time since the last step out of the speed and the time left: it was no training."""
        pause = time.monotonic() - self._last_read
        self._last_read += pause
        if not self._bar.disable:  # its own unpause() would also take away the steps since it was last drawn
            self._bar.start_t += pause
            self._bar.last_print_t += pause

    def expect(self, train: TrainConfig, steps_per_epoch: int, progress: Progress) -> None:
        """Set the bar to the number of steps that the run will have, so that it shows the time left.

        With train.patience: if the score does not rise again.
        """
        totals = [train.max_steps, train.max_epochs and train.max_epochs * steps_per_epoch]
        if train.max_minutes is not None and progress.seconds > 0:
            totals.append(int(progress.step * max(1.0, train.max_minutes * 60 / progress.seconds)))
        if train.patience is not None:
            validations = progress.step // train.validate_every + train.patience - progress.validations_since_best
            totals.append(validations * train.validate_every)
        self._bar.total = min((total for total in totals if total is not None), default=None)

    def flush(self) -> None:
        """Pass the content of the metrics files to the operating system."""
        if self._log is not None:
            self._log.flush()

    def close(self) -> None:
        """Close the bar and the files."""
        self._bar.close()
        if self._log is not None:
            self._log.close()


def _guard_text(guard: Validation, forgetting: Forgetting) -> str:
    """The scores on data.guard, and what became of its BLEU since the start."""
    bleu = guard.scores.bleu
    change = f"{-forgetting.lost(bleu):+.2f} since the start"
    if not forgetting.allows(bleu):
        change += ", more than train.max_forgetting: cannot be the best model"
    return f"guard loss {guard.loss:.3f}, BLEU {bleu:.2f} ({change}), chrF {guard.scores.chrf:.2f}"
