"""The encoder-decoder Transformer of "Attention Is All You Need" (Vaswani et al. 2017) and its modern variants.

Everything runs on packed sentences: linear layers and norms see ``[tokens, D]``, and only attention knows where one
sentence ends and the next begins.

Shapes: ``S`` source tokens, ``T`` target tokens, ``B`` sentences, ``K`` hypotheses of each sentence, ``D`` model width,
``F`` width of the feed-forward layer, ``V`` target vocabulary.

Initialisation:

==================================  ====================================================================
embeddings                          normal, standard deviation D^-1/2 (the input is scaled by D^1/2, section 3.4)
every matrix of a layer             Xavier uniform (Glorot & Bengio 2010), on each matrix of a fused one by itself
biases; norms                       0; scale 1 and shift 0
learned positions                   normal, standard deviation 0.02
==================================  ====================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.config import ModelConfig
from seq2seq.data.packed import Packed, PackedBatch
from seq2seq.model.attention import CrossAttention, FusedLinear, KeyValueCache, SelfAttention, move_sentences
from seq2seq.model.kernels.dropout import Dropout
from seq2seq.model.positions import LearnedPositions, RotaryPositions, SinusoidalPositions


def _norm(config: ModelConfig) -> nn.Module:
    return nn.RMSNorm(config.d_model, eps=1e-6) if config.norm == "rmsnorm" else nn.LayerNorm(config.d_model)


class FeedForward(nn.Module):
    """The position-wise feed-forward network (section 3.3), with ReLU, GELU, or SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        fused = config.activation == "swiglu"  # gate and up
        self.inner = FusedLinear(config.d_model, [config.d_ff] * 2) if fused else nn.Linear(config.d_model, config.d_ff)
        self.outer = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, D] -> [tokens, D]."""
        h = self.inner(x)
        if self.activation == "relu":
            h = F.relu(h, inplace=True)
        elif self.activation == "gelu":
            h = F.gelu(h)
        else:
            gate, up = h.chunk(2, dim=-1)
            h = F.silu(gate) * up
        out: Tensor = self.outer(h)
        return out


class Residual(nn.Module):
    """What surrounds every sub-layer: dropout, the residual connection, and a norm after it (section 5.4) or, with
    ``norm_position: pre``, on the sub-layer's input (Xiong et al. 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = _norm(config)
        self.dropout = Dropout(config.dropout)
        self.pre = config.norm_position == "pre"

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """[tokens, D] -> [tokens, D]."""
        out: Tensor = x + self.dropout(sublayer(self.norm(x))) if self.pre else self.norm(x + self.dropout(sublayer(x)))
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        heads = (config.d_model, config.num_heads, config.num_kv_heads)
        self.self_attention = SelfAttention(*heads, causal=False, window=config.attention_window)
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(2))

    def forward(self, x: Tensor, src: Packed, rotation: Tensor | None) -> Tensor:
        """[S, D] -> [S, D]."""
        around_attention, around_feed_forward = self.residuals
        x = around_attention(x, lambda h: self.self_attention(h, src, rotation))
        out: Tensor = around_feed_forward(x, self.feed_forward)
        return out


