"""Fields that hold a list of sections, or one of several sections: read, checked and reported like any other."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator, Discriminator, Field, Tag

from seq2seq.config import Config, DataConfig, diff_configs, dump_config
from seq2seq.config.file import Draft
from seq2seq.config.keys import OnePath, Paths, Section, change_paths, fields_of, get_key, option
from seq2seq.errors import ConfigError


class Lines(Section):
    """Two files."""

    src: Paths = Field(description="Source text, in files.")
    tgt: Paths = Field(description="Target text.")
    weight: float = option(1.0, "How often it is read.", gt=0)


class Table(Section):
    """One file of two columns."""

    tsv: OnePath = Field(description="A table.")
    weight: int = option(1, "How often it is read.", gt=0)


class Attention(Section):
    """A shape."""

    kind: Literal["attention"] = option("attention", "Which one.")
    heads: int = option(4, "Heads.", gt=0)


class Recurrent(Section):
    """Another shape, whose key of the same name has another limit."""

    kind: Literal["recurrent"] = option("recurrent", "Which one.")
    cell: Literal["gru", "lstm"] = option("gru", "Cell.")
    heads: int = option(1, "Heads.", gt=0, le=2)


def which(value: Any) -> str:
    """The tag of a data set: the key that decides."""
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Section) else ()
    return next((key for key in ("src", "tsv") if key in keys), "")


Text = Annotated[Annotated[Lines, Tag("src")] | Annotated[Table, Tag("tsv")], Discriminator(which)]


def as_items(value: object) -> object:
    """One mapping is a list of one."""
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, (dict, Section)) else value


class Data(DataConfig):
    """Several texts to train on."""

    train: Annotated[tuple[Text, ...], BeforeValidator(as_items)] = Field(description="Texts.")  # type: ignore

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        yield from ()  # its items have no tags and epochs

    @property
    def tags(self) -> list[str]:
        return []

    def first_empty_epoch(self) -> None:
        return None


class Wide(Config):
    """A config with a list of sections, and a union of two."""

    data: Data = Field(description="Texts.")
    shape: Attention | Recurrent = Field(Attention(), description="Shape.", discriminator="kind")


HEAD = "run_dir: r\ndata:\n  valid: {src: /v, tgt: /w}\n"
TWO = HEAD + "  train:\n  - {src: a, tgt: [b]}\n  - tsv: c.tsv\n    weight: 2\n"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def _load(text: str, *overrides: str) -> Wide:
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        draft = Draft(path, Wide)
        for override in overrides:
            draft.override(override)
        return draft.resolve()

    return _load


def mistakes(load: Any, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return [line[line.index("x.yaml") :] if "x.yaml" in line else line for line in str(caught.value).split("\n")]


def test_one_mapping_is_a_list_of_one(load: Any, tmp_path: Path) -> None:
    """Guards against configs of today that no longer load, or whose paths start elsewhere."""
    (lines,) = load(HEAD + "  train: {src: a, tgt: b}\n", "data.train.weight=3").data.train
    assert lines == Lines(src=tmp_path / "a", tgt=tmp_path / "b", weight=3)
    assert load(HEAD + "  train: [{src: a, tgt: b}]\n", "data.train.weight=3").data.train == (lines,)


def test_paths_in_items_start_where_they_are_written(load: Any, tmp_path: Path) -> None:
    """In the file, its folder; on the command line, the current one."""
    lines, table = load(TWO, "data.train.1.tsv=d.tsv").data.train
    assert (lines.src, lines.tgt) == ((tmp_path / "a",), (tmp_path / "b",))
    assert table == Table(tsv=Path(os.path.abspath("d.tsv")), weight=2)
    names = change_paths([{"tsv": "/x/c.tsv"}, {"src": ["/x/a"], "tgt": 3}], Data.model_fields["train"].annotation, len)
    assert names == [{"tsv": 8}, {"src": [4], "tgt": 3}]


def test_an_override_of_an_item_leaves_aliases_alone(load: Any) -> None:
    """Items that share an anchor are not one item."""
    lines, again = load(HEAD + "  train: [&a {src: a, tgt: b}, *a]\n", "data.train.1.weight=5").data.train
    assert (lines.weight, again.weight) == (1, 5)


def test_aliases_are_not_written_out() -> None:
    """Guards against a small file of a stranger whose list of aliases takes hours."""
    calls: list[str] = []
    section = {"src": [f"{number}" for number in range(300)]}
    again = change_paths(
        [section] * 300, DataConfig.model_fields["train"].annotation, lambda path: calls.append(path) or "x"
    )
    assert (len(again), len(again[299]["src"]), len(calls)) == (300, 300, 300)


def test_a_dumped_list_loads_equal(load: Any, tmp_path: Path) -> None:
    """A run that resumes has the items that it began with."""
    config = load(TWO, "shape={kind: recurrent, cell: lstm}")
    assert load(dump_config(config)) == config


def test_mistakes_in_items_are_at_their_lines(load: Any) -> None:
    """Each with the number of its item, and by the rules of the section that the item is."""
    text = HEAD + "  train:\n  - {src: a, weigth: 1}\n  - tsv: c\n    weight: 0.5\n  - {a: b}\n  - 3\n"
    text += "  - {src: a, tgt: [], src: c}\nshape: {kind: recurent}\n"
    section = "must be a section of key: value lines"
    assert mistakes(load, text) == [
        "x.yaml:5: data.train.0.tgt: missing; target text",
        "x.yaml:5: data.train.0.weigth: unknown key; did you mean weight?",
        "x.yaml:7: data.train.1.weight: must be a whole number > 0, not 0.5",
        "x.yaml:8: data.train.2: must have one of the keys src, tsv",
        f"x.yaml:9: data.train.3: {section}, not 3",
        "x.yaml:10: data.train.4.src: set twice, first in line 10",
        "x.yaml:10: data.train.4.tgt: must be a path or a list of paths, not []",
        "x.yaml:11: shape.kind: must be one of attention, recurrent, not 'recurent'; did you mean recurrent?",
    ]
    assert mistakes(load, HEAD + "  train: {src: a, tgt: 3}\n") == [
        "x.yaml:4: data.train.tgt: must be a path or a list of paths, not 3"
    ]
    assert mistakes(load, HEAD + "  train: 3\n") == [
        "x.yaml:4: data.train: must be a list, each a section of key: value lines, not 3"
    ]
    assert mistakes(load, HEAD) == ["x.yaml:2: data.train: missing; texts"]


def test_mistakes_in_a_union_follow_the_section_that_is_meant(load: Any) -> None:
    """Guards against limits and keys of one section that are reported for another."""
    assert mistakes(load, TWO + "shape: {kind: recurrent, heads: 3, cel: gru}\n") == [
        "x.yaml:8: shape.heads: must be a whole number > 0 and <= 2, not 3",
        "x.yaml:8: shape.cel: unknown key; did you mean cell?",
    ]
    assert mistakes(load, TWO + "shape: {cell: gru}\n") == [
        "x.yaml:8: shape.kind: missing; one of attention, recurrent"
    ]
    assert mistakes(load, TWO + "shape: {kind: attention, cell: gru}\n") == [
        "x.yaml:8: shape.cell: unknown key; did you mean model.cell?"
    ]
    assert mistakes(load, TWO + "shape: 3\n") == ["x.yaml:8: shape: must be a section of key: value lines, not 3"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.train.tsv=a", "data.train.tsv: data.train is a list of 2; write data.train.0.tsv for its first item"),
        (
            "data.train.2.tsv=a",
            "data.train.2.tsv: data.train is a list of 2; write data.train.0.tsv for its first item",
        ),
        ("data.train.1.weight=0", "data.train.1.weight: must be a whole number > 0, not 0"),
        ("data.train.1.x=0", "data.train.1.x: unknown key; allowed here: src, tgt, weight, tsv"),
        ("data.valid.0.src=a", "data.valid.0.src: data.valid is not a list; leave out 0"),
        ("0.shape=a", "0.shape: the config is not a list; leave out 0"),
        ("shape.heads=3", "shape.kind: missing; one of attention, recurrent"),
    ],
)
def test_overrides_of_items(load: Any, override: str, expected: str) -> None:
    """Guards against an override that changes nothing and says nothing."""
    assert mistakes(load, TWO, override)[0] == f"command line: {expected}".replace(
        "command line: shape.k", "x.yaml:1: shape.k"
    )


def test_an_override_of_a_list_of_one_needs_no_number(load: Any) -> None:
    """Guards against a mistake on the command line that is reported with a line of the file."""
    assert mistakes(load, HEAD + "  train: [{src: a, tgt: b}]\n", "data.train.weight=0") == [
        "command line: data.train.0.weight: must be a number > 0, not 0"
    ]


def test_differences_of_items_and_unions(load: Any) -> None:
    """A list of one item differs from a single mapping in nothing; a new key of an item has its default."""
    one = load(HEAD + "  train: {src: /a, tgt: /b}\n")
    kept = {**one.model_dump(mode="json"), "shape": {"kind": "attention"}}
    kept["data"]["train"] = {"src": ["/a"], "tgt": ["/b"]}
    assert diff_configs(json.dumps(kept), one, ["data", "shape"]) == []
    two = load(TWO.replace("src: a, tgt: [b]", "src: /a, tgt: /b, weight: 3"))
    again = load(TWO.replace("src: a, tgt: [b]", "src: /a, tgt: /b, weight: 4"), "shape={kind: recurrent}")
    assert diff_configs(two, again, ["data", "shape"]) == [
        "data.train.0.weight: 3.0 -> 4.0",
        'shape.kind: "attention" -> "recurrent"',
        "shape.heads: 4 -> 1",
    ]


def test_keys_of_lists_and_unions() -> None:
    """Every key is known without the numbers of items."""
    keys = {".".join(key) for key in fields_of(Wide)}
    assert {"data.train.src", "data.train.tsv", "shape.cell", "shape.heads", "data.valid.src"} <= keys
    assert get_key({"a": [{"b": 1}, {"b": 2}]}, ("a", "1", "b")) == 2
    assert get_key({"a": [{"b": 1}, {"b": 2}]}, ("a", "2", "b"), 7) == 7
    assert get_key({"a": [{"b": {"c": 1}}]}, ("a", "b", "c")) == 1


def test_the_schema_shows_every_choice() -> None:
    """Editors complete the keys of each section of a union."""
    found = Wide.model_json_schema()
    assert {"Lines", "Table", "Attention", "Recurrent"} <= found["$defs"].keys()
