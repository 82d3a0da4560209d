"""All lines or pairs with one finding: they are counted, a few are shown as examples, and a list has them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.inspection import PartFacts, Place

Spot = tuple[Place, ...]  # of one side, or of both
BOTH = 2  # as a side: the finding is about the pair


@dataclass(frozen=True, eq=False)
class Cases:
    """Lines or pairs of a part of the text; about 20 bytes each."""

    name: str  # of the finding in a list; empty if it is about whole files, which have no rows
    part: PartFacts
    files: NDArray[np.int64]  # [cases] number of the file in its part, from 0
    lines: NDArray[np.int64]  # [cases] line in that file, from 0
    sides: NDArray[np.uint8]  # [cases] 0 or 1 for a line of source or target, or BOTH
    earlier: tuple[PartFacts, NDArray[np.int64]] | None = None  # [cases] the pair that each one repeats, of that part

    def __len__(self) -> int:
        return len(self.lines)

    def spot(self, i: int) -> Spot:
        """Where case ``i`` is."""
        file, line, side = int(self.files[i]), int(self.lines[i]), int(self.sides[i])
        return tuple(
            facts[file].place(line)
            for number, facts in enumerate((self.part.src, self.part.tgt))
            if side in (number, BOTH)
        )

    def repeated(self, i: int) -> Place:
        """The source of the pair that case ``i`` repeats."""
        assert self.earlier is not None
        part, pairs = self.earlier
        return part.places(int(pairs[i]))[0]


def cases_of_lines(name: str, part: PartFacts, found: Sequence[tuple[int, Literal[0, 1], NDArray[np.int64]]]) -> Cases:
    """``found``: numbers of files, their sides, and lines there."""
    sizes = [len(lines) for *_, lines in found]
    files = np.repeat(np.array([file for file, *_ in found], np.int64), sizes)
    sides = np.repeat(np.array([side for _, side, _ in found], np.uint8), sizes)
    lines = np.concatenate([np.empty(0, np.int64), *(lines for *_, lines in found)])
    return Cases(name, part, files, lines, sides)


def cases_of_pairs(
    name: str,
    part: PartFacts,
    pairs: NDArray[np.int64],
    side: int = BOTH,
    earlier: tuple[PartFacts, NDArray[np.int64]] | None = None,
) -> Cases:
    """``pairs``: their numbers in the part; ``side``: the only one that has the finding, 0 or 1."""
    files, lines = part.locate(pairs)
    return Cases(name, part, files, lines, np.full(len(pairs), side, np.uint8), earlier)
