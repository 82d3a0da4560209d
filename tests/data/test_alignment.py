"""Promise: the place where two sides of a corpus drift apart is found, and none where they do not."""

import numpy as np
import pytest

from seq2seq.data.alignment import check_alignment
from seq2seq.data.inspection import LINE, Lines


def made_up(number: int, seed: int = 0) -> tuple[Lines, Lines]:
    """Records of a text and of its translation: alike in length and marks, with noise."""
    rng = np.random.default_rng(seed)
    src, tgt = np.zeros(number, LINE), np.zeros(number, LINE)
    src["chars"] = rng.integers(10, 120, number)
    src["punctuation"] = 1 + src["chars"] // 40
    src["digits"] = rng.integers(0, 4, number) * (rng.random(number) < 0.1)
    tgt["chars"] = src["chars"] * rng.normal(1.2, 0.15, number).clip(0.8, 1.6)
    tgt["punctuation"], tgt["digits"] = src["punctuation"] + (rng.random(number) < 0.2), src["digits"]
    return src, tgt


@pytest.mark.parametrize(
    ("number", "place", "missing"), [(6000, 2345, 1), (6000, 2345, 3), (500, 170, 1), (6000, 5, 2)]
)
@pytest.mark.parametrize("side", ["src", "tgt"])
def test_a_missing_line_is_found(side: str, number: int, place: int, missing: int) -> None:
    """Guards against a drift that goes unseen, is placed elsewhere, or is told of the wrong side."""
    src, tgt = made_up(number)
    gone = range(place, place + missing)
    src, tgt = (np.delete(src, gone), tgt) if side == "src" else (src, np.delete(tgt, gone))
    (drift,) = check_alignment(src, tgt).drifts
    assert abs(drift.line - place) <= 6
    assert (drift.before, drift.shift) == (0, missing if side == "src" else -missing)


def test_drifts_add_up_and_end() -> None:
    """Guards against losing the track after the first drift, and against taking its mending for another one."""
    src, tgt = made_up(11000)
    found = check_alignment(np.delete(src, [8200, 8201]), np.delete(tgt, [2500, 4500])).drifts
    assert [(drift.before, drift.shift) for drift in found] == [(0, -1), (-1, -2), (-2, 0)]
    assert all(abs(drift.line - place) <= 6 for drift, place in zip(found, (2500, 4500, 8200), strict=True))


def test_a_rhythm_does_not_hide_a_drift() -> None:
    """Guards against trying no other shift where this one beats its neighbours: here every fourth line is alike."""
    src, tgt = made_up(6000)
    for lines in (src, tgt):
        lines["chars"] += np.tile([0, 60, 120, 60], 1500).astype("u4")
    (drift,) = check_alignment(src, np.delete(tgt, range(2345, 2349))).drifts
    assert abs(drift.line - 2345) <= 6


def test_a_short_slip_is_found() -> None:
    """Guards against a block in the middle that fits with a shift and passes as aligned."""
    src, tgt = made_up(6000)
    tgt[3000:4000] = np.roll(tgt[3000:4000], 3)
    found = check_alignment(src, tgt).drifts
    assert [(drift.before, drift.shift) for drift in found] == [(0, 3), (3, 0)]
    assert all(abs(drift.line - place) <= 6 for drift, place in zip(found, (3000, 4000), strict=True))


def test_nothing_is_found_where_nothing_is() -> None:
    """Guards against false alarms: in aligned text, in unrelated text (which fits badly), and in short texts."""
    src, tgt = made_up(5000)
    assert check_alignment(src, tgt)[1:] == ([], [])
    assert check_alignment(src, tgt).fit > 1.5
    for seed in range(20):
        unrelated = check_alignment(src, made_up(5000, seed + 1)[1])
        assert unrelated.drifts == []
        assert unrelated.fit < 0.3
        assert check_alignment(src[:300], made_up(300, seed + 1)[1]).drifts == []
    assert np.isnan(check_alignment(src[:50], tgt[:49]).fit)


def test_a_stretch_that_fits_nowhere_is_told() -> None:
    """Guards against a block from another text that hides in a good corpus."""
    src, tgt = made_up(8000)
    tgt[3000:5000] = made_up(2000, seed=9)[1]
    assert check_alignment(src, tgt)[1:] == ([], [(3000, 4000), (4000, 5000)])
