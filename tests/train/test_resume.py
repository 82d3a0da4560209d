"""Promise: a run replaces no model that it did not make, and continues runs of other versions or says why it cannot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from seq2seq.errors import ConfigError, DataError, UserError
from seq2seq.tensors import load_tensors, save_tensors
from seq2seq.train import trainer
from seq2seq.train.checkpoint import list_checkpoints
from seq2seq.train.setup import Run
from tests.toy import metrics, toy_config, train, weights, write_text_files

EARLY = ("train.validate_every=2", "train.save_every=8")  # the best model is there before the first checkpoint


class Stopped(BaseException):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_text_files(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def done(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; copy it before use."""
    run = tmp_path_factory.mktemp("done") / "run"
    train(toy_config(text, run))
    return run


def kill_at(step: int, *arguments: Any) -> None:
    """Train, and stop without saving before this step."""
    original = trainer.train_step

    def die(run: Run, work: Any) -> None:
        if run.progress.step + 1 == step:
            raise Stopped
        original(run, work)

    with mock.patch.object(trainer, "train_step", die), pytest.raises(Stopped):
        train(*arguments)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("left", [("best", "last"), ("best",), ("last",)])
@pytest.mark.parametrize("whole", [True, False], ids=["in place", "copied"])
def test_models_without_checkpoints_are_not_replaced(
    left: tuple[str, ...], whole: bool, done: Path, text: Path, tmp_path: Path
) -> None:
    """Guards against a start at step 0 that empties the log and puts an untrained model in the place of the best one,
    where the folder checkpoints was deleted for its size, or models were copied into a new run folder."""
    run = tmp_path / "run"
    if whole:
        shutil.copytree(done, run)
        shutil.rmtree(run / "checkpoints")
        for name in {"best", "last"} - set(left):
            shutil.rmtree(run / name)
    else:
        for name in left:
            shutil.copytree(done / name, run / name)
    before = files_of(run)
    with pytest.raises(UserError, match="no checkpoint to continue from") as refused:
        train(toy_config(text, run))
    for part in (*(str(run / name) for name in left), "put the folder checkpoints back", "choose another run_dir"):
        assert part in str(refused.value)
    assert files_of(run) == before


def test_a_model_folder_is_no_run_folder(done: Path, text: Path, tmp_path: Path) -> None:
    """Guards against a run in a model folder: it would replace the config of the model, which is then lost."""
    shutil.copytree(done / "best", tmp_path / "run")
    before = files_of(tmp_path / "run")
    with pytest.raises(UserError, match="would replace it"):
        train(toy_config(text, tmp_path / "run"))
    assert files_of(tmp_path / "run") == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(text: Path, tmp_path: Path) -> None:
    """Guards against a refusal of the run's own best model, made by a validation before the first checkpoint."""
    train(toy_config(text, tmp_path / "reference", *EARLY))
    config = toy_config(text, tmp_path / "run", *EARLY)
    for step in (1, 2, 6):
        kill_at(step, config)
    assert (tmp_path / "run/best/model.safetensors").exists()
    assert not list_checkpoints(tmp_path / "run")
    train(config)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "reference")
    for name in ("best", "last"):
        assert weights(tmp_path / "run", name) == weights(tmp_path / "reference", name)
    names = [sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir()) for run in ("run", "reference")]
    assert names[0] == names[1]


def test_a_log_alone_is_begun_anew(done: Path, text: Path, tmp_path: Path) -> None:
    """Guards against a refusal where no model can be lost, as after a kill before the first validation."""
    (tmp_path / "run").mkdir()
    shutil.copy(done / "metrics.jsonl", tmp_path / "run")
    assert train(toy_config(text, tmp_path / "run")).progress.step == 12
    assert metrics(tmp_path / "run") == metrics(done)


