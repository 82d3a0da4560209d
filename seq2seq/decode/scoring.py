"""Scoring of given targets: one pass over source and target as in training, no search.

Shapes: ``T`` target tokens of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq.data.packed import PackedBatch, pack_sentences
from seq2seq.data.symbols import BOS_ID
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.loss import token_losses


def teacher_forced(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], grid_lengths: tuple[int, int] | None = None
) -> PackedBatch:
    """A batch in which the decoder reads the targets and predicts them; all ids are with EOS.

    ``grid_lengths``: of source and target, see :func:`~seq2seq.data.packed.pack`.
    """
    src_length, tgt_length = grid_lengths or (None, None)
    read = pack_sentences([[BOS_ID, *target[:-1]] for target in targets], tgt_length)
    labels = torch.tensor([token for target in targets for token in target])
    return PackedBatch(pack_sentences(sources, src_length), read, labels, labels.numel())


def token_log_probs(model: Seq2SeqModel, batch: PackedBatch) -> Tensor:
    """The log-probability of each label of a batch, in nats, fp32 [T].

    The probabilities are those of the search: over the whole vocabulary, also over ids that no search chooses.
    """
    return -token_losses(model.logits, model(batch), batch.labels)


def batches_of_pairs(lengths: Sequence[tuple[int, int]], batch_tokens: int) -> list[list[int]]:
    """Cut pairs into batches of similar lengths, longest first.

    Args:
        lengths: tokens of source and target of each pair.
        batch_tokens: the number of pairs times the longest side of a batch, unless a pair alone is longer.
    """
    left = sorted(range(len(lengths)), key=lambda pair: (-max(lengths[pair]), -min(lengths[pair])))
    batches = []
    while left:
        size = max(1, batch_tokens // max(lengths[left[0]]))
        batches.append(left[:size])
        left = left[size:]
    return batches
