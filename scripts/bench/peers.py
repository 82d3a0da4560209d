"""Other programs that train the same model: for each a function that makes its model and its loss.

:mod:`bench.padded` runs them; :mod:`bench.programs` says how they are installed. A loss is label-smoothed and per real
target token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.workload import BOS_ID, DROPOUT, EOS_ID, LABEL_SMOOTHING, MAX_LENGTH, PAD_ID


@dataclass(frozen=True)
class PeerShape:
    """What a peer needs to know to build the same model; norms are before the sublayers, with Marian after them."""

    layers: int
    d_model: int
    d_ff: int
    heads: int
    vocab_size: int  # joint; source, target and output embeddings are one matrix
    dropout: float = DROPOUT


@dataclass(frozen=True)
class PaddedBatch:
    """One step, padded on the right with PAD_ID to the longest sentence of each side.

    B sentences, S source tokens, T target tokens, EOS included.
    """

    src: Tensor  # [B, S] int64
    src_lengths: Tensor  # [B] int64
    tgt_in: Tensor  # [B, T] int64: BOS first, the last token left out
    labels: Tensor  # [B, T] int64: what is to be predicted
    num_labels: int  # real target tokens


Peer = tuple[nn.Module, Callable[[PaddedBatch], Tensor]]  # a model and its loss


def _smoothed_loss(logits: Tensor, batch: PaddedBatch) -> Tensor:
    """The criterion of most peers; ``logits`` are [B, T, V] or [B * T, V]."""
    labels = batch.labels.flatten()
    return F.cross_entropy(logits.flatten(0, -2), labels, ignore_index=PAD_ID, label_smoothing=LABEL_SMOOTHING)


class _TorchTransformer(nn.Module):
    """``torch.nn.Transformer`` with embeddings around it, as its tutorial has them."""

    table: Tensor

    def __init__(self, shape: PeerShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        nn.init.normal_(self.embedding.weight, std=shape.d_model**-0.5)
        self.scale = math.sqrt(shape.d_model)
        self.dropout = nn.Dropout(shape.dropout)
        angles = torch.arange(MAX_LENGTH)[:, None] * 10000.0 ** (-torch.arange(0, shape.d_model, 2) / shape.d_model)
        self.register_buffer("table", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
        sizes = (shape.d_model, shape.heads, shape.layers, shape.layers, shape.d_ff)
        self.transformer = nn.Transformer(*sizes, shape.dropout, batch_first=True, norm_first=True)

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
        return _smoothed_loss(F.linear(hidden, self.embedding.weight), batch)


def nn_transformer(shape: PeerShape) -> Peer:
    """PyTorch's own module."""
    model = _TorchTransformer(shape)
    return model, model


