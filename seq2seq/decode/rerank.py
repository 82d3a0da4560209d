"""Reranking with a reverse model, which translates the target language to the source language.

A candidate is good if it is likely given the source, and if the source is likely given the candidate (Li et al. 2016;
as a noisy channel, Yee et al. 2019). The reverse model sees what beam search cannot: words of the source that a
candidate leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from seq2seq.config import DecodeConfig
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from seq2seq.languages import short_code

DEFAULT_WEIGHT = 0.25


@dataclass(frozen=True)
class ReverseModel:
    """Ranks the candidates of a sentence by log P(target | source) + weight x log P(source | target).

    Each logarithm (natural) is divided by the number of tokens that its own model wrote, </s> included.
    """

    translator: Translator
    decode: DecodeConfig  # of the reverse model; its tag counts
    weight: float = DEFAULT_WEIGHT

    def rank(
        self, sources: Sequence[str], found: Sequence[Sequence[Translation]], not_ranked: Callable[[int], None]
    ) -> list[list[Translation]]:
        """The candidates of every source with their new scores.

        A candidate that the reverse model cannot read, such as an empty one, has the score minus infinity.

        Args:
            not_ranked: called with the number of a source that has no other candidates; they keep their scores.

        Raises:
            ModelError: the reverse model computes no finite numbers.
        """
        pairs = [
            (candidate.text, source)
            for source, candidates in zip(sources, found, strict=True)
            for candidate in candidates
        ]
        scored = self.translator.score_stream(pairs, self.decode)
        results = []
        for number, candidates in enumerate(found):
            reverse = [next(scored).per_token for _ in candidates]
            if all(score is None for score in reverse):
                not_ranked(number)
                results.append(list(candidates))
                continue
            totals = [
                -math.inf if score is None else candidate.per_token + self.weight * score
                for candidate, score in zip(candidates, reverse, strict=True)
            ]
            results.append([replace(one, score=total) for one, total in zip(candidates, totals, strict=True)])
        return results

    def identity(self) -> dict[str, str]:
        """Everything about it that affects the ranking."""
        own = {**self.translator.identity(), "tag": str(self.decode.tag), "weight": str(self.weight)}
        return {f"reverse.{name}": value for name, value in own.items()}


def with_reverse(translator: Translator, reverse: Translator, weight: float = DEFAULT_WEIGHT) -> Translator:
    """A translator that chooses among its candidates with a reverse model.

    >>> better = with_reverse(Translator.load("runs/my"), Translator.load("runs/reverse"))
    >>> better.translate("A man rides a horse.", beam_size=10)

    Raises:
        UserError: the languages of the models are not opposite, the weight is negative or not finite, or the reverse
            model needs a tag.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"--rerank-weight: must be a number of at least 0, not {weight}")
    ours, theirs = ((one.config.data.source_language, one.config.data.target_language) for one in (translator, reverse))
    wanted = ours[::-1]
    if any(a and b and short_code(a) != short_code(b) for a, b in zip(wanted, theirs, strict=True)):
        source, target = (code or "any language" for code in wanted)
        raise UserError(
            f"--rerank: the model translates from {theirs[0] or '?'} to {theirs[1] or '?'}; give one from {source} to "
            f"{target}"
        )
    decode = reverse.config.decode.model_copy(update={"quantize": None})
    reverse.score_stream((), decode)  # a missing tag is an error before the work begins
    return replace(translator, reverse=ReverseModel(reverse, decode, weight))
