"""From sentence lengths to batches: the plan of an epoch, and sentences packed into one token stream.

Data order is a pure function of ``(lengths, batch_tokens, seed, epoch)``: nothing else is needed to continue a run in
the middle of an epoch. The plan is made once for all processes; a step is then split into micro-batches, so the number
of processes changes neither the order of the data nor the number of steps.

Shapes: ``B`` sentences, ``T`` tokens of one side of a batch, ``L`` tokens of its longest sentence (or more).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.data.symbols import BOS_ID, EOS_ID, IGNORE_LABEL

Indices = NDArray[np.int64]

PLAN_VERSION = 2  # of the order that plan_epoch makes: a run goes on in the order that it began with
_FILLINGS = 4  # filling sentences, of a token at least, that there is room for beyond a full batch


@dataclass(frozen=True)
class Packed:
    """One side of a batch: its sentences end to end in one stream, without padding.

    The fields from ``cells`` on map the stream to a padded grid of ``B * L`` cells and back, for attention kernels that
    need one, and are empty where none does; cells past a sentence's end repeat token 0 and are to be masked.
    """

    ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64, counted from 0 in each sentence
    offsets: Tensor  # [B + 1] int32, where each sentence starts; the last entry is T
    lengths: Tensor  # [B] int64
    cells: Tensor  # [T] int64, the grid cell of each token
    grid: Tensor  # [B * L] int64, the token of each grid cell
    key_bias: Tensor  # [B, 1, 1, L] fp32, to be added to attention scores: 0 for a token, else minus infinity
    max_length: int  # L

    @property
    def num_sentences(self) -> int:
        """B."""
        return self.lengths.size(0)

    def to(self, device: torch.device) -> Packed:
        """The same side on ``device``; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> Packed:
        """The same side in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, move: Callable[[Tensor], Tensor]) -> Packed:
        moved = {f.name: move(getattr(self, f.name)) for f in fields(self) if f.name != "max_length"}
        return Packed(**moved, max_length=self.max_length)


@dataclass(frozen=True)
class PackedBatch:
    """Sentence pairs for training: packed source, packed decoder input, and what the decoder has to predict."""

    src: Packed
    tgt: Packed  # starts each sentence with BOS and lacks its EOS
    labels: Tensor  # [T of tgt] int64, the next token; IGNORE_LABEL where nothing is to be predicted
    num_labels: int  # labels that count

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on ``device``."""
        labels = self.labels.to(device, non_blocking=True)
        return PackedBatch(self.src.to(device), self.tgt.to(device), labels, self.num_labels)

    def pin(self) -> PackedBatch:
        """The same batch in page-locked memory."""
        return PackedBatch(self.src.pin(), self.tgt.pin(), self.labels.pin_memory(), self.num_labels)


