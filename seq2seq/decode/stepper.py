"""Decoding steps: each extends all hypotheses by one token, eagerly (CPU) or by CUDA graphs.

Both run the same step: the model's step, then :func:`extend_hypotheses`.

Shapes: ``B`` sentences still being decoded, ``K`` hypotheses of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from seq2seq.config import DecodeConfig
from seq2seq.data.packed import Packed
from seq2seq.data.symbols import BOS_ID
from seq2seq.decode.constraints import Constraint
from seq2seq.decode.search import extend
from seq2seq.decode.terms import Terms
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.state import FixedState, State, round_up

# The smallest sizes that graphs are made for. A step with fewer sentences would not be faster.
_SENTENCES, _STEPS = 8, 32


def without_free_rows(num_sentences: int) -> int:
    """The largest number of sentences, at most ``num_sentences``, for which :class:`GraphStepper` has a shape.

    Below the smallest shape, any number.
    """
    rows = round_up(num_sentences, _SENTENCES)
    return num_sentences if num_sentences < _SENTENCES or rows == num_sentences else rows // 2


@dataclass(frozen=True)
class Constraints:
    """The constraints of a search; by default there are none, and then there is no work for any."""

    parts: tuple[Constraint, ...] = ()
    terms: Terms | None = None  # one of them, for beam search

    def allow(self, state: State, logits: Tensor) -> None:
        """See :meth:`Constraint.allow`."""
        for part in self.parts:
            part.allow(logits, state)


_NONE = Constraints()


def begin(
    model: Seq2SeqModel,
    src: Packed,
    max_lengths: Sequence[int],
    decode: DecodeConfig,
    uniforms: NDArray[np.float64] | None = None,
    constraints: Constraints = _NONE,
) -> State:
    """A model's state before the first step of a search; it also holds the search's own tensors.

    ``uniforms``: as for :func:`seq2seq.decode.search.extend`, but for all steps, [B, K, steps].
    """
    num_sentences, state = len(max_lengths), model.begin(src, decode.num_hypotheses, max(max_lengths))
    # All hypotheses are equal at first: in beam search only one may count, in sampling all do.
    log_probs = torch.full((num_sentences, decode.num_hypotheses), 0.0 if uniforms is not None else -torch.inf)
    log_probs[:, 0] = 0.0
    tensors = {
        "tokens": torch.full((num_sentences, 1), BOS_ID),  # [B, 1], because all are equal; then [B, K]
        "log_probs": log_probs,  # [B, K]
        "last": torch.tensor(max_lengths) - 1,  # [B], the position at which only EOS may follow
    }
    if uniforms is not None:  # rounded up: on CUDA each shape has its own graphs, so there should be few shapes
        unused = round_up(uniforms.shape[2], _STEPS) - uniforms.shape[2]
        tensors["uniforms"] = functional.pad(torch.tensor(uniforms), (0, unused))
    for name, x in tensors.items():
        state.of_sentences[name] = x.to(state.position.device, non_blocking=True)
    for part in constraints.parts:
        part.start(state)
    return state


def extend_hypotheses(
    state: State, logits: Tensor, decode: DecodeConfig, tags: Sequence[range], constraints: Constraints
) -> Tensor:
    """Extend every hypothesis by one token; nothing is read back from the device.

    Args:
        logits: [B, K, V], or [B, 1, V] while all hypotheses are equal.
        tags: of the model.

    Returns:
        Tokens, parents, ``ended`` and ``ended_parents``, [4, B, K]: all that the host needs, in one transfer. float64
        represents the integers and the fp32 numbers exactly.
    """
    mine = state.of_sentences
    uniforms = mine.get("uniforms")
    if uniforms is not None:
        uniforms = uniforms.index_select(2, state.position).squeeze(2)
    logits = logits.expand(-1, decode.num_hypotheses, -1)
    allow = partial(constraints.allow, state) if constraints.parts else None
    continuations = partial(constraints.terms.continuations, state) if constraints.terms else None
    last = mine["last"] == state.position
    extension = extend(logits, mine["log_probs"], last, uniforms, decode, tags, allow, continuations)
    state.replace("tokens", extension.tokens)
    state.replace("log_probs", extension.log_probs)
    state.follow(extension.parents)
    for part in constraints.parts:
        part.advance(state)
    read = (extension.tokens, extension.parents, extension.ended, extension.ended_parents)
    return torch.stack([x.double() for x in read])


class EagerStepper:
    """Eager steps; the tensors shrink when sentences finish."""

    def __init__(
        self, model: Seq2SeqModel, state: State, decode: DecodeConfig, constraints: Constraints = _NONE
    ) -> None:
        """``state``: from :func:`begin`, with the same constraints."""
        self._model, self._state, self._decode, self._constraints = model, state, decode, constraints
        # Kept until the next step replaces it. Otherwise the C library returns this memory to the system and gets it
        # back page by page at every step, which takes 1/5 of a small model's time.
        self._logits: Tensor

    def advance(self) -> NDArray[np.float64]:
        """See :class:`seq2seq.decode.search.SearchState`."""
        self._logits = self._model.step(self._state.of_sentences["tokens"], self._state).float()
        read = extend_hypotheses(self._state, self._logits, self._decode, self._model.tags, self._constraints)
        return read.cpu().numpy()

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See :class:`seq2seq.decode.search.SearchState`."""
        self._state.keep(torch.from_numpy(rows))


