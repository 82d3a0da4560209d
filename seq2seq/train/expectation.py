"""What to expect of a run before it starts: BLEU of runs of ours with about as much text and time.

The runs are those of ``scripts/recipe/runs.jsonl`` with the recipe's settings, on two cores.
"""

from __future__ import annotations

import math

# What the text is, training pairs, millions of target tokens that were learnt (every epoch counts), BLEU on a test set.
_RUNS = (
    ("everyday sentences", 3_000, 1.27, 13.8),
    ("everyday sentences", 30_000, 1.15, 21.0),
)
_NEAR = 3.5  # times as many pairs or tokens, or as few
_LITTLE_TEXT, _FEW_STEPS = 1_000, 500


def expectation(num_pairs: int, epoch_tokens: int, batch_tokens: int, steps: int) -> list[str]:
    """Sentences for the start of a run.

    Args:
        epoch_tokens: target tokens of the training text.
    """
    sentences = []
    if num_pairs < _LITTLE_TEXT:
        sentences.append(
            f"too little text: with {num_pairs:,} pairs a model learns single words and set phrases; some thousand "
            "pairs are the least for sentences"
        )
    if steps < _FEW_STEPS:
        sentences.append(
            f"too little time: after {steps:,} steps hardly any model translates; {_FEW_STEPS:,} or more are needed "
            "(train.max_minutes)"
        )
    tokens = steps * batch_tokens / 1e6
    near = [
        (kind, pairs, bleu)
        for kind, pairs, learnt, bleu in _RUNS
        if max(abs(math.log(pairs / max(1, num_pairs))), abs(math.log(learnt / max(1e-3, tokens)))) < math.log(_NEAR)
    ]
    if near:
        seen = ", ".join(f"{bleu:.0f} ({kind}, {pairs:,} pairs)" for kind, pairs, bleu in near)
        sentences.append(
            f"what to expect: runs of ours with about as much text and time had BLEU {seen}; other text differs"
        )
    return sentences
