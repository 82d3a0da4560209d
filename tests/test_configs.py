"""Every config that the repository shows can be used."""

from pathlib import Path

import pytest

from seq2seq.config import dump_config, load_config

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


def test_there_are_configs() -> None:
    """An empty list would pass the next test without a check."""
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads(path: Path, tmp_path: Path) -> None:
    """A recipe with a key that was renamed since is worse than none; its resolved form loads to the same config."""
    config = load_config(path)
    assert config.run_dir.name == path.stem
    (tmp_path / "resolved.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_says_what_it_is(path: Path) -> None:
    """The first line is a comment for the reader."""
    assert path.read_text(encoding="utf-8").startswith("# ")
