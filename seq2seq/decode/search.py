"""Beam search, greedy search and sampling over a step function; knows neither model nor text.

A sentence with ``K`` hypotheses is done when ``K`` have finished ("first come, first served", Kasai et al. 2022), as in
most programs for translation. Greedy search is beam search with one hypothesis. Sampling draws hypotheses independently
and shares everything else.

Shapes: ``B`` sentences still being decoded, ``K`` hypotheses of each, ``V`` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_PIECE = 64  # tokens of the vocabulary that are looked through together for the best continuation


class SearchState(Protocol):
    """A model in the middle of a search (see :class:`seq2seq.model.transformer.DecoderState`)."""

    def step(self, ids: Tensor) -> Tensor:
        """Feed the last token of every hypothesis; return the next token's logits.

        Args:
            ids: [B] at the first step, when a sentence's hypotheses are all alike, then [B * K].

        Returns:
            [B, V] or [B * K, V].
        """

    def select(self, sentences: Tensor, parents: Tensor) -> None:
        """Go on with these of the present sentences, [new B], and these hypotheses of each, [new B, K]."""


@dataclass(frozen=True)
class SearchOptions:
    """How to search. ``uniforms`` is given for sampling alone."""

    bos_id: int
    eos_id: int
    beam_size: int
    length_penalty: float
    uniforms: NDArray[np.float64] | None = None  # [B, K, steps] in [0, 1): the random number behind each sampled token
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Hypothesis:
    """A finished output."""

    ids: tuple[int, ...]  # without BOS and EOS
    log_prob: float  # of all tokens and EOS, in nats
    score: float  # log_prob divided by the length penalty


def length_penalty(length: int | Tensor, alpha: float) -> float | Tensor:
    """((5 + length) / 6) ** alpha, Wu et al. 2016, equation 14; ``length`` counts EOS."""
    return ((5.0 + length) / 6.0) ** alpha


def _filter(log_p: Tensor, top_k: int, top_p: float) -> Tensor:
    """Probabilities, [rows, V], with all but the likeliest tokens set to zero, not summing to one any more.

    Kept are the ``top_k`` likeliest (0: all), and of those the fewest whose sum reaches ``top_p`` (Holtzman et al.
    2020).
    """
    p, ids = log_p.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    if top_k:
        p[:, top_k:] = 0.0
    before = p.cumsum(dim=-1) - p
    p = p.where(before < top_p * p.sum(dim=-1, keepdim=True), 0.0)
    return torch.zeros_like(p).scatter_(-1, ids, p)


def _sample(logits: Tensor, uniforms: Tensor, options: SearchOptions) -> Tensor:
    """One token for each row of logits [rows, V], by inverting the cumulative distribution at ``uniforms`` [rows]."""
    p = _filter(logits.double() / options.temperature, options.top_k, options.top_p)
    cumulative = p.cumsum(dim=-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.size(-1) - 1)


class _Lattice:
    """All tokens chosen so far with back-pointers, and the finished hypotheses of each sentence."""

    def __init__(self, num_sentences: int) -> None:
        self.rows: list[dict[int, int]] = []  # of each step: where it has a sentence
        self.tokens: list[list[list[int]]] = []  # [B, K]
        self.parents: list[list[list[int]]] = []  # [B, K], the hypothesis of the step before
        self.finished: list[list[tuple[float, float, int, int]]] = [[] for _ in range(num_sentences)]

    def add_step(self, rows: dict[int, int], tokens: NDArray[np.float64], parents: NDArray[np.float64]) -> None:
        self.rows.append(rows)
        self.tokens.append(tokens.astype(int).tolist())
        self.parents.append(parents.astype(int).tolist())

    def finish(self, sentence: int, score: float, log_prob: float, beam: int) -> None:
        """The hypothesis ``beam`` of the latest step (or the empty one) has been followed by EOS."""
        self.finished[sentence].append((score, log_prob, len(self.tokens), beam))

    def hypothesis(self, sentence: int, finished: tuple[float, float, int, int]) -> Hypothesis:
        """Follow the back-pointers."""
        score, log_prob, length, beam = finished
        ids: list[int] = []
        for step in reversed(range(length)):
            row = self.rows[step][sentence]
            ids.append(self.tokens[step][row][beam])
            beam = self.parents[step][row][beam]
        return Hypothesis(tuple(reversed(ids)), log_prob, score)


def search(
    start: Callable[[int, int], SearchState], max_lengths: Sequence[int], options: SearchOptions
) -> list[list[Hypothesis]]:
    """Decode a batch of sentences.

    A sentence's live hypotheses are extended together; those that choose EOS are set aside as finished. A sentence
    ends when ``beam_size`` have finished, or at its longest length, where EOS is the only choice. So every hypothesis
    is finished and scores compare like with like. Finished sentences leave the batch.

    Args:
        start: ``start(hypotheses, steps)`` gives the state before the first token, with room for that many hypotheses
            of each sentence and that many steps.
        max_lengths: [B], most tokens of each output, EOS included; at least 1.

    Returns:
        For each sentence ``beam_size`` finished hypotheses, best score first; fewer only where no more exist.
    """
    num_sentences = len(max_lengths)
    lattice = _Lattice(num_sentences)
    state = start(options.beam_size, max(max_lengths))
    ids = torch.full((num_sentences,), options.bos_id)
    sentences = np.arange(num_sentences)  # those still being decoded; one that leaves is replaced by the last one
    rows = {s: s for s in range(num_sentences)}
    log_probs = torch.zeros(num_sentences, 1)  # of the hypotheses: at first there is one, without tokens
    longest = np.array(max_lengths)
    for length in range(1, max(max_lengths) + 1):
        logits = state.step(ids).float()
        log_norm = logits.logsumexp(dim=-1)
        last = longest[sentences] == length
        if last.any():  # only EOS may follow
            closed = _send(last.repeat(log_probs.size(1)), logits.device)
            only_eos = torch.full_like(logits, -math.inf)
            only_eos[:, options.eos_id] = logits[:, options.eos_id]
            logits = torch.where(closed[:, None], only_eos, logits)
        log_probs = log_probs.to(logits.device, non_blocking=True)
        if options.uniforms is None:
            extension = _extend_beams(logits, log_norm, log_probs, options)
        else:
            uniforms = _send(options.uniforms[sentences, :, length - 1], logits.device)
            extension = _extend_samples(logits, log_norm, log_probs, uniforms, options)
        tokens, parents, log_probs, _, _ = extension
        read_tokens, read_parents, ended, ended_parents = extension.read()
        penalty = float(length_penalty(length, options.length_penalty))
        for row, at in np.argwhere(ended > -math.inf):
            log_prob, beam = float(ended[row, at]), int(ended_parents[row, at])
            lattice.finish(int(sentences[row]), log_prob / penalty, log_prob, beam)
        num_finished = np.array([len(lattice.finished[s]) for s in sentences])
        going = ~last & (num_finished < options.beam_size)
        if not going.any():
            break
        lattice.add_step(rows, read_tokens, read_parents)
        kept = _close_gaps(going)
        if kept.size < len(sentences):
            sentences = sentences[kept]
            rows = {int(s): row for row, s in enumerate(sentences)}
        keep = _send(kept, logits.device)
        ids, log_probs = tokens[keep].flatten(), log_probs[keep]
        state.select(keep, parents[keep])
    return [
        [lattice.hypothesis(s, done) for done in sorted(finished, key=lambda f: -f[0])[: options.beam_size]]
        for s, finished in enumerate(lattice.finished)
    ]


def _send(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """To the device, without waiting until it has done what it was told before."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def _close_gaps(going: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows that go on, each in its old place, but for the last ones, which move to where a row is free."""
    size = int(going.sum())
    keep = np.arange(size)
    keep[~going[:size]] = size + np.flatnonzero(going[size:])
    return keep


