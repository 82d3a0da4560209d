"""Checkpoints of a run: files with a checksum that hold all that is needed to continue exactly.

The data's position is three integers (step, epoch, step in the epoch), and random numbers are drawn from seeds made of
(seed, step, rank), so the state of random generators need not be saved.

A run continues from the latest checkpoint that is whole and whose best model exists. Training is deterministic: if the
folder ``best`` is lost, a run that continues from an earlier checkpoint makes it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from seq2seq.config import TrainConfig
from seq2seq.data.plan import PLAN_VERSION
from seq2seq.errors import ModelError
from seq2seq.files import remove_leftovers
from seq2seq.model_folder import WEIGHTS, load_model_folder
from seq2seq.tensors import load_tensors, save_tensors

GROUPS = ("weights", "average", "optimizer", "loss_scale")  # of a checkpoint's tensors


@dataclass
class Progress:
    """How far a run has come. Read from JSON, an absent field has its default, and an unknown one is an error."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    step: NonNegativeInt = 0  # optimizer steps done
    epoch: NonNegativeInt = 0  # counted from 0
    step_in_epoch: NonNegativeInt = 0  # steps of this epoch done
    seconds: float = 0.0  # of training and validation, over all starts of the run
    validated_step: NonNegativeInt = 0  # of the latest validation
    best_score: float | None = None  # of the chosen metric; a loss counts negative, so that higher is better
    best_chrf: float | None = None  # what decides between equal scores; None in an earlier version's checkpoint
    best_loss: float | None = None
    best_empty: float = 0.0  # shares of its lines that are no translation
    best_looping: float = 0.0
    best_copied: float = 0.0
    lowest_loss: float | None = None  # of all validations
    best_step: NonNegativeInt = 0
    validations_since_best: NonNegativeInt = 0
    guard_start: float | None = None  # BLEU of data.guard before the first step
    bad_in_a_row: NonNegativeInt = 0  # this and what follows belong to bad_steps.py
    losses_seen: NonNegativeInt = 0
    loss_mean: float = 0.0
    loss_variance: float = 0.0
    loss_limit: float | None = None  # above it a loss is bad


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file."""

    progress: Progress
    weights: dict[str, Tensor]
    average: dict[str, Tensor]  # of the weights; empty without train.ema_decay
    optimizer: dict[str, Tensor]
    config: str  # JSON of all keys
    data_fingerprint: str
    metrics: str  # the seal of the metrics file at this step
    loss_scale: dict[str, Tensor] = field(default_factory=dict)  # of a run in fp16, else empty


def _folder(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def start_record(run_dir: Path) -> Path:
    """The file that exists until the first checkpoint is written; ``resume.py`` writes and reads it."""
    return _folder(run_dir) / "start.json"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoint files, oldest first. Only names are looked at."""
    return sorted(path for path in _folder(run_dir).glob("step-*.safetensors") if path.stem[5:].isdecimal())


def _step_of(path: Path) -> int:
    return int(path.stem[5:])


def run_space(run_dir: Path, model: nn.Module, config: TrainConfig) -> int:
    """Bytes that a run still needs when it keeps most: ``keep_last`` checkpoints, the folders best and last, and a new
    file beside the one that it replaces. Files of the run that exist already are subtracted.
    """
    kept = [*list_checkpoints(run_dir), *(run_dir / name / WEIGHTS for name in ("best", "last"))]
    there = sum(path.stat().st_size for path in kept if path.is_file())
    copies = 4 if config.ema_decay else 3  # in a checkpoint: the weights, two moments in the optimizer, the average
    return ((config.keep_last + 1) * copies + 2) * sum(tensor.nbytes for tensor in model.parameters()) - there


