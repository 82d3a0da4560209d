"""A search in steps of fixed shapes, each of them a single CUDA graph: how CUDA searches.

The model's step, the extension of the hypotheses and their new order all happen on the device. The host launches a
graph, reads one small tensor, and notes who is finished.

Shapes: ``B`` sentences, rounded up, so that some rows are dead; ``K`` hypotheses of each; ``N / K`` steps, rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.data.packed import Packed
from seq2seq.decode.search import SearchOptions, extend, start_log_probs
from seq2seq.model.captured import Shape, StaticSteps, StaticTensors, encode_into, follow, put, static_step
from seq2seq.model.transformer import Transformer


class SearchTensors(NamedTuple):
    """All of the search's that outlives a step, but for what the model has."""

    log_probs: Tensor  # [B, K] fp32, of the hypotheses; -inf for one that is none
    longest: Tensor  # [B] int64, a sentence's longest length, EOS included; 0 where there never was one
    uniforms: Tensor | None  # [B, K, N / K] fp64, the random numbers of all steps, for sampling
    read: Tensor  # [4, B, K] fp64, what the host is to read


def search_step(model: Transformer, t: StaticTensors, s: SearchTensors, options: SearchOptions) -> None:
    """One more token for every hypothesis. What the graph is captured from."""
    logits = static_step(model, t)
    uniforms = None if s.uniforms is None else s.uniforms.index_select(2, t.position).squeeze(2)
    extension = extend(logits, s.log_probs, s.longest == t.position + 1, uniforms, options)
    s.read.copy_(extension.to_read())
    s.log_probs.copy_(extension.log_probs)
    follow(t, extension.tokens, extension.parents)


class StaticSearch:
    """What :class:`seq2seq.decode.search.PlainSearch` is, in steps of fixed shapes.

    A sentence keeps its row to its end, and the row goes on as a dead one when it leaves, until the others fit into
    half as many.
    """

    _shape: Shape
    _model_tensors: StaticTensors
    _search_tensors: SearchTensors
    _rows: NDArray[np.int64]  # of the sentences still being decoded

    def __init__(
        self,
        steps: StaticSteps,
        src: Packed,
        max_lengths: Sequence[int],
        options: SearchOptions,
        uniforms: NDArray[np.float64] | None = None,
    ) -> None:
        """Encode ``src``. ``uniforms``: as for :func:`seq2seq.decode.search.extend`, of all steps, [B, K, steps]."""
        self._steps, self._options = steps, options
        self._src_length = src.max_length
        self._longest, self._uniforms = np.array(max_lengths), uniforms
        self._length = 0  # tokens decoded so far
        self._sentences = np.arange(src.num_sentences)  # those still being decoded
        self._enter(self._fitting())
        encode_into(steps.model, src, self._model_tensors)
        self._model_tensors.ids.fill_(options.bos_id)
        start_log_probs(self._search_tensors.log_probs, sampling=uniforms is not None)

    def advance(self) -> NDArray[np.float64]:
        """As :class:`seq2seq.decode.search.SearchState` says."""
        shape = self._fitting()
        if shape != self._shape:
            self._move(shape)
        t, s, options = self._model_tensors, self._search_tensors, self._options
        key = (shape, options, s.uniforms is not None)  # all but the tensors that decides what the step does
        self._steps.graphs.run(key, partial(search_step, self._steps.model, t, s, options))
        self._length += 1
        read: NDArray[np.float64] = s.read.cpu().numpy()
        return read[:, self._rows]

    def keep(self, rows: NDArray[np.int64]) -> None:
        """As :class:`seq2seq.decode.search.SearchState` says."""
        self._rows, self._sentences = self._rows[rows], self._sentences[rows]

    def _fitting(self) -> Shape:
        """The shape for the next step."""
        return Shape.holding(len(self._sentences), self._options.beam_size, self._length + 1, self._src_length)

    def _enter(self, shape: Shape) -> None:
        """Lay out all tensors, with the sentences in the first rows, but for what the model and its steps make."""
        num_sentences, num_hypotheses, num_steps, _ = self._shape = shape
        hypotheses, place = (num_sentences, num_hypotheses), self._steps.place
        self._rows = np.arange(len(self._sentences))
        self._model_tensors = self._steps.tensors(shape)
        self._model_tensors.position.fill_(self._length)
        uniforms = None
        if self._uniforms is not None:
            uniforms = place("uniforms", (*hypotheses, num_steps), torch.float64)
            put(self._send(self._uniforms[self._sentences, :, :num_steps]), uniforms)
        self._search_tensors = SearchTensors(
            log_probs=place("log_probs", hypotheses, torch.float32),
            longest=place("longest", (num_sentences,), torch.int64),
            uniforms=uniforms,
            read=place("read", (4, *hypotheses), torch.float64),
        )
        put(self._send(self._longest[self._sentences]), self._search_tensors.longest)

    def _move(self, shape: Shape) -> None:
        """Go on in another shape."""
        rows = self._send(self._rows)
        # Copies, as the new tensors lie where these do.
        kept = [x[rows] for x in (*self._model_tensors.of_sentences, self._search_tensors.log_probs)]
        self._enter(shape)
        for x, new in zip(kept, (*self._model_tensors.of_sentences, self._search_tensors.log_probs), strict=True):
            put(x, new)

    def _send(self, array: NDArray[np.generic]) -> Tensor:
        """To the device, without waiting until it has done what it was told before."""
        return torch.from_numpy(array).to(self._steps.device, non_blocking=True)