class DecoderLayer(nn.Module):
    """Causal self-attention, attention over the source, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        heads = (config.d_model, config.num_heads, config.num_kv_heads)
        self.self_attention = SelfAttention(*heads, causal=True, window=config.attention_window)
        self.cross_attention = CrossAttention(*heads)
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(3))

    def _sublayers(
        self, x: Tensor, attend_self: Callable[[Tensor], Tensor], attend_source: Callable[[Tensor], Tensor]
    ) -> Tensor:
        around_self, around_cross, around_feed_forward = self.residuals
        x = around_cross(around_self(x, attend_self), attend_source)
        out: Tensor = around_feed_forward(x, self.feed_forward)
        return out

    def forward(self, x: Tensor, tgt: Packed, rotation: Tensor | None, memory: Tensor, src: Packed) -> Tensor:
        """[T, D] -> [T, D]; memory: [S, D]."""
        return self._sublayers(
            x,
            lambda h: self.self_attention(h, tgt, rotation),
            lambda h: self.cross_attention(h, tgt, memory, src),
        )

    def step(self, x: Tensor, rotation: Tensor | None, cache: LayerCache, state: DecoderState) -> Tensor:
        """One token of every hypothesis, [B * K, D] -> [B * K, D]."""
        return self._sublayers(
            x,
            lambda h: self.self_attention.step(h, cache.target, state.tgt_mask, rotation),
            lambda h: self.cross_attention.step(h, cache.src_keys, cache.src_values, state.src_mask),
        )


class LayerCache:
    """What one decoder layer keeps between the steps of a search."""

    def __init__(self, target: KeyValueCache, src_keys: Tensor, src_values: Tensor) -> None:
        self.target = target
        self.src_keys, self.src_values = src_keys, src_values  # [B, G, E, L] and [B, G, L, E]


class DecoderState:
    """A search in progress on the CPU: the encoded sources, projected once, and the keys and values of all hypotheses.

    It starts with one hypothesis for each sentence, which the first :meth:`select` makes K of.
    ``N``: cached tokens of a sentence: its first one, then those of all its hypotheses at the second step, and so on.
    """

    def __init__(self, model: Transformer, src: Packed, num_hypotheses: int, max_length: int) -> None:
        """Encode ``src`` and make room for ``num_hypotheses`` (K) of up to ``max_length`` tokens for each sentence."""
        self.model = model
        self.length = 0  # tokens decoded so far
        self.max_length = max_length
        memory = model.encode(src)
        self.src_mask = src.key_bias.to(memory.dtype, copy=True)  # [B, 1, 1, L]
        self.tgt_mask = memory.new_empty(src.num_sentences, 1, 1, 0)  # [B, 1, K, N]: 0 for what a hypothesis holds
        self.layers: list[LayerCache] = []
        for layer in model.decoder_layers:
            assert isinstance(layer, DecoderLayer)
            src_keys, src_values = layer.cross_attention.project_once(memory, src)
            room = 1 + (max_length - 1) * num_hypotheses
            target = KeyValueCache(src.num_sentences, room, num_hypotheses, like=src_values)
            self.layers.append(LayerCache(target, src_keys, src_values))

    def step(self, ids: Tensor) -> Tensor:
        """Feed the last token of every hypothesis, [B * K] int64; returns the next token's logits, [B * K, V]."""
        num_hypotheses = self.tgt_mask.size(2)
        own = self.tgt_mask.new_full((num_hypotheses, num_hypotheses), -math.inf).fill_diagonal_(0.0)
        self.tgt_mask = torch.cat([self.tgt_mask, own.expand(self.tgt_mask.size(0), 1, -1, -1)], dim=3)
        self.length += 1
        return self.model.decode_step(ids, self)

    def select(self, sentences: Tensor, parents: Tensor) -> None:
        """Go on with other hypotheses, and fewer sentences.

        Args:
            sentences: [new B] indices into the present sentences. Only those that change their place are copied.
            parents: [new B, K] indices into the present hypotheses of each.
        """
        moved = (sentences != torch.arange(sentences.size(0))).nonzero().squeeze(1)
        self.src_mask = move_sentences(self.src_mask, sentences, moved)
        for layer in self.layers:
            layer.target.select(sentences, moved)
            layer.src_keys = move_sentences(layer.src_keys, sentences, moved)
            layer.src_values = move_sentences(layer.src_values, sentences, moved)
        self.tgt_mask = self.tgt_mask[sentences[:, None], :, parents].transpose(1, 2)


