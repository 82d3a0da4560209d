"""The proof of an export: our translations of a probe set beside those of another program with the exported weights.

It knows neither program: it compares token ids, texts and scores. A score is the log-probability of all tokens and EOS,
in nats, without any penalty for length, so that equal models have equal scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

TOLERANCE = 1e-4  # nats per token, EOS included: what fp32 loses where sums have another order


class Hypothesis(Protocol):
    """A translation of either program."""

    @property
    def ids(self) -> Sequence[int]:
        """Without BOS and EOS."""

    @property
    def score(self) -> float:
        """See the module."""


@dataclass(frozen=True)
class Scored:
    """A plain :class:`Hypothesis`."""

    ids: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Difference:
    """A line of the probe set that is not the same."""

    line: int  # of the probe set, from 1
    kind: Literal["text", "tokens", "score", "tie"]
    source: str
    ours: str
    theirs: str
    our_score: float
    their_score: float
    why: str

    def __str__(self) -> str:
        """Several lines, for people."""
        ours = f"  ours:   {self.ours}  ({self.our_score:.4f})"
        theirs = f"  theirs: {self.theirs}  ({self.their_score:.4f})"
        return f"line {self.line}, {self.kind}: {self.why}\n  source: {self.source}\n{ours}\n{theirs}"


@dataclass(frozen=True)
class Parity:
    """What the comparison found."""

    num_lines: int
    num_same: int  # the same tokens with the same score
    largest_gap: float  # nats per token, between the two scores of the same tokens
    ties: list[Difference] = field(default_factory=list)  # no program can promise which of two equal ones it takes
    differences: list[Difference] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "tolerance": TOLERANCE}

    def __str__(self) -> str:
        """A summary, for people."""
        parts = [
            f"{self.num_same:,} of {self.num_lines:,} lines have the same tokens and the same score "
            f"(largest difference {self.largest_gap:.1e} nats per token, allowed {TOLERANCE:.0e})"
        ]
        if self.ties:
            parts.append(f"{len(self.ties):,} are ties: two translations with the same score")
        parts.append(f"{len(self.differences):,} differ")
        return "; ".join(parts)


def compare(
    sources: Sequence[str],
    ours: Sequence[Hypothesis],
    theirs: Sequence[Hypothesis],
    decode: Callable[[Sequence[Sequence[int]]], list[str]],
    rescore: Callable[[int, Sequence[int]], float],
) -> Parity:
    """Compare the best translations of two programs.

    Args:
        sources: the text of each line, to show it.
        decode: target ids to texts.
        rescore: the score that our model gives to other target ids of a line, counted from 0. It explains a difference.
    """
    texts = zip(sources, decode([one.ids for one in ours]), decode([one.ids for one in theirs]), strict=True)
    gaps, found, num_same = [0.0], [], 0
    for line, ((source, our_text, their_text), mine, other) in enumerate(zip(texts, ours, theirs, strict=True)):
        shown = source, our_text, their_text, mine.score, other.score
        if tuple(mine.ids) == tuple(other.ids):
            gaps.append(_gap(mine.score, other.score, mine.ids))
            if gaps[-1] <= TOLERANCE:
                num_same += 1
            else:
                found.append(Difference(line + 1, "score", *shown, "the same tokens have another score"))
            continue
        checked = rescore(line, other.ids)
        kind: Literal["text", "tokens", "tie"] = "tokens" if our_text == their_text else "text"
        if not _gap(checked, other.score, other.ids) <= TOLERANCE:
            why = f"the models differ: ours gives their translation {checked:.4f}"
        elif _gap(mine.score, other.score, other.ids) <= TOLERANCE:
            kind, why = "tie", "both translations have the same score"
        else:
            why = "the models agree on the score of their translation, but the searches differ"
        found.append(Difference(line + 1, kind, *shown, why))
    ties = [one for one in found if one.kind == "tie"]
    return Parity(len(ours), num_same, max(gaps), ties, [one for one in found if one.kind != "tie"])


def _gap(one: float, other: float, ids: Sequence[int]) -> float:
    """The difference of two scores for each token, EOS included; NaN if one of them is not a number."""
    return abs(one - other) / (len(ids) + 1)
