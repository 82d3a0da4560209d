"""The interface of an architecture for training and search.

Shapes: ``B`` sentences, ``K`` hypotheses per sentence, ``T`` target tokens of a batch, ``D`` model width, ``V`` target
vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from seq2seq.data.packed import Packed, PackedBatch
from seq2seq.model.attention import Attention
from seq2seq.model.state import State

PositionKind: TypeAlias = Literal["sinusoidal", "learned", "rotary", "none"]


class Seq2SeqModel(nn.Module, ABC):
    """A model that reads a source sentence and predicts its target, token by token.

    The contract for ``forward`` and ``step``: the result for a sentence or hypothesis does not depend on the other
    sentences of the batch, nor on their number. In fp32 the logits are equal except for rounding; so are those of
    ``step`` and ``logits(forward(...))`` for the same prefix. Under autocast, logits have its dtype or fp32.
    """

    # Whether ``forward`` waits for the device, to learn sizes; then it cannot be compiled or captured in a CUDA graph.
    waits: ClassVar[bool] = False
    max_length: int | None  # longest sentence, in tokens, that the model can read or write; None: no limit
    output_bias: nn.Parameter | None  # [V], added to the logits
    tags: tuple[range, ...] = ()  # ids of the target vocabulary that only a source has; they are never chosen

    @property
    @abstractmethod
    def output_weight(self) -> Tensor:
        """[V, D]: logits are inner products of hidden states with its rows, plus ``output_bias``.

        For losses that do not store all logits.
        """

    @abstractmethod
    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden states that predict ``batch.labels``: [T, D]. For training and scoring."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """[T, D] -> [T, V]."""

    @torch.no_grad()
    def attention_maps(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the model on a batch whose longest sentences have S and T tokens, and look at its attention.

        A hook on every :class:`~seq2seq.model.attention.Attention` sees what it is given; the weights follow from that
        by equation 1, whichever kernel computes the model's own result.

        Returns:
            The hidden states of all target tokens, and the weights by kind of attention, for all sentences, layers and
            heads, fp32: ``encoder`` [B, layers, H, S, S], ``decoder`` [B, layers, H, T, T] and ``cross`` [B, layers, H,
            T, S]. Rows and columns of padding have no meaning. A kind that the model lacks is missing.
        """
        found: dict[str, list[Tensor]] = {}

        def record(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            assert isinstance(module, Attention)
            found.setdefault(module.kind, []).append(module.weights(*inputs).float())

        handles = [module.register_forward_hook(record) for module in self.modules() if isinstance(module, Attention)]
        try:
            hidden = self(batch)
        finally:
            for handle in handles:
                handle.remove()
        return hidden, {kind: torch.stack(layers, dim=1) for kind, layers in found.items()}

    def position_vectors(self, length: int) -> tuple[PositionKind, Tensor | None]:
        """For pictures: the kind of position encoding, and what the first ``length`` target positions get.

        Returns:
            sinusoidal or learned: vectors [L, D] that are added to the embeddings; rotary: angles [L, E / 2], in
            radians, by which pairs of numbers of a head are rotated; none: no vectors.
        """
        return "none", None

    @abstractmethod
    def begin(self, src: Packed, num_hypotheses: int, room: int) -> State:
        """Encode the sources of a search: the state before the first step.

        Args:
            num_hypotheses: K.
            room: the longest output in tokens, EOS included.
        """

    @abstractmethod
    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Compute the logits of the next token of every hypothesis; :meth:`State.follow` then ends the step.

        It reads nothing back from the device. With a :class:`~seq2seq.model.state.FixedState`, all tensors that outlive
        the step stay in the state's places, so a CUDA graph can repeat it.

        Args:
            tokens: [B, K] int64, latest token of each hypothesis; [B, 1] at the first step, if all are equal.

        Returns:
            The logits, [B, K, V] or [B, 1, V].
        """
