"""The plan of an epoch: the order of its sentence pairs, and which of them make each optimizer step.

The plan is a pure function of ``(lengths, batch_tokens, seed, epoch)``, so a run can continue in the middle of an
epoch. All processes make the same plan; their number does not change the order of the data or the number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.packed import Indices

Lengths: TypeAlias = NDArray[np.integer]  # of sentences, in tokens with EOS

PLAN_VERSION = 2  # raise it when plan_epoch makes another order: a run must keep the order that it started with


@dataclass(frozen=True)
class EpochPlan:
    """The sentence pairs of every optimizer step of one epoch, in order."""

    order: Indices  # [pairs], indices into the corpus
    starts: Indices  # [steps + 1], the start of each step in `order`

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps of the epoch."""
        return self.starts.size - 1

    def step(self, index: int) -> Indices:
        """The sentence pairs of step ``index`` (counted from 0)."""
        return self.order[self.starts[index] : self.starts[index + 1]]


def step_budgets(src_lengths: Lengths, tgt_lengths: Lengths, batch_tokens: int) -> tuple[int, int]:
    """Maximum source and target tokens of a step: ``batch_tokens`` target tokens, and source tokens in proportion.

    Args:
        src_lengths, tgt_lengths: of all pairs, in tokens with EOS.
    """
    return -(-batch_tokens * int(src_lengths.sum()) // max(1, int(tgt_lengths.sum()))), batch_tokens


def plan_epoch(
    src_lengths: Lengths,
    tgt_lengths: Lengths,
    budgets: tuple[int, int],
    seed: int,
    epoch: int,
    pairs: Indices | None = None,
) -> EpochPlan:
    """Plan steps that are full on both sides, of sentences in random order: a pure function of its arguments.

    1. Shuffle the pairs. 2. Compare the source and target tokens of each pair with the proportion of the whole corpus.
    Split the pairs into those with more source and those with more target, and merge both groups so that their running
    surpluses balance: any range of pairs then has that proportion, up to about a sentence. 3. Cut into steps.

    Args:
        src_lengths, tgt_lengths: of all pairs, in tokens with EOS.
        budgets: maximum source and target tokens of a step (:func:`step_budgets`).
        pairs: those of the epoch (:class:`~seq2seq.data.mixture.Mixture`); None: each once.
    """
    src, tgt = src_lengths.astype(np.int64), tgt_lengths.astype(np.int64)
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    if pairs is None:
        order = rng.permutation(len(tgt))
        proportion = tgt.sum() / max(1, src.sum())
    else:
        order = rng.permutation(pairs)
        proportion = tgt[pairs].sum() / max(1, src[pairs].sum())
    surplus = (src * proportion - tgt)[order]
    more_source = surplus > 0
    balance = np.empty(len(order))  # running sum of the surplus within the group of each pair
    for group in (more_source, ~more_source):
        balance[group] = np.abs(surplus[group]).cumsum()
    order = order[np.argsort(balance, kind="stable")]
    return EpochPlan(order, _cut(src[order], tgt[order], budgets))


def _cut(src_lengths: Indices, tgt_lengths: Indices, budgets: tuple[int, int]) -> Indices:
    """[steps + 1] boundaries of steps within both budgets; a step has at least one pair, even if it is too long.

    Binary search in the running sums finds each boundary, so the work is per step, not per pair.
    """
    sums = [np.concatenate([[0], np.cumsum(lengths)]) for lengths in (src_lengths, tgt_lengths)]
    starts = [0]
    while starts[-1] < len(src_lengths):
        begin = starts[-1]
        ends = [
            int(sum_.searchsorted(sum_[begin] + budget, side="right")) - 1
            for sum_, budget in zip(sums, budgets, strict=True)
        ]
        starts.append(max(min(ends), begin + 1))
    return np.array(starts, dtype=np.int64)
