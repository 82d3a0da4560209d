"""A toy model for the tests of the server."""

from pathlib import Path

import pytest
import torch

from seq2seq.decode.translator import Translator
from seq2seq.serve.batcher import Loaded
from tests.toy import toy_model


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder; to be copied before it is changed."""
    torch.set_num_threads(1)
    return toy_model(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def model(toy: Path) -> Loaded:
    translator = Translator.load(toy, "cpu")
    return Loaded(translator, translator.config.decode)
