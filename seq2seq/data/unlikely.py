"""Pairs of the training text that a given model finds unlikely: the rule ``data.clean.model``.

This package knows no model. Who prepares data passes a :class:`PairScorer`, which loads one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import CleanConfig
from seq2seq.data.clean_rules import CODE_OF
from seq2seq.data.formats.units import Unit
from seq2seq.data.parallel import chunks_of

_CHUNK_PAIRS = 4096
_CHUNK_CHARACTERS = 1 << 22


class PairScorer(Protocol):
    """Scores pairs with models."""

    def checksum(self, model: Path) -> str:
        """Of the model's weights; raises ModelError if there is no model."""

    def per_token(self, model: Path, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """The log-probability per target token of each pair, in nats; None for a pair that is too long."""


def mark_unlikely(
    codes: NDArray[np.uint8], units: Iterator[tuple[int, Unit]], rules: Sequence[CleanConfig], scorer: PairScorer
) -> None:
    """Set the code of this cause where no other rule has left a pair out.

    Args:
        codes: [pairs], changed.
        units: all pairs in order, each with the number of its dataset.
        rules: of each dataset.
    """
    wanted = (
        (pair, dataset, unit)
        for pair, (dataset, unit) in enumerate(units)
        if codes[pair] == 0 and rules[dataset].model is not None and unit.src.strip() and unit.tgt.strip()
    )
    for dataset, of_dataset in groupby(wanted, key=lambda one: one[1]):
        model, least = rules[dataset].model, rules[dataset].min_log_prob
        assert model is not None
        assert least is not None
        sized = chunks_of(of_dataset, lambda one: len(one[2].src) + len(one[2].tgt), _CHUNK_PAIRS, _CHUNK_CHARACTERS)
        for chunk in sized:
            scores = scorer.per_token(model, [(unit.src, unit.tgt) for _, _, unit in chunk])
            low = [pair for (pair, *_), score in zip(chunk, scores, strict=True) if score is not None and score < least]
            codes[low] = CODE_OF["model"]
