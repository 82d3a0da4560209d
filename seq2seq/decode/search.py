"""Beam search, greedy search and sampling, independent of model and text.

A sentence with ``K`` hypotheses is done when ``K`` have finished ("first come, first served", Kasai et al. 2022), as in
most translation toolkits. Greedy search is beam search with one hypothesis. Sampling draws each hypothesis
independently; the rest is the same code.

Shapes: ``B`` sentences still being decoded, ``K`` hypotheses of each, ``V`` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from seq2seq.config import DecodeConfig
from seq2seq.data.symbols import EOS_ID

FIRST_ID = EOS_ID  # smaller ids (padding, unknown, BOS), which training targets do not contain, are never chosen
_PIECE = 64  # tokens in a piece of the vocabulary (see best_continuations)


Continuations: TypeAlias = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]


class SearchState(Protocol):
    """The hypotheses of all sentences still being decoded (see :mod:`seq2seq.decode.stepper`)."""

    def advance(self) -> NDArray[np.float64]:
        """Extend every hypothesis by a token.

        Returns:
            [4, B, K]: tokens, parents, ``ended`` and ``ended_parents`` of :class:`Extension`.
        """

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only these rows of the current sentences, [new B]."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished output."""

    ids: tuple[int, ...]  # without BOS and EOS
    log_prob: float  # of all tokens and EOS, in nats
    score: float  # log_prob divided by the length penalty
    cut: bool = False  # it reached the maximum length, where EOS was the only choice


