"""What the tests of the commands share: text, models, and a folder to work in."""

import shutil
from pathlib import Path

import pytest
import torch

from seq2seq.train import decide, setup
from tests.toy import toy_config, toy_model, train, write_config


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text, a trained run, and a run of another architecture; to be copied."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    toy_model(folder)
    train(toy_config(folder / "text", folder / "wide", "model.d_model=32", "train.max_steps=2"))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to make mistakes in, with text/, model/, wide/ and toy.yaml (which trains into run/)."""
    for name in ("text", "model", "wide"):
        shutil.copytree(made / name, tmp_path / name, ignore=shutil.ignore_patterns("cache", "tensorboard"))
    write_config(tmp_path / "text", tmp_path / "run").rename(tmp_path / "toy.yaml")
    monkeypatch.chdir(tmp_path)
    for module in (decide, setup):  # it takes longer than a toy run
        monkeypatch.setattr(module, "matmul_peak", lambda *_: 1e12)
    return tmp_path
