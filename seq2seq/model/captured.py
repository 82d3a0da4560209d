"""Decoding steps of fixed shapes, for graphs of CUDA: what the model does in them.

A step launches some 200 kernels and takes the GPU less time than launching them takes the CPU. A graph launches them
all at once, but it is bound to its shapes and to the places in memory that it was captured with. So sizes are rounded
up to a few (:class:`Shape`), all tensors that outlive a step lie in fixed places (:class:`StaticTensors`), and what
differs from step to step is read from them on the device. What is captured is plain functions, :func:`static_step`
and :func:`follow`, which the CPU can run as they are, together with what
:class:`seq2seq.decode.static_search.StaticSearch` makes of the logits.

Shapes: ``B`` sentences, rounded up, so that some are dead; ``K`` hypotheses of each sentence; ``N`` room for cached
tokens of a sentence, ``K`` for each step; ``L`` source tokens, rounded up; ``H`` heads, ``G`` key/value heads, ``E``
width of a head, ``D`` model width, ``V`` vocabulary.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.data.packed import Packed
from seq2seq.model.graphs import Graphs
from seq2seq.model.transformer import DecoderLayer, Transformer

_SENTENCES, _STEPS, _SRC_TOKENS = 8, 32, 16  # the smallest sizes: below them a step would not be faster
# Added to the scores of what may not be seen. Its exponential is 0, as minus infinity's is, but where nothing can be
# seen, as in dead rows, the softmax stays finite.
_MASKED = -1e4


def _round_up(size: int, smallest: int) -> int:
    """``smallest`` doubled until it is no less than ``size``: few sizes, and as few graphs."""
    return smallest << (-(-size // smallest) - 1).bit_length()


class Shape(NamedTuple):
    """What a graph is captured for."""

    sentences: int  # B
    hypotheses: int  # K
    steps: int  # N / K
    src_length: int  # L

    @classmethod
    def holding(cls, sentences: int, hypotheses: int, steps: int, src_length: int) -> Shape:
        """The smallest one with room for these; hypotheses are not rounded up."""
        sizes = (sentences, _SENTENCES), (steps, _STEPS), (src_length, _SRC_TOKENS)
        sentences, steps, src_length = (_round_up(size, smallest) for size, smallest in sizes)
        return cls(sentences, hypotheses, steps, src_length)


class StaticTensors(NamedTuple):
    """All of the model's that outlives a step, but for the weights."""

    ids: Tensor  # [B, K] int64, the last token of each hypothesis
    position: Tensor  # [1] int64, how many tokens there were before
    positions: Tensor  # [N / K, D] fp32, the vectors of all positions; [N / K, E], their rotations, with rotary ones
    src_cache: Tensor  # [B, layers, 2, G, L, E], keys and values of the source
    src_bias: Tensor  # [B, 1, 1, L], 0 for a token, else masked
    tgt_cache: Tensor  # [B, layers, 2, G, N, E], keys and values of what the hypotheses have held
    tgt_bias: Tensor  # [B, K, N], 0 for what a hypothesis holds, else masked

    @property
    def of_sentences(self) -> tuple[Tensor, ...]:
        """Those that hold something of each sentence, [B, ...], for all steps to come."""
        return self.ids, self.src_cache, self.src_bias, self.tgt_cache, self.tgt_bias


