"""Every config that the repository shows can be used."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import yaml

from seq2seq.config import dump_config, load_config
from seq2seq.config.sections import Part
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.model_folder import build_model

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = [*sorted(FOLDER.glob("*.yaml")), *sorted((FOLDER / "lessons").glob("*.yaml"))]
# The lessons on the embedded corpus; others use a larger text.
LESSONS = {path.stem: path for path in CONFIGS[-1].parent.glob("*.yaml") if not path.stem.startswith("multi30k-")}
FAMILY = ("rnn", "gru", "lstm-additive", "lstm-dot", "convolutional", "window", "transformer")
ABLATIONS = [name for name in LESSONS if name.startswith("without-")]


def num_parameters(name: str) -> int:
    """Of the model of a lesson, whose vocabularies are full."""
    config = load_config(LESSONS[name])
    config = config.with_choices({"tokenizer.joint": False, "model.positions": "rotary"})
    vocabulary: Any = SimpleNamespace(vocab_size=config.tokenizer.vocab_size, tag_ranges=())
    model = build_model(config, TokenizerPair(vocabulary, vocabulary))
    return sum(parameter.numel() for parameter in model.parameters())


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


def test_the_lessons_have_models_of_one_size() -> None:
    """A comparison of the family would else be one of sizes."""
    sizes = [num_parameters(name) for name in FAMILY]
    assert max(sizes) <= 1.15 * min(sizes)


@pytest.mark.parametrize("name", LESSONS)
def test_the_lessons_say_their_size(name: str) -> None:
    """The number in the comment is the measured one."""
    (stated,) = re.findall(r"(\d\.\d\d) million parameters", LESSONS[name].read_text(encoding="utf-8"))
    assert stated == f"{num_parameters(name) / 1e6:.2f}"


@pytest.mark.parametrize("name", LESSONS)
def test_the_lessons_share_the_text(name: str) -> None:
    """Runs of the same text, tokenizer and time; the text is prepared once, and translations can be compared."""
    config, other = load_config(LESSONS[name]), load_config(LESSONS["transformer"])
    assert (config.data, config.tokenizer, config.optim, config.decode) == (
        other.data,
        other.tokenizer,
        other.optim,
        other.decode,
    )
    assert config.train == other.train
    assert config.data.cache_dir is not None
    assert not config.data.cache_dir.is_relative_to(config.run_dir.resolve())
    assert config.train.max_minutes is not None


@pytest.mark.parametrize("name", [*ABLATIONS, "plain-attention", "window"])
def test_the_lessons_about_the_transformer_change_one_thing(name: str) -> None:
    """What a lesson shows must come from the part that it is about."""
    before, after = (yaml.safe_load(LESSONS[lesson].read_text(encoding="utf-8")) for lesson in ("transformer", name))
    assert after.pop("run_dir") != before.pop("run_dir")
    (change,) = after["model"].items() - before["model"].items() if name not in ABLATIONS else [("ablate", None)]
    assert change[0] == {"plain-attention": "plain_attention", "window": "attention_window"}.get(name, "ablate")
    del after["model"][change[0]]
    assert after == before


def test_there_is_a_lesson_for_every_part() -> None:
    """Guards against a part that can be left out, but that no lesson leaves out, and against a wrong one."""
    left_out = {name: load_config(LESSONS[name]).model.model_dump()["ablate"] for name in ABLATIONS}
    assert left_out == {f"without-{part.replace('_', '-')}": (part,) for part in sorted(get_args(Part))}
