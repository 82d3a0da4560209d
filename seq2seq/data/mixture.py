"""Mixture: which pairs of the training corpus an epoch has, where datasets have weights or come and go.

The corpus holds the pairs of all datasets, one dataset after the other. An epoch takes round(weight * pairs) pairs of
each, cut from an endless sequence of permutations of the dataset: every pair is seen before any of them returns. Which
ones is a pure function of (seed, epoch), so a run can continue anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from seq2seq.config import ParallelText, paths_of
from seq2seq.data.corpus import Corpus
from seq2seq.data.packed import Indices
from seq2seq.data.plan import EpochPlan, Lengths, plan_epoch, step_budgets
from seq2seq.errors import DataError


class Mixture:
    """A training corpus, and how often each of its datasets is seen."""

    def __init__(self, corpus: Corpus, datasets: Sequence[ParallelText], counts: Sequence[int]) -> None:
        """``datasets``: what the corpus was built from, in order; ``counts``: how many pairs the text of each has."""
        self.corpus = corpus
        self._datasets = datasets
        self._starts = np.searchsorted(corpus.lines, np.cumsum([0, *counts])).tolist()
        self.sizes: list[int] = np.diff(self._starts).tolist()  # pairs of each dataset that training keeps
        shares = zip(datasets, self.sizes, strict=True)
        self._shares = [max(1, round(one.weight * size)) if size else 0 for one, size in shares]
        always = all(one.from_epoch == 1 and one.until_epoch is None for one in datasets)
        self._is_whole = always and self._shares == self.sizes  # every epoch has every pair once

    @property
    def fingerprint(self) -> str:
        """Changes with what epochs have; '' if each has every pair once."""
        if self._is_whole:
            return ""
        return " ".join(f"{one.weight}:{one.from_epoch}-{one.until_epoch or ''}" for one in self._datasets)

    def pairs(self, seed: int, epoch: int) -> Indices:
        """The pairs of ``epoch``, which counts from 0, in the order of the corpus; some can be there several times."""
        drawn = [
            self._drawn(number, seed, epoch + 1 - one.from_epoch)
            for number, one in enumerate(self._datasets)
            if one.from_epoch <= epoch + 1 <= (one.until_epoch or epoch + 1)
        ]
        return np.concatenate([np.zeros(0, np.int64), *drawn])

    def _drawn(self, number: int, seed: int, turn: int) -> Indices:
        """The pairs of a dataset in the epoch that is its ``turn``, counted from 0."""
        first, size, share = self._starts[number], self.sizes[number], self._shares[number]
        if share == size:
            return np.arange(first, first + size)
        begin, end = turn * share, (turn + 1) * share  # in the endless sequence
        permutations = [
            np.random.Generator(np.random.PCG64([seed, number, again])).permutation(size)
            for again in range(begin // size, -(-end // size))
        ]
        cut: Indices = np.concatenate(permutations)[begin % size :][:share]
        cut = np.sort(cut) + first
        return cut

    @cached_property
    def usual_lengths(self) -> tuple[Lengths, Lengths]:
        """Source and target lengths of the pairs of an epoch in which all datasets take part, in tokens with EOS."""
        lengths = self.corpus.src_lengths, self.corpus.tgt_lengths
        if self._shares == self.sizes:
            return lengths
        pairs = np.concatenate([self._drawn(number, 0, 0) for number in range(len(self._datasets))])
        return lengths[0][pairs], lengths[1][pairs]

    def budgets(self, batch_tokens: int) -> tuple[int, int]:
        """The most source and target tokens of a step, the same in all epochs (:func:`step_budgets`)."""
        return step_budgets(*self.usual_lengths, batch_tokens)

    def usual_steps(self, batch_tokens: int, seed: int) -> int:
        """The number of steps of an epoch in which all datasets take part."""
        return plan_epoch(*self.usual_lengths, self.budgets(batch_tokens), seed, 0).num_steps

    def plan(self, batch_tokens: int, seed: int, epoch: int, sampled: Corpus | None = None) -> EpochPlan:
        """The plan of an epoch (:func:`plan_epoch`); ``sampled``: another corpus with the same pairs, to read instead.

        Raises:
            DataError: the epoch has no pairs.
        """
        pairs, corpus = None if self._is_whole else self.pairs(seed, epoch), sampled or self.corpus
        if pairs is not None and not pairs.size:
            raise DataError(
                f"epoch {epoch + 1} has no pairs: no dataset of data.train that takes part in it (from_epoch, "
                "until_epoch) has any that can be used"
            )
        budgets = self.budgets(batch_tokens)
        return plan_epoch(corpus.src_lengths, corpus.tgt_lengths, budgets, seed, epoch, pairs)

    def __str__(self) -> str:
        """What an epoch has of each dataset, for people; '' if there is only one, once."""
        if self._is_whole and len(self._datasets) == 1:
            return ""
        return "; ".join(map(self._described, names_of(self._datasets), self._datasets, self.sizes, self._shares))

    @staticmethod
    def _described(name: str, one: ParallelText, size: int, share: int) -> str:
        text = f"{name}: {size:,} pairs"
        if share != size:
            text += f" x {share / max(1, size):.3g}"
        if one.until_epoch is not None:
            text += f" in epochs {one.from_epoch:,} to {one.until_epoch:,}"
        elif one.from_epoch > 1:
            text += f" from epoch {one.from_epoch:,} on"
        return text + (f", tag {one.tag}" if one.tag else "")


def names_of(datasets: Sequence[ParallelText]) -> list[str]:
    """A name for each dataset, all different: the stated one, or the name of its first file."""
    names: list[str] = []
    for one in datasets:
        name = first = one.name or next(iter(paths_of(one).values()))[0].name
        number = 2
        while name in names:
            name, number = f"{first} ({number})", number + 1
        names.append(name)
    return names
