"""Our weights as other programs want them: which models can be converted, and a job that does it for CTranslate2.

The job is one of its own, so that the memory it takes is not counted when the converted model translates.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.translators.ctranslate2 import START, pieces
from seq2seq.errors import UserError
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.positions import SinusoidalPositions
from seq2seq.model.transformer import DecoderLayer, EncoderLayer, FeedForward, Transformer
from seq2seq.model_folder import LoadedModel, load_model_folder

MAX_POSITIONS = 1024


def position_table(model: Seq2SeqModel) -> Tensor:
    """[MAX_POSITIONS, D], the only part of a plain Transformer that is computed and no parameter.

    Raises:
        UserError: the model's architecture is not the plain one; it would become another model.
    """
    if not isinstance(model, Transformer):
        raise UserError("only Transformers are converted, not models of another model.architecture")
    config, positions = model.config, model.tgt_positions
    plain: dict[str, list[Any]] = {"norm": ["layernorm"], "positions": ["sinusoidal"], "activation": ["relu", "gelu"]}
    for key, values in {**plain, "attention_window": [None], "num_kv_heads": [config.num_heads]}.items():
        if getattr(config, key) not in values:
            raise UserError(f"only plain Transformers are converted, not model.{key}: {getattr(config, key)}")
    assert isinstance(positions, SinusoidalPositions)
    return positions.compute(MAX_POSITIONS)


def convert(loaded: LoadedModel, folder: Path) -> None:
    """Write a model as a CTranslate2 model folder, in fp32; it is quantised when it is loaded."""
    from ctranslate2.specs import TransformerSpec
    from ctranslate2.specs.common_spec import Activation

    model = loaded.model
    table = position_table(model).numpy()
    assert isinstance(model, Transformer)
    config = model.config
    spec = TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.num_heads,
        pre_norm=config.norm_position == "pre",
        activation=Activation.RELU if config.activation == "relu" else Activation.GELU,
    )
    for side, embedding, layers in (
        (spec.encoder, model.src_embedding, model.encoder_layers),
        (spec.decoder, model.tgt_embedding, model.decoder_layers),
    ):
        (side.embeddings[0] if side is spec.encoder else side.embeddings).weight = _array(embedding.weight)
        side.position_encodings.encodings = table
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


def layer_parts(layer: nn.Module) -> tuple[list[tuple[list[nn.Linear], Any]], FeedForward, Any]:
    """Each attention, of the layer itself first, with its norm; the feed-forward network, and its norm.

    The matrices of an attention are fused: all but the last have the rows of queries, keys and values together.
    """
    assert isinstance(layer, EncoderLayer | DecoderLayer)
    own, norms = layer.self_attention, [residual.norm for residual in layer.residuals]
    attentions = [([own.qkv, own.out], norms[0])]
    if isinstance(layer, DecoderLayer):
        cross = layer.cross_attention
        attentions.append(([cross.q, cross.kv, cross.out], norms[1]))
    assert isinstance(layer.feed_forward, FeedForward)
    return attentions, layer.feed_forward, norms[-1]


def _convert_layer(to: Any, layer: nn.Module) -> None:
    """Our fused matrices are fused the same way there."""
    attentions, feed_forward, last_norm = layer_parts(layer)
    for name, (linears, norm) in zip(("self_attention", "attention"), attentions, strict=False):
        for linear, ours in zip(getattr(to, name).linear, linears, strict=True):
            _linear(linear, ours)
        _norm(getattr(to, name).layer_norm, norm)
    _linear(to.ffn.linear_0, feed_forward.inner)
    _linear(to.ffn.linear_1, feed_forward.outer)
    _norm(to.ffn.layer_norm, last_norm)


def _array(weight: Tensor) -> Any:
    return weight.detach().numpy()


def _linear(to: Any, linear: nn.Linear) -> None:
    to.weight, to.bias = _array(linear.weight), _array(linear.bias)


def _norm(to: Any, norm: Any) -> None:
    assert isinstance(norm, nn.LayerNorm)
    to.gamma, to.beta = _array(norm.weight), _array(norm.bias)


def run(spec: Namespace) -> dict[str, Any]:
    """Job: convert the model."""
    convert(load_model_folder(Path(spec.model)), Path(spec.converted))
    return {}
