"""BLEU and chrF of any of the lines of a test set, computed from counts that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from sacrebleu.metrics.chrf import CHRF

from seq2seq.evaluate.card import MetricScore
from seq2seq.evaluate.scores import details_of, load_tokenizer


class ByLine:
    """The n-grams of every line; a part of the test set costs the sum over its lines."""

    def __init__(self, translations: Sequence[str], references: Sequence[Sequence[str]], tokenize: str) -> None:
        """``tokenize``: as for :func:`seq2seq.evaluate.load_tokenizer`, which raises UserError."""
        self._metrics: tuple[Any, Any] = load_tokenizer(tokenize), CHRF()
        self._counts = [metric._extract_corpus_statistics(translations, references) for metric in self._metrics]

    def scores(self, lines: Sequence[int]) -> tuple[MetricScore, MetricScore]:
        """BLEU and chrF2 of these lines, at least one; they count from 0."""
        found = []
        for metric, counts in zip(self._metrics, self._counts, strict=True):
            score = metric._aggregate_and_compute([counts[line] for line in lines])
            details = details_of(score) if score.name == "BLEU" else ""
            signature = str(metric.get_signature())
            found.append(MetricScore(name=score.name, score=float(score.score), signature=signature, details=details))
        return found[0], found[1]

    @cached_property
    def chrf(self) -> list[float]:
        """[lines] chrF2 of each line."""
        _, metric = self._metrics
        return [float(metric._aggregate_and_compute([counts]).score) for counts in self._counts[1]]
