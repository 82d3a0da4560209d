"""Checkpoints of a run: one checked file each, holding all that an exact continuation needs.

The data's position is three integers (step, epoch, step in the epoch), and random numbers are drawn from seeds made of
(seed, step, rank), so no generator's state needs keeping.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from torch import Tensor

from seq2seq.errors import ModelError
from seq2seq.storage import load_tensors, save_tensors


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # counted from 0
    step_in_epoch: int = 0  # steps of this epoch done
    seconds: float = 0.0  # of training and validation, over all starts of the run
    validated_step: int = 0  # of the latest validation
    best_score: float | None = None  # of the chosen metric; a loss counts negative, so that higher is better
    best_step: int = 0
    validations_since_best: int = 0
    bad_in_a_row: int = 0  # this and what follows belong to the guard
    losses_seen: int = 0
    loss_mean: float = 0.0
    loss_variance: float = 0.0
    loss_limit: float | None = None  # above it a loss is bad


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    progress: Progress
    weights: dict[str, Tensor]
    average: dict[str, Tensor]  # of the weights; empty without train.ema_decay
    optimizer: dict[str, Tensor]
    config: str  # as dump_config wrote it
    data_fingerprint: str


def _folder(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoint files, oldest first, by name alone."""
    return sorted(path for path in _folder(run_dir).glob("step-*.safetensors") if path.stem[5:].isdecimal())


def _step_of(path: Path) -> int:
    return int(path.stem[5:])


def save_checkpoint(run_dir: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Write a checkpoint, then remove the earlier ones but for the latest ``keep_last - 1``.

    Files of later steps stay: they are damaged ones that the run was not continued from.

    Raises:
        UserError: it cannot be written; the earlier ones are untouched.
    """
    for leftover in _folder(run_dir).glob(".step-*.tmp"):  # of a run that was killed while it saved
        leftover.unlink(missing_ok=True)
    path = _folder(run_dir) / f"step-{checkpoint.progress.step:09d}.safetensors"
    groups = {"weights": checkpoint.weights, "average": checkpoint.average, "optimizer": checkpoint.optimizer}
    tensors = {f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
    metadata = {
        "progress": json.dumps(asdict(checkpoint.progress)),
        "config": checkpoint.config,
        "data": checkpoint.data_fingerprint,
    }
    save_tensors(path, tensors, metadata)
    for old in [other for other in list_checkpoints(run_dir) if other <= path][:-keep_last]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: the file is missing, damaged, or no checkpoint.
    """
    tensors, metadata = load_tensors(path)
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
    try:
        for name, tensor in tensors.items():
            group, rest = name.split("/", 1)
            groups[group][rest] = tensor
        saved = json.loads(metadata["progress"])
        progress = Progress(**{field.name: saved[field.name] for field in fields(Progress)})
        return Checkpoint(progress, **groups, config=metadata["config"], data_fingerprint=metadata["data"])
    except (KeyError, ValueError, TypeError):
        raise ModelError(f"{path}: not a checkpoint of this version of seq2seq") from None


def load_latest_checkpoint(
    run_dir: Path, on_damage: Callable[[str], None], preferred: Callable[[int], bool] = lambda step: True
) -> Checkpoint | None:
    """The latest checkpoint that is whole; None where the run has none yet.

    Args:
        on_damage: told of each damaged file that is passed over.
        preferred: of which steps one is wanted, if there is one.

    Raises:
        ModelError: there are checkpoints, and every one is damaged.
    """
    paths = sorted(list_checkpoints(run_dir), key=lambda path: (preferred(_step_of(path)), path))
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except ModelError as error:
            on_damage(f"{error}; trying the one before")
    if paths:
        raise ModelError(f"{_folder(run_dir)}: every checkpoint is damaged; remove the folder to start anew")
    return None