class _Extension(NamedTuple):
    """Every sentence's hypotheses after one more token."""

    tokens: Tensor  # [B, K] the last token of each live hypothesis
    parents: Tensor  # [B, K] the hypothesis of the step before that it extends
    log_probs: Tensor  # [B, K] of the whole hypothesis; -inf for one that is none
    ended: Tensor  # [B, K] log-probabilities of those that chose EOS; -inf where none did
    ended_parents: Tensor  # [B, K] and the hypotheses of the step before that they extend

    def read(self) -> NDArray[np.float64]:
        """Tokens, parents, ``ended`` and its parents, [4, B, K]: all that the host needs, in one wait for the device.

        Doubles hold the whole numbers and the fp32 ones exactly.
        """
        parts = [self.tokens, self.parents, self.ended, self.ended_parents]
        read: NDArray[np.float64] = torch.stack([part.double() for part in parts]).cpu().numpy()
        return read


def _extend_beams(logits: Tensor, log_norm: Tensor, log_probs: Tensor, options: SearchOptions) -> _Extension:
    """The best K live hypotheses of each sentence, and those among its best K continuations that choose EOS.

    At most K of the best 2K continuations choose EOS, so K others are always among them. EOS counts only among the
    best K: further down it would end a sentence with worse hypotheses than those that are still live.

    Args:
        logits: [B * K, V]; log_norm: [B * K], their log-sum-exp before any were shut out; log_probs: [B, K].
    """
    offsets = log_probs - log_norm.view(log_probs.shape)
    totals, tokens, parents = _best_continuations(logits, offsets, 2 * options.beam_size)
    ended = tokens == options.eos_id
    live, chosen = totals.masked_fill(ended, -math.inf).topk(options.beam_size, dim=1)
    best = slice(options.beam_size)
    final = totals[:, best].masked_fill(~ended[:, best], -math.inf)
    return _Extension(tokens.gather(1, chosen), parents.gather(1, chosen), live, final, parents[:, best])


