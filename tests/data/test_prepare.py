"""Promise: what is kept between starts is what was made, or it is named and made again."""

from dataclasses import dataclass

import pytest

from seq2seq.data import prepare
from seq2seq.data.corpus import Filters
from seq2seq.data.prepare import prepare_data
from seq2seq.data.tokenizer import TokenizerSpec


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("train-*/src.ids", flip),
        ("valid-*/meta.json", flip),
        ("tokenizer-*/tokenizer.model", flip),
        ("tokenizer-*/fingerprint", lambda path: path.unlink()),
    ],
)
def test_what_was_damaged_is_named_and_made_again(tmp_path, tiny_config, capsys, pattern, damage):
    """Guards against training on other numbers than those of the text after one flipped bit in the cache."""
    for name in ("train.en", "train.de"):  # of validation, too
        (tmp_path / name).write_text("ka to mi ren sol\n" * 40)
    config = tiny_config()
    first = prepare_data(config, show_progress=False)
    assert not capsys.readouterr().err
    kept = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    (path,) = config.cache_dir.glob(pattern)
    damage(path)
    assert prepare_data(config, show_progress=False).fingerprint == first.fingerprint
    assert str(path.parent) in capsys.readouterr().err
    assert kept == {path: path.read_bytes() for path in kept}
    prepare_data(config, show_progress=False)
    assert not capsys.readouterr().err


def test_one_more_field_changes_no_fingerprint(tmp_path, tiny_config, monkeypatch):
    """Guards against an update that refuses every run: fingerprints were made of how Python prints a class."""

    @dataclass(frozen=True)
    class LaterSpec(TokenizerSpec):
        added: bool = False

    @dataclass(frozen=True)
    class LaterFilters(Filters):
        added: bool = False

    for name in ("train.en", "train.de"):
        (tmp_path / name).write_text("ka to mi ren sol\n" * 40)
    config = tiny_config()
    before = prepare_data(config, show_progress=False).fingerprint
    folders = sorted(config.cache_dir.iterdir())
    monkeypatch.setattr(prepare, "TokenizerSpec", LaterSpec)
    monkeypatch.setattr(prepare, "Filters", LaterFilters)
    assert prepare_data(config, show_progress=False).fingerprint == before
    assert sorted(config.cache_dir.iterdir()) == folders


@pytest.mark.parametrize("name", ["vocab_size", "kind", "byte_fallback", "character_coverage", "joint"])
def test_every_setting_of_a_tokenizer_is_in_its_fingerprint(tmp_path, tiny_config, name):
    """Guards against a tokenizer of other settings that is taken from the cache."""
    others = {"vocab_size": 301, "kind": "unigram", "byte_fallback": False, "character_coverage": 0.99, "joint": False}
    for text in ("train.en", "train.de"):
        (tmp_path / text).write_text("ka to mi ren sol\n" * 40)
    config = tiny_config()
    changed = config.tokenizer.model_copy(update={name: others[name]})
    assert changed != config.tokenizer
    for each in (config, config.model_copy(update={"tokenizer": changed})):
        prepare_data(each, show_progress=False)
    assert len(list(config.cache_dir.glob("tokenizer-*"))) == 2
