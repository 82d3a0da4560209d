"""The config: presets, rules and what is done with a finished config."""

import json
from pathlib import Path
from typing import Any

import pytest

from seq2seq.config import (
    Config,
    DataConfig,
    DecodeConfig,
    ModelConfig,
    TextFiles,
    TokenizerConfig,
    TrainConfig,
    check_files,
    diff_configs,
    dump_config,
    schema,
)
from seq2seq.errors import ConfigError
from seq2seq.languages import language_of


def made(folder: Path = Path("/texts"), **sections: Any) -> Config:
    """A config that states its data and the given sections."""
    train = TextFiles(src=(folder / "train.de.gz",), tgt=(folder / "train.en.gz",))
    valid = TextFiles(src=(folder / "dev.de",), tgt=(folder / "dev.en",))
    data = DataConfig(train=train, valid=valid, test=sections.pop("test", None))
    return Config(run_dir=Path("runs/a"), data=data, **sections)


@pytest.mark.parametrize(
    ("preset", "shape"),
    [
        ("tiny", (4, 4, 128, 4, 4, 256, 0.2, "pre")),
        ("small", (4, 4, 256, 4, 4, 1024, 0.1, "pre")),
        ("base", (6, 6, 512, 8, 8, 2048, 0.1, "post")),
        ("big", (6, 6, 1024, 16, 16, 4096, 0.3, "post")),
    ],
)
def test_presets_fill_the_shape(preset: Any, shape: tuple[object, ...]) -> None:
    """base and big are the published ones, post-norm as in the paper; the smaller ones differ from it in that alone."""
    model = ModelConfig(preset=preset)
    layers, heads = (model.encoder_layers, model.decoder_layers), (model.num_heads, model.num_kv_heads)
    assert (*layers, model.d_model, *heads, model.d_ff, model.dropout, model.norm_position) == shape
    assert (model.norm, model.activation, model.positions, model.tie_embeddings) == (
        "layernorm",
        "relu",
        "sinusoidal",
        "all",
    )


def test_what_is_stated_goes_over_the_preset() -> None:
    """Keys beside a preset change only themselves; grouped heads follow the heads unless stated."""
    model = ModelConfig(preset="big", num_heads=8, dropout=0)
    assert (model.num_heads, model.num_kv_heads, model.dropout, model.d_model) == (8, 8, 0.0, 1024)
    assert ModelConfig(preset="base", num_kv_heads=2).num_kv_heads == 2


def test_separate_vocabularies_untie_the_source_in_python() -> None:
    """joint: false alone is a valid config, whether the model is stated or not; what is stated stays or is refused."""
    separate = TokenizerConfig(joint=False)
    assert made(tokenizer=separate).model.tie_embeddings == "target"
    built = made(tokenizer=separate, model=ModelConfig(preset="tiny"))
    assert (built.model.tie_embeddings, built.model.d_model) == ("target", 128)
    with pytest.raises(ValueError, match="all needs one vocabulary"):
        made(tokenizer=separate, model=ModelConfig(tie_embeddings="all"))


def test_the_tokens_of_a_step_are_a_number_or_auto() -> None:
    """auto has no number until a dry run gives it one: nothing may compute with the word."""
    assert TrainConfig(batch_tokens=7).step_tokens == 7
    automatic = TrainConfig(batch_tokens="auto")
    with pytest.raises(AssertionError):
        _ = automatic.step_tokens
    for wrong in (0, "7", True):
        with pytest.raises(ValueError, match="batch_tokens"):
            TrainConfig(batch_tokens=wrong)


def test_sampling_takes_what_beam_search_refuses() -> None:
    """Sampling draws n_best translations with any beam size, and only sampling has a temperature."""
    assert DecodeConfig(sample=True, top_k=3, n_best=9).n_best == 9
    with pytest.raises(ValueError, match=r"n_best: must be at most beam_size .*; top_k: has no effect"):
        DecodeConfig(top_k=3, n_best=9)


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("train.en", "en"),
        ("train.en.gz", "en"),
        ("a.b.de.txt.xz", "de"),
        ("dev.pt-BR", "pt-BR"),
        ("x.zh_Hans", "zh_Hans"),
        ("train.txt", None),
        ("train", None),
        ("train.src", None),
    ],
)
def test_languages_come_from_file_names(name: str, language: str | None) -> None:
    """BLEU's tokenizer depends on the target language, so a wrong guess would change scores."""
    assert language_of(Path(name)) == language_of(Path("some.de/folder") / name) == language
    files = TextFiles(src=(Path(name),), tgt=(Path("b.fr"),))
    data = DataConfig(train=files, valid=files)
    assert (data.source_language, data.target_language) == (language, "fr")
    assert DataConfig(train=files, valid=files, src_lang="xx").source_language == "xx"


def test_a_config_cannot_be_changed() -> None:
    """What the run saved is what it used."""
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().max_steps = 3


def test_a_dumped_config_holds_absolute_data_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved config must not change its meaning with the current folder; run_dir stays as it was given."""
    monkeypatch.chdir("/")
    text = dump_config(made(Path("texts")))
    assert "run_dir: runs/a\n" in text
    assert "- /texts/train.de.gz\n" in text
    assert "vocab_size: 8000\n" in text


def test_missing_data_files_are_listed(tmp_path: Path) -> None:
    """All missing files are reported before a run starts, each with its key."""
    (tmp_path / "dev.de").write_text("a\n")
    with pytest.raises(ConfigError) as caught:
        check_files(made(tmp_path))
    assert str(caught.value).replace(f"{tmp_path}/", "").split("\n") == [
        "data.train.src: no such file: train.de.gz",
        "data.train.tgt: no such file: train.en.gz",
        "data.valid.tgt: no such file: dev.en",
    ]
    for name in ("train.de.gz", "train.en.gz", "dev.en"):
        (tmp_path / name).write_text("a\n")
    check_files(made(tmp_path))


def test_differences_name_the_key_and_both_values() -> None:
    """A resume with changed settings is refused with these lines; sections that may change are not in them."""
    files = TextFiles(src=(Path("/a"),), tgt=(Path("/b"),))
    old, new = made(), made(test=files, seed=2, train=TrainConfig(batch_tokens=8192, max_steps=5))
    assert diff_configs(old, new, ["train"]) == [
        "train.batch_tokens: null -> 8192",
        "train.max_steps: 20000 -> 5",
    ]
    assert diff_configs(old, new, ["data", "seed", "train.batch_tokens"]) == [
        "seed: 1 -> 2",
        "train.batch_tokens: null -> 8192",
        'data.test.src: null -> ["/a"]',
        'data.test.tgt: null -> ["/b"]',
    ]
    assert diff_configs(old, new, ["model", "train.metric"]) == []


def test_the_schema_describes_every_key() -> None:
    """Editors and the documentation show what each key means; a path may be one string or a list."""
    found = schema()
    json.dumps(found)
    assert sorted(found["required"]) == ["data", "run_dir"]
    for section in (found, *found["$defs"].values()):
        assert section["additionalProperties"] is False
        assert all(field.get("description") for field in section["properties"].values())
    assert [kind["type"] for kind in found["$defs"]["TextFiles"]["properties"]["src"]["anyOf"]] == ["string", "array"]
    assert "default" not in found["$defs"]["ModelConfig"]["properties"]["d_model"]
    assert found["$defs"]["OptimConfig"]["properties"]["lr"]["exclusiveMinimum"] == 0
