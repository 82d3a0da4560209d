"""How likely a model finds given translations: text in, log-probabilities out, exactly one result for each pair.

A pair is scored whole or not at all; nothing is cut. Blank lines: the score of a blank target is that of an empty
translation, which has only the end-of-sentence token. A blank source is never read by a model; its translation is the
empty one for certain, so a blank target has log-probability 0, and no other target has a score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from seq2seq.config import DecodeConfig
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode.engine import Engine
from seq2seq.errors import ModelError
from seq2seq.languages import count_words


@dataclass(frozen=True)
class TargetScore:
    """The log-probability (natural logarithm) of a given translation; None if the pair could not be scored."""

    log_prob: float | None  # of all tokens
    tokens: tuple[tuple[str, float], ...] = ()  # piece and log-probability of each, the last one is </s>
    num_words: int = 0  # of the text, see seq2seq.languages.count_words

    @property
    def per_token(self) -> float | None:
        """The mean over the tokens, </s> included; 0 for a translation that has none."""
        return None if self.log_prob is None else self.log_prob / max(1, len(self.tokens))

    @property
    def per_word(self) -> float | None:
        """The whole log-probability, </s> included, divided by the number of words; an empty text counts as one."""
        return None if self.log_prob is None else self.log_prob / max(1, self.num_words)


NOT_SCORED = TargetScore(None)


def score_pairs(
    engine: Engine,
    tokenizers: TokenizerPair,
    pairs: Sequence[tuple[str, str]],
    decode: DecodeConfig,
    prefix: Sequence[int],
    max_length: int,
    on_problem: Callable[[int, str], None],
) -> list[TargetScore]:
    """Score pairs of source and target.

    Args:
        prefix: the ids before every source sentence.
        max_length: the longest sentence that the model reads or writes, in tokens, with prefix and EOS.
        on_problem: called with the index of a pair that cannot be scored, and the reason.

    Raises:
        ModelError: the model computes no finite numbers.
    """
    filled = [[text if text.strip() else "" for text in side] for side in zip(*pairs, strict=True)]
    sources, targets = (
        tokenizer.encode(texts) for tokenizer, texts in zip((tokenizers.src, tokenizers.tgt), filled, strict=True)
    )
    results = [NOT_SCORED] * len(pairs)
    scored: list[int] = []
    for index, (src, tgt) in enumerate(zip(sources, targets, strict=True)):
        longest_src, longest_tgt = max_length - 1 - len(prefix), max_length - 1
        if not src and not tgt:
            results[index] = TargetScore(0.0)
        elif not src:
            on_problem(index, "not scored: the source is blank, but the target is not")
        elif len(src) > longest_src or len(tgt) > longest_tgt:
            side, number, limit = ("source", len(src), longest_src)
            if len(src) <= longest_src:
                side, number, limit = ("target", len(tgt), longest_tgt)
            on_problem(index, f"not scored: the {side} has {number:,} tokens, and the model takes at most {limit:,}")
        else:
            scored.append(index)
    whole = [[*targets[index], EOS_ID] for index in scored]
    found = engine.score([[*prefix, *sources[index], EOS_ID] for index in scored], whole, decode)
    for index, ids, log_probs in zip(scored, whole, found, strict=True):
        if not np.isfinite(log_probs).all():
            raise ModelError("the model computes no finite numbers: its weights are damaged, or training diverged")
        tokens = tuple(zip(tokenizers.tgt.pieces(ids), log_probs.tolist(), strict=True))
        results[index] = TargetScore(float(log_probs.sum()), tokens, count_words(pairs[index][1]))
    return results
