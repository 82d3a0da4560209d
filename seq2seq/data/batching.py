"""From sentence lengths to batches: the plan of an epoch, and sentences packed into one token stream.

Data order is a pure function of ``(lengths, batch_tokens, seed, epoch)``: nothing else is needed to continue a run in
the middle of an epoch. The plan is made once for all processes; a step's sentences are then dealt to micro-batches, so
the number of processes changes neither the order of the data nor the number of steps.

Shapes: ``B`` sentences, ``T`` tokens of one side of a batch, ``L`` tokens of its longest sentence
(or more).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.data.symbols import BOS_ID, EOS_ID, IGNORE_LABEL

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """One side of a batch: its sentences end to end in one stream, without padding.

    The fields from ``cells`` on map the stream to a padded grid of ``B * L`` cells and back, for attention kernels that
    need one; cells past a sentence's end repeat token 0 and are to be masked.
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

    @classmethod
    def of(cls, max_length: int, max_sentences: int, batch_tokens: int, num_parts: int) -> Capacity:
        """Room for each of ``num_parts`` micro-batches of any step that :func:`plan_epoch` cuts and :func:`deal` deals.

        Args:
            max_length: of the corpus' sentences on either side, in tokens.
            max_sentences: of a step (:func:`most_sentences`).
        """
        uneven = max_length if num_parts > 1 else 0  # parts differ by at most a sentence, on either side
        tokens = max(max_length, -(-batch_tokens // num_parts) + uneven)
        # Every filling sentence needs a token on both sides, and there are as many as the longer side's filling needs.
        fillings = -(-tokens // max_length) + 1
        tokens = -(-(tokens + fillings) // 128) * 128  # matrix kernels like round numbers
        fillings = -(-tokens // max_length)
        return cls(tokens, tokens, -(-max_sentences // num_parts) + fillings, max_length)

    def fillings(self, src_tokens: int, tgt_tokens: int) -> tuple[Indices, Indices]:
        """Lengths of the sentences, on both sides, that fill a batch of so many tokens."""
        src, tgt = self.src_tokens - src_tokens, self.tgt_tokens - tgt_tokens
        number = -(-max(src, tgt) // self.max_length)
        assert 0 < number <= min(src, tgt), "the batch is larger than its capacity"
        parts = np.arange(number)
        return src // number + (parts < src % number), tgt // number + (parts < tgt % number)


def pack(ids: NDArray[np.integer], lengths: NDArray[np.integer], grid_length: int | None = None) -> Packed:
    """Lay out a stream of sentences.

    Args:
        ids: [T], the sentences end to end.
        lengths: [B], tokens of each; at least one sentence. None is empty, but for some at the end (:class:`Capacity`).
        grid_length: L, no less than the longest; default: the longest.
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
    cells = sentence * max_length + positions
    grid = np.zeros(num_sentences * max_length, dtype=np.int64)
    grid[cells] = np.arange(ids.size)
    key_bias = np.full(num_sentences * max_length, -np.inf, dtype=np.float32)
    key_bias[cells] = 0
    return Packed(
        ids=torch.from_numpy(ids.astype(np.int64)),
        positions=torch.from_numpy(positions),
        offsets=torch.from_numpy(offsets.astype(np.int32)),
        lengths=torch.from_numpy(lengths),
        cells=torch.from_numpy(cells),
        grid=torch.from_numpy(grid),
        key_bias=torch.from_numpy(key_bias.reshape(num_sentences, 1, 1, max_length)),
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
    grid_length = None
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
        grid_length = capacity.max_length
    src, tgt = pack(sources, src_lengths, grid_length), pack(shifted, tgt_lengths, grid_length)
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


def _sort_windows(order: Indices, src_lengths: Indices, tgt_lengths: Indices, window: int) -> None:
    """Sort every ``window`` pairs of ``order``, in place, by target and then source length; ties stay in order.

    Sorting plain integers is several times faster than ``np.lexsort``: each holds the lengths in its upper bits and the
    pair's place in its lower 31. Lengths count as equal beyond 65,535 tokens, so that all fits.
    """
    lengths = np.minimum(tgt_lengths, 0xFFFF) << 47 | np.minimum(src_lengths, 0xFFFF) << 31
    for begin in range(0, order.size, window):
        pairs = order[begin : begin + window]
        keys = lengths[pairs] | np.arange(pairs.size)
        keys.sort()
        order[begin : begin + window] = pairs[keys & 0x7FFFFFFF]


def _cut(src_lengths: Indices, tgt_lengths: Indices, batch_tokens: int, max_sentences: int) -> Indices:
    """Boundaries of consecutive runs of at most ``max_sentences`` pairs and ``batch_tokens`` tokens on each side.

    A run has at least a pair, whatever its length.

    The longest run that fits is found by binary search in the running sums, so the work is per batch, not per pair.
    """
    sums = [np.concatenate([[0], np.cumsum(lengths)]) for lengths in (src_lengths, tgt_lengths)]
    starts = [0]
    while starts[-1] < len(src_lengths):
        begin = starts[-1]
        end = min(int(sum_.searchsorted(sum_[begin] + batch_tokens, side="right")) - 1 for sum_ in sums)
        starts.append(max(min(end, begin + max_sentences), begin + 1))
    return np.array(starts, dtype=np.int64)


def most_sentences(tgt_lengths: NDArray[np.integer], batch_tokens: int) -> int:
    """Most sentences of a step: four times what it has of sentences of median length. Only very short ones meet it."""
    return max(1, 4 * batch_tokens // int(np.median(tgt_lengths))) if tgt_lengths.size else 1


def plan_epoch(
    src_lengths: NDArray[np.integer], tgt_lengths: NDArray[np.integer], batch_tokens: int, seed: int, epoch: int
) -> EpochPlan:
    """Steps of sentences of like lengths, in random order: a pure function of its arguments.

    1. Shuffle the pairs. 2. Sort them by length, in windows of about 100 steps, so that a step's sentences need little
    padding where a kernel pads, yet steps differ from epoch to epoch. 3. Cut into steps of at most ``batch_tokens``
    tokens on either side, and of :func:`most_sentences`. 4. Shuffle the steps.

    Args:
        src_lengths, tgt_lengths: [pairs], tokens with EOS.
    """
    src, tgt = src_lengths.astype(np.int64), tgt_lengths.astype(np.int64)
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = rng.permutation(len(tgt))
    window = max(1, 100 * batch_tokens * len(tgt) // max(1, int(tgt.sum())))
    _sort_windows(order, src, tgt, window)
    starts = _cut(src[order], tgt[order], batch_tokens, most_sentences(tgt, batch_tokens))
    # A step moves as a whole: its sentences keep their order, the steps change theirs.
    steps = np.split(order, starts[1:-1])
    shuffled = [steps[i] for i in rng.permutation(len(steps))]
    ends = np.cumsum([len(step) for step in shuffled])
    return EpochPlan(order=np.concatenate(shuffled), starts=np.concatenate([[0], ends]).astype(np.int64))


def deal(
    step: Indices, src_lengths: NDArray[np.integer], tgt_lengths: NDArray[np.integer], num_parts: int
) -> list[Indices]:
    """A step's sentences dealt to micro-batches like cards, so that parts differ by little in tokens of either side.

    Sorted by target length, the sentences are dealt in rounds of one for each part; in a round the part that has the
    most source tokens so far gets the shortest source. Two parts then differ by at most the longest sentence, on the
    target side (what they differ by in all rounds adds up to no more, as the rounds' lengths do not overlap) and on the
    source side (each round draws the sums together, or turns their order around).

    Args:
        src_lengths, tgt_lengths: [len(step)], of its sentences.
    """
    if num_parts == 1:
        return [step]
    missing = -len(step) % num_parts  # the first round is filled up with sentences of no tokens
    absent = np.full(missing, -1)
    places = np.concatenate([absent, np.argsort(tgt_lengths, kind="stable")]).reshape(-1, num_parts)
    src = np.append(src_lengths, 0)[places]  # the last one is what -1 stands for
    dealt = np.empty_like(places)
    totals = np.zeros(num_parts, dtype=np.int64)
    for turn, shortest_first in enumerate(np.argsort(src, axis=1, kind="stable")):
        fullest_first = np.argsort(-totals, kind="stable")
        dealt[turn, fullest_first] = places[turn, shortest_first]
        totals[fullest_first] += src[turn, shortest_first]
    return [step[part[part >= 0]] for part in dealt.T]
