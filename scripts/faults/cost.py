"""What finding bad steps costs: steps with it and without it in turn, in one run.

It prints the ratio of both medians with a 95 % interval (bootstrap) and fails if even the interval's lower end is above
1.01. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from tests.toy import ROOT


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this attack."""
    parser.add_argument("--config", type=Path, default=ROOT / "configs/quickstart.yaml", help="what to train")
    parser.add_argument("--steps", type=int, default=200, help="steps to measure")


def _measure(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of the steps that are judged and of those that are not."""
    import torch

    from seq2seq.config import load_config
    from seq2seq.train import trainer
    from seq2seq.train.bad_steps import BadSteps
    from seq2seq.train.setup import Run
    from tests.toy import set_up

    nothing, original, begins = torch.zeros(()), trainer.train_step, list[float]()

    def timed(run: Run, step: Any) -> None:
        """Take every other step unjudged; a step's time ends where the next one begins."""
        begins.append(time.perf_counter())
        if len(begins) % 2:
            return original(run, step)
        # What AdamW does with the tensor is a part of the cost.
        adamw = run.optimizer._parts[-1]
        adamw.found_inf = None  # type: ignore[attr-defined]
        blind = mock.patch.multiple(BadSteps, bad=lambda *_: nothing, judge=lambda *_: None)
        with blind, mock.patch.object(run.optimizer, "step", lambda lr, bad: _plain_step(adamw, lr)):
            return original(run, step)

    def _plain_step(adamw: Any, lr: float) -> None:
        for group in adamw.param_groups:
            group["lr"] = lr
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    shutil.rmtree(args.out / "run", ignore_errors=True)
    seldom = ["train.validate_every=1000000", "train.save_every=1000000"]
    run = set_up(load_config(args.config, [f"run_dir={args.out / 'run'}", *seldom]))
    with mock.patch.object(trainer, "train_step", timed):
        trainer.train(run, stop_after=args.steps + 1)
    seconds = [end - begin for begin, end in pairwise(begins)][2:]
    return seconds[::2], seconds[1::2]


def run(args: argparse.Namespace) -> list[str]:
    """A problem if judging surely costs more than 1 %."""
    on, off = _measure(args)
    rng = random.Random(0)
    ratios = sorted(
        statistics.median(rng.choices(on, k=len(on))) / statistics.median(rng.choices(off, k=len(off)))
        for _ in range(2000)
    )
    (with_it, without), low, high = (1000 * statistics.median(part) for part in (on, off)), ratios[50], ratios[-51]
    print(f"{len(on)} judged steps: {with_it:.2f} ms each (median)")
    print(f"{len(off)} steps without: {without:.2f} ms; ratio {with_it / without:.4f} ({low:.4f} to {high:.4f})")
    return ["judging costs more than 1 % of a step"] * (low > 1.01)
