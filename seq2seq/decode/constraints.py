"""Constraints on what a search may write: how a translation begins, and what it never has.

A constraint is a few tensors in the state of a search. Those of hypotheses follow their hypothesis, like a model's own.
Before a token is chosen, :meth:`Constraint.allow` sets the logits of what may not follow to minus infinity; afterwards
:meth:`Constraint.advance` notes what was chosen. Log-probabilities stay the model's. Terms that a translation must have
are another constraint (:mod:`seq2seq.decode.terms`).

Shapes: ``B`` sentences, ``K`` hypotheses of each (1 while all are equal), ``V`` vocabulary, ``P`` pieces of a
beginning, ``T`` steps of a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.data.symbols import PAD_ID
from seq2seq.model.state import State, round_up

_STEPS = 32  # sizes are multiples of it, doubled: on CUDA each shape has its own graphs, so there should be few


class Constraint(Protocol):
    """A constraint on the hypotheses of a search; nothing is read back from the device."""

    def start(self, state: State) -> None:
        """Add the constraint's tensors to a state before the first step."""

    def allow(self, logits: Tensor, state: State) -> None:
        """Set the logits [B, K, V] of the tokens that may not follow to minus infinity, in place."""

    def advance(self, state: State) -> None:
        """Note the tokens of a step, ``state.of_sentences["tokens"]`` [B, K], after :meth:`State.follow`."""


@dataclass(frozen=True)
class Beginning:
    """The pieces that a translation begins with.

    In the place of piece ``ids[i]`` and all that follow, one longer piece may stand that begins with their text, so
    that the last word can be completed. Those pieces have the ranks ``ranges[i]`` in the order of :class:`PieceTable`.
    """

    ids: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PieceTable:
    """What constraints know of the text of pieces; all arrays are [V]."""

    ranks: NDArray[np.int64]  # the place of each piece in the order of their texts
    starts: NDArray[np.int64]  # bits for kinds of characters (terms.WORD, terms.DIGIT): those of the first one
    ends: NDArray[np.int64]  # those of the last one


@dataclass(frozen=True)
class Rules:
    """What holds for all sentences of a search."""

    banned: tuple[tuple[int, ...], ...] = ()  # sequences of pieces that no translation has
    table: PieceTable | None = None  # for sentences with a beginning or terms


class Beginnings:
    """The translation of a sentence begins with given pieces."""

    def __init__(self, beginnings: Sequence[Beginning | None], table: PieceTable) -> None:
        """``beginnings``: [B]; None: any."""
        longest = max(len(one.ids) for one in beginnings if one is not None)
        size = round_up(longest + 1, _STEPS)  # in the last column, everything may follow
        self._ids = torch.full((len(beginnings), size), -1)
        self._ranges = torch.zeros((len(beginnings), size, 2), dtype=torch.int64)
        for row, one in enumerate(beginnings):
            if one is not None:
                self._ids[row, : len(one.ids)] = torch.tensor(one.ids)
                self._ranges[row, : len(one.ids)] = torch.tensor(one.ranges)
        self._ranks = torch.from_numpy(table.ranks)

    def start(self, state: State) -> None:
        """See :class:`Constraint`."""
        device = state.position.device
        state.shared["piece_ranks"] = self._ranks.to(device)
        state.of_sentences["beginning_ids"] = self._ids.to(device)
        state.of_sentences["beginning_ranges"] = self._ranges.to(device)
        state.of_hypotheses["begun"] = torch.zeros(len(self._ids), 1, dtype=torch.bool, device=device)

    def allow(self, logits: Tensor, state: State) -> None:
        """See :class:`Constraint`."""
        ids, ranges = (self._at(state, name, state.position) for name in ("beginning_ids", "beginning_ranges"))
        ranks, tokens = state.shared["piece_ranks"], torch.arange(logits.size(2), device=logits.device)
        fits = (ranks >= ranges[..., :1]) & (ranks < ranges[..., 1:])  # [B, V]
        fits |= (tokens == ids[:, None]) | (ids < 0)[:, None]
        logits.masked_fill_(~(fits[:, None] | state.of_hypotheses["begun"][:, :, None]), -torch.inf)

    def advance(self, state: State) -> None:
        """See :class:`Constraint`."""
        ids = self._at(state, "beginning_ids", state.position - 1)
        begun = state.of_hypotheses["begun"]
        state.replace("begun", begun | (state.of_sentences["tokens"] != ids[:, None]))

    def _at(self, state: State, name: str, position: Tensor) -> Tensor:
        """The column of a position, [B] or [B, 2]."""
        columns = state.of_sentences[name]
        return columns.index_select(1, position.clamp(max=columns.size(1) - 1)).squeeze(1)