class Transformer(nn.Module):
    """Encoder and decoder over packed sentences.

    ``forward`` is training, ``encode`` and ``decode_step`` (through :class:`DecoderState`) are search. ``max_length``
    is the longest sentence in tokens that learned positions have a vector for; other positions have no limit.
    """

    def __init__(self, config: ModelConfig, src_vocab: int, tgt_vocab: int, max_length: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = max_length if config.positions == "learned" else None
        if config.tie_embeddings == "all":
            assert src_vocab == tgt_vocab, "three-way tied embeddings need a joint vocabulary"
        d_model = config.d_model
        self.tgt_embedding = nn.Embedding(tgt_vocab, d_model)
        self.src_embedding = self.tgt_embedding if config.tie_embeddings == "all" else nn.Embedding(src_vocab, d_model)
        self.output = self.tgt_embedding if config.tie_embeddings != "none" else nn.Embedding(tgt_vocab, d_model)
        room = max(512, 2 * max_length + 10)  # the longest translations, unless the config wants longer ones
        # Absolute positions are added to the embeddings, rotary ones turn the heads; a model has one of the two.
        self.src_positions: nn.Module | None = None
        self.tgt_positions: nn.Module | None = None
        self.rotary: RotaryPositions | None = None
        if config.positions == "rotary":
            self.rotary = RotaryPositions(d_model // config.num_heads, room)
        elif config.positions == "learned":
            self.src_positions = LearnedPositions(max_length, d_model)
            self.tgt_positions = LearnedPositions(max_length, d_model)
        else:
            self.src_positions = self.tgt_positions = SinusoidalPositions(d_model, room)
        self.quantized_output: nn.Module | None = None  # in place of the output's inner products (quantize.py)
        self.dropout = Dropout(config.dropout)
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        pre = config.norm_position == "pre"  # then the last layer's output has not been normed yet
        self.encoder_norm = _norm(config) if pre else nn.Identity()
        self.decoder_norm = _norm(config) if pre else nn.Identity()
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all parameters anew, as the table at the top of this file says."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.d_model**-0.5)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, LearnedPositions):
                nn.init.normal_(module.table.weight, std=0.02)
            elif isinstance(module, FusedLinear):
                for matrix in module.weight.split(module.rows):
                    nn.init.xavier_uniform_(matrix)

    @property
    def output_weight(self) -> Tensor:
        """[V, D]: the hidden states' inner products with its rows are the logits."""
        return self.output.weight

    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden states from which :attr:`output_weight` predicts ``batch.labels``: [T, D]."""
        return self.decode(batch.tgt, self.encode(batch.src), batch.src)

    def encode(self, src: Packed) -> Tensor:
        """The encoded source, [S, D]."""
        x = self._embed(self.src_embedding, self.src_positions, src)
        rotation = self.rotary(src.positions, src.max_length) if self.rotary is not None else None
        for layer in self.encoder_layers:
            x = layer(x, src, rotation)
        out: Tensor = self.encoder_norm(x)
        return out

    def decode(self, tgt: Packed, memory: Tensor, src: Packed) -> Tensor:
        """Hidden states of all target tokens at once, [T, D]; memory: [S, D]."""
        x = self._embed(self.tgt_embedding, self.tgt_positions, tgt)
        rotation = self.rotary(tgt.positions, tgt.max_length) if self.rotary is not None else None
        for layer in self.decoder_layers:
            x = layer(x, tgt, rotation, memory, src)
        out: Tensor = self.decoder_norm(x)
        return out

    def decode_step(self, ids: Tensor, state: DecoderState) -> Tensor:
        """Logits of the token after ``ids`` [B * K] int64, the last ones of the hypotheses of ``state``: [B * K, V]."""
        positions = torch.full_like(ids, state.length - 1)
        x = self.tgt_embedding(ids) * math.sqrt(self.config.d_model)
        if self.tgt_positions is not None:
            x = x + self.tgt_positions(positions, state.max_length)
        rotation = self.rotary(positions, state.max_length) if self.rotary is not None else None
        for layer, cache in zip(self.decoder_layers, state.layers, strict=True):
            assert isinstance(layer, DecoderLayer)
            x = layer.step(x, rotation, cache, state)
        h = self.decoder_norm(x)
        return F.linear(h, self.output_weight) if self.quantized_output is None else self.quantized_output(h)

    def _embed(self, embedding: nn.Embedding, positions: nn.Module | None, side: Packed) -> Tensor:
        """Embeddings times D^1/2 (section 3.4) plus absolute positions: [tokens, D]."""
        x = embedding(side.ids) * math.sqrt(self.config.d_model)
        if positions is not None:
            x = x + positions(side.positions, side.max_length)
        out: Tensor = self.dropout(x)
        return out
