"""The encoder-decoder Transformer of "Attention Is All You Need" (Vaswani et al. 2017) and its modern variants.

Sentences are packed: linear layers and norms see ``[tokens, D]``, and only attention knows the sentence boundaries.

Shapes: ``S`` source tokens, ``T`` target tokens, ``B`` sentences, ``K`` hypotheses per sentence, ``D`` model width,
``F`` width of the feed-forward layer, ``V`` target vocabulary.

Initialisation:

==================================  ====================================================================
embeddings                          normal, standard deviation D^-1/2 (the input is scaled by D^1/2, section 3.4)
every matrix of a layer             Xavier uniform (Glorot & Bengio 2010), separately for each matrix of a fused one
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
from seq2seq.model.attention import CrossAttention, FusedLinear, SelfAttention
from seq2seq.model.embeddings import EmbeddingModel
from seq2seq.model.interface import PositionKind
from seq2seq.model.kernels.dropout import Dropout
from seq2seq.model.kernels.linear_relu import linear_relu
from seq2seq.model.positions import LearnedPositions, Positions, RotaryPositions, SinusoidalPositions, angles
from seq2seq.model.state import MASKED, State


def _norm(config: ModelConfig) -> nn.Module:
    if "norm" in config.ablate:
        return nn.Identity()
    return nn.RMSNorm(config.d_model, eps=1e-6) if config.norm == "rmsnorm" else nn.LayerNorm(config.d_model)


class FeedForward(nn.Module):
    """The position-wise feed-forward network (section 3.3), with ReLU, GELU, SiLU, or SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        fused = config.activation == "swiglu"  # gate and up
        self.inner = FusedLinear(config.d_model, [config.d_ff] * 2) if fused else nn.Linear(config.d_model, config.d_ff)
        self.outer = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, D] -> [tokens, D]."""
        if self.activation == "relu" and x.is_cuda:
            h = linear_relu(x, self.inner)
        elif self.activation == "relu":
            h = F.relu(self.inner(x), inplace=True)
        elif self.activation == "gelu":
            h = F.gelu(self.inner(x))
        elif self.activation == "silu":
            h = F.silu(self.inner(x))
        else:
            gate, up = self.inner(x).chunk(2, dim=-1)
            h = F.silu(gate) * up
        return self.outer(h)


class Residual(nn.Module):
    """Dropout, residual connection and norm around a sub-layer. The norm comes last (section 5.4) or, with
    ``norm_position: pre``, on the sub-layer's input (Xiong et al. 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = _norm(config)
        self.dropout = Dropout(config.dropout)
        self.pre = config.norm_position == "pre"
        self.adds = "residual" not in config.ablate

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """[tokens, D] -> [tokens, D], in the sub-layer's dtype; sum and norm are computed in fp32."""
        if not self.adds:
            return self._without_sum(x, sublayer)
        if self.pre:
            branch = self.dropout(sublayer(self.norm(x)))
            return (x + branch).to(branch.dtype)
        branch = self.dropout(sublayer(x))
        return self.norm(x + branch).to(branch.dtype)

    def _without_sum(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """The same without the residual connection, for ``model.ablate``."""
        if self.pre:
            return self.dropout(sublayer(self.norm(x)))
        branch = self.dropout(sublayer(x))
        return self.norm(branch).to(branch.dtype)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config, "encoder")
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(2))

    def forward(self, x: Tensor, src: Packed, rotation: Tensor | None) -> Tensor:
        """[S, D] -> [S, D]."""
        around_attention, around_feed_forward = self.residuals
        x = around_attention(x, lambda h: self.self_attention(h, src, rotation))
        return around_feed_forward(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention over the source, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config, "decoder")
        self.cross_attention = CrossAttention(config)
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(3))

    def forward(self, x: Tensor, tgt: Packed, rotation: Tensor | None, memory: Tensor, src: Packed) -> Tensor:
        """[T, D] -> [T, D]; memory: [S, D]."""
        around_self, around_cross, around_feed_forward = self.residuals
        x = around_self(x, lambda h: self.self_attention(h, tgt, rotation))
        x = around_cross(x, lambda h: self.cross_attention(h, tgt, memory, src))
        return around_feed_forward(x, self.feed_forward)

    def step(self, x: Tensor, rotation: Tensor | None, mask: Tensor, state: State, number: int) -> Tensor:
        """One decoding step, [B * K, D] -> [B * K, D]; mask: [B, 1, K, N], the tokens of each hypothesis."""
        kept = state.of_sentences
        source = kept[f"src_keys{number}"], kept[f"src_values{number}"], kept["src_mask"]
        around_self, around_cross, around_feed_forward = self.residuals
        x = around_self(x, lambda h: self.self_attention.step(h, rotation, mask, state, number))
        x = around_cross(x, lambda h: self.cross_attention.step(h, *source))
        return around_feed_forward(x, self.feed_forward)


