"""The comparison of two programs' translations, without any model."""

import math
from collections.abc import Sequence

import pytest

from seq2seq.export.parity import Parity, Scored, compare

OURS = Scored((7, 8), -3.0)


def _compare(theirs: Scored, rescored: float = -3.0) -> Parity:
    """One line, whose text is its ids without 9."""

    def decode(batch: Sequence[Sequence[int]]) -> list[str]:
        return [" ".join(str(i) for i in ids if i != 9) for ids in batch]

    return compare(["source"], [OURS], [theirs], decode, lambda line, ids: rescored)


@pytest.mark.parametrize("score", [-3.0, -3.0002])
def test_the_same(score: float) -> None:
    """Guards against rounding that is called a difference; 0.0003 is the limit for two tokens and EOS."""
    parity = _compare(Scored((7, 8), score))
    assert (parity.num_same, parity.differences, parity.ties) == (1, [], [])
    assert parity.largest_gap == pytest.approx(abs(score + 3.0) / 3)


@pytest.mark.parametrize("score", [-3.001, -2.0, math.nan, -math.inf])
def test_another_score_of_the_same_tokens(score: float) -> None:
    """Guards against models that differ where their translations do not, and against NaN, which is never larger."""
    (difference,) = _compare(Scored((7, 8), score)).differences
    assert difference.kind == "score"


@pytest.mark.parametrize(
    ("theirs", "rescored", "kind", "why"),
    [
        (Scored((7, 5), -3.0), -5.0, "text", "the models differ: ours gives their translation -5.0000"),
        (Scored((7, 9, 8), -3.0), -5.0, "tokens", "the models differ"),
        (Scored((7, 5), -4.0), -4.0, "text", "the models agree on the score of their translation, but the searches"),
        (Scored((7, 5), math.nan), -4.0, "text", "the models differ"),
        (Scored((7, 5), -3.0001), -3.0001, "tie", "both translations have the same score"),
    ],
)
def test_other_tokens(theirs: Scored, rescored: float, kind: str, why: str) -> None:
    """Guards against a difference without its cause, and against a tie of two models that differ."""
    parity = _compare(theirs, rescored)
    (found,) = [*parity.differences, *parity.ties]
    assert (found.kind, found.line, found.source) == (kind, 1, "source")
    assert found.why.startswith(why)
    assert (parity.ties == [found]) == (kind == "tie")
    assert parity.num_same == 0
    assert "ours:   7 8  (-3.0000)" in str(found)
