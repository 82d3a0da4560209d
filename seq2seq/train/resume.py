"""How a run continues from its folder, or begins there, and which folders it refuses.

A run without a checkpoint begins at step 0 and replaces the folders best and last. Until its first checkpoint, a record
says that the run has begun here, and with which settings. So a run that is killed early can begin again, but a folder
whose checkpoints were deleted, or into which models were copied, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seq2seq.config import Config, chosen_before, diff_configs
from seq2seq.errors import ConfigError, DataError, ModelError, UserError
from seq2seq.files import is_sealed, write_text
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model_folder import WEIGHTS, load_weights
from seq2seq.tensors import read_metadata
from seq2seq.train.checkpoint import Checkpoint, list_checkpoints, load_latest_checkpoint, start_record
from seq2seq.train.metrics import METRICS
from seq2seq.train.optim import MovingAverage, Optimizer

# What must not change when a run continues. The rest (bounds, saving, decoding, devices) may change.
_FIXED = ["seed", "data.max_length", "data.max_ratio", "init", "tokenizer", "model", "optim"]
_FIXED += ["train.batch_tokens", "train.accumulate", "train.label_smoothing", "train.ema_decay", "train.precision"]
_FIXED += ["train.metric", "train.max_forgetting"]  # what the best model is
_BOUNDS = ["train.max_steps", "train.max_epochs", "train.max_minutes"]  # what was chosen depends on them


@dataclass(frozen=True)
class Earlier:
    """What earlier starts of a run have left."""

    checkpoint: Checkpoint | None  # the latest whole one
    settings: str | None  # JSON of the config that the run was started with


def earlier_starts(run_dir: Path, say: Callable[[str], None]) -> Earlier:
    """Read what earlier starts have left in the run folder.

    Args:
        say: called with a message for each damaged file.

    Raises:
        ModelError: no checkpoint can be used, though there are some.
    """
    checkpoint = load_latest_checkpoint(run_dir, say)
    if checkpoint is not None:
        return Earlier(checkpoint, checkpoint.config)
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return Earlier(None, str(json.loads(start_record(run_dir).read_text(encoding="utf-8"))["config"]))
    return Earlier(None, None)


def kept_choices(config: Config, earlier: Earlier) -> dict[str, object]:
    """What the run has chosen when it began, for the keys that ``config`` leaves open.

    Nothing if it has no checkpoint yet and other settings are stated now.

    Raises:
        ConfigError: what is stated now contradicts it.
    """
    if earlier.settings is None:
        return {}
    values: dict[str, object] = {}
    try:
        values = chosen_before(earlier.settings, config)
        filled = config.with_choices(values).all_stated()
        if earlier.checkpoint is None and diff_configs(earlier.settings, filled, [*_FIXED, *_BOUNDS]):
            return {}
    except ConfigError as error:
        if earlier.checkpoint is None:
            return {}
        raise ConfigError(
            f"{config.run_dir}: holds a run with other settings ({error}); restore them, or choose another run_dir"
        ) from None
    return values


def new_start(run_dir: Path) -> str:
    """What to write for a new run that starts from the best model of the run in ``run_dir``, if it has a model."""
    if not any((run_dir / name / WEIGHTS).is_file() for name in ("best", "last")):
        return ""
    return f"; to train its best model further in a new run: init.from={run_dir} run_dir={run_dir}-2"


def check_continues(config: Config, data_fingerprint: str, earlier: Earlier, say: Callable[[str], None]) -> None:
    """Refuse to continue, or to begin, where settings or text differ from those of the run so far.

    Args:
        say: called with a message for each damaged file.

    Raises:
        UserError: they differ, or a model in the folder is of another run.
    """
    checkpoint = earlier.checkpoint
    if checkpoint is None:
        return check_beginning(config, data_fingerprint)
    check_same_run(config, data_fingerprint, checkpoint.config, checkpoint.data_fingerprint)
    log, step = config.run_dir / METRICS, checkpoint.progress.step
    if checkpoint.metrics and not is_sealed(log, checkpoint.metrics):
        say(f"{log}: damaged: it differs from the file at step {step}; records that can be read are kept")


def restore(
    checkpoint: Checkpoint, run_dir: Path, model: Seq2SeqModel, average: MovingAverage | None, optimizer: Optimizer
) -> None:
    """Load weights and optimizer state from a checkpoint of the run in ``run_dir``, but not its progress."""
    load_weights(model, checkpoint.weights, run_dir)
    if average is not None:
        load_weights(average.model, checkpoint.average, run_dir)
    optimizer.load_tensors(checkpoint.optimizer)


def check_same_run(config: Config, data_fingerprint: str, saved_config: str, saved_fingerprint: str) -> None:
    """Refuse to continue a run that was started with other settings or other text.

    Args:
        saved_config: JSON of the config that the run was started with.

    Raises:
        ConfigError: settings that decide the training differ, or another version of the package wrote them.
        DataError: the text or the tokenizer differs.
    """
    fixed = [*_FIXED, *(["train.max_steps"] if config.optim.schedule in ("cosine", "linear") else [])]
    check_same_settings(config, saved_config, fixed)
    if saved_fingerprint != data_fingerprint:
        raise DataError(
            f"{config.run_dir}: its text has changed since the run was started, or another version of seq2seq made its "
            "data; restore data.train, data.valid, data.guard and data.clean, use that version, or choose another "
            f"run_dir{new_start(config.run_dir)}"
        )


def check_same_settings(config: Config, saved_config: str, keys: Sequence[str]) -> None:
    """Refuse to continue a run that was started with other settings below these dotted keys.

    Raises:
        ConfigError: as for :func:`check_same_run`.
    """
    try:
        differences = diff_configs(saved_config, config, keys)
    except ConfigError as error:
        raise ConfigError(
            f"{config.run_dir}: its run {error}; continue it with the version that wrote it, or choose another run_dir"
        ) from None
    if differences:
        changed = "; ".join(differences)
        of_model = any(line.startswith(("model.", "tokenizer.")) for line in differences)
        raise ConfigError(
            f"{config.run_dir}: holds a run with other settings ({changed}); restore them, or choose another run_dir"
            f"{'' if of_model else new_start(config.run_dir)}"
        )


def check_models_are_ours(run_dir: Path) -> None:
    """Refuse a run folder that has models, but no checkpoint to continue from and no record of a start.

    Raises:
        UserError: a start at step 0 would replace models of another run, or of a run whose checkpoints are gone.
    """
    begun = bool(list_checkpoints(run_dir)) or start_record(run_dir).is_file()
    models = [folder for folder in _models(run_dir) if folder == run_dir or not begun]
    if not models:
        return
    names = " and ".join(str(folder) for folder in models)
    raise UserError(
        f"{run_dir}: there is a model in {names}, but no checkpoint to continue from, and a start at step 0 would "
        "replace it; to continue, put the folder checkpoints back; for a new run, choose another run_dir, or move "
        f"{names} away"
    )


def check_beginning(config: Config, data_fingerprint: str) -> None:
    """Refuse a start at step 0 that would replace a model of other settings or text.

    Raises:
        UserError: there is a model that this run would not have made.
    """
    models = _models(config.run_dir)
    if not models:
        return
    path = start_record(config.run_dir)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        saved = str(record["config"]), str(record["data"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path}: damaged; choose another run_dir") from None
    check_same_run(config, data_fingerprint, *saved)
    for folder in models:
        if read_metadata(folder / WEIGHTS).get("data") != data_fingerprint:
            raise UserError(f"{folder}: a model of another run; move it away, or choose another run_dir")


def record_beginning(config: Config, data_fingerprint: str) -> None:
    """Write the record that a run has begun in its folder. The first checkpoint replaces it."""
    record = {"config": config.model_dump_json(), "data": data_fingerprint}
    write_text(start_record(config.run_dir), json.dumps(record) + "\n")


def _models(run_dir: Path) -> list[Path]:
    """The folders in which a run would replace a model, or, in the run folder itself, the config of a model."""
    return [folder for folder in (run_dir / "best", run_dir / "last", run_dir) if (folder / WEIGHTS).exists()]