def _best_continuations(logits: Tensor, offsets: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` largest of logits [B * K, V] plus their hypothesis' offset [B, K], over all of a sentence.

    The vocabulary is cut into pieces, and only the ``count`` pieces with the largest maxima, among which all of the
    largest are, are searched: that costs a quarter of a search through all.

    Returns:
        Sums, tokens and hypotheses, [B, count] each; sums of minus infinity where there are no more.
    """
    num_sentences, vocabulary = offsets.size(0), logits.size(-1)
    num_pieces = -(-max(vocabulary, count) // _PIECE)
    pieces = logits
    if vocabulary < num_pieces * _PIECE:
        pieces = functional.pad(logits, (0, num_pieces * _PIECE - vocabulary), value=-math.inf)
    pieces = pieces.view(*offsets.shape, num_pieces, _PIECE)
    maxima = (pieces.amax(dim=-1) + offsets[:, :, None]).flatten(1)
    _, chosen = maxima.topk(min(count, maxima.size(1)), dim=1)  # [B, pieces kept]
    parents = chosen // num_pieces
    sums = pieces.flatten(1, 2)[torch.arange(num_sentences, device=logits.device)[:, None], chosen]
    sums = (sums + offsets.gather(1, parents)[:, :, None]).flatten(1)
    best, order = sums.topk(count, dim=1)
    piece = order // _PIECE
    tokens = chosen.gather(1, piece) % num_pieces * _PIECE + order % _PIECE
    tokens.clamp_(max=vocabulary - 1)  # the padding is chosen only where there are no more
    return best, tokens, parents.gather(1, piece)


def _extend_samples(
    logits: Tensor, log_norm: Tensor, log_probs: Tensor, uniforms: Tensor, options: SearchOptions
) -> _Extension:
    """Every sample grows by one token drawn with its random number of ``uniforms`` [B, K].

    A finished sample stays as a dead row (log-probability -inf) until all of its sentence are finished.
    """
    copies = uniforms.size(1) // log_probs.size(1)  # K of the one hypothesis at the first step, then 1 of each
    logits, log_norm = logits.repeat_interleave(copies, dim=0), log_norm.repeat_interleave(copies)
    tokens = _sample(logits, uniforms.flatten(), options).view(uniforms.shape)
    chosen = logits.gather(1, tokens.view(-1, 1)).squeeze(1) - log_norm
    totals = log_probs.repeat_interleave(copies, dim=1) + chosen.view(tokens.shape)
    parents = torch.arange(tokens.size(1), device=logits.device).expand_as(tokens) // copies
    ended = tokens == options.eos_id
    live, final = totals.masked_fill(ended, -math.inf), totals.masked_fill(~ended, -math.inf)
    return _Extension(tokens, parents, live, final, parents)
