"""``torch.nn.Transformer`` with embeddings around it, as its tutorial has them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.padded import PaddedBatch, smoothed_loss
from bench.workload import DROPOUT, MAX_LENGTH, PAD_ID, PeerShape

TITLE, PACKAGE, MODULE = "nn.Transformer", "torch", "torch"
INSTALL = "pip install torch"


class Model(nn.Module):
    """The model and its loss, as :func:`bench.padded.run` wants them."""

    table: Tensor

    def __init__(self, shape: PeerShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        nn.init.normal_(self.embedding.weight, std=shape.d_model**-0.5)
        self.scale = math.sqrt(shape.d_model)
        self.dropout = nn.Dropout(DROPOUT)
        angles = torch.arange(MAX_LENGTH)[:, None] * 10000.0 ** (-torch.arange(0, shape.d_model, 2) / shape.d_model)
        self.register_buffer("table", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
        sizes = (shape.d_model, shape.heads, shape.layers, shape.layers, shape.d_ff)
        self.transformer = nn.Transformer(*sizes, DROPOUT, batch_first=True, norm_first=True)

    def _embed(self, ids: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.embedding(ids) * self.scale + self.table[: ids.size(1)])
        return out

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The loss."""
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
        return smoothed_loss(F.linear(hidden, self.embedding.weight), batch)
