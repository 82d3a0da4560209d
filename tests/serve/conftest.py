"""A toy model and two servers for all tests of this folder, because a server takes seconds to start."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
import torch

from seq2seq.decode.translator import Translator
from seq2seq.serve.batcher import Loaded
from tests.toy import toy_model

if TYPE_CHECKING:  # without the extra, other tests of this folder run
    from tests.serve.running import Server


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder; to be copied before it is changed."""
    torch.set_num_threads(1)
    return toy_model(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def model(toy: Path) -> Loaded:
    translator = Translator.load(toy, "cpu")
    return Loaded(translator, translator.config.decode)


@pytest.fixture(scope="session")
def server(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> "Server":
    """A server with both directions; the model of the second one has changed languages in its settings."""
    from tests.serve.running import served

    back = tmp_path_factory.mktemp("back") / "model"
    shutil.copytree(toy / "best", back)
    config = (back / "config.yaml").read_text(encoding="utf-8")
    for name, language in (("src_lang", "yy"), ("tgt_lang", "xx")):
        config = config.replace(f"  {name}: {'xx' if name == 'src_lang' else 'yy'}", f"  {name}: {language}")
    (back / "config.yaml").write_text(config, encoding="utf-8")
    return served(toy, back)


@pytest.fixture(scope="session")
def limited(toy: Path) -> "Iterator[Server]":
    """A server with low limits and little patience."""
    from tests.serve.running import served

    with mock.patch("seq2seq.serve.app._PATIENCE", 1.0):
        running = served(toy, "--max-characters", "300", "--max-lines", "20", "--queue", "700")
        yield running
        good = {"q": "kato mi", "source": "xx", "target": "yy"}
        assert running.ask("/translate", good)[0] == 200  # nothing has brought it down
