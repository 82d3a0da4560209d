"""Weights of our Transformer under the names that Marian and Pegasus models have in Hugging Face's library, and back.

Their sinusoids have all sines first and then all cosines; ours alternate. Only the tables of positions decide what the
features of the residual stream mean, so another order of the features, the same one in all weights that read or write
the stream, is the same model. Norms do not depend on the order, except for rounding.

Embeddings are not handled here, because their rows depend on the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq.config import ModelConfig

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "swish"}  # their names for ours


class Place(NamedTuple):
    """A weight of ours, which is one of theirs or several of them stacked."""

    ours: str
    theirs: tuple[str, ...]
    features: int | None  # the dimension that is the residual stream, if any


def feature_order(d_model: int) -> Tensor:
    """[D]: which of their features each of ours is: sine 0, cosine 0, sine 1, cosine 1, ..."""
    return torch.arange(d_model).view(2, -1).t().flatten()


def reordered(weight: Tensor, dimension: int | None, order: Tensor) -> Tensor:
    """``weight`` with its features in another order."""
    return weight if dimension is None else weight.index_select(dimension, order)


def places(config: ModelConfig) -> Iterator[Place]:
    """All weights but the embeddings."""

    def layer(ours: str, theirs: str, attentions: Mapping[str, str]) -> Iterator[Place]:
        for number, (our_name, their_name) in enumerate(attentions.items()):
            parts = {"qkv": "qkv"} if our_name == "self_attention" else {"q": "q", "kv": "kv"}
            for part, letters in parts.items():
                for kind, features in (("weight", 1), ("bias", None)):
                    stacked = tuple(f"{theirs}.{their_name}.{letter}_proj.{kind}" for letter in letters)
                    yield Place(f"{ours}.{our_name}.{part}.{kind}", stacked, features)
            for kind in ("weight", "bias"):
                yield Place(f"{ours}.{our_name}.out.{kind}", (f"{theirs}.{their_name}.out_proj.{kind}",), 0)
                norm = f"{theirs}.{their_name}_layer_norm.{kind}"
                yield Place(f"{ours}.residuals.{number}.norm.{kind}", (norm,), 0)
        yield Place(f"{ours}.feed_forward.inner.weight", (f"{theirs}.fc1.weight",), 1)
        yield Place(f"{ours}.feed_forward.inner.bias", (f"{theirs}.fc1.bias",), None)
        for kind in ("weight", "bias"):
            yield Place(f"{ours}.feed_forward.outer.{kind}", (f"{theirs}.fc2.{kind}",), 0)
            norm = f"{theirs}.final_layer_norm.{kind}"
            yield Place(f"{ours}.residuals.{len(attentions)}.norm.{kind}", (norm,), 0)

    of_encoder = {"self_attention": "self_attn"}
    of_decoder = {**of_encoder, "cross_attention": "encoder_attn"}
    for side, count, attentions in (
        ("encoder", config.encoder_layers, of_encoder),
        ("decoder", config.decoder_layers, of_decoder),
    ):
        for number in range(count):
            yield from layer(f"{side}_layers.{number}", f"model.{side}.layers.{number}", attentions)
        if config.norm_position == "pre":
            for kind in ("weight", "bias"):
                yield Place(f"{side}_norm.{kind}", (f"model.{side}.layer_norm.{kind}",), 0)


def to_theirs(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """All weights but the embeddings by their names."""
    order = feature_order(config.d_model).argsort()
    found: dict[str, Tensor] = {}
    for place in places(config):
        parts = reordered(weights[place.ours].detach(), place.features, order).chunk(len(place.theirs))
        found |= dict(zip(place.theirs, (part.clone() for part in parts), strict=True))
    return found


def to_ours(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """All weights but the embeddings by our names, fp32; removes what it takes from ``weights``.

    Raises KeyError with the name that is missing.
    """
    order = feature_order(config.d_model)
    return {
        place.ours: reordered(torch.cat([weights.pop(name).float() for name in place.theirs]), place.features, order)
        for place in places(config)
    }
