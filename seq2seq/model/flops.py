"""Floating-point operations of a training step, per token.

Counted are the matrix products with weights, the logits included, over real tokens: a multiply-add is 2 operations, and
the gradients of input and weight take as many as the forward product. Padding and recomputation do not count, so FLOP/s
from these numbers compare programs by the work that they finish.

Not counted are norms, activations, softmax, dropout, the optimizer, and the products inside attention, 4 * D forward
operations for each pair of tokens that attend. With d_ff = 4 * D and sentences of L tokens, these are L / (6 * D) of an
encoder layer and 3 * L / (14 * D) of a decoder layer: below 1.1 % for L = 25 and D = 512.
"""

from __future__ import annotations

from dataclasses import dataclass

from seq2seq.config import ConvolutionalConfig, ModelConfig, RecurrentConfig
from seq2seq.model.recurrent import GATES


@dataclass(frozen=True)
class FlopsPerToken:
    """Floating-point operations per token of each side; those of the source include the decoder's work on it."""

    src: float
    tgt: float

    def total(self, num_src: float, num_tgt: float) -> float:
        """Operations for ``num_src`` and ``num_tgt`` real tokens, EOS included."""
        return self.src * num_src + self.tgt * num_tgt


def training_flops(config: ModelConfig | RecurrentConfig | ConvolutionalConfig, tgt_vocab: int) -> FlopsPerToken:
    """Operations per real token of a training step, forward and backward, counted as the top of this file says.

    Args:
        tgt_vocab: rows of the output embedding.
    """
    if isinstance(config, RecurrentConfig):
        src, tgt = _recurrent(config)
    elif isinstance(config, ConvolutionalConfig):
        src, tgt = _convolutional(config)
    else:
        src, tgt = _transformer(config)
    tgt += config.d_model * tgt_vocab
    return FlopsPerToken(6.0 * src, 6.0 * tgt)  # 2 operations in the forward product and in each of the two gradients


def _transformer(config: ModelConfig) -> tuple[int, int]:
    """Multiply-adds of the layers, per source token and per target token."""
    square = config.d_model**2  # multiply-adds of a [D, D] matrix with one token
    key_value = 2 * square * config.num_kv_heads // config.num_heads
    self_attention = square + key_value + square  # queries, keys and values, output
    feed_forward = (3 if config.activation == "swiglu" else 2) * config.d_model * config.d_ff
    encoder_layer = self_attention + feed_forward
    decoder_layer = self_attention + 2 * square + feed_forward  # cross-attention: queries and output
    # Keys and values of cross-attention are computed from source tokens, in every decoder layer.
    src = config.encoder_layers * encoder_layer + config.decoder_layers * key_value
    return src, config.decoder_layers * decoder_layer


def _recurrent(config: RecurrentConfig) -> tuple[int, int]:
    """Multiply-adds of the layers, per source token and per target token; the bridge is once per sentence."""
    square, gates = config.d_model**2, GATES[config.cell]
    state = square // 2 if config.bidirectional else square  # two directions, each with half of the state
    src = config.encoder_layers * gates * (square + state)
    tgt = config.decoder_layers * gates * 2 * square
    if config.input_feeding:
        tgt += gates * square
    if config.attention != "none":
        src += 0 if config.attention == "dot" else square
        tgt += 2 * square + (square if config.attention == "additive" else 0)
    return src, tgt


def _convolutional(config: ConvolutionalConfig) -> tuple[int, int]:
    """Multiply-adds of the layers, per source token and per target token."""
    square = config.d_model**2
    layer = 2 * config.kernel_width * square  # values and gates
    return config.encoder_layers * layer + square, config.decoder_layers * (layer + 2 * square) + square
