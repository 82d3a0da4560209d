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
    OptimConfig,
    TextFiles,
    TokenizerConfig,
    TrainConfig,
    check_files,
    diff_configs,
    dump_config,
    load_config,
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


def test_auto_is_as_if_it_were_not_stated() -> None:
    """A run chooses both alike; what is stated beside them stays, and wrong values are refused as before."""
    assert "batch_tokens" in TrainConfig(batch_tokens="auto").open_choices()
    assert TrainConfig(batch_tokens=7).batch_tokens == 7
    assert "batch_tokens" not in TrainConfig(batch_tokens=7).open_choices()
    for wrong in (0, "7", True, None):
        with pytest.raises(ValueError, match="batch_tokens"):
            TrainConfig(batch_tokens=wrong)
    with pytest.raises(ValueError, match="label_smoothing"):
        TrainConfig(label_smoothing="auto")  # nothing to choose


def test_a_run_fills_what_is_open_and_nothing_else() -> None:
    """What a config states wins over every choice; the shape follows a chosen preset, except for stated keys."""
    config = made(
        model=ModelConfig(d_model=64), train=TrainConfig(max_minutes=5), tokenizer=TokenizerConfig(joint=False)
    )
    model = {"model.preset": "base", "model.d_model": 512, "tokenizer.joint": True}
    filled = config.with_choices({**model, "optim.lr": 0.5, "train.max_steps": 9, "optim.warmup_steps": 1})
    assert (filled.model.d_model, filled.model.d_ff, filled.model.num_heads) == (64, 2048, 8)
    assert (filled.optim.lr, filled.train.max_steps, filled.tokenizer.joint) == (0.5, 9, False)
    assert filled.model.tie_embeddings == "target"
    assert not {"model.preset", "model.d_ff", "optim.lr", "train.max_steps"} & set(filled.open_choices())
    assert filled.all_stated() == filled
    assert filled.all_stated().open_choices() == []
    assert Config.model_validate(filled.model_dump(mode="json")).open_choices() == []


def test_a_choice_that_contradicts_what_is_stated_is_explained() -> None:
    """Guards against a traceback when a run has fewer steps than the warmup that the config states."""
    with pytest.raises(ConfigError, match=r"^optim.warmup_steps: must be below train.max_steps \(600\), not 4000$"):
        made(optim=OptimConfig(warmup_steps=4000)).with_choices({"train.max_steps": 600})


@pytest.mark.parametrize(("valid", "key"), [(0, "data.valid"), ({"from_train": 0}, "data.valid.from_train")])
def test_a_mistake_in_a_short_form_has_the_key_that_was_written(valid: object, key: str, tmp_path: Path) -> None:
    """``data.valid: 0`` was reported as data.valid.from_train, a key that few have seen."""
    path = tmp_path / "x.yaml"
    path.write_text(f"run_dir: r\ndata: {{train: {{src: a, tgt: b}}, valid: {json.dumps(valid)}}}\n")
    with pytest.raises(ConfigError, match=rf"x\.yaml:2: {key}: must be a number of pairs"):
        load_config(path)


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
    assert "vocab_size: auto\n" in text


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
        'train.batch_tokens: "auto" -> 8192',
        'train.max_steps: "auto" -> 5',
    ]
    assert diff_configs(old, new, ["data", "seed", "train.batch_tokens"]) == [
        "seed: 1 -> 2",
        'train.batch_tokens: "auto" -> 8192',
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
    assert found["$defs"]["ModelConfig"]["properties"]["d_model"]["default"] == "auto"
    assert found["$defs"]["OptimConfig"]["properties"]["lr"]["anyOf"][0]["exclusiveMinimum"] == 0
