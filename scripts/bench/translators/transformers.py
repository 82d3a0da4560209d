"""Hugging Face ``generate`` with our weights: M2M100's model for norms before the sublayers, Marian's for after.

Both add a sine table to scaled embeddings, as this package does; their tables are overwritten with ours. It divides
scores by length ** alpha as CTranslate2 does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.decoding import DecodeSpec, Loaded
from bench.translators.convert import MAX_POSITIONS, check_supported
from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID
from seq2seq.errors import UserError
from seq2seq.model.positions import SinusoidalPositions
from seq2seq.model.transformer import DecoderLayer, EncoderLayer, FeedForward, Transformer
from seq2seq.model_folder import load_model_folder

TITLE, PACKAGE, MODULE = "HF transformers", "transformers", "transformers"
INSTALL = "pip install transformers"
_BATCH_TOKENS = 4096  # padded source tokens times beams


def build(model: Transformer) -> Any:
    """The Hugging Face model that computes what ``model`` computes."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, MarianConfig, MarianMTModel

    check_supported(model)
    config = model.config
    if config.tie_embeddings != "all":
        raise UserError("these models have one matrix for all embeddings; the model's model.tie_embeddings is not all")
    options = {
        "vocab_size": model.output_weight.size(0),
        "d_model": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.d_ff,
        "activation_function": config.activation,
        "max_position_embeddings": MAX_POSITIONS,
        "scale_embedding": True,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": BOS_ID,
    }
    pre = config.norm_position == "pre"
    if pre:
        theirs: Any = M2M100ForConditionalGeneration(M2M100Config(**options))
    else:
        theirs = MarianMTModel(MarianConfig(**options, forced_eos_token_id=None))
    theirs.eval()
    _copy_weights(theirs, model)
    positions = model.tgt_positions
    assert isinstance(positions, SinusoidalPositions)
    table = positions.compute(MAX_POSITIONS)
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


def _copy_layer(to: Any, layer: nn.Module) -> None:
    assert isinstance(layer, EncoderLayer | DecoderLayer)
    norms: list[Any] = [residual.norm for residual in layer.residuals]
    attention = layer.self_attention
    weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
    _copy_attention(to.self_attn, weights, biases, attention.out)
    to.self_attn_layer_norm.load_state_dict(norms[0].state_dict())
    if isinstance(layer, DecoderLayer):
        cross = layer.cross_attention
        weights = (cross.q.weight, *cross.kv.weight.chunk(2))
        biases = (cross.q.bias, *cross.kv.bias.chunk(2))
        _copy_attention(to.encoder_attn, weights, biases, cross.out)
        to.encoder_attn_layer_norm.load_state_dict(norms[1].state_dict())
    feed_forward = layer.feed_forward
    assert isinstance(feed_forward, FeedForward)
    to.fc1.load_state_dict(feed_forward.inner.state_dict())
    to.fc2.load_state_dict(feed_forward.outer.state_dict())
    to.final_layer_norm.load_state_dict(norms[-1].state_dict())


def _copy_attention(to: Any, weights: tuple[Tensor, ...], biases: tuple[Tensor, ...], out: nn.Linear) -> None:
    for linear, weight, bias in zip((to.q_proj, to.k_proj, to.v_proj), weights, biases, strict=True):
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    to.out_proj.load_state_dict(out.state_dict())


def load(spec: DecodeSpec) -> Loaded:
    """Their model with the weights of ours, and batches of sentences of similar lengths."""
    torch.set_num_threads(spec.threads)
    loaded = load_model_folder(Path(spec.model))
    model = build(loaded.model)
    dtype = torch.bfloat16 if spec.number_format == "bfloat16" else torch.float32
    model.to(spec.device, dtype)
    tokenizers, limits = loaded.tokenizers, loaded.config.decode
    del loaded

    @torch.inference_mode()
    def translate(lines: list[str]) -> list[str]:
        ids = [[*sentence, EOS_ID] for sentence in tokenizers.src.encode(lines)]
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
                max_new_tokens=int(longest * limits.max_length_ratio) + limits.max_length_offset,
                do_sample=False,
            ).tolist()
            kept = [[i for i in row if i not in (PAD_ID, BOS_ID, EOS_ID)] for row in out]
            for i, text in zip(batch, tokenizers.tgt.decode_batch(kept), strict=True):
                texts[i] = text
        return texts

    return Loaded(translate, translate)
