"""Promise: what is kept between starts is what was made, or it is named and made again."""

import pytest

from seq2seq.data.prepare import prepare_data


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
