"""Terms that a translation must have, as a constraint on beam search.

Each hypothesis knows how far it has written every term of its sentence: a term is a sequence of pieces, followed by an
automaton (Knuth, Morris and Pratt 1977). EOS may follow only when all terms are written. Hypotheses with more of the
terms have worse log-probabilities, so each step divides the beam among the numbers of pieces still to write (dynamic
beam allocation, Post and Vilar 2018): the best hypothesis of every number comes first, then the second best, and so on.
When the room is just enough for the pieces that are missing, only they may follow.

Shapes: ``B`` sentences, ``K`` hypotheses of each (1 while all are equal), ``V`` vocabulary, ``C`` terms of a sentence,
``L`` pieces of a term, ``N`` any number of continuations of a sentence. A term has two spellings: as the start of a
word, and inside one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.data.symbols import EOS_ID, PAD_ID
from seq2seq.decode.constraints import PieceTable
from seq2seq.decode.search import best_continuations
from seq2seq.model.state import State, round_up

WORD, DIGIT = 1, 2  # bits for kinds of characters: letters, digits and marks of scripts with spaces; digits
_SPELLINGS = 2
_TRIED = 4  # pieces of terms that are tried after each hypothesis, beside the most likely pieces
_MUCH = 1e4  # larger than any difference of logits


@dataclass(frozen=True, eq=False)
class Spelling:
    """A sequence of pieces that spells a term."""

    ids: tuple[int, ...]
    before: int  # bits: the piece before it must not end with a character of these kinds
    after: int  # bits: nor may the piece after it begin with one
    transitions: NDArray[np.int64]  # [L + 1, L]: from a number of pieces written, by the piece of a column, to the next


def spelling(ids: Sequence[int], before: int, after: int, table: PieceTable) -> Spelling:
    """A spelling with its automaton.

    The numbers of pieces written are the states. If a piece does not continue the term, what was written may still end
    with the beginning of another try.
    """
    size = len(ids)
    pieces = np.array(ids)
    transitions = np.zeros((size + 1, size), np.int64)
    restart = 0  # the state after all pieces but the first
    for state in range(size + 1):
        row = transitions[restart].copy() if state else (pieces == pieces[0]).astype(np.int64)
        if state and restart == 0 and table.ends[ids[state - 1]] & before:
            row[:] = 0  # here no word may begin
        following = int(row[state]) if state and state < size else 0
        if state < size:
            row[pieces == pieces[state]] = state + 1
        transitions[state], restart = row, following
    return Spelling(tuple(ids), before, after, transitions)


@dataclass(frozen=True, eq=False)
class Term:
    """A text that a translation must have."""

    spellings: tuple[Spelling, ...]  # 1 or 2; the first one may follow any piece
    count: int = 1  # how often it must be there
    exact: bool = False  # and not more often

    @property
    def num_pieces(self) -> int:
        """The number of pieces to write."""
        return self.count * len(self.spellings[0].ids)

    @property
    def fewest_pieces(self) -> int:
        """The number of pieces of the shorter spelling, as often as it must be there."""
        return self.count * min(len(one.ids) for one in self.spellings)


def beam_for(terms: Sequence[Term], beam_size: int) -> int:
    """The number of hypotheses for a sentence with terms: some for each number of pieces, and few different sizes."""
    smallest = beam_size + min(beam_size, 3)  # most terms have 1 to 3 pieces
    return round_up(beam_size + sum(term.num_pieces for term in terms), smallest) if terms else beam_size


class Terms:
    """The translation of each sentence has its terms."""

    def __init__(self, terms: Sequence[Sequence[Term]], table: PieceTable) -> None:
        """``terms``: [B], at least one for each sentence."""
        num_terms = round_up(max(map(len, terms)), 1)
        length = round_up(max(len(s.ids) for some in terms for term in some for s in term.spellings), 4)
        shape = len(terms), num_terms, _SPELLINGS
        tokens, sizes = np.full((*shape, length), -1), np.zeros(shape, np.int64)
        transitions = np.zeros((*shape, length + 1, length), np.int16)
        before, after = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        counts, exact = np.zeros(shape[:2], np.int64), np.zeros(shape[:2], bool)
        for row, some in enumerate(terms):
            for column, term in enumerate(some):
                counts[row, column], exact[row, column] = term.count, term.exact
                for number, one in enumerate(term.spellings):
                    at, size = (row, column, number), len(one.ids)
                    tokens[at][:size], sizes[at] = one.ids, size
                    transitions[at][: size + 1, :size] = one.transitions
                    before[at], after[at] = one.before, one.after
        self._of_sentences = {
            "term_tokens": tokens,
            "term_sizes": sizes,
            "term_transitions": transitions.reshape(*shape, -1),
            "term_before": before,
            "term_after": after,
            "term_counts": counts,
            "term_exact": exact,
        }
        self._shared = {"piece_starts": table.starts, "piece_ends": table.ends}

    def start(self, state: State) -> None:
        """See :class:`seq2seq.decode.constraints.Constraint`."""
        device = state.position.device
        for tensors, arrays in ((state.of_sentences, self._of_sentences), (state.shared, self._shared)):
            tensors.update({name: torch.from_numpy(array).to(device) for name, array in arrays.items()})
        num_sentences, num_terms, spellings = self._of_sentences["term_sizes"].shape
        shapes = {"term_states": (num_terms, spellings), "term_written": (num_terms,), "last_ends": ()}
        for name, shape in shapes.items():
            state.of_hypotheses[name] = torch.zeros(num_sentences, 1, *shape, dtype=torch.int64, device=device)

    def allow(self, logits: Tensor, state: State) -> None:
        """See :class:`seq2seq.decode.constraints.Constraint`."""
        progress = _Progress.of(state)
        missing = progress.missing()
        tokens, useful = progress.next_pieces()
        room = state.of_sentences["last"] - state.position  # [B], tokens before EOS
        hurry = progress.missing(from_scratch=True) >= room[:, None]  # nothing else may be written
        rows = torch.arange(tokens.size(1), device=tokens.device).repeat_interleave(tokens.size(2))
        fewer = progress.at(rows).after(tokens.flatten(1)).missing().view_as(tokens) < missing[:, :, None]
        self._ban_excess(logits, progress, tokens, useful)
        kept = tokens.masked_fill(~(useful & fewer & hurry[:, :, None]), PAD_ID)
        values = logits.gather(2, kept).masked_fill_(kept == PAD_ID, -torch.inf)
        end = logits[:, :, EOS_ID].masked_fill(missing > 0, -torch.inf)
        logits.masked_fill_(hurry[:, :, None], -torch.inf)
        logits.scatter_(2, kept, values)
        logits[:, :, EOS_ID] = end

    def advance(self, state: State) -> None:
        """See :class:`seq2seq.decode.constraints.Constraint`."""
        after = _Progress.of(state).after(state.of_sentences["tokens"])
        state.replace("term_states", after.states)
        state.replace("term_written", after.written)
        state.replace("last_ends", after.ends)

    def continuations(self, state: State, logits: Tensor, offsets: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """:func:`~seq2seq.decode.search.best_continuations`, at least ``count``, in the order of preference.

        Beside the best ones there are, for every hypothesis, its best one and some that continue a term.
        """
        num_hypotheses = offsets.size(1)
        progress = _Progress.of(state)
        found = [best_continuations(logits, offsets, count)]
        tokens, useful = (x.expand(-1, num_hypotheses, -1) for x in progress.next_pieces())
        values = logits.gather(2, tokens).masked_fill(~useful, -torch.inf)
        begun = (progress.states > 0).flatten(2)  # these must not be lost among other terms
        tried = (values + _MUCH * begun).topk(min(_TRIED, tokens.size(2)), dim=2).indices
        tokens, sums = tokens.gather(2, tried), values.gather(2, tried) + offsets[:, :, None]
        parents = torch.arange(num_hypotheses, device=logits.device)[None, :, None].expand_as(tokens)
        found.append((sums.flatten(1), tokens.flatten(1), parents.flatten(1)))
        best, tokens = logits.max(dim=2)
        found.append((best + offsets, tokens, parents[:, :, 0]))
        sums, tokens, parents = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        same = (parents[:, :, None] == parents[:, None]) & (tokens[:, :, None] == tokens[:, None])
        earlier = torch.ones_like(same[0]).tril(-1)
        sums = sums.masked_fill((same & earlier).any(dim=2), -torch.inf)
        rows = parents if progress.states.size(1) == num_hypotheses else torch.zeros_like(parents)
        missing = progress.at(rows).after(tokens).missing()
        better = (sums[:, None] > sums[:, :, None]) | ((sums[:, None] == sums[:, :, None]) & earlier)  # [B, N, N]
        rank = (better & (missing[:, None] == missing[:, :, None])).sum(dim=2)
        rank = rank.masked_fill(sums == -torch.inf, sums.size(1))
        first = (rank[:, None] < rank[:, :, None]) | ((rank[:, None] == rank[:, :, None]) & better)
        order = first.sum(dim=2).argsort(dim=1)
        return sums.gather(1, order), tokens.gather(1, order), parents.gather(1, order)

    def _ban_excess(self, logits: Tensor, progress: _Progress, tokens: Tensor, useful: Tensor) -> None:
        """Ban the last piece of terms that are there often enough, unless another term needs the same piece."""
        banned = progress.would_be_too_many().flatten(2)
        needed = ((tokens[..., None] == tokens[..., None, :]) & useful[..., None, :]).any(dim=-1)
        logits.scatter_(2, tokens.masked_fill(~banned | needed, PAD_ID), -torch.inf)


@dataclass(frozen=True)
class _Progress:
    """How far continuations of each sentence have written its terms."""

    state: State
    states: (
        Tensor  # [B, N, C, 2] pieces written of each spelling; all of them: it depends on the next piece if it counts
    )
    written: Tensor  # [B, N, C] how often the term is there
    ends: Tensor  # [B, N] what the last piece ends with

    @classmethod
    def of(cls, state: State) -> _Progress:
        """That of the hypotheses."""
        mine = state.of_hypotheses
        return cls(state, mine["term_states"], mine["term_written"], mine["last_ends"])

    def at(self, rows: Tensor) -> _Progress:
        """That of some rows, [N] or [B, N]."""
        rows = rows.expand(self.ends.size(0), -1)
        shape = self.states.shape[2:]
        states = self.states.gather(1, rows[:, :, None, None].expand(-1, -1, *shape))
        written = self.written.gather(1, rows[:, :, None].expand(-1, -1, shape[0]))
        return _Progress(self.state, states, written, self.ends.gather(1, rows))

    def after(self, tokens: Tensor) -> _Progress:
        """That after one more token each, [B, N]."""
        pieces, sizes, after = self._term("tokens"), self._term("sizes"), self._term("after")
        same = pieces == tokens[:, :, None, None, None]  # [B, N, C, 2, L]
        columns = (self.states * pieces.size(-1) + same.byte().argmax(dim=-1)).permute(0, 2, 3, 1)
        states = self.state.of_sentences["term_transitions"].gather(3, columns).permute(0, 3, 1, 2).long()
        states = states.masked_fill(~same.any(dim=-1) | self._barred(), 0)
        starts, ends = (self.state.shared[f"piece_{name}"][tokens] for name in ("starts", "ends"))
        confirmed = self._complete() & ((after & starts[:, :, None, None]) == 0)
        at_once = (states == sizes) & (sizes > 0) & (after == 0)
        written = self.written + (confirmed | at_once).any(dim=-1)
        states = states.masked_fill(at_once.any(dim=-1, keepdim=True), 0)
        return _Progress(self.state, states, written, ends)

    def missing(self, from_scratch: bool = False) -> Tensor:
        """The number of pieces to write at most, [B, N]; from scratch: what is not finished does not count.

        One term can continue, or the last word of complete ones can end; what else is begun must be written again. So
        there is always a piece that makes the number smaller.
        """
        sizes, lacking = self._term("sizes"), (self._term("counts") - self.written).clamp(min=0)
        whole = sizes[..., 0]
        all_pieces = (lacking * whole).sum(dim=-1)
        if from_scratch:
            return all_pieces
        complete = self._complete()
        ended = ((lacking - complete.any(dim=-1).long()).clamp(min=0) * whole).sum(dim=-1)
        begun = (self.states > 0) & ~complete & (lacking > 0)[..., None]
        saved = (whole[..., None] - sizes + self.states).masked_fill(~begun, 0).clamp(min=0)
        return torch.minimum(ended, all_pieces - saved.amax(dim=(-1, -2)))

    def next_pieces(self) -> tuple[Tensor, Tensor]:
        """The pieces that continue the spellings of all terms, [B, N, 2 C], and whether these are still to write."""
        pieces, sizes = self._term("tokens"), self._term("sizes")
        column = self.states.masked_fill(self._complete(), 0)
        tokens = pieces.expand(-1, column.size(1), -1, -1, -1).gather(-1, column[..., None]).squeeze(-1)
        left = self._term("counts") - self.written - self._complete().any(dim=-1).long()
        useful = (left > 0)[..., None] & (sizes > 0)
        return tokens.clamp(min=0).flatten(2), useful.flatten(2)

    def would_be_too_many(self) -> Tensor:
        """Whether the next piece of a spelling completes a term that must not be there again, [B, N, C, 2]."""
        enough = self.written + self._complete().any(dim=-1).long() >= self._term("counts")
        last = (self.states == self._term("sizes") - 1) & (self._term("sizes") > 0) & ~self._barred()
        return last & (enough & self._term("exact"))[..., None]

    def _barred(self) -> Tensor:
        """Whether a spelling cannot begin, because the last piece ends with characters that it would continue."""
        return (self.states == 0) & ((self._term("before") & self.ends[:, :, None, None]) != 0)

    def _complete(self) -> Tensor:
        """Whether a spelling is complete, but counts only if the next piece does not continue its last word."""
        sizes = self._term("sizes")
        return (self.states == sizes) & (sizes > 0)

    def _term(self, name: str) -> Tensor:
        return self.state.of_sentences[f"term_{name}"][:, None]
