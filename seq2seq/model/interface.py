"""What training and search need of an architecture.

Shapes: ``B`` sentences, ``K`` hypotheses of each, ``T`` target tokens of a batch, ``D`` model width, ``V`` target
vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from seq2seq.data.packed import Packed, PackedBatch
from seq2seq.model.state import State


class Seq2SeqModel(nn.Module, ABC):
    """A model that reads a source sentence and predicts its target, token by token.

    The contract, for ``forward`` and ``step`` alike: what is computed for a sentence, and for one of its hypotheses,
    depends neither on the other sentences of the batch nor on how many there are. In fp32 the logits are the same but
    for rounding, and so are those of ``step`` and of ``logits(forward(...))`` for the same prefix. Under autocast, the
    logits are of its dtype.
    """

    max_length: int | None  # the longest sentence in tokens that the model can read or write; None: no limit

    @property
    @abstractmethod
    def output_weight(self) -> Tensor:
        """[V, D]: the hidden states' inner products with its rows are the logits. For losses that never hold those."""

    @abstractmethod
    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden states from which ``batch.labels`` are predicted: [T, D]. For training and scoring."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """[T, D] -> [T, V]."""

    @abstractmethod
    def begin(self, src: Packed, num_hypotheses: int, room: int) -> State:
        """Encode the sources of a search; nothing has been decoded yet.

        Args:
            num_hypotheses: K, of each sentence.
            room: the longest output in tokens, EOS included.
        """

    @abstractmethod
    def step(self, tokens: Tensor, state: State) -> Tensor:
        """One more token of every hypothesis; :meth:`State.follow` then ends the step.

        It reads nothing back from the device, and with a :class:`~seq2seq.model.state.FixedState` it finds and leaves
        everything that outlives it in the state's places: a CUDA graph can do it again.

        Args:
            tokens: [B, K] int64, the latest of each hypothesis; [B, 1] at the first step, if all are alike.

        Returns:
            The logits of the next ones, [B, K, V] or [B, 1, V].
        """