def _attend(q: Tensor, cached: Tensor, bias: Tensor) -> Tensor:
    """q: [B * K, H, E]; cached: [B, 2, G, N, E]; bias: [B, 1, H / G * K or 1, N]. Returns [B * K, H * E].

    The queries of a key/value head, of all hypotheses, are the rows of one matrix.
    """
    keys, values = cached.unbind(1)
    num_sentences, num_kv_heads, _, head_width = keys.shape
    grouped = q.view(num_sentences, -1, num_kv_heads, q.size(1) // num_kv_heads, head_width).permute(0, 2, 3, 1, 4)
    mixed: Tensor = F.scaled_dot_product_attention(grouped.flatten(2, 3), keys, values, attn_mask=bias)
    mixed = mixed.unflatten(2, (grouped.size(2), -1)).permute(0, 3, 1, 2, 4)  # [B, K, G, H / G, E]
    return mixed.reshape(q.size(0), -1)


def static_step(model: Transformer, t: StaticTensors) -> Tensor:
    """:meth:`Transformer.decode_step` over static tensors: the logits after ``t.ids``, [B, K, V] fp32.

    The tokens' keys and values go to the slots of this step.
    """
    config, num_hypotheses = model.config, t.ids.size(1)
    device, (num_sentences, _, room) = t.ids.device, t.tgt_bias.shape
    slots = t.position * num_hypotheses + torch.arange(num_hypotheses, device=device)
    own = torch.full((num_hypotheses, num_hypotheses), _MASKED, device=device, dtype=t.tgt_bias.dtype)
    t.tgt_bias.index_copy_(2, slots, own.fill_diagonal_(0.0).expand(num_sentences, -1, -1))
    tgt_bias = t.tgt_bias
    if config.attention_window is not None:
        steps = torch.arange(room, device=device) // num_hypotheses
        tgt_bias = tgt_bias.masked_fill(steps < t.position - config.attention_window, _MASKED)
    tgt_bias = tgt_bias.repeat(1, config.num_heads // config.num_kv_heads, 1)[:, None]
    position = t.positions.index_select(0, t.position)
    rotation = position if model.rotary is not None else None

    def attend_self(layer: DecoderLayer, cached: Tensor, h: Tensor) -> Tensor:
        q, k, v = layer.self_attention._project(h, rotation)
        for kept, x in zip(cached.unbind(1), (k, v), strict=True):
            kept.index_copy_(2, slots, x.unflatten(0, (num_sentences, -1)).transpose(1, 2))
        out: Tensor = layer.self_attention.out(_attend(q, cached, tgt_bias))
        return out

    def attend_source(layer: DecoderLayer, cached: Tensor, h: Tensor) -> Tensor:
        attention = layer.cross_attention
        q = attention.q(h).view(h.size(0), attention.num_heads, attention.head_width)
        out: Tensor = attention.out(_attend(q, cached, t.src_bias))
        return out

    x = model.tgt_embedding(t.ids.flatten()) * math.sqrt(config.d_model)
    if model.tgt_positions is not None:
        x = x + position
    for layer, tgt, src in zip(model.decoder_layers, t.tgt_cache.unbind(1), t.src_cache.unbind(1), strict=True):
        assert isinstance(layer, DecoderLayer)
        x = layer._sublayers(x, partial(attend_self, layer, tgt), partial(attend_source, layer, src))
    logits = F.linear(model.decoder_norm(x), model.output_weight)
    return logits.float().view(*t.ids.shape, -1)


def follow(t: StaticTensors, tokens: Tensor, parents: Tensor) -> None:
    """Go on to the next step with these hypotheses of each sentence, [B, K], each grown by its token."""
    t.ids.copy_(tokens)
    t.tgt_bias.copy_(t.tgt_bias.gather(1, parents[:, :, None].expand_as(t.tgt_bias)))
    t.position.add_(1)


class StaticSteps:
    """The tensors and graphs of a model's steps, kept from batch to batch; of one search at a time.

    All shapes share one memory: a search is in one of them at a time.
    """

    def __init__(self, model: Transformer, dtype: torch.dtype) -> None:
        """``dtype``: what the model computes keys and values in."""
        self.model, self.dtype = model, dtype
        self.device = model.output_weight.device
        self.graphs = Graphs(self.device)
        self._memory: dict[str, Tensor] = {}

    def tensors(self, shape: Shape) -> StaticTensors:
        """For a search's first step, or its first one in this shape: nothing is cached, and all is masked.

        What other shapes held is overwritten.
        """
        config, (num_sentences, num_hypotheses, num_steps, src_length) = self.model.config, shape
        head_width = config.d_model // config.num_heads
        heads = (num_sentences, len(self.model.decoder_layers), 2, config.num_kv_heads)
        room = num_hypotheses * num_steps
        tensors = StaticTensors(
            ids=self.place("ids", (num_sentences, num_hypotheses), torch.int64),
            position=self.place("position", (1,), torch.int64),
            positions=self.place(
                "positions", (num_steps, config.d_model if self.model.rotary is None else head_width), torch.float32
            ),
            src_cache=self.place("src_cache", (*heads, src_length, head_width), self.dtype),
            src_bias=self.place("src_bias", (num_sentences, 1, 1, src_length), self.dtype).fill_(_MASKED),
            tgt_cache=self.place("tgt_cache", (*heads, room, head_width), self.dtype),
            tgt_bias=self.place("tgt_bias", (num_sentences, num_hypotheses, room), self.dtype).fill_(_MASKED),
        )
        # Copied, because a table of positions moves when it grows; a learned one may end before the shape does.
        num_positions = min(num_steps, self.model.max_length or num_steps)
        at = torch.arange(num_positions, device=self.device)
        for table in (self.model.tgt_positions, self.model.rotary):  # a model has one of the two
            if table is not None:
                put(table(at, num_positions), tensors.positions)
        return tensors

    def place(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros, as what is masked must at least be finite: at the start of the memory for ``name``."""
        size = math.prod(shape)
        if name not in self._memory or self._memory[name].numel() < size:
            self.graphs.forget()  # they are bound to the old place
            self._memory[name] = torch.empty(size, dtype=dtype, device=self.device)
        return self._memory[name][:size].view(shape).zero_()


def encode_into(model: Transformer, src: Packed, t: StaticTensors) -> None:
    """Encode ``src`` and put its keys and values into the first rows of ``t``."""
    memory = model.encode(src)
    for layer, cached in zip(model.decoder_layers, t.src_cache.unbind(1), strict=True):
        assert isinstance(layer, DecoderLayer)
        keys, values = layer.cross_attention.project_once(memory, src)
        put(keys.transpose(2, 3), cached[:, 0])
        put(values, cached[:, 1])
    put(src.key_bias.clamp(min=_MASKED), t.src_bias)


def put(x: Tensor, place: Tensor) -> None:
    """Write ``x`` into the first corner of ``place``, which is no smaller in any dimension."""
    place[tuple(slice(size) for size in x.shape)] = x


def with_weights_in(dtype: torch.dtype, model: Transformer) -> Transformer:
    """A copy for translating whose matrices are of ``dtype``, the rest shared with ``model``.

    Autocast would cast them all at every step, once that is in a graph.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, memo=shared)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            for name, parameter in list(module.named_parameters()):
                setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
    model.output = nn.Embedding.from_pretrained(model.output_weight.detach().to(dtype))
    return model
