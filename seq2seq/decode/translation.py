"""One translation, and the choice among several candidates for a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from seq2seq.config import DecodeConfig
from seq2seq.decode.mbr import expected_chrf
from seq2seq.languages import joiner


@dataclass(frozen=True)
class Translation:
    """One output.

    ``score`` ranks the hypotheses: log-probability divided by length penalty; the log-probability alone where terms of
    a glossary or protected strings are part of the search; with ``decode.choose: mbr``, the mean chrF against all
    candidates; after a reverse model, :class:`~seq2seq.decode.rerank.ReverseModel`.
    """

    text: str
    score: float
    log_prob: float  # natural logarithm, of all tokens
    cut: bool = False  # it reached its length limit before it was complete
    num_tokens: int = 0  # </s> included
    lowest: float | None = None  # log-probability of its least likely token; only if asked for

    @property
    def per_token(self) -> float:
        """The mean log-probability of its tokens; 0 for a blank line."""
        return self.log_prob / max(1, self.num_tokens)


def best_of(candidates: Sequence[Translation], decode: DecodeConfig) -> list[int]:
    """The numbers of the ``decode.n_best`` candidates with the highest scores, best first."""
    order = sorted(range(len(candidates)), key=lambda i: -candidates[i].score)
    if decode.only_different:  # different token sequences can spell the same text
        first: dict[str, int] = {}
        for i in order:
            first.setdefault(candidates[i].text, i)
        order = list(first.values())
    return order[: decode.n_best]


def with_expected_chrf(candidates: Sequence[Translation], decode: DecodeConfig) -> list[Translation]:
    """The candidates with their mean chrF as score; a sample counts as often as it was drawn, a hypothesis of a beam,
    which is there once, by its probability."""
    highest = max(one.log_prob for one in candidates)
    weights = [1.0 if decode.sample else math.exp(one.log_prob - highest) for one in candidates]
    scores = expected_chrf([one.text for one in candidates], weights).tolist()
    return [replace(one, score=score) for one, score in zip(candidates, scores, strict=True)]


def joined(parts: list[list[Translation]], language: str | None, decode: DecodeConfig) -> list[Translation]:
    """The translations of a line: the best of each part joined, then the second of each part, ..."""
    if not parts:
        return [Translation("", 0.0, 0.0, lowest=0.0)] * (1 if decode.only_different else decode.n_best)
    if len(parts) == 1:
        return parts[0]
    joined = []
    for ranked in zip(*parts):  # noqa: B905 - up to the last rank that every part has
        text = ranked[0].text
        for translation in ranked[1:]:
            text += joiner(language, text, translation.text) + translation.text
        score, log_prob = sum(t.score for t in ranked), sum(t.log_prob for t in ranked)
        if decode.choose == "mbr":
            score /= len(ranked)  # chrF stays between 0 and 100
        lowest = min((t.lowest for t in ranked if t.lowest is not None), default=None)
        num_tokens = sum(t.num_tokens for t in ranked)
        joined.append(Translation(text, score, log_prob, any(t.cut for t in ranked), num_tokens, lowest))
    return _distinct(joined) if decode.only_different else joined


def _distinct(translations: list[Translation]) -> list[Translation]:
    """The translations without repeated texts: different token sequences can spell the same text."""
    first: dict[str, Translation] = {}
    for translation in translations:
        first.setdefault(translation.text, translation)
    return list(first.values())
