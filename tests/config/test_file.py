"""Config files: all mistakes are reported together, each with its place; what is read is resolved and saves itself."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seq2seq.config import (
    Config,
    DataConfig,
    DecodeConfig,
    ModelConfig,
    dump_config,
    load_config,
    load_saved_config,
    override_decode,
)
from seq2seq.errors import ConfigError

MINIMAL = """\
run_dir: runs/a
data:
  train: {src: train.de.gz, tgt: train.en.gz}
  valid: {src: dev.de, tgt: dev.en}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a config file and gives its path."""

    def _write(text: str | bytes, name: str = "x.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def mistakes(path: Path, *overrides: str) -> list[str]:
    """The lines of the error, without the folder of the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "").split("\n")


# ------------------------------------------------------------------------------------------------------- what is read


def test_a_config_that_states_only_its_data_is_valid(write: Any) -> None:
    """Two lines of data are a config; what a run chooses is open, and the rest has its default."""
    config = load_config(write(MINIMAL))
    assert (config.train.max_epochs, config.train.max_steps, config.optim.betas) == (None, None, (0.9, 0.98))
    assert {"model.preset", "model.d_model", "model.tie_embeddings", "train.max_steps"} < set(config.open_choices())
    stated = load_config(write(MINIMAL), ["model.preset=small", "model.positions=rotary", "tokenizer.joint=true"])
    assert (stated.model.d_model, stated.model.num_kv_heads, stated.model.tie_embeddings) == (256, 4, "all")
    assert [key for key in stated.open_choices() if key.startswith("model.")] == ["model.dropout"]


def test_separate_vocabularies_untie_the_source(write: Any) -> None:
    """joint: false alone is a valid config: tying falls back to target, in a file and on the command line."""
    config = load_config(write(MINIMAL + "tokenizer: {joint: false}\n"))
    assert config.model.tie_embeddings == "target"
    assert load_config(write(MINIMAL), ["tokenizer.joint=false"]).model.tie_embeddings == "target"


def test_precedence_is_defaults_file_command_line(write: Any) -> None:
    """The command line wins over the file, also over a wrong value in it; the last override wins over earlier ones."""
    path = write(MINIMAL + "optim: {lr: 2, eps: oops}\ntrain:\n")
    config = load_config(path, ["optim.eps=1e-8", "train.max_steps=5", "train.max_steps=7", "decode.sample=true"])
    assert (config.optim.lr, config.optim.eps, config.optim.clip_norm) == (2.0, 1e-8, 1.0)
    assert (config.train.max_steps, config.train.max_epochs, config.decode.sample) == (7, None, True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E+2", 100.0), ("2", 2.0), (".5", 0.5), ("1_000.5", 1000.5), ("+3.", 3.0), ("010", 10.0)],
)
def test_numbers_are_read_as_people_write_them(write: Any, text: str, value: float) -> None:
    """YAML 1.1 makes text of 1e-4 and eight of 010."""
    assert load_config(write(MINIMAL + f"optim:\n  lr: {text}\n")).optim.lr == value


def test_norwegian_is_a_language(write: Any) -> None:
    """YAML 1.1 makes false of the language code no; saving and loading keeps it too."""
    config = load_config(write(MINIMAL), ["data.src_lang=no"])
    assert config.data.src_lang == "no"
    assert load_saved_config(write(dump_config(config), "saved.yaml")) == config


