"""Trained models to export."""

from pathlib import Path

import pytest
import torch

from tests.toy import toy_config, toy_model, train


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder; its text is beside it."""
    torch.set_num_threads(1)
    return toy_model(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="package")
def tagged(model: Path) -> Path:
    """A model with a vocabulary for each side and with tags, one of which every source needs."""
    text = model.parent / "text"
    one, other = (f"{{src: {text}/train.xx, tgt: {text}/train.yy, tag: {tag}}}" for tag in ("one", "other"))
    valid = f"data.valid={{src: {text}/valid.xx, tgt: {text}/valid.yy, tag: one}}"
    shape = ("tokenizer.joint=false", "model.tie_embeddings=target", "model.positions=rotary", "model.dropout=0")
    often = ("train.max_steps=60", "train.batch_tokens=200", "train.validate_every=60", "optim.lr=0.02")
    train(toy_config(text, model.parent / "tagged", f"data.train=[{one},{other}]", valid, *shape, *often))
    return model.parent / "tagged"
