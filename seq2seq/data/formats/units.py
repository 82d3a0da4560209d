"""What a reader of parallel text yields: two texts that belong together, and their number in the file."""

from typing import NamedTuple


class Unit(NamedTuple):
    """Source and target text of one line, translation unit or row; a blank side is allowed."""

    src: str
    tgt: str
    number: int  # how the users of the format count: line of a text file (from 1), unit, row
