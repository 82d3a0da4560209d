"""Embeddings of source and target, and the output layer: what every architecture has around its layers.

Shapes: ``T`` target tokens, ``D`` model width, ``V`` target vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.config import ConvolutionalConfig, ModelConfig, RecurrentConfig
from seq2seq.model.interface import Seq2SeqModel


class EmbeddingModel(Seq2SeqModel):
    """A model whose words are rows of tables; the tables may be one and the same (Press & Wolf 2017)."""

    def __init__(
        self, config: ModelConfig | RecurrentConfig | ConvolutionalConfig, src_vocab: int, tgt_vocab: int
    ) -> None:
        super().__init__()
        tied, d_model = config.tie_embeddings, config.d_model
        if tied == "all":
            assert src_vocab == tgt_vocab, "three-way tied embeddings need a joint vocabulary"
        self.tgt_embedding = nn.Embedding(tgt_vocab, d_model)
        self.src_embedding = self.tgt_embedding if tied == "all" else nn.Embedding(src_vocab, d_model)
        self.output = self.tgt_embedding if tied != "none" else nn.Embedding(tgt_vocab, d_model)
        self.output_bias = nn.Parameter(torch.zeros(tgt_vocab)) if config.output_bias else None
        self.quantized_output: nn.Module | None = None  # replaces the product with output_weight (quantize.py)

    @property
    def output_weight(self) -> Tensor:
        """See :attr:`Seq2SeqModel.output_weight`."""
        return self.output.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[T, D] -> [T, V]."""
        if self.quantized_output is not None:
            return self.quantized_output(hidden)
        weight = self.output_weight
        if weight.is_cuda and weight.dtype != torch.float32:  # rounded to bf16, near hypotheses would have equal scores
            logits = torch.mm(hidden.to(weight.dtype), weight.t(), out_dtype=torch.float32)
            return logits if self.output_bias is None else logits + self.output_bias
        return F.linear(hidden, weight, self.output_bias)
