"""Checks that a run with this config continues exactly on this machine: it trains a few steps and compares bits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from seq2seq.config import Config
from seq2seq.errors import UserError
from seq2seq.train.checkpoint import GROUPS, list_checkpoints, load_checkpoint
from seq2seq.train.decide import decide
from seq2seq.train.distributed import Processes
from seq2seq.train.metrics import METRICS
from seq2seq.train.resume import Earlier
from seq2seq.train.setup import set_up
from seq2seq.train.trainer import train

_STEPS = 10
_ON_CUDA = (
    ". On CUDA this holds with deterministic kernels, which were used here. A run uses faster kernels, which add in no "
    "fixed order: a continued run takes the same steps on the same data, but its numbers may differ by rounding"
)


def verify_resume(config: Config, processes: Processes) -> str:
    """Train a few steps without a stop, and again with a stop in the middle, in a folder that is removed afterwards.

    On CUDA with deterministic kernels, which are slower than those of a run.

    Returns:
        A message that says what is equal.

    Raises:
        UserError: something differs, or the run has too few steps to stop in the middle.
    """
    folder = config.run_dir / "verify-resume"
    config = decide(_trial(config, folder), processes, Earlier(None, None)).config
    steps = min(_STEPS, (config.train.max_steps or _STEPS + 1) - 1)
    if steps < 2:
        raise UserError("train.max_steps: must be 3 or more, so that a run can stop in the middle and continue")
    on_cuda = processes.device.type == "cuda"
    with _deterministic() if on_cuda else nullcontext():
        differences = _compare(config, folder, processes, steps)
    if differences:
        raise UserError(
            f"not exact: after {steps} steps a run that was stopped after step {steps // 2} and continued differs "
            f"from a run without a stop in {', '.join(differences)}; please report it"
        )
    return (
        f"exact: after {steps} steps a run that was stopped after step {steps // 2} and continued has the same "
        f"weights, optimizer state and metrics as a run without a stop, bit for bit{_ON_CUDA if on_cuda else ''}"
    )


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let PyTorch take kernels that add in a fixed order; those without such a kernel raise an error."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _compare(config: Config, folder: Path, processes: Processes, steps: int) -> list[str]:
    """Train the two runs in ``folder``; returns the results in which they differ."""
    straight, stopped = (config.model_copy(update={"run_dir": folder / name}) for name in ("straight", "stopped"))
    try:
        if processes.is_main:
            shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        processes.barrier()
        train(set_up(straight, processes), stop_after=steps)
        train(set_up(stopped, processes), stop_after=steps // 2)
        train(set_up(stopped, processes), stop_after=steps)
        processes.barrier()  # until the main process has written all
        differences = _differences(straight.run_dir, stopped.run_dir)
        processes.barrier()  # until all have read it
    finally:
        if processes.is_main:
            shutil.rmtree(folder, ignore_errors=True)
    return differences


def _trial(config: Config, run_dir: Path) -> Config:
    """A config that trains like ``config``, but without validations, and in another folder."""
    never = 2**62
    trial = config.replace("data", cache_dir=config.cache_dir, guard=None, test=None)
    never_best = {"validate_every": never, "first_validation": None, "max_forgetting": None}
    trial = trial.replace("train", **never_best, save_every=never)
    return trial.model_copy(update={"run_dir": run_dir})


def _differences(one: Path, other: Path) -> list[str]:
    """The results in which two runs differ."""
    found = [] if (one / METRICS).read_bytes() == (other / METRICS).read_bytes() else [METRICS]
    first, second = (load_checkpoint(list_checkpoints(run)[-1]) for run in (one, other))
    for group in GROUPS:
        a, b = getattr(first, group), getattr(second, group)
        names = a.keys() | b.keys()
        unequal = [name for name in names if name not in a or name not in b or not torch.equal(a[name], b[name])]
        if unequal:
            found.append(f"{len(unequal)} of {len(names)} tensors of the {group} (such as {min(unequal)})")
    first.progress.seconds = second.progress.seconds = 0.0  # of the clock
    if first.progress != second.progress:
        found.append("the progress")
    return found
