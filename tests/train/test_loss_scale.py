"""Promise: in fp16 the loss scale follows what the numbers allow, and a continued run has the same scale."""

import math
from pathlib import Path
from unittest import mock

import pytest
import torch

from seq2seq.config import Config
from seq2seq.device import compute_dtype
from seq2seq.errors import UserError
from seq2seq.tensors import load_tensors
from seq2seq.train import setup
from seq2seq.train.checkpoint import list_checkpoints
from seq2seq.train.gradients import SequentialGradients
from seq2seq.train.loss_scale import LossScale
from tests.toy import metrics, toy_config, train, weights, write_text_files

CPU = torch.device("cpu")
GOOD, TOO_LARGE = torch.tensor(1.0), torch.tensor(math.inf)


def test_it_is_halved_and_doubled() -> None:
    """Guards against a scale that never recovers, or that changes at every step."""
    scale = LossScale(CPU)
    start = float(scale.value)
    assert scale.update(TOO_LARGE)
    assert float(scale.value) == start / 2
    for _ in range(1_999):
        assert not scale.update(GOOD)
    assert float(scale.value) == start / 2
    scale.update(GOOD)
    assert float(scale.value) == start


def test_the_least_scale_helps_no_more() -> None:
    """Guards against a run that skips steps for ever: what is too large without a scale is the guard's."""
    scale = LossScale(CPU)
    helped = [bool(scale.update(torch.tensor(math.nan))) for _ in range(20)]
    assert helped == [True] * 13 + [False] * 7
    assert float(scale.value) == 1


def test_its_state_comes_back() -> None:
    """Guards against a continued run that counts its good steps anew."""
    one, other = LossScale(CPU), LossScale(CPU)
    for norm in (TOO_LARGE, *[GOOD] * 1_500):
        one.update(norm)
    other.load_tensors({name: tensor.clone() for name, tensor in one.tensors().items()})
    for scale in (one, other):
        for _ in range(500):
            scale.update(GOOD)
    assert float(one.value) == float(other.value) == 2.0**13
    other.load_tensors({})  # the checkpoint of a run in bf16
    assert float(other.value) == 2.0**13


@pytest.fixture
def in_fp16() -> object:
    """As on an older GPU: fp16, one micro-batch after another."""

    def gradients(
        config: object, loss: object, processes: object, accumulate: int, scale: LossScale
    ) -> SequentialGradients:
        return SequentialGradients(loss, processes, scale)  # type: ignore[arg-type]

    def scale(device: torch.device) -> LossScale:
        made = LossScale(device)
        made.value.fill_(2.0**22)  # too large for the toy model
        return made

    with (
        mock.patch.object(setup, "training_dtype", return_value=torch.float16),
        mock.patch.object(setup, "gradients_for", gradients),
        mock.patch.object(setup, "LossScale", scale),
    ):
        yield


@pytest.mark.usefixtures("in_fp16")
def test_a_run_in_fp16_continues_exactly(tmp_path: Path) -> None:
    """Guards against a skipped step that ends the run, blames lines or is not in the log; and contract 2."""
    text = write_text_files(tmp_path / "text")
    settings = ("train.max_steps=12", "train.save_every=4", "train.validate_every=100")

    def config(name: str) -> Config:
        return toy_config(text, tmp_path / name, *settings)

    train(config("straight"))
    records = metrics(tmp_path / "straight")
    skipped = [record for record in records if "skipped" in record]
    assert 2 < len(skipped) < 12
    assert all(math.isfinite(record["loss"]) for record in skipped)
    assert skipped[0]["skipped"] == "a gradient was too large for fp16; the loss scale is now lower"
    assert not any("bad" in record for record in records)
    assert not (tmp_path / "straight/bad_lines.jsonl").exists()
    train(config("stopped"), stop_after=3)
    train(config("stopped"))
    assert metrics(tmp_path / "stopped") == records
    assert weights(tmp_path / "stopped") == weights(tmp_path / "straight")
    tensors, _ = load_tensors(list_checkpoints(tmp_path / "stopped")[-1])
    assert float(tensors["loss_scale/value"]) == 2.0 ** (22 - len(skipped))


def test_other_checkpoints_have_no_scale(tmp_path: Path) -> None:
    """Guards against checkpoints of bf16 and fp32 that earlier versions could not read."""
    train(toy_config(write_text_files(tmp_path / "text"), tmp_path / "run", "train.max_steps=2"))
    tensors, _ = load_tensors(list_checkpoints(tmp_path / "run")[-1])
    assert {name.split("/")[0] for name in tensors} == {"weights", "optimizer"}


def test_the_cpu_refuses_fp16(tmp_path: Path) -> None:
    """Guards against hours in a format that is slow there, and that would need a loss scale."""
    with pytest.raises(UserError, match="precision fp16: only for CUDA; on the CPU use fp32 or auto"):
        compute_dtype("fp16", CPU)
    with pytest.raises(UserError, match="precision fp16"):
        train(toy_config(write_text_files(tmp_path / "text"), tmp_path / "run", "train.precision=fp16"))
