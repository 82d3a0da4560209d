"""What to expect of a run before it starts: BLEU of runs of ours with about as much text and time, and between them.

The runs are those of ``scripts/recipe/runs.jsonl`` and ``confirm.jsonl`` that have the recipe's settings, or those of
an earlier recipe where there is none yet; the mean of two seeds where there are two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# What the text is, and training pairs: millions of target tokens that were learnt (every epoch counts), test BLEU.
_RUNS = {
    ("English-German everyday sentences", 3_000): ((0.3, 11.8), (1.24, 17.3), (2.49, 16.8)),
    ("English-Chinese everyday sentences", 3_000): ((0.51, 9.9), (1.3, 11.4), (2.16, 11.6)),
    ("classical to modern Chinese", 3_000): ((0.48, 5.8), (1.19, 14.9), (5.02, 18.2)),
    ("English-German everyday sentences", 30_000): ((0.15, 12.2), (0.3, 21.0), (1.14, 36.0), (3.43, 39.9)),
    ("English-German image captions", 29_000): ((0.3, 22.9), (1.14, 34.4), (3.42, 37.5)),
    ("English-Chinese everyday sentences", 30_000): ((0.49, 18.7), (1.46, 22.5), (8.1, 25.9)),
    ("classical to modern Chinese", 30_000): ((0.45, 12.0), (1.13, 19.3), (7.51, 22.0)),
}
_NEAR = 3.5  # times as many pairs or tokens, or as few
_LESS = 0.75  # of the tokens of the shortest run: no other says how much lower the score is
LITTLE_TEXT = 1_000  # pairs; with fewer, a model does not learn sentences
FEW_STEPS = 100  # in which hardly any model learns to translate


@dataclass(frozen=True)
class Expectation:
    """A sentence for the start of a run."""

    text: str
    is_enough: bool  # False: a model can hardly be of use

    def __str__(self) -> str:
        return self.text


def expectation(num_pairs: int, batch_tokens: int, steps: int) -> list[Expectation]:
    """What to expect of ``steps`` steps of ``batch_tokens`` target tokens."""
    found = []
    if num_pairs < LITTLE_TEXT:
        found.append(f"too little text: {too_little_text(num_pairs)}")
    elif steps < FEW_STEPS:
        found.append(f"too short: after {steps:,} steps hardly any model translates; {FEW_STEPS:,} are the least")
    sentences = [Expectation(text, is_enough=False) for text in found]
    tokens = steps * batch_tokens / 1e6
    near = [
        f"{_bleu(runs, tokens)} ({kind}, {pairs:,} pairs)"
        for (kind, pairs), runs in _RUNS.items()
        if pairs / _NEAR < num_pairs < pairs * _NEAR and tokens > runs[0][0] / _NEAR
    ]
    if near:
        text = f"with about as much text and time, runs of ours had BLEU {', '.join(near)}; other text differs"
        sentences.append(Expectation(f"what to expect: {text}", is_enough=True))
    return sentences


def too_little_text(num_pairs: int) -> str:
    """Why less than LITTLE_TEXT is too little."""
    learnt = f"with {num_pairs:,} pairs a model learns words and set phrases"
    return f"{learnt}; some thousand pairs are the least for sentences"


def _bleu(runs: Sequence[tuple[float, float]], tokens: float) -> str:
    """The score after ``tokens`` millions, on straight lines between runs, in the logarithm of the tokens."""
    (shortest, least), (longest, best) = runs[0], runs[-1]
    if tokens < _LESS * shortest:
        return f"below {least:.0f}"
    score = np.interp(math.log(tokens), [math.log(learnt) for learnt, _ in runs], [bleu for _, bleu in runs])
    return f"about {best:.0f} or more" if tokens > _NEAR * longest else f"about {score:.0f}"
