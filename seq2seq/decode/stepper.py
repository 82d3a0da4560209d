"""What makes the hypotheses of a search grow by a token: eagerly, as on the CPU, or by CUDA graphs.

Both do the same step, :func:`extend_hypotheses`, over a model and its state.

Shapes: ``B`` sentences still being decoded, ``K`` hypotheses of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.data.batching import Packed
from seq2seq.decode.search import SearchOptions, extend
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.state import FixedState, State, round_up

# The smallest sizes that graphs are made for. With fewer sentences a step would not be faster.
_SENTENCES, _STEPS = 8, 32


def begin(
    model: Seq2SeqModel,
    src: Packed,
    max_lengths: Sequence[int],
    options: SearchOptions,
    uniforms: NDArray[np.float64] | None,
) -> State:
    """The model's state before the first step, with the search's own tensors among those of sentences.

    ``tokens`` [B, K], the latest of each hypothesis, [B, 1] while all are alike; ``log_probs`` [B, K], of the whole
    hypotheses, minus infinity for one that is none; ``last`` [B], where only EOS may follow; when sampling ``uniforms``
    [B, K, steps], the random number behind each token.
    """
    num_sentences, state = len(max_lengths), model.begin(src, options.beam_size, max(max_lengths))
    # Alike hypotheses: only one of a beam counts, but every sample.
    log_probs = torch.full((num_sentences, options.beam_size), 0.0 if uniforms is not None else -torch.inf)
    log_probs[:, 0] = 0.0
    tensors = {
        "tokens": torch.full((num_sentences, 1), options.bos_id),
        "log_probs": log_probs,
        "last": torch.tensor(max_lengths) - 1,
    }
    if uniforms is not None:
        tensors["uniforms"] = torch.tensor(uniforms)
    for name, x in tensors.items():
        state.of_sentences[name] = x.to(state.position.device, non_blocking=True)
    return state


def extend_hypotheses(model: Seq2SeqModel, state: State, options: SearchOptions) -> tuple[Tensor, Tensor]:
    """One more token for every hypothesis; nothing is read back from the device.

    Returns:
        What the host is to read, [4, B, K] (:meth:`Extension.to_read`), and the logits, [B, K or 1, V] fp32.
    """
    mine = state.of_sentences
    logits = model.step(mine["tokens"], state).float()
    uniforms = mine.get("uniforms")
    if uniforms is not None:
        uniforms = uniforms.index_select(2, state.position).squeeze(2)
    alike = logits.expand(-1, options.beam_size, -1)
    extension = extend(alike, mine["log_probs"], mine["last"] == state.position, uniforms, options)
    state.replace("tokens", extension.tokens)
    state.replace("log_probs", extension.log_probs)
    state.follow(extension.parents)
    return extension.to_read(), logits


class EagerStepper:
    """Steps whose tensors are as large as the sentences that are left."""

    def __init__(
        self,
        model: Seq2SeqModel,
        src: Packed,
        max_lengths: Sequence[int],
        options: SearchOptions,
        uniforms: NDArray[np.float64] | None = None,
    ) -> None:
        """``uniforms``: as for :func:`seq2seq.decode.search.extend`, but of all steps, [B, K, steps]."""
        self._model, self._options = model, options
        self.state = begin(model, src, max_lengths, options, uniforms)
        # Kept until there are the next ones: so much memory, freed last of all, would go back to the system at every
        # step, and come again page by page, for a fifth of a small model's time.
        self._logits: Tensor

    def advance(self) -> NDArray[np.float64]:
        """As :class:`seq2seq.decode.search.SearchState` says."""
        read, self._logits = extend_hypotheses(self._model, self.state, self._options)
        found: NDArray[np.float64] = read.numpy()
        return found

    def keep(self, rows: NDArray[np.int64]) -> None:
        """As :class:`seq2seq.decode.search.SearchState` says."""
        self.state.keep(torch.from_numpy(rows))


class Shape(NamedTuple):
    """What of a search a graph is captured for, beside the sizes that stay."""

    sentences: int  # B, rounded up
    steps: int  # for which there is room in the caches


class GraphStepper:
    """Steps of fixed shapes, each of them a CUDA graph.

    A step launches some 200 kernels and takes the GPU less time than launching them takes the CPU. A graph launches
    them all at once, but is bound to its shapes and to the places in memory that it was captured with. So sizes are
    rounded up to a few, what outlives a step lies in fixed places (:class:`seq2seq.model.state.FixedState`), and what
    differs from step to step is read from there. The host launches a graph, reads one small tensor, and notes which
    sentences are finished.

    The first step is eager: it shows what the model caches. After it a sentence keeps its row to its end. When it
    leaves, its row is computed without it, until the other sentences fit into half as many rows.
    """

    def __init__(
        self,
        graphs: Graphs,
        model: Seq2SeqModel,
        src: Packed,
        max_lengths: Sequence[int],
        options: SearchOptions,
        uniforms: NDArray[np.float64] | None = None,
    ) -> None:
        """``graphs``: of this model, and of one search at a time; the others as for :class:`EagerStepper`.

        Every ``src.max_length`` has its own graphs, so there should be few.
        """
        self._graphs, self._model, self._options = graphs, model, options
        if uniforms is not None:
            unused = round_up(uniforms.shape[2], _STEPS) - uniforms.shape[2]
            uniforms = np.pad(uniforms, ((0, 0), (0, 0), (0, unused)))
        self.state = begin(model, src, max_lengths, options, uniforms)
        self._length = 0
        self._rows = np.arange(src.num_sentences)  # of the sentences still being decoded
        self.shape: Shape | None = None
        self._read: Tensor  # [4, B, K]

    def advance(self) -> NDArray[np.float64]:
        """As :class:`seq2seq.decode.search.SearchState` says."""
        if self._length == 0:
            self._read, _ = extend_hypotheses(self._model, self.state, self._options)
        else:
            self._fit()
            self._graphs.run(self._key, self._step)
        self._length += 1
        read: NDArray[np.float64] = self._read.cpu().numpy()
        return read[:, self._rows]

    def keep(self, rows: NDArray[np.int64]) -> None:
        """As :class:`seq2seq.decode.search.SearchState` says."""
        self._rows = self._rows[rows]

    def _step(self) -> None:
        """What the graph is captured from."""
        read, _ = extend_hypotheses(self._model, self.state, self._options)
        self._read.copy_(read)

    def _fit(self) -> None:
        """Move to the shape for the next step."""
        shape = Shape(round_up(len(self._rows), _SENTENCES), self.state.room(self._length + 1))
        if shape == self.shape:
            return
        self.shape, place = shape, self._graphs.place
        # To the device without waiting until it has done what it was given before.
        rows = torch.from_numpy(self._rows).to(self.state.position.device, non_blocking=True)
        self.state = FixedState(self.state, self._length, rows, shape.sentences, place)
        self._read = place("read", (4, shape.sentences, self._options.beam_size), torch.float64)
        self._rows = np.arange(len(self._rows))
        tensors = (self.state.shared, self.state.of_sentences, self.state.of_hypotheses)
        # All that decides what the step does, except the numbers in the tensors.
        self._key = (self._options, *((name, x.shape) for named in tensors for name, x in named.items()))
