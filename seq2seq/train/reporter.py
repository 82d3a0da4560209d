"""What a run says while it trains: the bar, the metrics files, and an end where the loss is no number."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from seq2seq.config import TrainConfig
from seq2seq.errors import UserError
from seq2seq.train.distributed import Processes
from seq2seq.train.metrics import MetricsLog

_READ_BACK_EVERY = 20  # steps between readings of the loss on CUDA, each of which waits for the device


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. ``sums`` stays on the device until it is read."""

    step: int
    epoch: int  # counted from 1
    lr: float
    tokens: int  # target tokens of all processes
    sums: Tensor  # [3]: this process' loss and negative log-likelihood, summed over its tokens; the gradient's norm


class Reporter:
    """Collects step records and tells them; every process has one, the main one writes and speaks."""

    def __init__(self, processes: Processes, log: MetricsLog | None, first_step: int) -> None:
        self._processes, self._log = processes, log
        self._unread: list[StepRecord] = []
        self._last_read = time.monotonic()
        self._tokens_per_second = 0.0
        self.best = ""  # what the bar says of the best validation
        self._bar = tqdm(
            initial=first_step,
            unit=" steps",
            desc="training",
            mininterval=0.2 if sys.stderr.isatty() else 15.0,
            dynamic_ncols=True,
            disable=not processes.is_main,
        )

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._processes.is_main:
            tqdm.write(text, file=sys.stderr)

    def step(self, record: StepRecord) -> None:
        """Take a step's record; on CUDA it is read only now and then."""
        self._unread.append(record)
        if self._processes.device.type == "cpu" or record.step % _READ_BACK_EVERY == 0:
            self.read_back()

    def read_back(self) -> None:
        """Fetch the losses of the latest steps from the device and log them.

        Raises:
            UserError: a loss or gradient is not finite; every process raises it.
        """
        if not self._unread:
            return
        records, self._unread = self._unread, []
        values = torch.stack([record.sums for record in records]).double().cpu()
        sums = self._processes.sum(values[:, :2].flatten().tolist())
        for record, norm, loss_sum, nll_sum in zip(records, values[:, 2].tolist(), sums[::2], sums[1::2], strict=True):
            loss, nll = loss_sum / record.tokens, nll_sum / record.tokens
            if self._log is not None:
                fields = {"epoch": record.epoch, "loss": loss, "nll": nll, "grad_norm": norm}
                self._log.metrics(record.step, {**fields, "lr": record.lr, "tokens": record.tokens})
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.flush()
                raise UserError(
                    f"step {record.step}: the loss ({loss}) or its gradient ({norm}) is not a finite number; nothing "
                    "was saved since. Lower optim.lr or raise optim.warmup_steps, and start again in a new run_dir"
                )
        self._tell_speed(records[-1], sum(record.tokens for record in records), nll)

    def _tell_speed(self, latest: StepRecord, tokens: int, nll: float) -> None:
        now = time.monotonic()
        seconds, self._last_read = now - self._last_read, now
        speed = tokens / seconds
        self._tokens_per_second = 0.95 * (self._tokens_per_second or speed) + 0.05 * speed
        if self._log is not None:
            self._log.timing(latest.step, {"seconds": seconds, "tokens_per_second": speed})
        text = f"epoch {latest.epoch}, loss {nll:.3f}, {self._tokens_per_second:,.0f} tokens/s{self.best}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(latest.step - self._bar.n)

    def validation(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Log a validation and print its line."""
        if self._log is not None:
            self._log.metrics(step, values)
            self._log.timing(step, {"validation_seconds": seconds})
        self.say(
            f"step {step:,}: validation loss {values['valid_loss']:.3f}, perplexity {values['valid_ppl']:.2f}, "
            f"BLEU {values['valid_bleu']:.2f}, chrF {values['valid_chrf']:.2f} ({seconds:.0f} s)"
        )
        self._last_read = time.monotonic()  # a step's speed has nothing to do with validation

    def expect(self, train: TrainConfig, steps_per_epoch: int, step: int, seconds: float) -> None:
        """Tell the bar how many steps the run will have by its tightest bound, so that it shows the time left."""
        totals = [train.max_steps, train.max_epochs and train.max_epochs * steps_per_epoch]
        if train.max_minutes is not None and seconds > 0:
            totals.append(int(step * max(1.0, train.max_minutes * 60 / seconds)))
        self._bar.total = min((total for total in totals if total is not None), default=None)

    def flush(self) -> None:
        """Hand the metrics files to the operating system."""
        if self._log is not None:
            self._log.flush()

    def close(self) -> None:
        """End the bar and the files."""
        self._bar.close()
        if self._log is not None:
            self._log.close()