def test_an_early_model_of_other_settings_or_text_is_not_replaced(done: Path, text: Path, tmp_path: Path) -> None:
    """Guards against a best model lost to the same command with another setting, before the first checkpoint; where
    there is no model yet, settings may change."""
    run = tmp_path / "run"
    kill_at(2, toy_config(text, run, *EARLY))
    kill_at(6, toy_config(text, run, *EARLY, "optim.lr=0.02"))
    before = weights(run, "best")
    with pytest.raises(ConfigError, match=r"other settings \(optim\.lr: 0\.02 -> 0\.03\)"):
        train(toy_config(text, run, *EARLY, "optim.lr=0.03"))
    other = write_text_files(tmp_path / "text")
    (other / "train.xx").write_bytes((text / "train.xx").read_bytes().replace(b"ka", b"ke"))
    with pytest.raises(DataError, match="text has changed"):
        train(toy_config(other, run, *EARLY, "optim.lr=0.02"))
    assert weights(run, "best") == before
    tensors, metadata = load_tensors(run / "best/model.safetensors")
    save_tensors(run / "best/model.safetensors", tensors, {**metadata, "data": "of another run"})
    with pytest.raises(UserError, match="best: a model of another run"):
        train(toy_config(text, run, *EARLY, "optim.lr=0.02"))


def rewrite(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the settings in every checkpoint, as another version of the package would have written them."""
    for path in list_checkpoints(run):
        tensors, metadata = load_tensors(path)
        config = json.loads(metadata["config"])
        change(config)
        save_tensors(path, tensors, {**metadata, "config": json.dumps(config)})


@pytest.mark.parametrize("lacking", [("optim", "clip_norm"), ("model", "activation"), ("train", "spike_sigmas")])
def test_a_checkpoint_older_than_a_key_continues(
    lacking: tuple[str, str], done: Path, text: Path, tmp_path: Path
) -> None:
    """Guards against a version with one more key that refuses the runs of the one before; the key has its default."""
    shutil.copytree(done, tmp_path / "run")
    rewrite(tmp_path / "run", lambda config: config[lacking[0]].pop(lacking[1]))
    assert train(toy_config(text, tmp_path / "run", "train.max_steps=14")).progress.step == 14
    shutil.copytree(done, tmp_path / "stated")
    rewrite(tmp_path / "stated", lambda config: config["optim"].pop("clip_norm"))
    with pytest.raises(ConfigError, match=r"optim\.clip_norm: 1\.0 -> 0\.5"):
        train(toy_config(text, tmp_path / "stated", "optim.clip_norm=0.5"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda config: config["model"].update(experts=8),
            r"lacks \(model\.experts: 8\); continue it with",
        ),
        (lambda config: config.update(adapters={"rank": 4}), r"lacks \(adapters\.rank: 4\); continue it with"),
        (lambda config: config["model"].update(norm="deepnorm"), r'model\.norm: "deepnorm" -> "layernorm"'),
        (lambda config: config["optim"].update(warmup_steps=1000), r"optim\.warmup_steps: 1000 -> 0"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], reason: str, done: Path, text: Path, tmp_path: Path
) -> None:
    """Guards against a traceback for settings, or values of them, that this version does not know."""
    shutil.copytree(done, tmp_path / "run")
    rewrite(tmp_path / "run", change)
    with pytest.raises(ConfigError, match=reason) as refused:
        train(toy_config(text, tmp_path / "run"))
    assert "\n" not in str(refused.value)


def test_progress_of_an_older_version_takes_defaults(done: Path, text: Path, tmp_path: Path) -> None:
    """Guards against a refusal of checkpoints that are older than a field of the progress."""
    shutil.copytree(done, tmp_path / "run")
    for path in list_checkpoints(tmp_path / "run"):
        tensors, metadata = load_tensors(path)
        progress = json.loads(metadata["progress"])
        del progress["bad_in_a_row"]
        save_tensors(path, tensors, {**metadata, "progress": json.dumps(progress)})
    assert train(toy_config(text, tmp_path / "run", "train.max_steps=14")).progress.step == 14