class Transformer(EmbeddingModel):
    """Encoder and decoder over packed sentences.

    ``max_length``: the longest sentence, in tokens, for learned positions; other positions have no limit.
    """

    def __init__(self, config: ModelConfig, src_vocab: int, tgt_vocab: int, max_length: int) -> None:
        d_model = config.d_model
        super().__init__(config, src_vocab, tgt_vocab)
        self.config = config
        self.max_length = max_length if config.positions == "learned" else None
        room = max(512, 2 * max_length + 10)  # enough for the longest translations with default decode settings
        self.src_positions: Positions
        self.tgt_positions: Positions
        if config.positions == "rotary":
            self.src_positions = self.tgt_positions = RotaryPositions(d_model // config.num_heads, room)
        elif config.positions == "learned":
            self.src_positions = LearnedPositions(max_length, d_model)
            self.tgt_positions = LearnedPositions(max_length, d_model)
        else:
            self.src_positions = self.tgt_positions = SinusoidalPositions(d_model, room)
        self.dropout = Dropout(config.dropout)
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        pre = config.norm_position == "pre"  # then the last layer's output still needs a norm
        self.encoder_norm = _norm(config) if pre else nn.Identity()
        self.decoder_norm = _norm(config) if pre else nn.Identity()
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Initialise all parameters by the table at the top of this file."""
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

    def forward(self, batch: PackedBatch) -> Tensor:
        """See :meth:`Seq2SeqModel.forward`."""
        return self.decode(batch.tgt, self.encode(batch.src), batch.src)

    def position_vectors(self, length: int) -> tuple[PositionKind, Tensor | None]:
        """See :meth:`Seq2SeqModel.position_vectors`."""
        if "positions" in self.config.ablate:
            return "none", None
        vectors = self.tgt_positions.vectors(length)[:length].detach()
        if isinstance(self.tgt_positions, RotaryPositions):
            vectors = angles(length, vectors.size(1)).float()
        return self.config.positions, vectors

    def encode(self, src: Packed) -> Tensor:
        """The encoded source, [S, D]."""
        x, rotation = self._embed(self.src_embedding, src.ids, self.src_positions(src.positions, src.max_length))
        for layer in self.encoder_layers:
            x = layer(x, src, rotation)
        return self.encoder_norm(x)

    def decode(self, tgt: Packed, memory: Tensor, src: Packed) -> Tensor:
        """Hidden states of all target tokens at once, [T, D]; memory: [S, D]."""
        x, rotation = self._embed(self.tgt_embedding, tgt.ids, self.tgt_positions(tgt.positions, tgt.max_length))
        for layer in self.decoder_layers:
            x = layer(x, tgt, rotation, memory, src)
        return self.decoder_norm(x)

    def begin(self, src: Packed, num_hypotheses: int, room: int) -> State:
        """See :meth:`Seq2SeqModel.begin`."""
        memory = self.encode(src)
        state = State(num_hypotheses, self.config.attention_window, memory.device)
        state.of_sentences["src_mask"] = src.key_bias.clamp(min=MASKED)  # [B, 1, 1, L]
        for number, layer in enumerate(self.decoder_layers):
            assert isinstance(layer, DecoderLayer)
            keys, values = layer.cross_attention.project_once(memory, src)
            state.of_sentences |= {f"src_keys{number}": keys, f"src_values{number}": values}
        state.shared["positions"] = self.tgt_positions.vectors(room)  # kept here, because a growing table is replaced
        return state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """See :meth:`Seq2SeqModel.step`."""
        mask = state.mark(tokens)[:, None]
        position = state.shared["positions"].index_select(0, state.position)
        x, rotation = self._embed(self.tgt_embedding, tokens.flatten(), position)
        for number, layer in enumerate(self.decoder_layers):
            assert isinstance(layer, DecoderLayer)
            x = layer.step(x, rotation, mask, state, number)
        return self.logits(self.decoder_norm(x)).view(*tokens.shape, -1)

    def _embed(self, embedding: nn.Embedding, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings times D^1/2 (section 3.4), [tokens, D], and the rotation of heads, if any, [tokens, E].

        ``positions``: vectors of absolute positions, which are added to the embeddings, or of rotary ones.
        """
        x = embedding(ids) * math.sqrt(self.config.d_model)
        if "positions" in self.config.ablate:
            return self.dropout(x), None
        if self.config.positions == "rotary":
            return self.dropout(x), positions
        return self.dropout(x + positions), None
