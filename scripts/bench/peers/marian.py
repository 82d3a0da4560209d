"""Hugging Face transformers: ``MarianMTModel``, the model of its translation recipes, with random weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bench.padded import PaddedBatch, smoothed_loss
from bench.workload import BOS_ID, DROPOUT, EOS_ID, MAX_LENGTH, PAD_ID, PeerShape

TITLE, PACKAGE, MODULE = "HF Marian", "transformers", "transformers"
INSTALL = "pip install transformers"


def marian_options(shape: PeerShape) -> dict[str, Any]:
    """Its configuration, and that of its sister models."""
    return {
        "vocab_size": shape.vocab_size,
        "d_model": shape.d_model,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), shape.layers),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), shape.heads),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), shape.d_ff),
        "activation_function": "relu",
        "dropout": DROPOUT,
        "max_position_embeddings": MAX_LENGTH,
        "scale_embedding": True,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": BOS_ID,
    }


class Model(nn.Module):
    """The model and its loss, as :func:`bench.padded.run` wants them."""

    def __init__(self, shape: PeerShape) -> None:
        super().__init__()
        from transformers import MarianConfig, MarianMTModel

        self.marian = MarianMTModel(MarianConfig(**marian_options(shape), forced_eos_token_id=EOS_ID))

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The loss."""
        logits = self.marian(
            input_ids=batch.src,
            attention_mask=(batch.src != PAD_ID).long(),
            decoder_input_ids=batch.tgt_in,
            use_cache=False,
        ).logits
        # Its own loss knows no label smoothing; this is what its Trainer's smoother computes, in one call.
        return smoothed_loss(logits, batch)
