"""Promise: a checkpoint comes back exactly, a damaged one is named and passed over, and the latest ones are kept."""

import json
from dataclasses import asdict

import pytest
import torch

from seq2seq.errors import ModelError
from seq2seq.storage import save_tensors
from seq2seq.train.checkpoint import (
    Checkpoint,
    Progress,
    list_checkpoints,
    load_checkpoint,
    load_latest_checkpoint,
    save_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    torch.manual_seed(step)
    return Checkpoint(
        progress=Progress(step, epoch=3, step_in_epoch=5, seconds=0.1 + 0.2, validated_step=4, best_score=-1 / 3),
        weights={"layer/a": torch.randn(2, 3), "b": torch.randn(4)},
        average={"b": torch.randn(4)},
        optimizer={"layer/a:exp_avg": torch.randn(2, 3), "b:step": torch.tensor(7.0)},
        config='{"seed": 1}',
        data_fingerprint="abc",
    )


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.progress == other.progress
    assert (one.config, one.data_fingerprint) == (other.config, other.data_fingerprint)
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
    first = Checkpoint(Progress(), {"a": torch.zeros(1)}, {}, {}, "", "")
    assert_same(load_checkpoint(save_checkpoint(tmp_path, first, keep_last=2)), first)
    assert_same(load_latest_checkpoint(tmp_path, damages.append), checkpoint(12))
    assert not damages


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