def test_paths_start_where_they_are_written(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data paths in the file start at its folder, on the command line at the current one, as run_dir always does."""
    path = write(MINIMAL + "  cache_dir: ../cache\n", "configs/x.yaml")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = load_config(path, ["data.valid.src=[v1, ../v2]", "data.valid.tgt=[/abs/v1, w2]"])
    assert config.run_dir == Path("runs/a")
    assert config.data.train[0].src == (tmp_path / "configs/train.de.gz",)
    assert config.data.valid.src == (tmp_path / "here/v1", tmp_path / "v2")
    assert config.data.valid.tgt == (Path("/abs/v1"), tmp_path / "here/w2")
    assert config.cache_dir == tmp_path / "cache"
    assert load_config(write(MINIMAL)).cache_dir == Path("runs/a/data")


def test_a_home_folder_is_found_in_every_path(write: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards against a folder named ~ where the command runs: a shell expands only a word that begins with it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = MINIMAL.replace("runs/a", "~/runs/a") + "  cache_dir: ~/cache\n  test: {src: [~/t.de], tgt: ~/t.en}\n"
    config = load_config(write(text), ["data.valid.src=[~/v1]", "data.valid.tgt=~/w1"])
    home = tmp_path / "home"
    assert (config.run_dir, config.data.cache_dir) == (home / "runs/a", home / "cache")
    assert config.data.test is not None
    assert (config.data.test.src, config.data.test.tgt) == ((home / "t.de",), (home / "t.en",))
    assert (config.data.valid.src, config.data.valid.tgt) == ((home / "v1",), (home / "w1",))
    assert load_config(write(MINIMAL), ["run_dir=~/x"]).run_dir == home / "x"


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "linear", "constant"])
def test_a_run_that_ends_in_its_warmup_is_refused(write: Any, schedule: str) -> None:
    """Guards against a run whose learning rate never reaches optim.lr, with any schedule."""
    path = write(MINIMAL + f"optim: {{schedule: {schedule}, warmup_steps: 200}}\n")
    assert mistakes(path, "train.max_steps=200") == [
        "x.yaml:5: optim.warmup_steps: must be below train.max_steps (200), not 200"
    ]
    assert load_config(path, ["train.max_steps=201"]).optim.warmup_steps == 200


def test_a_relative_config_path_gives_absolute_data_paths(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved config must not change its meaning with the current folder."""
    monkeypatch.chdir(write(MINIMAL).parent)
    assert load_config(Path("x.yaml")).data.train[0].src[0].is_absolute()


def test_one_override_moves_all_text(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against six overrides for a recipe with text elsewhere; a relative folder starts where it is stated."""
    text = "  train: {src: a.de, tgt: a.en}\n  valid: {src: /b.de, tgt: b.en}\n"
    path = write(f"run_dir: r\ndata:\n  dir: texts\n  cache_dir: kept\n{text}")
    data = load_config(path).data
    assert (data.train[0].src[0], data.cache_dir) == (path.parent / "texts/a.de", path.parent / "kept")
    assert (data.valid.src[0], data.valid.tgt[0]) == (Path("/b.de"), path.parent / "texts/b.en")
    (path.parent / "other").mkdir()
    monkeypatch.chdir(path.parent / "other")
    assert load_config(path, ["data.dir=here"]).data.train[0].tgt[0] == path.parent / "other/here/a.en"
    assert load_config(path, ["data.dir=/x", "data.train.src=y"]).data.train[0].src[0] == path.parent / "other/y"
    (path.parent / "saved.yaml").write_text(dump_config(load_config(path)))
    assert load_config(path.parent / "saved.yaml") == load_config(path)


def test_aliases_are_read_and_not_shared(write: Any) -> None:
    """An override of one section must not change another that uses the same anchor."""
    text = "run_dir: r\ndata:\n  train: &files {src: a.de, tgt: a.en}\n  valid: *files\n"
    config = load_config(write(text), ["data.valid.src=/b.de"])
    assert (config.data.train[0].src[0].name, config.data.valid.src[0].name) == ("a.de", "b.de")


# ------------------------------------------------------------------------------------------------------------ mistakes


def test_all_mistakes_at_once_each_with_its_place(write: Any) -> None:
    """One run reports everything that is wrong, in the order of the file, the command line last."""
    text = """\
data:
  train: {src: a.de, tgt: 3}
  max_length: 1
lr: 0.1
model:
  preset: tny
  d_model: big
  dropout: true
optim:
  betas: [0.9]
  eps: .inf
  warmup_step: 3
train: [1, 2]
decode: {sample: yes, zzz: 1}
tokenizer:
  vocab_size: '8000'
  vocab_size: 8.0
"""
    assert mistakes(write(text), "train.steps=1", "decode.top_p=2", "seed=-1", "decode.seed") == [
        "x.yaml:1: run_dir: missing; folder of the run: checkpoints, logs, models",
        "x.yaml:1: data.valid: missing; parallel text to validate on: a dataset, or how many pairs of train",
        "x.yaml:2: data.train.tgt: must be a path or a list of paths, not 3",
        "x.yaml:3: data.max_length: must be a whole number > 1, not 1",
        "x.yaml:4: lr: unknown key; did you mean optim.lr?",
        "x.yaml:6: model.preset: must be one of tiny, small, base, big or auto, not 'tny'; did you mean tiny?",
        "x.yaml:7: model.d_model: must be a whole number > 0 or auto, not 'big'",
        "x.yaml:8: model.dropout: must be a number >= 0 and <= 0.9 or auto, not true",
        "x.yaml:10: optim.betas: must be a list of 2, each a number >= 0 and < 1, not [0.9]",
        "x.yaml:11: optim.eps: must be a number > 0, not inf",
        "x.yaml:12: optim.warmup_step: unknown key; did you mean warmup_steps?",
        "x.yaml:13: train: must be a section of key: value lines, not [1, 2]",
        "x.yaml:14: decode.sample: must be true or false, not 'yes'",
        "x.yaml:14: decode.zzz: unknown key; allowed here: beam_size, length_penalty, n_best, max_length_ratio, "
        "max_length_offset, batch_tokens, engine, quantize, split_sentences, tag, suppress, no_repeat_ngram, "
        "protect, choose, sample, num_samples, temperature, top_k, top_p, seed",
        "x.yaml:17: tokenizer.vocab_size: set twice, first in line 16",
        "command line: train.steps: unknown key; did you mean max_steps?",
        "command line: decode.seed: write an override as section.key=value",
        "command line: seed: must be a whole number >= 0 and < 9223372036854775808, not -1",
        "command line: decode.top_p: must be a number > 0 and <= 1, not 2",
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("model: {d_model: '8'}", "x.yaml:5: model.d_model: must be a whole number > 0 or auto, not '8'"),
        ("model: {d_model: true}", "x.yaml:5: model.d_model: must be a whole number > 0 or auto, not true"),
        ("model: {d_model: 8.0}", "x.yaml:5: model.d_model: must be a whole number > 0 or auto, not 8.0"),
        ("model: {d_model:}", "x.yaml:5: model.d_model: must be a whole number > 0 or auto, not null"),
        ("optim: {lr: '1'}", "x.yaml:5: optim.lr: must be a number > 0 or auto, not '1'"),
        ("optim: {betas: 1}", "x.yaml:5: optim.betas: must be a list of 2, each a number >= 0 and < 1, not 1"),
        ("train: {batch_tokens: many}",
         "x.yaml:5: train.batch_tokens: must be a whole number > 0 or auto, not 'many'"),
        ("train: {patience: 0}", "x.yaml:5: train.patience: must be a whole number > 0 or null or auto, not 0"),
        ("seed: 1.5", "x.yaml:5: seed: must be a whole number >= 0 and < 9223372036854775808, not 1.5"),
        ("  src_lang: 5", "x.yaml:5: data.src_lang: must be text or null, not 5"),
        ("  cache_dir: ''", "x.yaml:5: data.cache_dir: must be a path, not ''"),
        ("  test: none", "x.yaml:5: data.test: must be a section of key: value lines or null, not 'none'"),
        ("  test: {src: a}", "x.yaml:5: data.test.tgt: missing; target text: the same number of files as src"),
        ("train: {metric: BLEU}", "x.yaml:5: train.metric: must be one of bleu, chrf, loss, not 'BLEU'; did you mean "
         "bleu?"),
        ("train: {metric: [1]}", "x.yaml:5: train.metric: must be one of bleu, chrf, loss, not [1]"),
        ("batch_tokens: 1", "x.yaml:5: batch_tokens: unknown key; did you mean train.batch_tokens or "
         "decode.batch_tokens?"),
        ("training: {}", "x.yaml:5: training: unknown key; did you mean train?"),
        ("optim.lr: 1", "x.yaml:5: 'optim.lr': unknown key; dotted keys are for the command line only; here write lr: "
         "in the section optim:"),
        ("1: 2", "x.yaml:5: 1: unknown key; allowed here: run_dir, seed, data, init, tokenizer, model, optim, train, "
         "decode"),
        ('"a\\nb": 2', "x.yaml:5: 'a\\nb': unknown key; allowed here: run_dir, seed, data, init, tokenizer, model, "
         "optim, train, decode"),
        ("run_dir: b", "x.yaml:5: run_dir: set twice, first in line 1"),
        ("[a]: b", "x.yaml:5: a key must be one word"),
        ("seed: !!python/name:os.system", "x.yaml:5: seed: the YAML tag 'tag:yaml.org,2002...hon/name:os.system' is "
         "not allowed"),
        ("seed: !!int x", "x.yaml:5: seed: 'x' cannot be read as int"),
        ("seed: &a [*a]", "x.yaml:5: seed: nested too deeply, or contains itself"),
        ("train:\n\tseed: 1", "x.yaml:6: not valid YAML: while scanning for the next token, found character '\\t' that "
         "cannot start any token"),
        ("seed: [1", "x.yaml:6: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got "
         "'<stream end>'"),
        ("---\nseed: 1", "x.yaml:5: not valid YAML: expected a single document in the stream, but found another "
         "document"),
        ("seed: " + "[" * 3000, "x.yaml:5: not valid YAML: nested too deeply"),
        ("seed: \x01", "x.yaml:5: not valid YAML: character '\\x01' is not allowed"),
        ("seed: '" + "y" * 99 + "'", "x.yaml:5: seed: must be a whole number >= 0 and < 9223372036854775808, not "
         "'yyyyyyyyyyyyyyyyy...yyyyyyyyyyyyyyyyyy'"),
    ],
)  # fmt: skip
def test_each_mistake_is_reported_in_words(write: Any, lines: str, expected: str) -> None:
    """Every message names the place, the dotted key, what is allowed and what was found."""
    assert mistakes(write(MINIMAL + lines + "\n")) == [expected]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("model: {preset: small, num_heads: 3}", "x.yaml:5: model.d_model: must be a multiple of num_heads (3), not "
         "256"),
        ("model: {preset: small, num_kv_heads: 3}", "x.yaml:5: model.num_kv_heads: must divide num_heads (4), not 3"),
        ("model:\n  d_model: 12\n  positions: rotary\n  num_heads: 4", "x.yaml:7: model.positions: rotary needs an "
         "even head size, but d_model / num_heads is 3"),
        ("model: {d_model: 15, num_heads: 3}", "x.yaml:5: model.positions: sinusoidal needs an even d_model, not 15"),
        ("tokenizer: {joint: false}\nmodel: {tie_embeddings: all}", "x.yaml:6: model.tie_embeddings: all needs one "
         "vocabulary; set tokenizer.joint: true, or use target"),
        ("optim: {schedule: cosine}\ntrain: {max_epochs: 9, max_steps: null}", "x.yaml:5: optim.schedule: cosine ends "
         "at the last step; set train.max_steps"),
        ("optim: {schedule: linear, warmup_steps: 9}\ntrain: {max_steps: 9}", "x.yaml:5: optim.warmup_steps: must be "
         "below train.max_steps (9), not 9"),
        ("train: {max_steps: null}", "x.yaml:5: train.max_steps: training needs an end; set one of max_steps, "
         "max_epochs, max_minutes"),
        ("decode: {n_best: 9}", "x.yaml:5: decode.n_best: must be at most beam_size (5) without sample, not 9"),
        ("decode: {top_k: 9}", "x.yaml:5: decode.top_k: has no effect in beam search; set decode.sample: true, or "
         "remove this key"),
        ("  test: {src: [a, b], tgt: c}", "x.yaml:5: data.test.tgt: must have the same number of files as src "
         "(2), not 1"),
    ],
)  # fmt: skip
def test_rules_between_keys(write: Any, lines: str, expected: str) -> None:
    """Settings that contradict each other are refused before any work is done."""
    assert mistakes(write(MINIMAL + lines + "\n")) == [expected]


@pytest.mark.parametrize(
    "override",
    [
        "model.attention_window=9223372036854775808",
        "decode.beam_size=1000000000",
        "decode={sample: true, n_best: 1000000000}",
        "decode.length_penalty=1e5",
        "decode.max_length_ratio=1e308",
        "decode.max_length_offset=1000000000",
    ],
)
def test_settings_that_no_memory_or_number_holds(write: Any, override: str) -> None:
    """A model folder of a stranger must not fill the memory, or overflow, at the first line that is translated."""
    (reported,) = mistakes(write(MINIMAL), override)
    assert " <" in reported


def test_several_broken_rules_are_reported_together(write: Any) -> None:
    """A rule does not hide the next one, within a section or between sections."""
    assert len(mistakes(write(MINIMAL), "decode.top_k=3", "decode.top_p=0.5", "decode.n_best=6")) == 3
    path = write(MINIMAL + "model: {tie_embeddings: all}\n")
    assert (
        len(
            mistakes(
                path, "tokenizer.joint=false", "optim.schedule=linear", "train.max_epochs=9", "train.max_steps=null"
            )
        )
        == 2
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lr", "command line: optim.lr: write an override as section.key=value"),
        ("optim.lr=", "command line: optim.lr: write an override as section.key=value"),
        ("=3", "command line: '': unknown key; allowed here: run_dir, seed, data, init, tokenizer, model, optim, "
         "train, decode"),
        ("lr=3", "command line: lr: unknown key; did you mean optim.lr?"),
        ("optim.lr.x=3", "command line: optim.lr.x: unknown key; optim.lr is not a section"),
        ("\udc80.x=3", "command line: '\\udc80'.x: unknown key; '\\udc80' is not a section"),  # a byte that is no UTF-8
        ("optim.lr=[", "command line: optim.lr: not valid YAML: while parsing a flow node, expected the node content, "
         "but found '<stream end>'"),
        ("optim=3", "command line: optim: must be a section of key: value lines, not 3"),
        ("data.train={src: a}", "command line: data.train.tgt: missing; target text: the same number of files as src"),
        ("optim={lr: 1, lr: 2}", "command line: optim.lr: set twice, first in line 1"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(write: Any, override: str, expected: str) -> None:
    """A mistake in an override is reported as one of the command line, never with a line of the file."""
    assert mistakes(write(MINIMAL), override) == [expected]


def test_an_empty_file_misses_what_is_required(write: Any) -> None:
    """No file content is no crash, and the command line alone can complete it."""
    expected = ["run_dir", "data.train", "data.valid"]
    assert [line.split(": ")[1] for line in mistakes(write(""))] == expected
    assert [line.split(": ")[1] for line in mistakes(write("# nothing\n"))] == expected
    files = ["data.train={src: a, tgt: b}", "data.valid.src=c", "data.valid.tgt=d"]
    assert load_config(write(""), ["run_dir=r", *files]).run_dir == Path("r")


def test_files_that_cannot_be_read(write: Any, tmp_path: Path) -> None:
    """Missing, not a file, not text, not a mapping: each says so."""
    assert mistakes(tmp_path / "no.yaml") == ["no.yaml: cannot be read: No such file or directory"]
    assert mistakes(tmp_path / "a\0b") == ["a\0b: cannot be read: embedded null byte"]
    assert "cannot be read" in mistakes(tmp_path)[0]
    assert mistakes(write(b"a: 1\nb: \xff\n")) == ["x.yaml:2: not UTF-8 text; save the file as UTF-8"]
    assert mistakes(write(b"#" * 300_000)) == [
        "x.yaml: cannot be read: larger than 256 KiB, so it is not a config file"
    ]
    assert mistakes(write("- a\n")) == ["x.yaml:1: must have keys such as run_dir: and data:, not ['a']"]
    assert load_config(write(b"\xef\xbb\xbf" + MINIMAL.encode().replace(b"\n", b"\r\n"))).seed == 1


def test_an_alias_bomb_is_harmless(write: Any) -> None:
    """Aliases of aliases must not be written out, in memory or in the message."""
    bomb = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9 if i else ['x'])}]\n" for i in range(15))
    assert len(mistakes(write(MINIMAL + bomb + "seed: *a14\ntrain: {metric: *a14}\nmodel: *a14\n"))) == 18


words = st.sampled_from(
    [".inf", "1e-4", "no", "", "~", "null", "true", "3", "'3'", "[a]", "{a: b}", "!!int x", "*a", "&a"]
)
keys = st.sampled_from(
    ["run_dir", "data", "train", "src", "tgt", "model", "d_model", "optim", "lr", "seed", "&a b", "<<"]
)
lines = st.builds("{}{}: {}\n".format, st.sampled_from(["", "  ", "    ", "- ", "\t"]), keys, words)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
names = st.sampled_from([*Config.model_fields, *ModelConfig.model_fields, *DataConfig.model_fields, "src", "tgt"])
trees = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(names | plain, inner), max_leaves=20)


def load_or_refuse(path: Path, content: bytes, overrides: list[str]) -> None:
    path.write_bytes(content)
    reported = ""
    try:
        load_config(path, overrides)
    except ConfigError as error:
        reported = str(error)
    assert reported.encode().decode() == reported  # can be printed
    assert all(line.startswith((f"{path}:", "command line: ")) for line in reported.split("\n") if reported)


@settings(
    max_examples=settings.default.max_examples // 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(lines).map("".join).map(str.encode)
    | st.text().map(lambda text: text.encode("utf-8", "replace"))
    | st.binary()
)
@example(b"[" * 5000)
@example(b'"\\ud800": "\\udfff"\nrun_dir: "\\ud800"')
@example(b'a: "\\UFFFFFFFF"')
@example(b"seed: " + b"9" * 5000)
@example(b"optim: {lr: 1" + b"0" * 400 + b", eps: 1e999, betas: [.nan, -.inf]}")
@example(b"%YAML 99.99\n---\na: b")
@example(b"!!python/object/apply:os.system [echo]")
@example(b"{" * 30 + b"a" + b"}" * 30)
def test_no_text_breaks_the_reader(tmp_path: Path, content: bytes) -> None:
    """Whatever the file holds, a person gets a message with a place, never a traceback."""
    load_or_refuse(tmp_path / "x.yaml", content, [])


@settings(
    max_examples=settings.default.max_examples // 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example({"optim": []}, ["optim.lr=0.1"])
@given(st.dictionaries(names, trees), st.lists(st.text() | st.builds("{}.{}={}".format, names, names, words)))
def test_no_value_breaks_the_checks(tmp_path: Path, tree: dict[str, Any], overrides: list[str]) -> None:
    """Any value under any key, in the file or on the command line, is accepted or refused with a message."""
    content = yaml.safe_dump({**yaml.safe_load(MINIMAL), **tree}, allow_unicode=True)
    load_or_refuse(tmp_path / "x.yaml", content.encode("utf-8", "surrogatepass"), overrides)


# ------------------------------------------------------------------------------------------------------ what is given


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.preset=big", "model.num_kv_heads=4", "optim.eps=1e-30", "train.max_minutes=0.5"],
        ["tokenizer.joint=false", "optim.schedule=cosine", "train.max_steps=9000", "train.patience=null"],
        ["data.test={src: [a, 'b: c'], tgt: ['1', ' é#']}", "data.tgt_lang='1e-4'", "data.cache_dir=c"],
    ],
)
def test_a_saved_config_loads_equal_anywhere(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    """A run resumes and a copied model folder loads with exactly its config, though the text files are gone."""
    config = load_config(write(MINIMAL), overrides)
    text = dump_config(config)
    monkeypatch.chdir("/")
    again = load_saved_config(write(text, "elsewhere/config.yaml"))
    assert again == config
    assert dump_config(again) == text


# -------------------------------------------------------------------------------------------------- options that decode


def refused(default: DecodeConfig, as_flags: bool = True, **given: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        override_decode(default, given, as_flags=as_flags)
    return str(caught.value).split("\n")


def test_decode_options_replace_only_what_is_given() -> None:
    """A model's own settings hold for all that the command line does not say."""
    default = DecodeConfig(beam_size=3, length_penalty=0.5)
    assert override_decode(default, {}) == default
    changed = override_decode(default, {"beam_size": 8, "n_best": 8, "max_length_ratio": 3})
    assert changed == DecodeConfig(beam_size=8, n_best=8, length_penalty=0.5, max_length_ratio=3.0)


def test_mistakes_in_decode_options_are_reported_as_options() -> None:
    """All at once, by the names that a person typed, and by the same rules as in a file."""
    model = DecodeConfig()
    assert refused(model, beam_size=-1, top_p=float("nan"), temperature=0, sample="yes", zzz=1)[:4] == [
        "--beam-size: must be a whole number > 0 and <= 1000, not -1",
        "--sample: must be true or false, not 'yes'",
        "--temperature: must be a number > 0, not 0",
        "--top-p: must be a number > 0 and <= 1, not nan",
    ]
    assert refused(model, beem_size=2) == ["--beem-size: unknown key; did you mean beam_size?"]
    assert refused(model, n_best=6, top_k=2) == [
        "--n-best: must be at most beam_size (5) without sample, not 6",
        "--top-k: has no effect in beam search; set --sample, or remove this key",
    ]
    assert refused(DecodeConfig(n_best=4), beam_size=1) == [
        "--n-best: must be at most beam_size (1) without sample, not 4"
    ]


def test_mistakes_in_keywords_are_reported_as_keywords() -> None:
    """Guards against advice to a Python program in words of the command line, or of another section: ``batch_size`` is
    train.batch_tokens in a config file, but not here."""
    assert refused(DecodeConfig(), False, beam_sise=2) == ["beam_sise: unknown key; did you mean beam_size?"]
    assert refused(DecodeConfig(), False, num_beams=2) == ["num_beams: unknown key; did you mean beam_size?"]
    assert refused(DecodeConfig(), False, batch_size=2) == ["batch_size: unknown key; did you mean batch_tokens?"]
    assert refused(DecodeConfig(), False, top_k=2) == [
        "top_k: has no effect in beam search; set sample=True, or remove this key"
    ]


def test_sampling_is_switched_on_and_off() -> None:
    """Beam search must not stumble over the temperature of a model that samples, but over one that is asked for."""
    sampling = override_decode(DecodeConfig(), {"sample": True, "top_k": 9, "n_best": 6})
    assert (sampling.sample, sampling.top_k, sampling.n_best) == (True, 9, 6)
    assert override_decode(sampling, {"sample": False, "n_best": 2}) == DecodeConfig(n_best=2)
    assert refused(sampling, sample=False, temperature=0.5) == [
        "--n-best: must be at most beam_size (5) without sample, not 6",
        "--temperature: has no effect in beam search; set --sample, or remove this key",
    ]


def test_config_imports_no_heavy_package() -> None:
    """Help and error messages come at once: reading a config must not load numpy or torch."""
    code = (
        "import sys, types; package = types.ModuleType('seq2seq'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['seq2seq'] = package; import seq2seq.config; "
        "print([name for name in ('numpy', 'torch', 'sentencepiece') if name in sys.modules])"
    )
    import seq2seq

    folder = str(Path(seq2seq.__file__).parent)
    result = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
