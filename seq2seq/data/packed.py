"""Packed batches: sentences one after the other in one token stream, without padding.

Shapes: ``B`` sentences, ``T`` tokens of one side of a batch, ``L`` tokens of its longest sentence (or more).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.data.symbols import BOS_ID, EOS_ID, IGNORE_LABEL

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """One side of a batch: its sentences one after the other in one stream, without padding.

    ``cells``, ``grid`` and ``key_bias`` map the stream to a padded grid of ``B * L`` cells and back, for attention
    kernels that need a grid; they are empty otherwise. Cells after a sentence's end repeat token 0 and must be masked.
    """

    ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64, counted from 0 in each sentence
    offsets: Tensor  # [B + 1] int32, where each sentence starts; the last entry is T
    lengths: Tensor  # [B] int64
    cells: Tensor  # [T] int64, the grid cell of each token
    grid: Tensor  # [B * L] int64, the token of each grid cell
    key_bias: Tensor  # [B, 1, 1, L] fp32, added to attention scores: 0 for a token, minus infinity for padding
    max_length: int = field(kw_only=True)  # L

    @property
    def num_sentences(self) -> int:
        """``B``."""
        return self.lengths.size(0)

    def to(self, device: torch.device) -> Packed:
        """A copy on ``device``; copying from pinned memory does not block."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "max_length"}

    def map(self, function: Callable[[Tensor], Tensor]) -> Packed:
        """The same with ``function`` applied to every tensor."""
        mapped = {name: function(tensor) for name, tensor in self.tensors().items()}
        return Packed(**mapped, max_length=self.max_length)


@dataclass(frozen=True)
class PackedBatch:
    """Sentence pairs for training: packed source, packed decoder input, and the labels of the decoder."""

    src: Packed
    tgt: Packed  # each sentence starts with BOS and has no EOS
    labels: Tensor  # [T of tgt] int64, the next token; IGNORE_LABEL where there is nothing to predict
    num_labels: int  # number of labels other than IGNORE_LABEL

    def to(self, device: torch.device) -> PackedBatch:
        """A copy on ``device``; copying from pinned memory does not block."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def tensors(self) -> list[Tensor]:
        """All tensors that are not empty."""
        tensors = [*self.src.tensors().values(), *self.tgt.tensors().values(), self.labels]
        return [tensor for tensor in tensors if tensor.numel()]

    def map(self, function: Callable[[Tensor], Tensor]) -> PackedBatch:
        """The same with ``function`` applied to every tensor."""
        return PackedBatch(self.src.map(function), self.tgt.map(function), function(self.labels), self.num_labels)


@dataclass(frozen=True)
class Capacity:
    """Fixed shapes for all batches of a run, so that code compiled for one batch fits all.

    Filling sentences, whose labels do not count, use up the free tokens of a batch. Empty sentences at the end use up
    its free sentences.
    """

    src_tokens: int
    tgt_tokens: int
    sentences: int
    max_length: int  # maximum tokens of a sentence on either side
    with_grid: bool = True  # whether attention needs the grid (Packed), which is most of a batch's bytes

    def _num_fillings(self, src_tokens: int, tgt_tokens: int) -> int:
        """Number of filling sentences: at least one, and enough that none exceeds ``max_length``."""
        return max(1, -(-max(self.src_tokens - src_tokens, self.tgt_tokens - tgt_tokens) // self.max_length))

    def fits(self, src_tokens: int, tgt_tokens: int, num_sentences: int) -> bool:
        """Whether a batch and its filling sentences have room; each of those has at least one token on both sides."""
        number = self._num_fillings(src_tokens, tgt_tokens)
        least_room = min(self.src_tokens - src_tokens, self.tgt_tokens - tgt_tokens)
        return number <= least_room and num_sentences + number <= self.sentences

    def fillings(self, src_tokens: int, tgt_tokens: int) -> tuple[Indices, Indices]:
        """Source and target lengths of the filling sentences of a batch that :meth:`fits`."""
        number = self._num_fillings(src_tokens, tgt_tokens)
        src, tgt = self.src_tokens - src_tokens, self.tgt_tokens - tgt_tokens
        assert number <= min(src, tgt), "the batch is larger than its capacity"
        parts = np.arange(number)
        return src // number + (parts < src % number), tgt // number + (parts < tgt % number)


def pack(
    ids: NDArray[np.integer], lengths: NDArray[np.integer], grid_length: int | None = None, *, with_grid: bool = True
) -> Packed:
    """Pack a stream of sentences.

    Args:
        ids: [T], the sentences one after the other.
        lengths: [B], tokens of each sentence; B is at least 1. Only the last may be empty (:class:`Capacity`).
        grid_length: L, at least the longest sentence, which is the default.
        with_grid: whether to fill ``cells``, ``grid`` and ``key_bias``.
    """
    lengths = lengths.astype(np.int64)
    assert lengths.size > 0
    assert lengths.min() >= 0
    assert (np.diff(np.flatnonzero(lengths == 0), append=lengths.size) == 1).all(), "empty sentences must come last"
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
    arrays = ids.astype(np.int64), positions, offsets.astype(np.int32), lengths, cells, grid, key_bias
    return Packed(*map(torch.from_numpy, arrays), max_length=max_length)


def pack_sentences(sentences: Sequence[Sequence[int]], grid_length: int | None = None) -> Packed:
    """Pack separate sentences (each a non-empty sequence of ids); ``grid_length`` as for :func:`pack`."""
    lengths = np.array([len(sentence) for sentence in sentences])
    return pack(np.concatenate([np.asarray(sentence, dtype=np.int64) for sentence in sentences]), lengths, grid_length)


def pack_pairs(
    src_ids: NDArray[np.integer],
    src_lengths: NDArray[np.integer],
    tgt_ids: NDArray[np.integer],
    tgt_lengths: NDArray[np.integer],
    capacity: Capacity | None = None,
) -> PackedBatch:
    """Pack sentence pairs for training; every sentence must end with EOS.

    If a step has fewer sentences than micro-batches, some micro-batches have no pair. They get a pair of single tokens
    whose label does not count, so that every process does the same work.

    Args:
        capacity: fixed shapes to fill the batch up to; None for no filling.
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
