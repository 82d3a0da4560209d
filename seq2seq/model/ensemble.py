"""Several models as one: the log-probability of a token is the mean of theirs.

The members share a vocabulary; their architectures may differ. The score of a hypothesis is then the mean of the scores
that the members give it.

Shapes: ``B`` sentences, ``K`` hypotheses per sentence, ``T`` target tokens, ``V`` target vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from seq2seq.data.packed import Packed, PackedBatch
from seq2seq.data.symbols import PAD_ID
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.state import State


class EnsembleState(State):
    """The members' states beside each other; the search's own tensors are in this one."""

    def __init__(self, members: Sequence[State]) -> None:
        super().__init__(members[0].num_hypotheses, device=members[0].position.device)
        self.members = members

    def follow(self, parents: Tensor) -> None:
        """See :meth:`State.follow`."""
        for state in self.members:
            state.follow(parents)
        super().follow(parents)

    def keep(self, sentences: Tensor) -> None:
        """See :meth:`State.keep`."""
        for state in self.members:
            state.keep(sentences)
        super().keep(sentences)


class Ensemble(Seq2SeqModel):
    """Models with one vocabulary, for translating and scoring. An ensemble is not trained.

    Its search is not captured in CUDA graphs, because each member's state has places of its own.
    """

    def __init__(self, members: Sequence[Seq2SeqModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.tags = members[0].tags
        self.max_length = min((model.max_length for model in members if model.max_length is not None), default=None)

    def _members(self) -> Iterable[Seq2SeqModel]:
        for model in self.members:
            assert isinstance(model, Seq2SeqModel)
            yield model

    @property
    def output_weight(self) -> Tensor:
        """There is no single one."""
        raise AssertionError("an ensemble is not trained")

    def forward(self, batch: PackedBatch) -> Tensor:
        """The members' hidden states side by side, [T, sum of their D]."""
        return torch.cat([model(batch) for model in self._members()], dim=1)

    def logits(self, hidden: Tensor) -> Tensor:
        """[T, sum of D] -> [T, V], of :func:`mean_log_probs`."""
        parts = hidden.split([model.output_weight.size(1) for model in self._members()], dim=1)
        return mean_log_probs(model.logits(part) for model, part in zip(self._members(), parts, strict=True))

    def begin(self, src: Packed, num_hypotheses: int, room: int) -> State:
        """See :meth:`Seq2SeqModel.begin`."""
        return EnsembleState([model.begin(src, num_hypotheses, room) for model in self._members()])

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """See :meth:`Seq2SeqModel.step`."""
        assert isinstance(state, EnsembleState)
        return mean_log_probs(
            model.step(tokens, own) for model, own in zip(self._members(), state.members, strict=True)
        )


def mean_log_probs(logits: Iterable[Tensor]) -> Tensor:
    """The mean of the members' log-probabilities, [..., V] fp32, as logits whose softmax leaves it unchanged.

    A mean of log-probabilities sums to less than 1. What is missing is given to the padding token, which no search
    chooses; otherwise softmax would share it out, more of it where the members disagree.
    """
    all_log_probs = [member.float().log_softmax(dim=-1) for member in logits]
    mean = torch.stack(all_log_probs).mean(dim=0)
    mean[..., PAD_ID] = -torch.inf
    # Rounded, the sum of equal members can be 1 or more; 1e-7 is the least that fp32 can tell from it.
    missing = torch.log(-torch.expm1(mean.logsumexp(dim=-1).clamp(max=-1e-7)))
    mean[..., PAD_ID] = missing
    return mean
