"""Floating-point operations of the model per token.

Counted are the matrix products with weights. A multiply-add is 2 operations. Training takes 3 times the forward
products: forward, gradient of the input, gradient of the weight. Embedding look-ups do not count; the product with the
output embedding does. Only real tokens count, not padding, and recomputation does not count. So FLOP/s from these
numbers compare programs by the work that they finish.

Not counted are norms, activations, softmax, dropout, the optimizer, and the products inside attention (queries with
keys, weights with values), which depend on sentence lengths. These products are 4 * D forward operations for each pair
of tokens that attend. Relative to a layer's matrices with d_ff = 4 * D, sentences of L tokens on both sides add
L / (6 * D) in the encoder and 3 * L / (14 * D) in the decoder: below 1.1 % for L = 25 and D = 512. The computed FLOP/s
are too low by this share.
"""

from __future__ import annotations

from dataclasses import dataclass

from seq2seq.config import ModelConfig

_TRAINING = 3  # forward, gradient of the input, gradient of the weight


@dataclass(frozen=True)
class FlopsPerToken:
    """Floating-point operations per token of each side; those of the source include the decoder's work on it."""

    src: float
    tgt: float

    def total(self, num_src: float, num_tgt: float) -> float:
        """Operations for ``num_src`` and ``num_tgt`` real tokens, EOS included."""
        return self.src * num_src + self.tgt * num_tgt

    def times(self, factor: float) -> FlopsPerToken:
        """Both counts times ``factor``."""
        return FlopsPerToken(self.src * factor, self.tgt * factor)


def forward_flops(config: ModelConfig, tgt_vocab: int) -> FlopsPerToken:
    """Operations per token of one forward pass over both sides (teacher forcing), with the target's logits.

    Args:
        tgt_vocab: rows of the output embedding.
    """
    square = config.d_model**2  # multiply-adds of a [D, D] matrix with one token
    key_value = 2 * square * config.num_kv_heads // config.num_heads
    self_attention = square + key_value + square  # queries, keys and values, output
    feed_forward = (3 if config.activation == "swiglu" else 2) * config.d_model * config.d_ff
    encoder_layer = self_attention + feed_forward
    decoder_layer = self_attention + 2 * square + feed_forward  # cross-attention: queries and output
    # Keys and values of cross-attention are computed from source tokens, in every decoder layer.
    src = config.encoder_layers * encoder_layer + config.decoder_layers * key_value
    tgt = config.decoder_layers * decoder_layer + config.d_model * tgt_vocab
    return FlopsPerToken(2.0 * src, 2.0 * tgt)


def training_flops(config: ModelConfig, tgt_vocab: int) -> FlopsPerToken:
    """Operations per real token of a training step, forward and backward, counted as the top of this file says."""
    return forward_flops(config, tgt_vocab).times(_TRAINING)