def _sample(logits: Tensor, uniforms: Tensor, decode: DecodeConfig) -> Tensor:
    """One token for each row of logits [rows, V], by inverting the cumulative distribution at ``uniforms`` [rows].

    Only the ``top_k`` most likely tokens (0: all), then the fewest of these whose sum reaches ``top_p`` (Holtzman et
    al. 2020), have a chance.
    """
    p, ids = (logits.double() / decode.temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    if decode.top_k:
        p[:, decode.top_k :] = 0.0
    p = p.where(p.cumsum(dim=-1) - p < decode.top_p * p.sum(dim=-1, keepdim=True), 0.0)
    cumulative = torch.zeros_like(p).scatter_(-1, ids, p).cumsum(dim=-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.size(-1) - 1)


def length_penalty(num_tokens: int, alpha: float) -> float:
    """What the log-probability of a hypothesis is divided by (Wu et al. 2016, equation 14); EOS counts as a token."""
    return ((5.0 + num_tokens) / 6.0) ** alpha


def search(
    state: SearchState,
    max_lengths: Sequence[int],
    beam_size: int,
    alpha: float,
    num_best: int | None = None,
    enough: int | None = None,
) -> list[list[Hypothesis]]:
    """Decode a batch of sentences.

    A sentence's live hypotheses are extended together; those that choose EOS are finished. A sentence ends when
    ``beam_size`` hypotheses have finished, or at its maximum length, where EOS is the only choice. So every hypothesis
    ends with EOS and scores are comparable. Finished sentences leave the batch.

    Args:
        state: before the first token; made with the same ``max_lengths``.
        max_lengths: [B], maximum tokens of each output, EOS included; at least 1.
        alpha: of the length penalty.
        num_best: the number of hypotheses to return; None: ``beam_size``. Only these are followed back to their tokens.
        enough: the number of finished hypotheses that ends a sentence; None: ``beam_size``.

    Returns:
        For each sentence, its best finished hypotheses, best score first; fewer only if no more exist.
    """
    chosen = np.zeros((2, max(max_lengths), len(max_lengths), beam_size), np.int32)  # tokens and parents at each step
    finished: list[list[tuple[float, float, int, int]]] = [[] for _ in max_lengths]  # arguments of _trace
    sentences = np.arange(len(max_lengths))  # still being decoded, by row
    longest = np.array(max_lengths)
    for step in range(max(max_lengths)):
        tokens, parents, ended, ended_parents = state.advance()
        penalty = length_penalty(step + 1, alpha)
        for row, at in np.argwhere(ended > -math.inf):
            log_prob = float(ended[row, at])
            finished[sentences[row]].append((log_prob / penalty, log_prob, step, int(ended_parents[row, at])))
        num_finished = np.array([len(finished[s]) for s in sentences])
        going = (step + 1 < longest[sentences]) & (num_finished < (enough or beam_size))
        if not going.any():
            break
        chosen[:, step, sentences] = tokens, parents
        kept = _close_gaps(going)
        sentences = sentences[kept]
        state.keep(kept)
    return [
        [_trace(chosen[:, :, s], *end) for end in sorted(ends, key=lambda end: -end[0])[: num_best or beam_size]]
        for s, ends in enumerate(finished)
    ]


def _trace(chosen: NDArray[np.int32], score: float, log_prob: float, num_steps: int, last: int) -> Hypothesis:
    """Follow the back-pointers from hypothesis ``last`` after ``num_steps``; ``~last`` means that it was cut.

    chosen: [2, steps, K], tokens and parents (hypotheses of the previous step) of a sentence.
    """
    at, ids = max(last, ~last), []
    for step in reversed(range(num_steps)):
        ids.append(chosen.item(0, step, at))
        at = chosen.item(1, step, at)
    return Hypothesis(tuple(reversed(ids)), log_prob, score, cut=last < 0)


def _close_gaps(going: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows to continue. A row keeps its place, except that the last rows move to free places."""
    size = int(going.sum())
    keep = np.arange(size)
    keep[~going[:size]] = size + np.flatnonzero(going[size:])
    return keep


class Extension(NamedTuple):
    """The hypotheses of every sentence after one more token."""

    tokens: Tensor  # [B, K] last token of each live hypothesis
    parents: Tensor  # [B, K] the hypothesis of the previous step that it extends
    log_probs: Tensor  # [B, K] of the whole hypothesis; -inf in an empty place
    ended: Tensor  # [B, K] log-probabilities of hypotheses that chose EOS; -inf in an empty place
    ended_parents: Tensor  # [B, K] the hypotheses of the previous step that these extend; ~k if k was cut


def extend(
    logits: Tensor,
    log_probs: Tensor,
    last: Tensor,
    uniforms: Tensor | None,
    decode: DecodeConfig,
    tags: Sequence[range] = (),
    allow: Callable[[Tensor], None] | None = None,
    continuations: Continuations | None = None,
) -> Extension:
    """Extend every hypothesis by one token; nothing is read back from the device.

    Args:
        logits: [B, K, V] fp32; changed in place.
        log_probs: [B, K], of the hypotheses so far; -inf in an empty place.
        last: [B] bool, whether only EOS may follow. Every hypothesis ends then, and the live ones have no meaning.
        uniforms: [B, K] float64 in [0, 1), for sampling: one random number per token. None: beam search.
        tags: see :class:`~seq2seq.model.interface.Seq2SeqModel`.
        allow: sets the logits of more tokens to minus infinity, in place; log-probabilities stay those of the model.
        continuations: for beam search, in the place of :func:`best_continuations`, and in an order of its own.
    """
    offsets = log_probs - logits.logsumexp(dim=-1)
    own = logits if logits.stride(1) else logits[:, :1]  # equal hypotheses may share their logits
    own[:, :, :FIRST_ID] = -math.inf
    for ids in tags:
        own[:, :, ids.start : ids.stop] = -math.inf
    if allow is not None:
        allow(own)
    if uniforms is None:
        return _extend_beams(logits, offsets, last, continuations or best_continuations)
    return _extend_samples(logits, offsets, last, uniforms, decode)


def _extend_beams(logits: Tensor, offsets: Tensor, last: Tensor, continuations: Continuations) -> Extension:
    """The best K live hypotheses of each sentence, and those among its best K continuations that choose EOS.

    At most K of the best 2K continuations choose EOS, so at least K stay live. EOS counts only among the best K:
    lower, it would end a sentence with worse hypotheses than the live ones.

    Args:
        offsets: [B, K], added to logits to get the log-probabilities of whole hypotheses.
    """
    num_hypotheses, last = offsets.size(1), last[:, None]
    totals, tokens, parents = continuations(logits, offsets, 2 * num_hypotheses)
    ended = tokens == EOS_ID
    places = torch.arange(totals.size(1), device=logits.device).expand_as(totals)
    chosen = (places + ended * totals.size(1)).topk(num_hypotheses, dim=1, largest=False).indices
    live = totals.masked_fill(ended, -math.inf).gather(1, chosen)
    best = slice(num_hypotheses)
    final = totals[:, best].masked_fill(~ended[:, best], -math.inf)
    forced = logits[:, :, EOS_ID] + offsets
    final = torch.where(last, forced, final)
    all_parents = torch.arange(num_hypotheses, device=logits.device)
    all_parents = torch.where(forced < totals[:, num_hypotheses - 1, None], ~all_parents, all_parents)
    final_parents = torch.where(last, all_parents, parents[:, best])
    return Extension(tokens.gather(1, chosen), parents.gather(1, chosen), live, final, final_parents)


def best_continuations(logits: Tensor, offsets: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` largest sums of logits [B, K, V] and offsets [B, K] in each sentence.

    The vocabulary is cut into pieces. Only the ``count`` pieces with the largest maxima are searched, because they
    contain the largest sums; that takes 1/4 of the time of a full search.

    Returns:
        Sums, tokens and hypotheses, [B, count] each; if there are fewer, the remaining sums are minus infinity.
    """
    num_sentences, _, vocabulary = logits.shape
    num_pieces = -(-max(vocabulary, count) // _PIECE)
    pieces = logits
    if vocabulary < num_pieces * _PIECE:
        pieces = functional.pad(logits, (0, num_pieces * _PIECE - vocabulary), value=-math.inf)
    pieces = pieces.unflatten(2, (num_pieces, _PIECE))
    maxima = (pieces.amax(dim=-1) + offsets[:, :, None]).flatten(1)
    _, chosen = maxima.topk(min(count, maxima.size(1)), dim=1)  # [B, pieces kept]
    parents, chosen = chosen // num_pieces, chosen % num_pieces
    sums = pieces[torch.arange(num_sentences, device=logits.device)[:, None], parents, chosen]
    sums = (sums + offsets.gather(1, parents)[:, :, None]).flatten(1)
    best, order = sums.topk(count, dim=1)
    piece = order // _PIECE
    tokens = chosen.gather(1, piece) * _PIECE + order % _PIECE
    tokens.clamp_(max=vocabulary - 1)  # padding is chosen only if there are no more tokens
    return best, tokens, parents.gather(1, piece)


def _extend_samples(logits: Tensor, offsets: Tensor, last: Tensor, uniforms: Tensor, decode: DecodeConfig) -> Extension:
    """Extend every sample by one token, drawn with its random number in ``uniforms``.

    A finished sample stays as a dead row (log-probability -inf) until all samples of its sentence are finished.
    """
    tokens = _sample(logits.flatten(0, 1), uniforms.flatten(), decode).view(uniforms.shape)
    drawn, tokens = tokens, tokens.masked_fill(last[:, None], EOS_ID)
    totals = offsets + logits.gather(2, tokens[:, :, None]).squeeze(2)
    parents = torch.arange(tokens.size(1), device=logits.device).expand_as(tokens)
    ended = tokens == EOS_ID
    live, final = totals.masked_fill(ended, -math.inf), totals.masked_fill(~ended, -math.inf)
    return Extension(tokens, parents, live, final, torch.where(drawn == tokens, parents, ~parents))