def save_checkpoint(run_dir: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Write a checkpoint and read it back; then remove the earlier ones, except the latest ``keep_last - 1``.

    Files of later steps stay: they are damaged, and the run continued from an earlier one.

    Raises:
        UserError: it cannot be written; the earlier ones are untouched.
    """
    remove_leftovers(_folder(run_dir), r"step-\d+\.safetensors")  # of a run that was killed while it saved
    path = _folder(run_dir) / f"step-{checkpoint.progress.step:09d}.safetensors"
    groups = {group: getattr(checkpoint, group) for group in GROUPS}
    tensors = {f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
    metadata = {
        "progress": json.dumps(asdict(checkpoint.progress)),
        "config": checkpoint.config,
        "data": checkpoint.data_fingerprint,
        "metrics": checkpoint.metrics,
        "plan": str(PLAN_VERSION),
    }
    save_tensors(path, tensors, metadata)
    start_record(run_dir).unlink(missing_ok=True)
    for old in [other for other in list_checkpoints(run_dir) if other <= path][:-keep_last]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: the file is missing, damaged, or no checkpoint.
    """
    tensors, metadata = load_tensors(path)
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
    try:
        if metadata["plan"] != str(PLAN_VERSION):
            raise ValueError("its step is another place in the data")
        for name, tensor in tensors.items():
            group, rest = name.split("/", 1)
            groups[group][rest] = tensor
        progress = TypeAdapter(Progress).validate_json(metadata["progress"])
        config, data, metrics = metadata["config"], metadata["data"], metadata["metrics"]
        return Checkpoint(progress, **groups, config=config, data_fingerprint=data, metrics=metrics)
    except (KeyError, ValueError):
        raise ModelError(f"{path}: not a checkpoint of this version of seq2seq") from None


def whole_checkpoints(
    run_dir: Path, on_damage: Callable[[str], None], wanted: Callable[[int], bool] = lambda step: True
) -> Iterator[Checkpoint]:
    """The run's checkpoints that are not damaged, the latest first. Each is read when the iterator comes to it.

    Args:
        on_damage: called with a message for each damaged file, which is skipped.
        wanted: whether to look at the checkpoint of a step.
    """
    for path in reversed([path for path in list_checkpoints(run_dir) if wanted(_step_of(path))]):
        try:
            checkpoint = load_checkpoint(path)
            if _step_of(path) != checkpoint.progress.step:
                raise ModelError(f"{path}: damaged or renamed: it holds step {checkpoint.progress.step}")
        except ModelError as error:
            on_damage(f"{error}; trying the checkpoint before it")
        else:
            yield checkpoint


def load_latest_checkpoint(run_dir: Path, on_damage: Callable[[str], None]) -> Checkpoint | None:
    """The latest checkpoint that is whole and whose best model exists; None if the run has no checkpoint yet.

    Args:
        on_damage: called with a message for each damaged file, which is skipped.

    Raises:
        ModelError: every checkpoint is damaged; or the best model is, and no checkpoint is old enough to make it again.
    """
    latest: Checkpoint | None = None
    for checkpoint in whole_checkpoints(run_dir, on_damage):
        if latest is None:
            latest = checkpoint
            lost = _why_best_is_lost(run_dir, checkpoint.progress)
            if lost is None:
                return checkpoint
            on_damage(f"{lost}; trying an older checkpoint, from which training makes it again")
        if checkpoint.progress.step < latest.progress.best_step:
            return checkpoint  # training on from here makes the best model again
    if latest is not None:
        return _without_best(run_dir, latest, on_damage)
    if list_checkpoints(run_dir):
        raise ModelError(
            f"{_folder(run_dir)}: every checkpoint is damaged, or of another version; put "
            "a copy back, or choose another run_dir for a new run"
        )
    return None


def _why_best_is_lost(run_dir: Path, progress: Progress) -> str | None:
    """What is wrong with the folder ``best``; None if it holds the best model, or if there is none yet.

    It may hold a later one: the run was stopped between a validation and the next checkpoint, and will find it again.
    """
    if not progress.best_step:
        return None
    folder = run_dir / "best"
    try:
        step = int(load_model_folder(folder).metadata["step"])
    except ModelError as error:
        return str(error)
    except (KeyError, ValueError):
        return f"{folder}: not the best model of this run"
    if step == progress.best_step or step > progress.step:
        return None
    return f"{folder}: holds the model of step {step}, not that of step {progress.best_step}"


def _without_best(run_dir: Path, checkpoint: Checkpoint, on_damage: Callable[[str], None]) -> Checkpoint:
    """The checkpoint without its best model, if the user has removed the damaged folder ``best``."""
    best = run_dir / "best"
    if best.exists():
        raise ModelError(
            f"{best}: the best model is damaged, and no checkpoint is old enough to make it again; put a copy in its "
            f"place, or remove {best} to continue: the next validation then chooses a new best model"
        )
    on_damage(f"{best}: the best model is missing; the next validation chooses a new one")
    progress = replace(checkpoint.progress, validated_step=0, best_score=None, best_step=0, validations_since_best=0)
    return replace(checkpoint, progress=progress)
