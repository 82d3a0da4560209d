"""What a reader of parallel text yields: two texts that belong together, and their number in the file."""

from contextlib import suppress
from math import isfinite
from typing import NamedTuple

from seq2seq.errors import DataError


class Unit(NamedTuple):
    """Source and target text of one line, translation unit or row; a blank side is allowed."""

    src: str
    tgt: str
    number: int  # how the users of the format count: line of a text file (from 1), unit, row
    score: float | None = None  # how good the pair is, where the dataset has a column for it


def read_score(value: object, place: str) -> float:
    """The score in a cell, a number or its digits; raises DataError with the place for all else."""
    with suppress(TypeError, ValueError):
        if not isinstance(value, bool) and isfinite(score := float(value)):  # type: ignore[arg-type]
            return score
    shown = "blank" if value is None or value == "" else f"{str(value)!r:.40}"
    raise DataError(f"{place}: the score is {shown}, not a number; correct it, or leave out score and min_score")
