"""The interface of an architecture for training and search.

Shapes: ``B`` sentences, ``K`` hypotheses per sentence, ``T`` target tokens of a batch, ``D`` model width, ``V`` target
vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from seq2seq.data.packed import Packed, PackedBatch
from seq2seq.model.state import State


class Seq2SeqModel(nn.Module, ABC):
    """A model that reads a source sentence and predicts its target, token by token.

    The contract for ``forward`` and ``step``: the result for a sentence or hypothesis does not depend on the other
    sentences of the batch, nor on their number. In fp32 the logits are equal except for rounding; so are those of
    ``step`` and ``logits(forward(...))`` for the same prefix. Under autocast, logits have its dtype or fp32.
    """

    # Whether ``forward`` waits for the device, to learn sizes; then it cannot be compiled or captured in a CUDA graph.
    waits: ClassVar[bool] = False
    max_length: int | None  # longest sentence, in tokens, that the model can read or write; None: no limit

    @property
    @abstractmethod
    def output_weight(self) -> Tensor:
        """[V, D]: logits are inner products of hidden states with its rows. For losses that do not store all logits."""

    @abstractmethod
    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden states that predict ``batch.labels``: [T, D]. For training and scoring."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """[T, D] -> [T, V]."""

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