class GraphStepper:
    """Steps of fixed shapes, each of them a CUDA graph.

    A step launches about 200 kernels; the CPU needs more time to launch them than the GPU to run them. A graph launches
    them all at once, but with fixed shapes and memory addresses. So sizes are rounded up to a few values, and tensors
    that outlive a step, or change between steps, have fixed places (:class:`seq2seq.model.state.FixedState`). The host
    launches a graph, reads one small tensor, and records which sentences are finished.

    The first step is eager: it shows what the model caches. After it, a sentence keeps its row until it is finished.
    The free row is still computed, until the remaining sentences fit into half of the rows.
    """

    def __init__(
        self,
        graphs: Graphs,
        model: Seq2SeqModel,
        state: State,
        decode: DecodeConfig,
        constraints: Constraints = _NONE,
    ) -> None:
        """``state``: from :func:`begin`, with the same constraints; ``graphs``: of this model, one search at a time.

        Every grid length of the source has its own graphs, so there should be few lengths.
        """
        self._graphs, self._model, self.state, self._decode = graphs, model, state, decode
        self._constraints = constraints
        self._length = 0
        self._rows = np.arange(state.num_sentences)  # the rows of the sentences still being decoded
        self.shape = (0, 0)  # number of sentences, rounded up, and of steps that fit into the caches

    def advance(self) -> NDArray[np.float64]:
        """See :class:`seq2seq.decode.search.SearchState`."""
        if self._length == 0:
            self._read = self._step()
        else:
            self._fit()
            self._graphs.run(self._key, self._capturable)
        self._length += 1
        return self._read.cpu().numpy()[:, self._rows]

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See :class:`seq2seq.decode.search.SearchState`."""
        self._rows = self._rows[rows]

    def _capturable(self) -> None:
        self._read.copy_(self._step())

    def _step(self) -> Tensor:
        logits = self._model.step(self.state.of_sentences["tokens"], self.state).float()
        return extend_hypotheses(self.state, logits, self._decode, self._model.tags, self._constraints)

    def _fit(self) -> None:
        """Move to the shape for the next step."""
        shape = round_up(len(self._rows), _SENTENCES), self.state.room(self._length + 1)
        if shape == self.shape:
            return
        # Copied without waiting for earlier work on the device.
        rows = torch.from_numpy(self._rows).to(self.state.position.device, non_blocking=True)
        self.state = FixedState(self.state, self._length, rows, shape[0], self._graphs.place)
        self._read = self._graphs.place("read", (4, shape[0], self._decode.num_hypotheses), torch.float64)
        self._rows, self.shape = np.arange(len(self._rows)), shape
        tensors = {**self.state.shared, **self.state.of_sentences, **self.state.of_hypotheses}
        # Everything that affects the step, except the numbers in the tensors.
        decode = self._decode
        options = (decode.temperature, decode.top_k, decode.top_p, decode.no_repeat_ngram)
        self._key = (options, *((name, x.shape) for name, x in tensors.items()))
