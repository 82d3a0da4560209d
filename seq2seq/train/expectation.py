"""What to expect of a run before it starts: BLEU of runs of ours with about as much text and time.

The runs are those of ``scripts/recipe/runs.jsonl`` with the recipe's settings, on two cores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# What the text is, training pairs, millions of target tokens that were learnt (every epoch counts), BLEU on a test set.
_RUNS = (
    ("everyday sentences", 3_000, 1.27, 13.8),
    ("everyday sentences", 3_000, 3.2, 13.8),
    ("everyday sentences", 30_000, 1.14, 25.5),
    ("image captions", 29_000, 1.14, 28.4),
)
_NEAR = 3.5  # times as many pairs or tokens, or as few
_LITTLE_TEXT = 1_000  # pairs
FEW_STEPS = 500  # in which hardly any model learns to translate


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
    if num_pairs < _LITTLE_TEXT:
        found.append(
            f"too little text: with {num_pairs:,} pairs a model learns words and set phrases; some thousand pairs are "
            "the least for sentences"
        )
    elif steps < FEW_STEPS:
        found.append(f"too short: after {steps:,} steps hardly any model translates; {FEW_STEPS:,} are the least")
    sentences = [Expectation(text, is_enough=False) for text in found]
    tokens = steps * batch_tokens / 1e6
    near = [
        f"{bleu:.0f} ({kind}, {pairs:,} pairs)"
        for kind, pairs, learnt, bleu in _RUNS
        if max(abs(math.log(pairs / max(1, num_pairs))), abs(math.log(learnt / max(1e-6, tokens)))) < math.log(_NEAR)
    ]
    if near:
        text = f"runs of ours with about as much text and time had BLEU {', '.join(near)}; other text differs"
        sentences.append(Expectation(f"what to expect: {text}", is_enough=True))
    return sentences
