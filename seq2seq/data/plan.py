"""The plan of an epoch: the order of its sentence pairs, and which of them make each optimizer step.

The plan is a pure function of ``(lengths, batch_tokens, seed, epoch)``: nothing else is needed to continue a run in the
middle of an epoch. All processes make the same plan, so their number changes neither the order of the data nor the
number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.packed import Indices

PLAN_VERSION = 2  # of the order that plan_epoch makes: a run continues in the order that it began with


@dataclass(frozen=True)
class EpochPlan:
    """The steps of one epoch, in order: which sentence pairs each optimizer step is made of."""

    order: Indices  # [pairs], indices into the corpus
    starts: Indices  # [steps + 1], where each step begins in `order`

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the epoch."""
        return self.starts.size - 1

    def step(self, index: int) -> Indices:
        """The sentence pairs of step ``index`` (counted from 0)."""
        return self.order[self.starts[index] : self.starts[index + 1]]


def step_budgets(
    src_lengths: NDArray[np.integer], tgt_lengths: NDArray[np.integer], batch_tokens: int
) -> tuple[int, int]:
    """Most source and target tokens of a step: ``batch_tokens`` target tokens, and source tokens in proportion.

    Args:
        src_lengths, tgt_lengths: [pairs], tokens with EOS, of the whole corpus.
    """
    return -(-batch_tokens * int(src_lengths.sum()) // max(1, int(tgt_lengths.sum()))), batch_tokens


def plan_epoch(
    src_lengths: NDArray[np.integer],
    tgt_lengths: NDArray[np.integer],
    budgets: tuple[int, int],
    seed: int,
    epoch: int,
) -> EpochPlan:
    """Steps that are full on both sides, of sentences in random order: a pure function of its arguments.

    1. Shuffle the pairs. 2. Part those with more source than their share, by the proportion of the whole corpus, from
    those with more target, and merge both so that the running surplus of one is answered by the other: in any stretch
    source and target tokens are then in that proportion, up to about a sentence. 3. Cut into steps.

    Args:
        src_lengths, tgt_lengths: [pairs], tokens with EOS.
        budgets: most source and target tokens of a step (:func:`step_budgets`).
    """
    src, tgt = src_lengths.astype(np.int64), tgt_lengths.astype(np.int64)
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = rng.permutation(len(tgt))
    surplus = (src * (tgt.sum() / max(1, src.sum())) - tgt)[order]
    more_source = surplus > 0
    reached = np.empty(len(order))  # by each pair in the running sum of its own part
    for part in (more_source, ~more_source):
        reached[part] = np.abs(surplus[part]).cumsum()
    order = order[np.argsort(reached, kind="stable")]
    return EpochPlan(order, _cut(src[order], tgt[order], budgets))


def _cut(src_lengths: Indices, tgt_lengths: Indices, budgets: tuple[int, int]) -> Indices:
    """Boundaries of consecutive runs of pairs within both budgets; a run has at least a pair, whatever its length.

    The longest run that fits is found by binary search in the running sums, so the work is per step, not per pair.
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