class _TorchLSTM(nn.Module):
    """``torch.nn.LSTM`` with dot-product attention (Luong et al. 2015) over padded batches, as tutorials have it."""

    def __init__(self, shape: PeerShape) -> None:
        super().__init__()
        width, layers = shape.d_model, shape.layers
        options = {"batch_first": True, "dropout": shape.dropout if layers > 1 else 0.0}  # it is between layers
        self.embedding = nn.Embedding(shape.vocab_size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.scale, self.layers = math.sqrt(width), layers
        self.encoder = nn.LSTM(width, width // 2, layers, bidirectional=True, **options)
        self.decoder = nn.LSTM(width, width, layers, **options)
        self.bridge, self.combine = nn.Linear(2 * layers * width, 2 * layers * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(shape.dropout)

    def _embed(self, ids: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.embedding(ids) * self.scale)
        return out

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The loss."""
        pack, pad = nn.utils.rnn.pack_padded_sequence, nn.utils.rnn.pad_packed_sequence
        packed = pack(self._embed(batch.src), batch.src_lengths.cpu(), batch_first=True, enforce_sorted=False)
        encoded, ends = self.encoder(packed)
        memory = self.dropout(pad(encoded, batch_first=True, total_length=batch.src.size(1))[0])  # [B, S, D]
        # The last states of both directions, [2 layers, B, D / 2] each -> the first ones of the decoder.
        joined = [end.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2).transpose(0, 1).flatten(1) for end in ends]
        first = torch.tanh(self.bridge(torch.cat(joined, dim=1))).unflatten(1, (2, self.layers, -1))
        states = tuple(state.transpose(0, 1).contiguous() for state in first.unbind(1))
        hidden = self.dropout(self.decoder(self._embed(batch.tgt_in), states)[0])  # [B, T, D]
        scores = torch.bmm(hidden, memory.transpose(1, 2)).masked_fill((batch.src == PAD_ID)[:, None], -math.inf)
        context = torch.bmm(scores.softmax(dim=2), memory)
        combined = self.dropout(torch.tanh(self.combine(torch.cat([context, hidden], dim=2))))
        return _smoothed_loss(F.linear(combined, self.embedding.weight), batch)


def nn_lstm(shape: PeerShape) -> Peer:
    """PyTorch's own modules in a padded loop."""
    model = _TorchLSTM(shape)
    return model, model


def marian_options(shape: PeerShape) -> dict[str, Any]:
    """The configuration of Hugging Face's Marian, and of its sister models."""
    return {
        "vocab_size": shape.vocab_size,
        "d_model": shape.d_model,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), shape.layers),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), shape.heads),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), shape.d_ff),
        "activation_function": "relu",
        "dropout": shape.dropout,
        "max_position_embeddings": MAX_LENGTH,
        "scale_embedding": True,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": BOS_ID,
    }


def marian(shape: PeerShape) -> Peer:
    """``MarianMTModel``, the model of Hugging Face's translation recipes, with random weights."""
    from transformers import MarianConfig, MarianMTModel

    model = MarianMTModel(MarianConfig(**marian_options(shape), forced_eos_token_id=EOS_ID))

    def loss(batch: PaddedBatch) -> Tensor:
        mask = (batch.src != PAD_ID).long()
        logits = model(batch.src, attention_mask=mask, decoder_input_ids=batch.tgt_in, use_cache=False).logits
        # Its own loss knows no label smoothing; this is what its Trainer's smoother computes, in one call.
        return _smoothed_loss(logits, batch)

    return model, loss


def _vocabularies(shape: PeerShape) -> dict[str, dict[str, int]]:
    """As OpenNMT-py and eole want them."""
    vocabulary = {"<blank>": PAD_ID, **{str(i): i for i in range(1, shape.vocab_size)}}
    return {"src": vocabulary, "tgt": vocabulary}


def opennmt(shape: PeerShape) -> Peer:
    """OpenNMT-py's defaults with the recipe of its documentation's Transformer, and the criterion of its loss."""
    from onmt.model_builder import build_base_model
    from onmt.opts import model_opts
    from onmt.utils.parse import ArgumentParser

    parser = ArgumentParser()
    model_opts(parser)
    options, _ = parser.parse_known_args([])
    stated = {
        "model_task": "seq2seq",
        "model_type": "text",
        **dict.fromkeys(("encoder_type", "decoder_type"), "transformer"),
        **dict.fromkeys(("enc_layers", "dec_layers"), shape.layers),
        **dict.fromkeys(("enc_hid_size", "dec_hid_size", "src_word_vec_size", "tgt_word_vec_size"), shape.d_model),
        "heads": shape.heads,
        "transformer_ff": shape.d_ff,
        **dict.fromkeys(("position_encoding", "share_embeddings", "share_decoder_embeddings", "add_qkvbias"), True),
        "dropout": [shape.dropout],
        "attention_dropout": [0.0],
        # Of the training options.
        "optim": "adam",
        **dict.fromkeys(("freeze_word_vecs_enc", "freeze_word_vecs_dec"), False),
        "parallel_mode": "data_parallel",
        "world_size": 1,
        "use_ckpting": [],
    }
    vars(options).update(stated)
    model = build_base_model(options, _vocabularies(shape))
    for module in model.modules():  # as its builder initialises a new model
        for name, parameter in module.named_parameters(recurse=False):
            if name == "weight" and parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name == "bias":
                nn.init.zeros_(parameter)

    def loss(batch: PaddedBatch) -> Tensor:
        tgt = F.pad(batch.tgt_in, (0, 1))[:, :, None]  # it leaves the last token out itself
        hidden, _ = model(batch.src[:, :, None], tgt, batch.src_lengths)
        # Its LossCompute computes this, and statistics besides.
        return _smoothed_loss(model.generator(hidden), batch)

    return model, loss


