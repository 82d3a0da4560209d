"""Lines that are no translation: empty ones, loops, and copies of the source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from seq2seq.data.inspection import line_keys

# A part that is there three times in a row, as in "the man the man the man"; a short one, as in "......", six times.
_LOOP = re.compile(r"(.{4,40}?)\1{2,}|(.{1,3}?)\2{5,}", re.DOTALL)
_SHORTEST_LOOP = 10  # characters


@dataclass(frozen=True)
class Faults:
    """The shares of lines that are no translation, from 0 to 1. A line counts once."""

    empty: float = 0.0
    looping: float = 0.0
    copied: float = 0.0

    @property
    def total(self) -> float:
        """The share of lines that are no translation."""
        return self.empty + self.looping + self.copied

    def __str__(self) -> str:
        """For a message; the largest share first, and none that is rounded to 0 %."""
        names = {"empty": self.empty, "looping": self.looping, "copies of the source": self.copied}
        found = sorted(((share, name) for name, share in names.items() if share > 0.005), reverse=True)
        return ", ".join(f"{share:.0%} {name}" for share, name in found)


def find_faults(sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> Faults:
    """Count the lines that are no translation. What the reference does as well is no fault.

    Args:
        sources, hypotheses, references: [lines] each; blank sources do not count.
    """
    number, counts = 0, {"empty": 0, "looping": 0, "copied": 0}
    for src, hyp, ref in zip(sources, hypotheses, references, strict=True):
        if not src.strip() or not ref.strip():
            continue
        number += 1
        if not hyp.strip():
            counts["empty"] += 1
        elif loops(hyp) and not loops(ref):
            counts["looping"] += 1
        elif copies(src, hyp) and not copies(src, ref):
            counts["copied"] += 1
    return Faults(**{name: count / max(1, number) for name, count in counts.items()})


def loops(line: str) -> bool:
    """Whether a part of the line is repeated again and again."""
    return any(len(found[0]) >= _SHORTEST_LOOP for found in _LOOP.finditer(line))


def copies(source: str, translation: str) -> bool:
    """Whether a translation is its source, except for case, spaces and punctuation."""
    key, other = line_keys([source, translation])
    return bool(key == other)
