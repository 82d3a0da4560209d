"""Promise: pairs that are held out for validation are in no other text, and the same ones are chosen every time."""

from pathlib import Path

import pytest

from seq2seq.config import DataConfig
from seq2seq.data.held_out import TrainAndValid
from seq2seq.errors import DataError

LINES = [f"Sentence number {number}." for number in range(40)]
PAIRS = [(line, line.upper()) for line in LINES] + [
    ("sentence number 7", "again"),
    ("", "blank"),
    ("SENTENCE: number 7", ""),
]


def split(folder: Path, valid: object, pairs: list[tuple[str, str]] = PAIRS) -> TrainAndValid:
    (folder / "t.tsv").write_text("".join(f"{src}\t{tgt}\n" for src, tgt in pairs), encoding="utf-8")
    return TrainAndValid(
        DataConfig.model_validate({"train": {"tsv": str(folder / "t.tsv"), "src": 0, "tgt": 1}, "valid": valid})
    )


@pytest.mark.parametrize(("valid", "count"), [(10, 10), ("10%", 4), ("0.1%", 1), ({"from_train": 19}, 19)])
def test_no_source_is_in_both(tmp_path: Path, valid: object, count: int) -> None:
    """Guards against validation text that the model has seen, with other case or punctuation too."""
    text = split(tmp_path, valid)
    train, held_out = list(text.train()), list(text.valid())
    assert len(held_out) == count
    assert {pair.src.casefold() for pair in held_out}.isdisjoint(pair.src.casefold() for pair in train)
    assert all((pair.src, pair.tgt) == PAIRS[pair.line] for pair in train)
    assert [pair.line for pair in held_out] == list(range(count))
    sevens = [pair for pair in (*train, *held_out) if "7" in pair.src and "umber 7" in pair.src]
    assert len(sevens) in (1, 3)  # all in train, or the first held out
    repeats = int(len(sevens) == 1)
    assert text.notice() == (
        f"valid: {count} pairs taken out of train; {repeats} other pairs with their sources are in neither"
    )


def test_the_choice_does_not_depend_on_order(tmp_path: Path) -> None:
    """Guards against another validation set, and scores that cannot be compared, after more text or another order."""
    chosen = {pair.src for pair in split(tmp_path, 10).valid()}
    assert {pair.src for pair in split(tmp_path, 10, PAIRS[::-1]).valid()} - {"sentence number 7"} <= chosen
    more = [*PAIRS, *((f"More {number}", "x") for number in range(4))]
    assert len(chosen - {pair.src for pair in split(tmp_path, 10, more).valid()}) <= 4


def test_too_much_is_refused(tmp_path: Path) -> None:
    """Guards against a run that has nothing to learn from."""
    with pytest.raises(
        DataError, match=r"data\.valid: 21 of the training pairs .* only 40 different sources; hold out at most half"
    ):
        list(split(tmp_path, 21).valid())


def test_a_text_of_its_own_stays_as_it_is(tmp_path: Path) -> None:
    """Guards against a filter that was not asked for."""
    text = split(tmp_path, {"tsv": str(tmp_path / "t.tsv"), "src": 0, "tgt": 1})
    assert list(text.train()) == list(text.valid())
    assert text.notice() is None
