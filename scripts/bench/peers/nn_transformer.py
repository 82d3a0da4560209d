"""``torch.nn.Transformer`` with embeddings around it, as its tutorial has them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.padded import PaddedBatch, train
from bench.workload import DROPOUT, LABEL_SMOOTHING, MAX_LENGTH, PAD_ID, PeerShape

TITLE, PACKAGE, MODULE = "nn.Transformer", "torch", "torch"
INSTALL = "pip install torch"


class _Model(nn.Module):
    table: Tensor

    def __init__(self, shape: PeerShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        nn.init.normal_(self.embedding.weight, std=shape.d_model**-0.5)
        self.scale = math.sqrt(shape.d_model)
        self.dropout = nn.Dropout(DROPOUT)
        angles = torch.arange(MAX_LENGTH)[:, None] * 10000.0 ** (-torch.arange(0, shape.d_model, 2) / shape.d_model)
        self.register_buffer("table", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
        self.transformer = nn.Transformer(
            shape.d_model,
            shape.heads,
            shape.layers,
            shape.layers,
            shape.d_ff,
            DROPOUT,
            batch_first=True,
            norm_first=shape.pre_norm,
        )

    def _embed(self, ids: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.embedding(ids) * self.scale + self.table[: ids.size(1)])
        return out

    def forward(self, batch: PaddedBatch) -> Tensor:
        length = batch.tgt_in.size(1)
        src_padding = batch.src == PAD_ID
        hidden = self.transformer(
            self._embed(batch.src),
            self._embed(batch.tgt_in),
            tgt_mask=torch.ones(length, length, dtype=torch.bool, device=batch.src.device).triu(1),
            src_key_padding_mask=src_padding,
            memory_key_padding_mask=src_padding,
            tgt_is_causal=True,
        )
        logits = F.linear(hidden, self.embedding.weight).flatten(0, 1)
        return F.cross_entropy(
            logits, batch.labels.flatten(), ignore_index=PAD_ID, label_smoothing=LABEL_SMOOTHING, reduction="mean"
        )


def run(values: dict[str, Any]) -> dict[str, Any]:
    """The job."""
    return train(values, _Model, PACKAGE)
