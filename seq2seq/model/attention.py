"""Attention: equation 1 of "Attention Is All You Need" (Vaswani et al. 2017), and the layers that use it.

:func:`scaled_dot_product_attention` is the equation as the paper has it. Training with it is slow, because it holds all
scores of padded sentences; so :class:`Attention` takes faster kernels for the same numbers (``model/kernels``), unless
``model.plain_attention`` asks for the equation itself.

Shapes: ``T`` tokens of the query side, ``S`` tokens of the key side, ``B`` sentences, ``K`` hypotheses per sentence,
``H`` heads, ``G`` key/value heads (``G`` divides ``H``), ``E`` width of a head, ``D`` model width, ``L`` tokens of the
longest sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from seq2seq.config import ModelConfig
from seq2seq.data.packed import Packed
from seq2seq.model.kernels.grid import from_grid, to_grid
from seq2seq.model.kernels.packed_attention import packed_attention
from seq2seq.model.kernels.rotation import RotatedHeads
from seq2seq.model.kernels.short_attention import split_parts
from seq2seq.model.positions import rotate
from seq2seq.model.state import State


def masked_softmax(scores: Tensor, visible: Tensor) -> Tensor:
    """The softmax over the last dimension, in which what is not ``visible`` gets 0.

    The paper sets masked scores to minus infinity (section 3.2.3). Here they get the lowest finite number, because a
    row of padding may see nothing at all, and would become NaN.
    """
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(dim=-1)


def attention_weights(q: Tensor, k: Tensor, visible: Tensor) -> Tensor:
    """How much every query looks at every key: softmax(Q K^T / sqrt(d_k)), the first half of equation 1.

    Args:
        q: [..., T, E], and E is the d_k of the paper.
        k: [..., S, E].
        visible: bool, broadcast to [..., T, S]: the mask, False where a query must not see a key.

    Returns:
        [..., T, S]; each row sums to 1.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
    return masked_softmax(scores, visible)


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Equation 1: softmax(Q K^T / sqrt(d_k)) V. v: [..., S, E]; the rest as above. Returns [..., T, E]."""
    return attention_weights(q, k, visible) @ v


def visible_keys(q_side: Packed, k_side: Packed, *, causal: bool, window: int | None) -> Tensor:
    """The mask of padded sentences, bool [B, 1, 1 or L, L]: no padding, with ``causal`` no later token, with
    ``window`` no token that is farther away."""
    keys = torch.arange(k_side.max_length, device=k_side.lengths.device)
    queries = torch.arange(q_side.max_length, device=k_side.lengths.device)[:, None]
    visible = keys < k_side.lengths[:, None, None, None]
    if causal:
        visible = visible & (keys <= queries)
    if window is not None:
        visible = visible & ((keys - queries).abs() <= window)
    return visible


class Attention(nn.Module):
    """Equation 1 within each sentence of a packed batch, for several heads. It has no weights.

    It is a module of its own so that a hook can look at it (``Seq2SeqModel.attention_maps``).
    """

    def __init__(
        self,
        kind: Literal["encoder", "decoder", "cross"],
        num_heads: int,
        *,
        causal: bool = False,
        window: int | None = None,
        plain: bool = False,
    ) -> None:
        """``kind``: whose self-attention it is, or cross-attention; ``plain``: compute by equation 1 as it is written.

        ``causal``, ``window``: see :func:`visible_keys`.
        """
        super().__init__()
        self.kind, self.num_heads = kind, num_heads
        self.causal, self.window, self.plain = causal, window, plain

    def forward(self, heads: Sequence[Tensor], q_side: Packed, k_side: Packed) -> Tensor:
        """[T, H, E]; ``heads``: see :func:`~seq2seq.model.kernels.packed_attention.packed_attention`."""
        # Under autocast, a product is in half precision, but its sum with something in fp32 is not. Kernels want one
        # dtype, and some do not check it.
        half = [part.dtype for part in heads if part.dtype != torch.float32]
        if half:
            heads = [part.to(half[0]) for part in heads]
        if not self.plain:
            return packed_attention(heads, self.num_heads, q_side, k_side, causal=self.causal, window=self.window)
        q, k, v = self._grids(heads, q_side, k_side)
        mixed = scaled_dot_product_attention(q, k, v, self._visible(q_side, k_side))
        return from_grid(mixed.transpose(1, 2), q_side)

    def weights(self, heads: Sequence[Tensor], q_side: Packed, k_side: Packed) -> Tensor:
        """The attention weights of padded sentences, [B, H, L, L]; rows of padding have no meaning."""
        q, k, _ = self._grids(heads, q_side, k_side)
        return attention_weights(q, k, self._visible(q_side, k_side))

    def _visible(self, q_side: Packed, k_side: Packed) -> Tensor:
        return visible_keys(q_side, k_side, causal=self.causal, window=self.window)

    def _grids(self, heads: Sequence[Tensor], q_side: Packed, k_side: Packed) -> list[Tensor]:
        """Queries, keys and values of padded sentences, [B, H, L, E] each."""
        parts = zip(split_parts(heads, self.num_heads, dim=1), (q_side, k_side, k_side), strict=True)
        grids = [to_grid(part, side).transpose(1, 2) for part, side in parts]
        return [grid.repeat_interleave(self.num_heads // grid.size(1), dim=1) for grid in grids]


def attend_step(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of each hypothesis' latest token over the keys that all hypotheses of its sentence share.

    Args:
        q: [B * K, H, E].
        keys: [B, G, E, N], all keys that a hypothesis of the sentence may see. With three or more hypotheses, small
            products are several times faster if the memory has this order, too.
        values: [B, G, N, E].
        mask: [B, 1, K or 1, N], added to the scores.

    Returns:
        [B * K, H * E].
    """
    num_sentences, num_kv_heads, head_width, _ = keys.shape
    shape = (num_sentences, -1, num_kv_heads, q.size(1) // num_kv_heads, head_width)
    # [B, G, H / G * K, E]: the queries of a key/value head are the rows of one matrix.
    q = q.view(shape).permute(0, 2, 3, 1, 4)
    scores = torch.matmul(q.flatten(2, 3), keys).view(*q.shape[:4], -1)
    scores = torch.add(mask[:, None], scores, alpha=head_width**-0.5)
    weights = scores.softmax(dim=-1).flatten(2, 3)
    # For a product with one key, PyTorch 2.13 and later compile a kernel on CUDA, which needs a C compiler.
    mixed = weights * values if values.size(2) == 1 else torch.matmul(weights, values)
    return mixed.view(q.shape).permute(0, 3, 1, 2, 4).reshape(num_sentences * q.size(3), -1)


def without_scale(q: Tensor) -> Tensor:
    """Queries [..., E] whose scores are Q K^T, although all kernels divide by sqrt(d_k)."""
    return q * math.sqrt(q.size(-1))


class FusedLinear(nn.Linear):
    """Several linear layers with the same input, computed as one; ``weight`` stacks their matrices."""

    def __init__(self, inputs: int, rows: Sequence[int]) -> None:
        """``rows``: the outputs of each layer."""
        super().__init__(inputs, sum(rows))
        self.rows = list(rows)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2), optionally with fewer key/value heads.

    Grouped heads: Ainslie et al. 2023; window: Beltagy et al. 2020, section 3.1.
    """

    def __init__(self, config: ModelConfig, kind: Literal["encoder", "decoder"]) -> None:
        super().__init__()
        self.head_width = config.d_model // config.num_heads
        self.attend = Attention(
            kind,
            config.num_heads,
            causal=kind == "decoder" and "causal_mask" not in config.ablate,
            window=config.attention_window,
            plain=config.plain_attention,
        )
        self.scaled = "scale" not in config.ablate
        self.heads = [config.num_heads, config.num_kv_heads, config.num_kv_heads]  # queries, keys, values
        self.qkv = FusedLinear(config.d_model, [n * self.head_width for n in self.heads])
        self.out = nn.Linear(config.d_model, config.d_model)

    def head_weights(self) -> list[Tensor]:
        """The weights whose rows are those of the heads, one head after the other."""
        return [self.qkv.weight]

    def _project(self, x: Tensor, rotation: Tensor | None) -> Sequence[Tensor]:
        """x: [T, D] -> queries, keys and values in one tensor or three, as :func:`packed_attention` takes them."""
        heads = self.qkv(x).view(x.size(0), -1, self.head_width)
        if rotation is not None and heads.device.type == "cpu" and heads.dtype == torch.float32:
            heads, rotation = RotatedHeads.apply(heads, rotation, self.heads[0] + self.heads[1]), None
        if rotation is None and self.scaled:
            return [heads]
        q, k, v = heads.split(self.heads, dim=1)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return [q if self.scaled else without_scale(q), k, v]

    def forward(self, x: Tensor, side: Packed, rotation: Tensor | None) -> Tensor:
        """x: [T, D]; rotation: [T, E] for rotary positions. Returns [T, D]."""
        return self.out(self.attend(self._project(x, rotation), side, side).flatten(1))

    def step(self, x: Tensor, rotation: Tensor | None, mask: Tensor, state: State, number: int) -> Tensor:
        """One decoding step: the next token of every hypothesis, with the earlier keys and values in ``state``.

        x: [B * K, D]; rotation: [1, E]; mask: [B, 1, K, N], from :meth:`State.mark`; number: of the layer, to name its
        caches. Returns [B * K, D].
        """
        q, k, v = split_parts(self._project(x, rotation), self.heads[0], dim=1)
        k, v = (new.unflatten(0, (mask.size(0), -1)).transpose(1, 2) for new in (k, v))  # [B, G, K, E]
        values = state.append(f"values{number}", v, 2)
        if state.num_hypotheses > 2:
            keys = state.append(f"keys{number}", k.transpose(2, 3), 3)
        else:  # one row times a transposed matrix is equally fast, and a key is written as one block, not as E numbers
            keys = state.append(f"keys{number}", k, 2).transpose(2, 3)
        return self.out(attend_step(q, keys, values, mask))


class CrossAttention(nn.Module):
    """Multi-head attention from the target over the encoded source (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_width = config.num_heads, config.d_model // config.num_heads
        self.attend = Attention("cross", config.num_heads, plain=config.plain_attention)
        self.ablate = config.ablate
        self.q = nn.Linear(config.d_model, config.d_model)
        self.kv = FusedLinear(config.d_model, [config.num_kv_heads * self.head_width] * 2)
        self.out = nn.Linear(config.d_model, config.d_model)

    def head_weights(self) -> list[Tensor]:
        """The weights whose rows are those of the heads, one head after the other."""
        return [self.q.weight, self.kv.weight]

    def forward(self, x: Tensor, side: Packed, memory: Tensor, memory_side: Packed) -> Tensor:
        """x: [T, D]; memory: [S, D], the encoded source. Returns [T, D]."""
        heads = [self._queries(x), self.kv(memory).view(memory.size(0), -1, self.head_width)]
        return self._result(self.attend(heads, side, memory_side).flatten(1))

    def project_once(self, memory: Tensor, memory_side: Packed) -> tuple[Tensor, Tensor]:
        """Source keys [B, G, E, L] and values [B, G, L, E] for all steps of a search."""
        grid = self.kv(memory).index_select(0, memory_side.grid)
        shape = (memory_side.num_sentences, memory_side.max_length, 2, -1, self.head_width)
        k, v = grid.view(shape).unbind(2)  # [B, L, G, E]
        return k.permute(0, 2, 3, 1).contiguous(), v.transpose(1, 2).contiguous()

    def step(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """One decoding step; all hypotheses of a sentence use the same copy of its source.

        x: [B * K, D]; keys: [B, G, E, L]; values: [B, G, L, E]; mask: [B, 1, 1, L]. Returns [B * K, D].
        """
        return self._result(attend_step(self._queries(x), keys, values, mask))

    def _queries(self, x: Tensor) -> Tensor:
        """[rows, D] -> [rows, H, E]."""
        q = self.q(x).view(x.size(0), self.num_heads, self.head_width)
        return without_scale(q) if "scale" in self.ablate else q

    def _result(self, mixed: Tensor) -> Tensor:
        """[rows, H * E] -> [rows, D]; nothing without cross-attention, but all weights keep a gradient."""
        return self.out(mixed) * 0.0 if "cross_attention" in self.ablate else self.out(mixed)
