"""torchrun: several processes train as one does, and if any of them dies, none waits for ever.

Small real runs on the CPU with 1, 2 and 4 processes (no dropout, whose masks differ from process to process): the same
steps and losses; a process killed in the middle; torchrun's restarts; another number of processes at each start; steps
with fewer sentences than processes; errors in one process alone.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from faults.small_run import training, write_text
from faults.watched import Watched
from tests.toy import metrics, weights

_PAIRS = 2001  # odd, so that the last step is a short one
_TIMEOUT = 300.0  # seconds until a run counts as hung
_GONE_SECONDS = 20.0  # after a death all processes must be gone
_OURS = "seq2seq train: "  # how a message of the package begins
_TOLERANCE = 1e-5  # relative; fp32 sums in another order, grown over all steps
_SETTINGS = ["model.dropout=0", "tokenizer.sampling=0", "data.cache_dir=../data", "optim.lr=1e-3"]
# A ReLU that rounding turns on or off makes a small difference hundreds of times larger; a GELU has no such edge.
_SETTINGS += ["model.activation=gelu"]
_SETTINGS += ["train.max_steps=50", "train.batch_tokens=1000", "train.validate_every=20"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> list[str]:
    """Attack; returns what did not hold."""
    shutil.rmtree(args.out, ignore_errors=True)
    write_text(args.out / "text", _PAIRS, valid=100, test=300)
    runs = Runs(args.out)
    numbers = (_same_numbers, _killed, _restarted, _other_numbers, _torchrun_killed)
    for attack in tqdm((*numbers, _few_sentences, _bounds, _error_in_one), desc="attacks"):
        attack(runs)
    return runs.problems


class Runs:
    """Starts runs below a folder, and collects what they did wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[str] = []

    def start(self, name: str, count: int, *overrides: str, restarts: int = 0, blocked: str = "") -> Watched:
        """The run ``name`` with ``count`` processes, from where it is; a file takes the place of the folder blocked."""
        folder = self._folder / name
        words = training(folder, *_SETTINGS, *overrides)
        if blocked:
            (folder / "run").mkdir()
            (folder / "run" / blocked).touch()
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", str(restarts)]
        command = [*torchrun, "--nproc-per-node", str(count), *words[1:]]
        self.log(name).unlink(missing_ok=True)
        return Watched(command, folder, self.log(name))

    def shortened(self, name: str, lines: dict[str, int], *suffixes: str) -> list[str]:
        """Settings for texts of which some (train, valid, test) are cut to so many lines."""
        settings = []
        for text, count in lines.items():
            for side, suffix in (("src", "en"), ("tgt", "zh")):
                whole = (self._folder / "text" / f"{text}.{suffix}").read_bytes().splitlines(keepends=True)
                path = self._folder / "text" / f"{name}-{text}.{suffix}"
                path.write_bytes(b"".join(whole[:count] if suffix in suffixes else whole))
                settings.append(f"data.{text}.{side}={path}")
        return settings

    def log(self, name: str) -> Path:
        """What the latest start of a run said."""
        return self._folder / name / "log"

    def to_the_end(self, name: str, count: int, *overrides: str, run: Watched | None = None) -> None:
        """Wait for a run, started here unless it is given; it has to end well."""
        run = run or self.start(name, count, *overrides)
        status = run.wait(_TIMEOUT)
        self.check(status == 0, f"{name}: {'hung' if status is None else f'status {status}'}; see {self.log(name)}")
        run.end_all()

    def expect_failure(self, name: str, run: Watched, message: str) -> None:
        """Wait for a run, all of whose processes have to end soon, one of them with a message."""
        since = time.monotonic()
        status = run.wait(_TIMEOUT)
        seconds = time.monotonic() - since
        run.end_all()
        shown = [line[line.index(_OURS) :] for line in _lines(self.log(name)) if _OURS in line]
        print(f"{name}: all gone after {seconds:.1f} s, status {status}: {' | '.join(shown)}")
        self.check(status not in (0, None) and seconds < _GONE_SECONDS, f"{name}: {status} after {seconds:.1f} s")
        self.check(len(shown) == 1 and message in shown[0], f"{name}: messages: {shown}")
        ours = [line for line in _lines(self.log(name)) if line.startswith("[rank")]
        self.check(not ours, f"{name}: a traceback; see {self.log(name)}")

    def kill(self, run: Watched, rank: int, step: int) -> None:
        """``kill -9`` one process at a step."""
        mark = run.wait_for(lambda mark: mark.rank == rank and mark.step == step and mark.phase == "step", _TIMEOUT)
        if mark is None:
            self.problems.append(f"process {rank} never came to step {step}")
        else:
            os.kill(mark.pid, signal.SIGKILL)

    def kill_one(self, name: str, count: int, rank: int, step: int) -> None:
        """Start a run and kill one of its processes; all others have to end."""
        run = self.start(name, count)
        self.kill(run, rank, step)
        self.expect_failure(name, run, "another process of this run has ended")

    def check(self, holds: bool, problem: str) -> None:
        """Note a problem unless something holds."""
        if not holds:
            self.problems.append(problem)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The records of a run's metrics file."""
        return metrics(self._folder / name / "run")

    def compare_weights(self, name: str, other: str) -> None:
        """The same weights at the end, bit by bit."""
        ours, theirs = (weights(self._folder / run / "run") for run in (name, other))
        self.check(ours == theirs, f"{name}: other weights than {other}")

    def compare(self, name: str, other: str) -> None:
        """The same steps of the same data, and the same losses except for rounding."""
        ours, theirs = self.metrics(name), self.metrics(other)
        fixed = ("step", "epoch", "tokens", "lr")
        same = [[[record.get(key) for key in fixed] for record in records] for records in (ours, theirs)]
        self.check(same[0] == same[1], f"{name}: other steps than {other}")
        worst = max(
            abs(one[key] / two[key] - 1)
            for one, two in zip(ours, theirs, strict=False)
            for key in {"loss", "nll", "valid_loss"} & one.keys() & two.keys()
        )
        self.check(math.isfinite(worst) and worst < _TOLERANCE, f"{name}: losses differ from {other} by {worst:.1e}")
        final = [[record["nll"] for record in records if "nll" in record][-1] for records in (ours, theirs)]
        print(
            f"{name}: {ours[-1]['step']} steps, final loss {final[0]:.6f}; {other}: {theirs[-1]['step']}, "
            f"{final[1]:.6f}; largest relative difference of a loss {worst:.1e}"
        )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()


