"""A trained model that several files of this folder translate with."""

from pathlib import Path

import pytest
import torch

from seq2seq.decode.translator import Translator
from tests.toy import toy_model


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its run folder."""
    torch.set_num_threads(1)
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def translator(model: Path) -> Translator:
    """The best model of the run."""
    return Translator.load(model, device="cpu")
