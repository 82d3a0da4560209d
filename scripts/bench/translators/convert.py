"""Our weights as other programs want them: which models can be converted, and a job that does it for CTranslate2.

The job is one of its own, so that the memory it takes is not counted when the converted model translates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.translators.ctranslate2 import START, pieces
from seq2seq.errors import UserError
from seq2seq.model.positions import SinusoidalPositions
from seq2seq.model.transformer import DecoderLayer, EncoderLayer, FeedForward, Transformer
from seq2seq.model_folder import LoadedModel, load_model_folder

MAX_POSITIONS = 1024


def check_supported(model: Transformer) -> None:
    """Say what cannot be converted, or would be another model.

    Raises:
        UserError: the model's architecture is not the plain one.
    """
    config = model.config
    plain = {"norm": "layernorm", "positions": "sinusoidal", "attention_window": None, "num_kv_heads": config.num_heads}
    for key, value in plain.items():
        if getattr(config, key) != value:
            raise UserError(f"only plain Transformers are converted, not model.{key}: {getattr(config, key)}")
    if config.activation == "swiglu":
        raise UserError("only plain Transformers are converted, not model.activation: swiglu")


def convert(loaded: LoadedModel, folder: Path) -> None:
    """Write a model as a CTranslate2 model folder, in fp32; it is quantised when it is loaded."""
    from ctranslate2.specs import TransformerSpec
    from ctranslate2.specs.common_spec import Activation

    model, config = loaded.model, loaded.model.config
    check_supported(model)
    spec = TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.num_heads,
        pre_norm=config.norm_position == "pre",
        activation=Activation.RELU if config.activation == "relu" else Activation.GELU,
    )
    positions = model.tgt_positions
    assert isinstance(positions, SinusoidalPositions)
    table = positions.compute(MAX_POSITIONS)
    for side, embedding, layers in (
        (spec.encoder, model.src_embedding, model.encoder_layers),
        (spec.decoder, model.tgt_embedding, model.decoder_layers),
    ):
        (side.embeddings[0] if side is spec.encoder else side.embeddings).weight = _array(embedding.weight)
        side.position_encodings.encodings = table.numpy()
        for to, layer in zip(side.layer, layers, strict=True):
            _convert_layer(to, layer)
    if config.norm_position == "pre":
        _norm(spec.encoder.layer_norm, model.encoder_norm)
        _norm(spec.decoder.layer_norm, model.decoder_norm)
    spec.decoder.projection.weight = _array(model.output_weight)
    spec.register_source_vocabulary(pieces(loaded.tokenizers.src.vocab_size))
    spec.register_target_vocabulary(pieces(loaded.tokenizers.tgt.vocab_size))
    spec.config.add_source_bos = spec.config.add_source_eos = False  # our ids bring their EOS
    spec.config.decoder_start_token = START
    spec.validate()
    spec.optimize(quantization=None)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


def _convert_layer(to: Any, layer: nn.Module) -> None:
    """Our fused matrices are fused the same way there: queries, keys and values; keys and values."""
    assert isinstance(layer, EncoderLayer | DecoderLayer)
    norms = [residual.norm for residual in layer.residuals]
    _linear(to.self_attention.linear[0], layer.self_attention.qkv)
    _linear(to.self_attention.linear[1], layer.self_attention.out)
    _norm(to.self_attention.layer_norm, norms[0])
    if isinstance(layer, DecoderLayer):
        cross = layer.cross_attention
        for linear, ours in zip(to.attention.linear, (cross.q, cross.kv, cross.out), strict=True):
            _linear(linear, ours)
        _norm(to.attention.layer_norm, norms[1])
    feed_forward = layer.feed_forward
    assert isinstance(feed_forward, FeedForward)
    _linear(to.ffn.linear_0, feed_forward.inner)
    _linear(to.ffn.linear_1, feed_forward.outer)
    _norm(to.ffn.layer_norm, norms[-1])


def _array(weight: Tensor) -> Any:
    return weight.detach().numpy()


def _linear(to: Any, linear: nn.Linear) -> None:
    to.weight, to.bias = _array(linear.weight), _array(linear.bias)


def _norm(to: Any, norm: Any) -> None:
    assert isinstance(norm, nn.LayerNorm)
    to.gamma, to.beta = _array(norm.weight), _array(norm.bias)


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Job: convert the model of a :class:`DecodeSpec`."""
    convert(load_model_folder(Path(values["model"])), Path(values["converted"]))
    return {}
