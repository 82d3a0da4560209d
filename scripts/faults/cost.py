"""What the guard against bad numbers costs: steps with it and without it in turn, in one run.

It prints the ratio of both medians with a 95 % interval (bootstrap) and fails if even the interval's lower end is above
1.01. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from tests.toy import ROOT


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this attack."""
    parser.add_argument("--config", type=Path, default=ROOT / "configs/quickstart.yaml", help="what to train")
    parser.add_argument("--steps", type=int, default=200, help="steps to measure")


def _measure(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of the steps with the guard and of those without."""
    import torch

    from seq2seq.config import load_config
    from seq2seq.train.distributed import Processes
    from seq2seq.train.guard import Guard
    from seq2seq.train.trainer import Trainer

    class NoGuard(Guard):
        """Finds nothing and remembers nothing."""

        def bad(self, loss: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
            return nothing

        def judge(self, step: int, loss: float, norm: float, bad: bool) -> str | None:
            return None

    nothing = torch.zeros(())
    seconds: list[tuple[bool, float]] = []

    class Timed(Trainer):
        """Takes every other step without the guard; a step's time ends where the next one begins."""

        def _step(self, step: Any) -> None:
            now = time.perf_counter()
            if seconds:
                seconds[-1] = (seconds[-1][0], now - seconds[-1][1])
            guarded = len(seconds) % 2 == 0
            self.guard = guards[guarded]
            # What AdamW does with the tensor is a part of the cost.
            adamw = self.optimizer._parts[-1]
            step_of = self.optimizer.step
            if not guarded:
                adamw.found_inf = None  # type: ignore[attr-defined]
                self.optimizer.step = lambda lr, bad: _plain_step(adamw, lr)  # type: ignore[method-assign]
            seconds.append((guarded, now))
            super()._step(step)
            self.optimizer.step = step_of  # type: ignore[method-assign]

    def _plain_step(adamw: Any, lr: float) -> None:
        for group in adamw.param_groups:
            group["lr"] = lr
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    shutil.rmtree(args.out / "run", ignore_errors=True)
    seldom = ["train.validate_every=1000000", "train.save_every=1000000"]
    config = load_config(args.config, [f"run_dir={args.out / 'run'}", *seldom])
    trainer = Timed(config, Processes(0, 1, torch.device("cpu")))
    guards = {True: Guard(config.train, trainer.progress), False: NoGuard(config.train, trainer.progress)}
    trainer.run(stop_after=args.steps + 1)
    measured = seconds[2:-1]
    return [s for on, s in measured if on], [s for on, s in measured if not on]


def run(args: argparse.Namespace) -> int:
    """0 unless the guard surely costs more than 1 %."""
    on, off = _measure(args)
    rng = random.Random(0)
    ratios = sorted(
        statistics.median(rng.choices(on, k=len(on))) / statistics.median(rng.choices(off, k=len(off)))
        for _ in range(2000)
    )
    ratio, low, high = statistics.median(on) / statistics.median(off), ratios[50], ratios[-51]
    print(f"{len(on)} steps with the guard: {statistics.median(on) * 1e3:.2f} ms each (median)")
    print(
        f"{len(off)} steps without: {statistics.median(off) * 1e3:.2f} ms; ratio {ratio:.4f} ({low:.4f} to {high:.4f})"
    )
    print("held" if low <= 1.01 else "FAILED")
    return int(low > 1.01)
