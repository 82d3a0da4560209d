"""Promise: what is kept between starts is what was made, or it is named and made again."""

import os

import pytest

from seq2seq.config import (
    CleanConfig,
    ConvolutionalConfig,
    HeldOut,
    ModelConfig,
    RecurrentConfig,
    TextFiles,
    TokenizerConfig,
)
from seq2seq.data import vocabulary
from seq2seq.data.prepare import prepare_data
from seq2seq.errors import ConfigError, DataError


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


@pytest.mark.parametrize(
    ("model", "bounded"),
    [
        (ModelConfig(positions="rotary"), False),
        (ModelConfig(positions="learned"), True),
        (RecurrentConfig(architecture="recurrent"), False),
        (ConvolutionalConfig(architecture="convolutional"), True),
    ],
)
def test_validation_has_all_pairs_that_the_model_can_take(tmp_path, tiny_config, model, bounded):
    """Guards against a table of positions too short for a validation pair, and against scores without such pairs."""
    for name in ("train.en", "train.de"):  # of validation, too
        (tmp_path / name).write_text("ka to mi ren sol\n" * 40 + "ka to mi ren sol " * 20 + "\n")
    data = prepare_data(tiny_config().model_copy(update={"model": model}), show_progress=False)
    assert (data.train.num_pairs, data.valid.num_pairs) == (40, 40 if bounded else 41)


def test_one_more_field_changes_no_fingerprint(tmp_path, tiny_config):
    """Guards against an update that refuses every run: fingerprints were made of how Python prints a class."""

    class Later(TokenizerConfig):
        added: bool = False

    for name in ("train.en", "train.de"):
        (tmp_path / name).write_text("ka to mi ren sol\n" * 40)
    config = tiny_config()
    before = prepare_data(config, show_progress=False).fingerprint
    folders = sorted(config.cache_dir.iterdir())
    later = config.model_copy(update={"tokenizer": Later(**config.tokenizer.model_dump())})
    assert prepare_data(later, show_progress=False).fingerprint == before
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


def with_files(config, **parts):
    """``config`` with other valid or test files."""
    texts = {name: TextFiles(src=str(src), tgt=str(tgt)) for name, (src, tgt) in parts.items()}
    return config.model_copy(update={"data": config.data.model_copy(update=texts)})


@pytest.mark.parametrize("part", ["valid", "guard", "test"])
@pytest.mark.parametrize(
    ("src", "tgt", "message"),
    [
        (b"a\nb\n", b"a\n", r"has 2 lines but .* has 1"),
        (b"", b"", r"data\.{part}: the files are empty"),
        (b"\n\n", b"\n \n", r"data\.{part}: the files have no line with text on both sides"),
        (b"a\nb\xff\n", b"a\nb\n", r"other\.en:2: not valid UTF-8"),
        (b"%PDF-1.7", b"a\n", r"other\.en: is a PDF"),
        (None, b"a\n", r"data\.{part}\.src: no such file: .*other\.en"),
        ("pipe", b"a\n", r"data\.{part}\.src: is no regular file; .* several times.*: .*other\.en"),
    ],
)
def test_mistakes_in_held_out_text_come_before_the_long_work(
    tmp_path, tiny_config, monkeypatch, part, src, tgt, message
):
    """Guards against an hour of tokenizer and corpus before a wrong validation file is named, and a day of training
    before a wrong test file; and against a pipe that hangs when it is read again."""
    monkeypatch.setattr(vocabulary, "train_tokenizer", lambda *arguments: pytest.fail("the long work has begun"))
    for name in ("train.en", "train.de"):
        (tmp_path / name).write_text("ka to mi ren sol\n" * 40)
    if src == "pipe":
        os.mkfifo(tmp_path / "other.en")
    elif src is not None:
        (tmp_path / "other.en").write_bytes(src)
    (tmp_path / "other.de").write_bytes(tgt)
    config = with_files(tiny_config(), **{part: (tmp_path / "other.en", tmp_path / "other.de")})
    with pytest.raises((DataError, ConfigError), match=message.replace("{part}", part)):
        prepare_data(config, show_progress=False)


def test_normalisation_and_filters_make_another_tokenizer(tmp_path, tiny_config):
    """Guards against a tokenizer found again in the cache that was trained on other pairs or other spellings."""
    for name in ("train.en", "train.de"):
        (tmp_path / name).write_text("ka to mi ren sol\n" * 40 + "wy zu " * 9 + "\n")
    config = tiny_config()
    first = prepare_data(config, show_progress=False)
    assert first.tokenizers.src.normalises
    assert not first.tokenizers.tgt.normalises
    assert prepare_data(config, show_progress=False).fingerprint == first.fingerprint
    other = config.tokenizer.model_copy(update={"normalise_source": False})
    plain = prepare_data(config.model_copy(update={"tokenizer": other}), show_progress=False)
    assert not plain.tokenizers.src.normalises
    assert plain.fingerprint != first.fingerprint
    longer = config.data.model_copy(update={"max_length": 60})
    more = prepare_data(config.model_copy(update={"data": longer}), show_progress=False)
    assert more.tokenizers.fingerprint != first.tokenizers.fingerprint


def test_cleaning_changes_fingerprints_only_if_it_leaves_pairs_out(tmp_path, tiny_config, capsys):
    """Guards against corpora of today that are built again, and against one that still has what was left out."""

    def prepared(**clean):
        config = tiny_config()
        data = config.data.model_copy(update={"clean": CleanConfig(overlap=False, **clean)})
        return prepare_data(config.model_copy(update={"data": data}))

    lines = [f"ka to mi ren {'sol' * (number % 5)} {number}" for number in range(40)]
    (tmp_path / "train.en").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "train.de").write_text(
        "".join(f"{line[:-1] if number < 3 else line}\n" for number, line in enumerate(lines))
    )
    whole = prepared()
    capsys.readouterr()
    same = prepared(max_characters=500)
    assert (same.fingerprint, same.cleaned.num_left_out) == (whole.fingerprint, 0)
    assert not capsys.readouterr().out
    less = prepared(numbers=True)
    told = "train: 37 of 40 pairs are clean; left out: 3 with other numbers; examples: "
    assert told in capsys.readouterr().out
    assert less.train.lines.tolist() == list(range(3, 40))
    fingerprints = [[data.tokenizers.fingerprint, data.train.folder.name] for data in (whole, less)]
    assert all(a != b for a, b in zip(*fingerprints, strict=True))
    again = prepared(numbers=True, max_characters=500)  # other rules, the same pairs
    assert again.fingerprint == less.fingerprint
    assert "pairs kept" not in capsys.readouterr().out


def test_cleaning_counts_if_validation_pairs_are_held_out(tmp_path, tiny_config):
    """Guards against a corpus of before that is found again, with the pairs that the rules leave out now."""
    lines = [f"ka to mi ren sol {number}" for number in range(40)]
    (tmp_path / "train.en").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "train.de").write_text(
        "".join(f"{line if number < 3 else line[::-1]}\n" for number, line in enumerate(lines))
    )

    def prepared(**clean):
        config = tiny_config()
        changed = {"clean": CleanConfig(**clean), "valid": HeldOut(from_train=5)}
        return prepare_data(config.model_copy(update={"data": config.data.model_copy(update=changed)}))

    whole, less = prepared(), prepared(identical=True)
    assert (whole.train.num_pairs, less.train.num_pairs) == (35, 32)
    assert set(less.train.lines.tolist()) <= set(range(3, 40))
