"""Promise: a checkpoint comes back exactly, a damaged one is named and passed over, and the latest ones are kept."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch

from seq2seq.config import TrainConfig
from seq2seq.errors import ModelError
from seq2seq.model_folder import WEIGHTS, build_model, save_model_folder
from seq2seq.tensors import load_tensors, save_tensors
from seq2seq.train import checkpoint as checkpoint_module
from seq2seq.train.checkpoint import (
    Checkpoint,
    Progress,
    list_checkpoints,
    load_checkpoint,
    load_latest_checkpoint,
    run_space,
    save_checkpoint,
)


def checkpoint(step: int, best_step: int = 0) -> Checkpoint:
    torch.manual_seed(step)
    progress = Progress(step, epoch=3, step_in_epoch=5, seconds=0.1 + 0.2, validated_step=4, best_score=-1 / 3)
    return Checkpoint(
        progress=replace(progress, best_step=best_step, validations_since_best=1),
        weights={"layer/a": torch.randn(2, 3), "b": torch.randn(4)},
        average={"b": torch.randn(4)},
        optimizer={"layer/a:exp_avg": torch.randn(2, 3), "b:step": torch.tensor(7.0)},
        config='{"seed": 1}',
        data_fingerprint="abc",
        metrics="seal",
    )


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.progress == other.progress
    assert (one.config, one.data_fingerprint, one.metrics) == (other.config, other.data_fingerprint, other.metrics)
    for group in ("weights", "average", "optimizer"):
        ours, theirs = getattr(one, group), getattr(other, group)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def damages():
    """What ``on_damage`` was told."""
    return []


def test_round_trip(tmp_path, damages):
    """Guards against anything lost or rounded on the way (contract 2): names with slashes, floats, an absent score."""
    path = save_checkpoint(tmp_path, checkpoint(12), keep_last=2)
    assert_same(load_checkpoint(path), checkpoint(12))
    first = Checkpoint(Progress(), {"a": torch.zeros(1)}, {}, {}, "", "", "")
    assert_same(load_checkpoint(save_checkpoint(tmp_path, first, keep_last=2)), first)
    assert_same(load_latest_checkpoint(tmp_path, damages.append), checkpoint(12))
    assert not damages


def test_one_of_another_order_of_the_data_is_refused(tmp_path, monkeypatch):
    """Guards against a run that goes on, after an update of the package, in the middle of an epoch of another order:
    some pairs would come twice and others not at all."""
    path = save_checkpoint(tmp_path, checkpoint(3), keep_last=1)
    monkeypatch.setattr(checkpoint_module, "PLAN_VERSION", 0)
    with pytest.raises(ModelError, match="not a checkpoint of this version"):
        load_checkpoint(path)


def test_one_of_an_earlier_version_is_read(tmp_path, monkeypatch):
    """Guards against a run that cannot continue because its checkpoint lacks what decides between equal scores."""
    newer = ("best_chrf", "best_loss", "lowest_loss")
    saved = save_checkpoint(tmp_path, replace(checkpoint(3), progress=Progress(3, best_score=5.0)), keep_last=1)
    tensors, metadata = load_tensors(saved)
    progress = {name: value for name, value in json.loads(metadata["progress"]).items() if name not in newer}
    save_tensors(saved, tensors, {**metadata, "progress": json.dumps(progress)})
    assert load_checkpoint(saved).progress == Progress(3, best_score=5.0)


def test_a_new_run_has_none(tmp_path, damages):
    """Guards against an error where a run just starts."""
    assert load_latest_checkpoint(tmp_path, damages.append) is None
    assert not damages


@pytest.mark.parametrize("keep_last", [1, 3])
def test_the_latest_are_kept(tmp_path, keep_last):
    """Guards against disks that fill up, and against an order by text that takes step 1000 for older than step 9."""
    for step in (9, 90, 1000, 1001, 20000):
        save_checkpoint(tmp_path, checkpoint(step), keep_last)
    names = [path.name for path in list_checkpoints(tmp_path)]
    expected = [90, 1000, 1001, 20000][-keep_last:]
    assert names == [f"step-{step:09d}.safetensors" for step in expected]
    assert len(list((tmp_path / "checkpoints").iterdir())) == keep_last


def test_damaged_ones_are_named_and_passed_over(tmp_path, damages):
    """Guards against a run that cannot go on, or starts from nothing, when the last file was cut off (contract 6)."""
    paths = [save_checkpoint(tmp_path, checkpoint(step), keep_last=5) for step in (1, 2, 3)]
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    content = bytearray(paths[1].read_bytes())
    content[-3] ^= 4
    paths[1].write_bytes(content)
    assert_same(load_latest_checkpoint(tmp_path, damages.append), checkpoint(1))
    assert [str(path) in told for path, told in zip((paths[2], paths[1]), damages, strict=True)] == [True, True]
    paths[0].write_bytes(b"")
    with pytest.raises(ModelError, match="every checkpoint is damaged"):
        load_latest_checkpoint(tmp_path, damages.append)
    assert len(list_checkpoints(tmp_path)) == 3


def test_half_written_ones_are_not_seen(tmp_path, damages):
    """Guards against the temporary file of a killed run taken for a checkpoint."""
    path = save_checkpoint(tmp_path, checkpoint(1), keep_last=5)
    path.with_name(".step-000000002.safetensors.99.tmp").write_bytes(b"half")
    assert_same(load_latest_checkpoint(tmp_path, damages.append), checkpoint(1))
    assert not damages


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"a": 0}, {}),
        ({"other/a": 0}, {"progress": "{}", "config": "", "data": ""}),
        ({"weights/a": 0}, {"progress": "{}", "config": "", "data": ""}),
        ({"weights/a": 0}, {"progress": "[1]", "config": "", "data": ""}),
        ({"weights/a": 0}, {"progress": "3", "config": "", "data": ""}),
        ({"weights/a": 0}, {"progress": "{", "config": "", "data": ""}),
    ],
)
def test_whole_files_that_are_no_checkpoints(tmp_path, tensors, metadata):
    """Guards against a traceback for a model file, or the checkpoint of another version."""
    path = tmp_path / "x"
    save_tensors(path, {name: torch.tensor(value) for name, value in tensors.items()}, metadata)
    with pytest.raises(ModelError, match="x: not a checkpoint"):
        load_checkpoint(path)


def test_a_new_checkpoint_is_kept_beside_damaged_later_ones(tmp_path, damages):
    """Guards against removing the checkpoint just written, where a damaged one has a higher step."""
    save_checkpoint(tmp_path, checkpoint(800), keep_last=5)
    damaged = save_checkpoint(tmp_path, checkpoint(900), keep_last=5)
    damaged.write_bytes(b"")
    save_checkpoint(tmp_path, checkpoint(850), keep_last=1)
    assert_same(load_latest_checkpoint(tmp_path, damages.append), checkpoint(850))


@pytest.mark.parametrize(
    ("field", "value"),
    [("step", 1.0), ("step", -1), ("epoch", "1"), ("validated_step", True), ("seconds", None), ("best_score", [])],
)
def test_progress_of_another_kind_is_refused(tmp_path, field, value):
    """Guards against a checkpoint that loads and breaks the run later, found by fuzzing; None is a score, though."""
    good = {**asdict(Progress(1)), field: value}
    save_tensors(tmp_path / "x", {}, {"progress": json.dumps(good), "config": "", "data": ""})
    with pytest.raises(ModelError, match="x: not a checkpoint"):
        load_checkpoint(tmp_path / "x")
    save_tensors(tmp_path / "x", {}, {"progress": "[" * 100_000, "config": "", "data": ""})
    with pytest.raises(ModelError, match="x: not a checkpoint"):
        load_checkpoint(tmp_path / "x")


def test_a_checkpoint_under_anothers_name_is_found(tmp_path, damages):
    """Guards against a run thrown back by a file that was copied over another, without a word."""
    paths = [save_checkpoint(tmp_path, checkpoint(step), keep_last=5) for step in (1, 2)]
    shutil.copy(paths[0], paths[1])
    assert_same(load_latest_checkpoint(tmp_path, damages.append), checkpoint(1))
    assert len(damages) == 1
    assert f"{paths[1]}: damaged or renamed: it holds step 1" in damages[0]


@pytest.fixture
def save_best(tmp_path, tiny_config, tiny_tokenizers):
    """``save_best(step)`` writes the folder ``best``."""
    weights = dict(build_model(tiny_config(), tiny_tokenizers).named_parameters())

    def save(step):
        save_model_folder(tmp_path / "best", weights, tiny_config(), tiny_tokenizers, {"step": str(step)})

    return save


@pytest.mark.parametrize("loss", ["damaged", "gone", "of another step"])
def test_a_lost_best_model_is_made_again(tmp_path, damages, save_best, loss):
    """Guards against a run that ends with another model as its best, or finds out only then: it goes on from before
    the best model was made; where that is impossible it stops, or starts a new best if the folder was removed."""
    for step, best_step in ((4, 2), (6, 2), (9, 7), (12, 7)):
        save_checkpoint(tmp_path, checkpoint(step, best_step), keep_last=5)
    for step in (7, 14):  # 14: stopped after a validation, before the next checkpoint
        save_best(step)
        assert_same(load_latest_checkpoint(tmp_path, damages.append), checkpoint(12, 7))
    assert not damages
    if loss == "of another step":
        save_best(2)
    elif loss == "damaged":
        (tmp_path / "best" / WEIGHTS).write_bytes(b"")
    else:
        shutil.rmtree(tmp_path / "best")
    assert_same(load_latest_checkpoint(tmp_path, damages.append), checkpoint(6, 2))
    assert len(damages) == 1
    assert "best" in damages[0]
    for path in list_checkpoints(tmp_path)[:2]:
        path.unlink()
    if loss == "gone":
        progress = load_latest_checkpoint(tmp_path, damages.append).progress
        assert (progress.step, progress.best_score, progress.best_step, progress.validated_step) == (12, None, 0, 0)
        assert "the next validation chooses a new one" in damages[-1]
        return
    with pytest.raises(ModelError, match=r"best: the best model is damaged, .* put a copy in its place, or remove"):
        load_latest_checkpoint(tmp_path, damages.append)


def test_the_space_of_a_run_counts_what_it_holds_already(tmp_path):
    """Guards against a disk that is full after hours; what the run holds already is not asked for twice."""
    model, config = torch.nn.Linear(25, 1, bias=False), TrainConfig(keep_last=3)  # 100 bytes
    assert run_space(tmp_path, model, config) == 4 * 400 + 200
    assert run_space(tmp_path, model, TrainConfig(keep_last=3, ema_decay=0)) == 4 * 300 + 200
    held = save_checkpoint(tmp_path, checkpoint(1), keep_last=3).stat().st_size
    assert run_space(tmp_path, model, config) == 1800 - held
