"""Checkpoints of a run: one checked file each, holding all that an exact continuation needs.

The data's position is three integers (step, epoch, step in the epoch), and random numbers are drawn from seeds made of
(seed, step, rank), so no generator's state needs keeping.

A run goes on from the latest checkpoint that is whole and whose best model is there. Training is deterministic, so
where the folder ``best`` is lost, a checkpoint from before it was made makes it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from torch import Tensor

from seq2seq.data.plan import PLAN_VERSION
from seq2seq.errors import ModelError
from seq2seq.files import check_space, remove_leftovers
from seq2seq.model_folder import WEIGHTS, load_model_folder
from seq2seq.tensors import load_tensors, save_tensors


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # counted from 0
    step_in_epoch: int = 0  # steps of this epoch done
    seconds: float = 0.0  # of training and validation, over all starts of the run
    validated_step: int = 0  # of the latest validation
    best_score: float | None = None  # of the chosen metric; a loss counts negative, so that higher is better
    best_chrf: float | None = None  # what decides between equal scores; None in an earlier version's checkpoint
    best_loss: float | None = None
    lowest_loss: float | None = None  # of all validations
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
    config: str  # JSON of all keys
    data_fingerprint: str
    metrics: str  # the seal of the metrics file at this step


def _folder(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def start_record(run_dir: Path) -> Path:
    """The file that takes the place of checkpoints until there is one; ``resume.py`` writes and reads it."""
    return _folder(run_dir) / "start.json"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoint files, oldest first, by name alone."""
    return sorted(path for path in _folder(run_dir).glob("step-*.safetensors") if path.stem[5:].isdecimal())


def _step_of(path: Path) -> int:
    return int(path.stem[5:])


def _path(run_dir: Path, step: int) -> Path:
    return _folder(run_dir) / f"step-{step:09d}.safetensors"


def run_space(run_dir: Path, model: int, checkpoint: int, keep_last: int) -> int:
    """Bytes that a run needs beside what it has there, at the time when it keeps most: ``keep_last`` checkpoints, the
    folders best and last, and the file that is written before the one that it replaces goes.

    Args:
        model: bytes of the weights that a model folder holds.
        checkpoint: bytes of all tensors of a checkpoint.
    """
    kept = [*list_checkpoints(run_dir), *(run_dir / name / WEIGHTS for name in ("best", "last"))]
    there = sum(path.stat().st_size for path in kept if path.is_file())
    return (keep_last + 1) * checkpoint + 2 * model - there


def check_run_space(run_dir: Path, model: int, checkpoint: int, keep_last: int) -> None:
    """Make sure, before a run starts, that all it keeps at once will fit (:func:`run_space`).

    Raises:
        UserError: it will not fit.
    """
    check_space(run_dir, run_space(run_dir, model, checkpoint, keep_last))


def save_checkpoint(run_dir: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Write a checkpoint, then remove the earlier ones but for the latest ``keep_last - 1``.

    What was written has been read back by then. Files of later steps stay: they are damaged ones that the run was not
    continued from.

    Raises:
        UserError: it cannot be written; the earlier ones are untouched.
    """
    remove_leftovers(_folder(run_dir), r"step-\d+\.safetensors")  # of a run that was killed while it saved
    path = _path(run_dir, checkpoint.progress.step)
    groups = {"weights": checkpoint.weights, "average": checkpoint.average, "optimizer": checkpoint.optimizer}
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
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
    try:
        if metadata["plan"] != str(PLAN_VERSION):
            raise ValueError("its step is another place in the data")
        for name, tensor in tensors.items():
            group, rest = name.split("/", 1)
            groups[group][rest] = tensor
        progress = _read_progress(metadata["progress"])
        config, data, metrics = metadata["config"], metadata["data"], metadata["metrics"]
        return Checkpoint(progress, **groups, config=config, data_fingerprint=data, metrics=metrics)
    except (KeyError, ValueError, TypeError, RecursionError):
        raise ModelError(f"{path}: not a checkpoint of this version of seq2seq") from None


def _read_progress(text: str) -> Progress:
    """What is newer than the checkpoint takes its default; what this version lacks is a TypeError."""
    saved = json.loads(text)
    if not isinstance(saved, dict) or "step" not in saved:
        raise TypeError("no progress")
    progress = Progress(**saved)
    for field in fields(Progress):
        value, whole = getattr(progress, field.name), isinstance(field.default, int)
        if (type(value) is not int or value < 0) if whole else type(value) not in (int, float, type(field.default)):
            raise TypeError(f"{field.name} is {value!r}")
    return progress


def whole_checkpoints(
    run_dir: Path, on_damage: Callable[[str], None], wanted: Callable[[int], bool] = lambda step: True
) -> Iterator[Checkpoint]:
    """The run's checkpoints that are whole, the latest first, each read when it is asked for.

    Args:
        on_damage: called with a message for each damaged file that is left out.
        wanted: whether to look at the checkpoint of a step.
    """
    for path in reversed([path for path in list_checkpoints(run_dir) if wanted(_step_of(path))]):
        try:
            checkpoint = load_checkpoint(path)
            if _step_of(path) != checkpoint.progress.step:
                raise ModelError(f"{path}: damaged or mixed up: it holds step {checkpoint.progress.step}")
        except ModelError as error:
            on_damage(f"{error}; trying the one before")
        else:
            yield checkpoint


def load_latest_checkpoint(run_dir: Path, on_damage: Callable[[str], None]) -> Checkpoint | None:
    """The latest checkpoint that is whole and whose best model is there; None where the run has none yet.

    Args:
        on_damage: told of each damaged file that is passed over.

    Raises:
        ModelError: there are checkpoints, and every one is damaged; or the best model is, and none can make it again.
    """
    latest: Checkpoint | None = None
    for checkpoint in whole_checkpoints(run_dir, on_damage):
        if latest is None:
            latest = checkpoint
            lost = _why_best_is_lost(run_dir, checkpoint.progress)
            if lost is None:
                return checkpoint
            on_damage(f"{lost}; trying a checkpoint from before it was made")
        if checkpoint.progress.step < latest.progress.best_step:
            return checkpoint  # training on from here makes the best model again
    if latest is not None:
        return _without_best(run_dir, latest, on_damage)
    if list_checkpoints(run_dir):
        raise ModelError(
            f"{_folder(run_dir)}: every checkpoint is damaged, or of another version; put "
            "back a copy, or choose another run_dir to start anew"
        )
    return None


def _why_best_is_lost(run_dir: Path, progress: Progress) -> str | None:
    """What is wrong with the folder ``best``; None where it holds the best model, or needs to hold none yet.

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
    """The checkpoint as if no model had been the best yet, where the user has removed the folder of the lost one."""
    best = run_dir / "best"
    if best.exists():
        raise ModelError(
            f"{best}: the best model is damaged, and no checkpoint from before it was made is left to make it again; "
            f"put a copy in its place, or remove {best} to go on: the next validation then starts a new best"
        )
    on_damage(f"{best}: the best model is gone; the next validation starts a new one")
    progress = replace(checkpoint.progress, validated_step=0, best_score=None, best_step=0, validations_since_best=0)
    return replace(checkpoint, progress=progress)