def eole(shape: PeerShape) -> Peer:
    """eole, the successor of OpenNMT-py: its Transformer, built from its own configuration."""
    from eole.config.models import TransformerModelConfig
    from eole.config.training import TrainingConfig
    from eole.models.model import EncoderDecoderModel

    config = TransformerModelConfig(
        layers=shape.layers,
        hidden_size=shape.d_model,
        word_vec_size=shape.d_model,
        transformer_ff=shape.d_ff,
        heads=shape.heads,
        embeddings={"word_vec_size": shape.d_model, "position_encoding_type": "SinusoidalInterleaved"},
        share_embeddings=True,
        share_decoder_embeddings=True,
        add_qkvbias=True,
        add_ffnbias=True,
        generator_bias=False,
    )
    running = TrainingConfig(dropout=[shape.dropout], attention_dropout=[0.0], param_init_method="xavier_uniform")
    vocabularies = {**_vocabularies(shape), "specials": {"pad_token": "<blank>"}}
    model = EncoderDecoderModel.build(config, vocabularies, running)
    model.init_weights(running)

    def loss(batch: PaddedBatch) -> Tensor:
        tgt = F.pad(batch.tgt_in, (0, 1))  # it leaves the last token out itself
        hidden = model(batch.src, tgt, batch.src_lengths).dec_out
        return _smoothed_loss(model.generator(hidden).float(), batch)

    return model, loss


class _JoeyVocabulary:
    """As much of JoeyNMT's vocabulary as a model asks for."""

    pad_index, bos_index, eos_index, unk_index, sep_index = PAD_ID, BOS_ID, EOS_ID, 1, None
    specials: tuple[str, ...] = ()
    lang_tags: tuple[str, ...] = ()

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def joeynmt(shape: PeerShape) -> Peer:
    """JoeyNMT: its Transformer and its loss, built from the dictionary that its configuration files become."""
    from joeynmt.model import build_model

    side = {
        "type": "transformer",
        "num_layers": shape.layers,
        "num_heads": shape.heads,
        "hidden_size": shape.d_model,
        "ff_size": shape.d_ff,
        "dropout": shape.dropout,
        "layer_norm": "pre",
        "embeddings": {"embedding_dim": shape.d_model, "scale": True, "dropout": shape.dropout},
    }
    tied = dict.fromkeys(("tied_embeddings", "tied_softmax"), True)
    start = dict.fromkeys(("initializer", "embed_initializer"), "xavier_uniform")
    vocabulary = _JoeyVocabulary(shape.vocab_size)
    model = build_model({"encoder": side, "decoder": side, **tied, **start}, vocabulary, vocabulary)
    model.loss_function = ("crossentropy", LABEL_SMOOTHING)

    def loss(batch: PaddedBatch) -> Tensor:
        total: Tensor
        total, *_ = model(
            return_type="loss",
            src=batch.src,
            src_length=batch.src_lengths,
            src_mask=(batch.src != PAD_ID)[:, None, :],
            trg_input=batch.tgt_in,
            trg=batch.labels,
            trg_mask=(batch.labels != PAD_ID)[:, None, :],
        )
        return total / batch.num_labels

    return model, loss