class Bans:
    """No translation has one of some sequences of pieces, nor the same ``ngram`` pieces twice."""

    def __init__(self, sequences: Sequence[Sequence[int]], ngram: int, num_sentences: int, num_steps: int) -> None:
        """``ngram``: 0 is off; ``num_steps``: of the longest search."""
        self._single = torch.tensor([ids[0] for ids in sequences if len(ids) == 1], dtype=torch.int64)
        longer = [ids for ids in sequences if len(ids) > 1]
        self._longer = torch.full((len(longer), max(map(len, longer), default=0)), -1)  # aligned at their ends
        for row, ids in enumerate(longer):
            self._longer[row, -len(ids) :] = torch.tensor(ids)
        self._ngram, self._shape = ngram, (num_sentences, 1, round_up(num_steps, _STEPS))
        self._looks_back = bool(longer or ngram)

    def start(self, state: State) -> None:
        """See :class:`Constraint`."""
        device = state.position.device
        state.shared["banned"] = self._single.to(device)
        state.shared["banned_sequences"] = self._longer.to(device)
        if self._looks_back:
            state.of_hypotheses["history"] = torch.zeros(self._shape, dtype=torch.int64, device=device)

    def allow(self, logits: Tensor, state: State) -> None:
        """See :class:`Constraint`."""
        logits.index_fill_(2, state.shared["banned"], -torch.inf)
        sequences = state.shared["banned_sequences"]
        if sequences.numel():
            recent, known = self._recent(state, sequences.size(1) - 1)
            same = (recent[:, :, None] == sequences[:, :-1]) & known
            found = (same | (sequences[:, :-1] < 0)).all(dim=-1)  # [B, K, sequences]
            self._ban(logits, sequences[:, -1].expand_as(found), found)
        if 0 < self._ngram <= self._shape[2]:
            windows = state.of_hypotheses["history"].unfold(2, self._ngram, 1)  # [B, K, windows, ngram]
            recent, _ = self._recent(state, self._ngram - 1)
            # Where nothing is written yet there is padding, and to ban that changes nothing.
            self._ban(logits, windows[..., -1], (windows[..., :-1] == recent[:, :, None]).all(dim=-1))

    def advance(self, state: State) -> None:
        """See :class:`Constraint`."""
        if self._looks_back:
            new = state.of_sentences["tokens"][:, :, None]
            state.of_hypotheses["history"].index_copy_(2, state.position - 1, new)

    def _recent(self, state: State, count: int) -> tuple[Tensor, Tensor]:
        """The latest ``count`` tokens of every hypothesis, [B, K, count], and which of them there are, [count]."""
        at = state.position - count + torch.arange(count, device=state.position.device)
        return state.of_hypotheses["history"].index_select(2, at.clamp(min=0)), at >= 0

    def _ban(self, logits: Tensor, tokens: Tensor, banned: Tensor) -> None:
        """Ban tokens [B, K, any number] where ``banned``; in the place of the others stands padding, never chosen."""
        logits.scatter_(2, tokens.masked_fill(~banned, PAD_ID), -torch.inf)
