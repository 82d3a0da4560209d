"""Alignment check: finds the lines from which two sides of a corpus drift apart, in any pair of languages.

If a source line has more characters, punctuation marks, digits or question marks, its translation usually has more,
too. In a window of aligned lines these counts correlate, and they correlate best without a shift. If one side lacks a
line, they correlate best with a shift of one from there on. Measured on four real corpora, two of them sorted by
length, so that lengths show nothing: one to three lines removed at a random place were found in 240 of 240 cases, to
within ten lines in most (about a hundred if sorted). Complete corpora gave no report. A report of a second drift was
false in 2 of 60 cases of one corpus.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.inspection import Lines

_WINDOW = 1000  # source lines; a shorter text is divided into four windows
_MIN_WINDOW = 200  # source lines; fewer can correlate by chance
_MAX_STEP = 10  # largest change of the shift from one window to the next
_MIN_GAIN = 0.3  # a new shift must improve the fit (the sum of four correlations) by this much
_MIN_FIT = 0.6  # least fit of aligned sides; unrelated lines stay far below
_MIN_SHARE = 0.25  # share of the text's usual fit; windows below it are not aligned

Looks = NDArray[np.float32]  # [lines, 4]


class Drift(NamedTuple):
    """From about source line ``line`` (counted from 0), source line n matches target line n + ``shift``."""

    line: int
    before: int  # the shift before that line
    shift: int


class Alignment(NamedTuple):
    """Result of :func:`check_alignment`."""

    fit: float  # median sum of four correlations, from 0 (unrelated) to 4; nan for short texts
    drifts: list[Drift]
    unlike: list[tuple[int, int]]  # ranges of source lines (first, end) that fit at no shift


def check_alignment(src: Lines, tgt: Lines) -> Alignment:
    """Find the lines where the shift between the sides changes, by up to ``_MAX_STEP`` lines at a time.

    Two changes in one window can look like one, or like none if they cancel out.

    Args:
        src, tgt: records of the two files, which may differ in length.
    """
    looks = _looks(src), _looks(tgt)
    size = min(_WINDOW, max(_MIN_WINDOW, len(src) // 4))
    shift, fit = 0, np.inf
    windows: list[tuple[int, int, float]] = []  # start, shift, fit
    for start in range(0, len(src) - size + 1, size):
        shift, fit = _best_shift(*looks, (start, size), shift, fit)
        windows.append((start, shift, fit))
    if not windows:
        return Alignment(float("nan"), [], [])
    usual = float(np.median([fit for *_, fit in windows]))
    drifts: list[Drift] = []
    settled = 0
    for start, after, _ in windows:
        if after != settled:
            place = _break(*looks, max(0, start - size), 2 * size, (settled, after))
            drifts.append(Drift(place, settled, after))
            settled = after
    unlike = [(start, start + size) for start, _, fit in windows if fit < _MIN_SHARE * usual]
    return Alignment(usual, drifts, unlike)


def _looks(lines: Lines) -> Looks:
    fields = ("chars", "punctuation", "digits", "questions")
    return np.log1p(np.stack([lines[field] for field in fields], axis=1).astype(np.float32))


def _best_shift(src: Looks, tgt: Looks, window: tuple[int, int], shift: int, fit: float) -> tuple[int, float]:
    """Best shift of a window (start, size) and its fit, given the shift and fit of the window before.

    The shift changes only if another fits clearly better. If it still fits well, only its neighbours are tried.
    """
    fits = {k: _fit(src, tgt, *window, k) for k in (shift - 1, shift, shift + 1)}
    if fits[shift] < max(0.7 * fit, fits[shift - 1] + _MIN_GAIN, fits[shift + 1] + _MIN_GAIN):
        others = set(range(shift - _MAX_STEP, shift + _MAX_STEP + 1)) - fits.keys()
        fits |= {k: _fit(src, tgt, *window, k) for k in others}
    best = max(fits, key=lambda k: fits[k])
    best = best if fits[best] > max(fits[shift] + _MIN_GAIN, _MIN_FIT) else shift
    return best, fits[best]


def _fit(src: Looks, tgt: Looks, start: int, size: int, shift: int) -> float:
    """Fit of a window at a shift: the sum of four correlations."""
    first, end = max(start, -shift), min(start + size, len(tgt) - shift)
    if end - first < size // 2:
        return 0.0
    x, y = src[first:end], tgt[first + shift : end + shift]
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    return float(((x * y).sum(axis=0) / np.maximum(scale, 1e-3)).sum())


def _break(src: Looks, tgt: Looks, start: int, size: int, shifts: tuple[int, int]) -> int:
    """First source line at which the second shift fits better than the first, in an area that has both."""
    first = max(start, *(-shift for shift in shifts))
    end = min(start + size, len(src), *(len(tgt) - shift for shift in shifts))
    distances = []
    for shift in shifts:
        apart = src[first:end] - tgt[first + shift : end + shift]
        apart -= apart.mean(axis=0)
        distances.append(np.abs(apart / np.maximum(apart.std(axis=0), 0.1)).clip(max=3).sum(axis=1))
    gained = np.cumsum(np.concatenate([[0], distances[1] - distances[0]]))  # by the first shift, before each line
    return first + int(gained.argmax())
