"""Hugging Face ``generate`` with our weights: M2M100's model for norms before the sublayers, Marian's for after.

Both add a sine table to scaled embeddings, as this package does; their tables are overwritten with ours. It divides
scores by length ** alpha as CTranslate2 does.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.decoding import Translate
from bench.peers import PeerShape, marian_options
from seq2seq.config import DecodeConfig
from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.errors import UserError
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.positions import SinusoidalPositions
from seq2seq.model.transformer import DecoderLayer, EncoderLayer, FeedForward, Transformer
from seq2seq.model_folder import load_model_folder

_BATCH_TOKENS = 4096  # padded source tokens times beams
_MAX_POSITIONS = 1024


def _position_table(model: Seq2SeqModel) -> Tensor:
    """[_MAX_POSITIONS, D], the only part of a plain Transformer that is computed and no parameter.

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
    return positions.compute(_MAX_POSITIONS)


def build(model: Seq2SeqModel) -> Any:
    """The Hugging Face model that computes what ``model`` computes."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, MarianConfig, MarianMTModel

    table = _position_table(model)
    assert isinstance(model, Transformer)
    config = model.config
    if config.tie_embeddings != "all":
        raise UserError("these models have one matrix for all embeddings; the model's model.tie_embeddings is not all")
    shape = PeerShape(config.encoder_layers, config.d_model, config.d_ff, config.num_heads, model.output_weight.size(0))
    more = {"decoder_layers": config.decoder_layers, "activation_function": config.activation}
    options = {**marian_options(shape), **more, "max_position_embeddings": _MAX_POSITIONS}
    pre = config.norm_position == "pre"
    if pre:
        theirs: Any = M2M100ForConditionalGeneration(M2M100Config(**options))
    else:
        theirs = MarianMTModel(MarianConfig(**options, forced_eos_token_id=None))
    theirs.eval()
    _copy_weights(theirs, model)
    for side in (theirs.model.encoder, theirs.model.decoder):
        if pre:  # its rows start after the padding's
            side.embed_positions.weights = torch.cat([table.new_zeros(PAD_ID + 1, table.size(1)), table])
        else:
            side.embed_positions.weight = nn.Parameter(table, requires_grad=False)
    return theirs


@torch.no_grad()
def _copy_weights(theirs: Any, model: Transformer) -> None:
    theirs.model.shared.weight.copy_(model.tgt_embedding.weight)
    for embedding in (theirs.model.encoder.embed_tokens, theirs.model.decoder.embed_tokens, theirs.lm_head):
        assert embedding.weight.data_ptr() == theirs.model.shared.weight.data_ptr(), "their embeddings are not tied"
    for side, layers, norm in (
        (theirs.model.encoder, model.encoder_layers, model.encoder_norm),
        (theirs.model.decoder, model.decoder_layers, model.decoder_norm),
    ):
        for to, layer in zip(side.layers, layers, strict=True):
            _copy_layer(to, layer)
        if isinstance(norm, nn.LayerNorm):
            side.layer_norm.load_state_dict(norm.state_dict())


def _layer_parts(layer: nn.Module) -> tuple[list[tuple[list[nn.Linear], Any]], FeedForward, Any]:
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


def _copy_layer(to: Any, layer: nn.Module) -> None:
    attentions, feed_forward, last_norm = _layer_parts(layer)
    for name, ((*fused, out), norm) in zip(("self_attn", "encoder_attn"), attentions, strict=False):
        theirs = getattr(to, name)
        for kind in ("weight", "bias"):
            rows = torch.cat([getattr(linear, kind) for linear in fused]).chunk(3)
            for linear, part in zip((theirs.q_proj, theirs.k_proj, theirs.v_proj), rows, strict=True):
                getattr(linear, kind).copy_(part)
        theirs.out_proj.load_state_dict(out.state_dict())
        getattr(to, f"{name}_layer_norm").load_state_dict(norm.state_dict())
    to.fc1.load_state_dict(feed_forward.inner.state_dict())
    to.fc2.load_state_dict(feed_forward.outer.state_dict())
    to.final_layer_norm.load_state_dict(last_norm.state_dict())


def load(spec: Namespace) -> tuple[Translate, Translate]:
    """Their model with the weights of ours, and batches of sentences of similar lengths."""
    torch.set_num_threads(spec.threads)
    loaded = load_model_folder(Path(spec.model))
    model = build(loaded.model)
    dtype = torch.bfloat16 if spec.number_format == "bfloat16" else torch.float32
    model.to(spec.device, dtype)
    translate = translator_of(model, loaded.tokenizers, loaded.config.decode, spec)
    return translate, translate


def translator_of(model: Any, tokenizers: TokenizerPair, limits: DecodeConfig, spec: Namespace) -> Translate:
    """``generate`` over lines in batches of similar lengths; a line that is too long for the model is cut."""
    most = model.config.max_position_embeddings

    @torch.inference_mode()
    def translate(lines: list[str]) -> list[str]:
        ids = [[*sentence[: most - 1], EOS_ID] for sentence in tokenizers.src.encode(lines)]
        order = sorted((i for i in range(len(lines)) if lines[i].strip()), key=lambda i: -len(ids[i]))
        texts = [""] * len(lines)
        while order:
            longest = len(ids[order[0]])
            size = max(1, _BATCH_TOKENS // (longest * spec.beam_size))
            batch, order = order[:size], order[size:]
            rows = [torch.tensor(ids[i]) for i in batch]
            src = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ID).to(spec.device)
            out = model.generate(
                input_ids=src,
                attention_mask=(src != PAD_ID).long(),
                num_beams=spec.beam_size,
                length_penalty=spec.length_penalty,
                max_new_tokens=min(int(longest * limits.max_length_ratio) + limits.max_length_offset, most - 1),
                do_sample=False,
            ).tolist()
            kept = [[i for i in row if i not in (PAD_ID, BOS_ID, EOS_ID)] for row in out]
            for i, text in zip(batch, tokenizers.tgt.decode_batch(kept), strict=True):
                texts[i] = text
        return texts

    return translate
