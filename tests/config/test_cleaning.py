"""Promise: rules of a dataset override those of all text, and a config that states every key means the same."""

from pathlib import Path
from typing import Any

import pytest

from seq2seq.config import CleanConfig, Config, DataConfig, TsvFiles, dump_config, load_config, schema
from seq2seq.errors import ConfigError

OWN = "data:\n  train:\n  - {tsv: a, src: 0, tgt: 1, clean: {numbers: false, repeats: null}}\n  - {src: b, tgt: c}\n"
REST = "  valid: 5\n  clean: {numbers: true, identical: true, repeats: sources}\n"


def load(folder: Path, text: str, *overrides: str) -> Config:
    path = folder / "x.yaml"
    path.write_text("run_dir: r\n" + text, encoding="utf-8")
    return load_config(path, overrides)


def test_a_dataset_overrides_what_it_states(tmp_path: Path) -> None:
    """Guards against keys that fall back to their defaults where a dataset states others, or off that is not off."""
    data = load(tmp_path, OWN + REST).data
    assert data.train[0].clean == CleanConfig(identical=True)
    assert data.train[1].clean is None
    assert data.clean == CleanConfig(numbers=True, identical=True, repeats="sources")


def test_a_config_with_all_keys_means_the_same(tmp_path: Path) -> None:
    """Guards against the config.yaml of a run whose datasets have other rules than the run had."""
    config = load(tmp_path, OWN + REST)
    (tmp_path / "y.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "y.yaml").data == config.data
    chosen = config.with_choices({"train.max_steps": 5})
    assert chosen.data == chosen.all_stated().data == config.data


def test_sections_of_a_caller_stay_as_they_are() -> None:
    """Guards against rules of one config that get into another one with the same dataset."""
    dataset = TsvFiles(tsv=("a",), src=0, tgt=1, clean=CleanConfig(numbers=False))  # type: ignore[arg-type]
    for identical in (True, False):
        data = DataConfig(train=(dataset,), valid=5, clean=CleanConfig(identical=identical))  # type: ignore[arg-type]
        assert data.train[0].clean == CleanConfig(identical=identical)
    assert dataset.clean is not None
    assert dataset.clean.model_fields_set == {"numbers"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.clean.repeats=lines", "data.clean.repeats: must be one of pairs, sources or null, not 'lines'"),
        ("data.clean.min_letters=2", "data.clean.min_letters: must be a number > 0 and <= 1 or null, not 2"),
        ("data.clean.longest_word=0", "data.clean.longest_word: must be a whole number > 0 or null, not 0"),
        ("data.train.1.clean.url=true", "data.train.1.clean.url: unknown key; did you mean urls?"),
        ("data.train.1.clean={url: true}", "data.train.1.clean.url: unknown key; did you mean urls?"),
        ("data.test={src: a, tgt: b, clean: {urls: true}}", "data.test.clean: is for training text only; remove"),
        ("data.valid={tsv: a, src: 0, tgt: 1, score: 2, min_score: 1}", "data.valid.score: is for training text onl"),
        ("data.train.0.min_score=1", "data.train.0.score: missing; state it with min_score, or remove min_score"),
        ("data.train.1.score=1", "data.train.1.score: unknown key"),
        ("data.train.0={jsonl: a, src: a, tgt: b, score: 1, min_score: 1}", "data.train.0.score: must be text or null"),
    ],
)
def test_a_mistake_has_its_key(tmp_path: Path, override: str, message: str) -> None:
    """Guards against rules that are written in a place where they do nothing."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, OWN + REST, override)
    (line,) = str(caught.value).splitlines()
    assert message in line


def test_the_schema_describes_every_rule() -> None:
    """Guards against rules that editors do not know."""
    definitions: dict[str, Any] = schema()["$defs"]
    assert all(rule["description"] for rule in definitions["CleanConfig"]["properties"].values())
    assert {"clean", "score", "min_score"} <= set(definitions["TsvFiles"]["properties"])
    assert "score" not in definitions["TextFiles"]["properties"]