@dataclass(frozen=True)
class Capacity:
    """Fixed shapes for all batches of a run, so that what is compiled for one fits every other.

    What a batch leaves unused of its tokens is filled with further sentences whose labels do not count; what it leaves
    of its sentences is empty ones at the end.
    """

    src_tokens: int
    tgt_tokens: int
    sentences: int
    max_length: int  # no sentence of either side is longer
    with_grid: bool = True  # whether attention needs the batches' grids (Packed): most of their bytes

    @classmethod
    def of(
        cls,
        src_lengths: NDArray[np.integer],
        tgt_lengths: NDArray[np.integer],
        batch_tokens: int,
        num_parts: int,
        max_length: int,
    ) -> Capacity:
        """Room for nearly every part when steps of ``batch_tokens`` are split into ``num_parts`` mixed ones.

        Little is left over, as random mixtures hardly differ: filling takes time like real tokens, and kernels do some
        work for every sentence, an empty one, too. What does not fit (:meth:`fits`) is split further.

        Args:
            src_lengths, tgt_lengths: [pairs], tokens with EOS, of the whole corpus.
            max_length: of any sentence, in tokens.
        """
        sides = (src_lengths, tgt_lengths)
        shares = [budget / num_parts for budget in step_budgets(*sides, batch_tokens)]
        if num_parts > 1:  # a part may have a long sentence more than another, on either side
            shares = [s + float(x.mean() + 3 * x.std()) for s, x in zip(shares, sides, strict=True)]
        least = max_length + max(shares) / max_length  # the longest sentence, and a token for each filling one
        rooms = [max(share, least) + _FILLINGS for share in shares]
        src, tgt = (math.ceil(room / 8) * 8 for room in rooms)  # matrix kernels want whole vectors of 16 bytes
        mean, spread = float(tgt_lengths.mean()), float(tgt_lengths.std())
        number = shares[1] / mean
        number += 4 * math.sqrt(number) * spread / mean  # its standard deviations in a mixture
        sentences = math.ceil(max(number, max(src, tgt) / max_length)) + _FILLINGS
        return cls(src, tgt, sentences, max_length)

    def _num_fillings(self, src_tokens: int, tgt_tokens: int) -> int:
        """At least one, and as many as it takes for none to be longer than a sentence may be."""
        return max(1, -(-max(self.src_tokens - src_tokens, self.tgt_tokens - tgt_tokens) // self.max_length))

    def fits(self, src_tokens: int, tgt_tokens: int, num_sentences: int) -> bool:
        """Whether there is room for a batch and what fills it: each filling sentence has a token on either side."""
        number = self._num_fillings(src_tokens, tgt_tokens)
        least_room = min(self.src_tokens - src_tokens, self.tgt_tokens - tgt_tokens)
        return number <= least_room and num_sentences + number <= self.sentences

    def fillings(self, src_tokens: int, tgt_tokens: int) -> tuple[Indices, Indices]:
        """Lengths of the sentences, on both sides, that fill a batch of so many tokens which :meth:`fits`."""
        number = self._num_fillings(src_tokens, tgt_tokens)
        src, tgt = self.src_tokens - src_tokens, self.tgt_tokens - tgt_tokens
        assert number <= min(src, tgt), "the batch is larger than its capacity"
        parts = np.arange(number)
        return src // number + (parts < src % number), tgt // number + (parts < tgt % number)


def pack(
    ids: NDArray[np.integer], lengths: NDArray[np.integer], grid_length: int | None = None, *, with_grid: bool = True
) -> Packed:
    """Lay out a stream of sentences.

    Args:
        ids: [T], the sentences end to end.
        lengths: [B], tokens of each; at least one sentence. None is empty, but for some at the end (:class:`Capacity`).
        grid_length: L, no less than the longest; default: the longest.
        with_grid: False leaves the grid's fields empty.
    """
    lengths = lengths.astype(np.int64)
    assert lengths.size > 0
    assert lengths.min() >= 0
    assert (np.diff(np.flatnonzero(lengths == 0), append=lengths.size) == 1).all(), "empty sentences come last"
    assert lengths.sum() == ids.size
    num_sentences, max_length = lengths.size, grid_length or int(lengths.max())
    assert lengths.max() <= max_length
    offsets = np.zeros(num_sentences + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    sentence = np.repeat(np.arange(num_sentences), lengths)
    positions = np.arange(ids.size) - offsets[sentence]
    cells, grid, key_bias = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((num_sentences, 1, 1, 0), np.float32)
    if with_grid:
        cells = sentence * max_length + positions
        grid = np.zeros(num_sentences * max_length, dtype=np.int64)
        grid[cells] = np.arange(ids.size)
        key_bias = np.full((num_sentences, 1, 1, max_length), -np.inf, dtype=np.float32)
        key_bias.reshape(-1)[cells] = 0
    return Packed(
        ids=torch.from_numpy(ids.astype(np.int64)),
        positions=torch.from_numpy(positions),
        offsets=torch.from_numpy(offsets.astype(np.int32)),
        lengths=torch.from_numpy(lengths),
        cells=torch.from_numpy(cells),
        grid=torch.from_numpy(grid),
        key_bias=torch.from_numpy(key_bias),
        max_length=max_length,
    )


def pack_sentences(sentences: Sequence[Sequence[int]], grid_length: int | None = None) -> Packed:
    """Lay out sentences given one by one (each a non-empty sequence of ids); ``grid_length`` as for :func:`pack`."""
    lengths = np.array([len(sentence) for sentence in sentences])
    return pack(np.concatenate([np.asarray(sentence, dtype=np.int64) for sentence in sentences]), lengths, grid_length)


def pack_pairs(
    src_ids: NDArray[np.integer],
    src_lengths: NDArray[np.integer],
    tgt_ids: NDArray[np.integer],
    tgt_lengths: NDArray[np.integer],
    capacity: Capacity | None = None,
) -> PackedBatch:
    """Lay out sentence pairs for training; every sentence ends with EOS.

    With no pair at all (a micro-batch of a step that has fewer sentences than micro-batches), the batch is one pair of
    single tokens whose label does not count, so that every process does the same work.

    Args:
        capacity: fills the batch up to fixed shapes; None leaves it as long as it is.
    """
    num_labels = tgt_ids.size
    if capacity is None and num_labels == 0:
        src = tgt = pack(np.array([EOS_ID]), np.array([1]))
        return PackedBatch(src, tgt, torch.tensor([IGNORE_LABEL]), num_labels=0)
    sources: Indices = src_ids.astype(np.int64)
    labels: Indices = tgt_ids.astype(np.int64)
    grid_length, with_grid = None, True
    shifted = np.empty_like(labels)
    shifted[1:] = labels[:-1]
    shifted[np.cumsum(tgt_lengths) - tgt_lengths] = BOS_ID
    if capacity is not None:
        src_filling, tgt_filling = capacity.fillings(sources.size, num_labels)
        empty = np.zeros(capacity.sentences - src_lengths.size - src_filling.size, dtype=np.int64)
        src_lengths = np.concatenate([src_lengths, src_filling, empty])
        tgt_lengths = np.concatenate([tgt_lengths, tgt_filling, empty])
        sources = _filled(sources, capacity.src_tokens, EOS_ID)
        shifted = _filled(shifted, capacity.tgt_tokens, EOS_ID)
        labels = _filled(labels, capacity.tgt_tokens, IGNORE_LABEL)
        grid_length, with_grid = capacity.max_length, capacity.with_grid
    src = pack(sources, src_lengths, grid_length, with_grid=with_grid)
    tgt = pack(shifted, tgt_lengths, grid_length, with_grid=with_grid)
    return PackedBatch(src, tgt, torch.from_numpy(labels), num_labels)


def _filled(ids: Indices, size: int, value: int) -> Indices:
    return np.concatenate([ids, np.full(size - ids.size, value)])


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


def split_step(
    step: Indices,
    src_lengths: NDArray[np.integer],
    tgt_lengths: NDArray[np.integer],
    num_parts: int,
    *,
    by_length: bool,
) -> list[Indices]:
    """A step's sentences cut into parts of as many tokens, up to half a sentence at either end; some may be empty.

    Args:
        src_lengths, tgt_lengths: [len(step)], of its sentences.
        by_length: sort the sentences first, so that kernels that pad a part to its longest one pad little. Else parts
            are as mixed as the plan, and as even on each side.
    """
    if by_length:
        order = np.lexsort((src_lengths + tgt_lengths, np.maximum(src_lengths, tgt_lengths)))
        step, src_lengths, tgt_lengths = step[order], src_lengths[order], tgt_lengths[order]
    lengths = src_lengths.astype(np.int64) + tgt_lengths
    ends = lengths.cumsum()
    bounds = ends[-1] * np.arange(1, num_parts) / num_parts
    return np.split(step, np.searchsorted(ends - lengths / 2, bounds))