def _same_numbers(runs: Runs) -> None:
    """1, 2 and 4 processes."""
    for count in (1, 2, 4):
        runs.to_the_end(f"processes-{count}", count)
        if count > 1:
            runs.compare(f"processes-{count}", "processes-1")


def _killed(runs: Runs) -> None:
    """The main process, another one, one of four."""
    for count, rank in ((2, 0), (2, 1), (4, 0), (4, 2)):
        runs.kill_one(f"killed-{rank}-of-{count}", count, rank, 25)
    runs.to_the_end("killed-1-of-2", 2)
    runs.compare_weights("killed-1-of-2", "processes-2")


def _restarted(runs: Runs) -> None:
    """torchrun starts all processes again, twice, and the end is that of a run that nothing disturbed."""
    run = runs.start("restarted", 2, restarts=2)
    for rank, step in ((1, 25), (0, 45)):
        runs.kill(run, rank, step)
    runs.to_the_end("restarted", 2, run=run)
    runs.compare("restarted", "processes-2")
    runs.compare_weights("restarted", "processes-2")


def _other_numbers(runs: Runs) -> None:
    """Two processes, then four, then one."""
    for count, step in ((2, 15), (4, 35)):
        runs.kill_one("two-four-one", count, count - 1, step)
    runs.to_the_end("two-four-one", 1)
    runs.compare("two-four-one", "processes-1")


def _torchrun_killed(runs: Runs) -> None:
    """What torchrun started does not train on without it."""
    run = runs.start("torchrun-killed", 2)
    run.wait_for(lambda mark: mark.step == 25, _TIMEOUT)
    run.process.kill()
    since = time.monotonic()
    runs.check(run.wait(_GONE_SECONDS) is not None, "torchrun-killed: its processes live on")
    print(f"torchrun-killed: all gone after {time.monotonic() - since:.1f} s")
    run.end_all()


def _few_sentences(runs: Runs) -> None:
    """Steps of one sentence or two for eight micro-batches, a validation text of three lines, a test of one."""
    texts = runs.shortened("few", {"valid": 3, "test": 1}, "en", "zh")
    settings = (*texts, "train.batch_tokens=14", "train.accumulate=2", "train.max_steps=30")
    for count in (1, 4):
        runs.to_the_end(f"few-sentences-{count}", count, *settings)
    runs.compare("few-sentences-4", "few-sentences-1")


def _bounds(runs: Runs) -> None:
    """Early stopping, a number of epochs, a time."""
    patience = ("train.patience=2", "train.validate_every=4", "optim.lr=1e-7", "train.max_steps=1000")
    epochs = ("train.max_epochs=2", "train.max_steps=1000")
    for name, bound in (("patience", patience), ("epochs", epochs)):
        for count in (1, 4):
            runs.to_the_end(f"{name}-{count}", count, *bound)
        runs.compare(f"{name}-4", f"{name}-1")
    runs.to_the_end("minutes", 4, "train.max_steps=100000", "train.max_minutes=0.05")
    print(f"minutes: ended after step {runs.metrics('minutes')[-1]['step']}")


def _error_in_one(runs: Runs) -> None:
    """The main process cannot write, or cannot use the text; no process can use the config."""
    for name, settings, message in (
        ("cannot-write", ["run_dir=/proc/nowhere"], "/proc/nowhere"),
        ("cannot-save", [], "cannot be written"),
        ("bad-text", runs.shortened("bad-text", {"train": 50}, "zh"), "lines"),
        ("bad-config", ["train.max_step=5"], "train.max_step"),
    ):
        run = runs.start(name, 4, *settings, blocked="checkpoints" if name == "cannot-save" else "")
        end = time.monotonic() + _TIMEOUT
        while not any(_OURS in line for line in _lines(runs.log(name))) and time.monotonic() < end:
            time.sleep(0.1)
        runs.expect_failure(name, run, message)
