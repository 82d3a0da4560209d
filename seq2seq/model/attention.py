"""Attention over packed sentences, and one step of it over a cache.

Shapes: ``T`` tokens of the queries' side, ``S`` tokens of the keys' side, ``B`` sentences, ``K`` hypotheses of each
sentence in search, ``H`` heads, ``G`` key/value heads (``G`` divides ``H``), ``E`` width of a head, ``D`` model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from seq2seq.data.batching import Packed
from seq2seq.model.positions import rotate


class _ToGrid(torch.autograd.Function):
    """[T, ...] to [B * L, ...]: a gather, whose gradient is a gather too (masked cells have none)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: Packed) -> Tensor:
        ctx.side = side
        return x.index_select(0, side.grid)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].index_select(0, ctx.side.cells), None


class _FromGrid(torch.autograd.Function):
    """[B * L, ...] to [T, ...]: the inverse of :class:`_ToGrid`; cells past a sentence's end get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: Packed) -> Tensor:
        ctx.side = side
        return x.index_select(0, side.cells)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        grid = grad.new_zeros(ctx.side.grid.size(0), *grad.shape[1:])
        return grid.index_copy_(0, ctx.side.cells, grad), None


def key_mask(side: Packed) -> Tensor:
    """[B, 1, 1, L] bool: which cells of the padded grid hold a token."""
    cells = torch.arange(side.max_length, device=side.lengths.device)
    return (cells < side.lengths[:, None])[:, None, None, :]


def _window_mask(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    """[L, L] bool: keys at most ``window`` tokens away, and none ahead if ``causal``."""
    at = torch.arange(length, device=device)
    distance = at[:, None] - at
    return (distance <= window) & (distance >= (0 if causal else -window))


def _padded_attention(
    q: Tensor, k: Tensor, v: Tensor, q_side: Packed, k_side: Packed, *, causal: bool, window: int | None
) -> Tensor:
    """:func:`attention` by PyTorch's padded kernel, for the CPU and for fp32."""

    def heads_first(x: Tensor, side: Packed) -> Tensor:  # [T, H, E] -> [B, H, L, E]
        grid = _ToGrid.apply(x, side)
        out: Tensor = grid.view(side.num_sentences, side.max_length, *x.shape[1:]).transpose(1, 2)
        return out

    mask: Tensor | None = None
    if window is not None:
        mask = _window_mask(q_side.max_length, window, causal, q.device) & key_mask(k_side)
    elif not causal:  # causal needs no mask for padding: it comes after all real tokens
        mask = key_mask(k_side)
    out = scaled_dot_product_attention(
        heads_first(q, q_side),
        heads_first(k, k_side),
        heads_first(v, k_side),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=k.size(1) != q.size(1),
    )
    packed: Tensor = _FromGrid.apply(out.transpose(1, 2).flatten(0, 1), q_side)
    return packed


def attention(
    q: Tensor, k: Tensor, v: Tensor, q_side: Packed, k_side: Packed, *, causal: bool, window: int | None = None
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) in which no sentence sees another.

    Two kernels, told apart by device and precision alone: variable-length attention on CUDA in half precision, and
    the padded one elsewhere.

    Args:
        q: [T, H, E], of ``q_side``.
        k, v: [S, G, E], of ``k_side``; both sides hold the same sentences in the same order.
        causal: whether a token sees only itself and what precedes it (self-attention).
        window: how many tokens away a key may be, to either side (self-attention); None: any.

    Returns:
        [T, H, E].
    """
    if not (q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)):
        return _padded_attention(q, k, v, q_side, k_side, causal=causal, window=window)
    from torch.nn.attention.varlen import varlen_attn

    reach = -1 if window is None else window
    out = varlen_attn(
        q,
        k,
        v,
        q_side.offsets,
        k_side.offsets,
        q_side.max_length,
        k_side.max_length,
        window_size=(reach, 0 if causal else reach),
        enable_gqa=k.size(1) != q.size(1),
    )
    assert isinstance(out, Tensor)
    return out


class KeyValueCache:
    """Keys and values of one layer's self-attention over what each hypothesis holds so far.

    Tokens come first in memory, so that what is used is one piece whatever room there is. The room is taken once, and
    twice: hypotheses are reordered from one half into the other.
    """

    def __init__(self, rows: int, num_kv_heads: int, max_length: int, head_width: int, like: Tensor) -> None:
        self.rows, self.length = rows, 0
        self._shape = (num_kv_heads, head_width)
        self._width = num_kv_heads * head_width
        room = max_length * rows * self._width
        self._now, self._next = like.new_empty(2, room), like.new_empty(2, room)  # keys and values

    def _used(self, storage: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values in ``storage``, [length * rows, G * E] each."""
        keys, values = storage[:, : self.length * rows * self._width].view(2, -1, self._width).unbind()
        return keys, values

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add one token's k and v, [B * K, G, E]; returns all keys and values so far, [B * K, G, length, E]."""
        self.length += 1
        both = [used.view(self.length, self.rows, *self._shape) for used in self._used(self._now, self.rows)]
        both[0][-1], both[1][-1] = k, v
        keys, values = (used.permute(1, 2, 0, 3) for used in both)
        return keys, values

    def select(self, rows: Tensor) -> None:
        """Go on with ``rows`` [new B * K] of the present rows, in that order (repeats allowed)."""
        tokens = torch.arange(self.length, device=rows.device)[:, None] * self.rows + rows
        targets = self._used(self._next, rows.size(0))
        for source, target in zip(self._used(self._now, self.rows), targets, strict=True):
            torch.index_select(source, 0, tokens.flatten(), out=target)
        self._now, self._next = self._next, self._now
        self.rows = rows.size(0)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2), optionally with fewer key/value heads.

    Grouped heads: Ainslie et al. 2023; window: Beltagy et al. 2020, section 3.1.
    """

    def __init__(
        self, d_model: int, num_heads: int, num_kv_heads: int, *, causal: bool, window: int | None = None
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_width = d_model // num_heads
        self.causal, self.window = causal, window
        self.qkv = nn.Linear(d_model, (num_heads + 2 * num_kv_heads) * self.head_width)
        self.out = nn.Linear(d_model, d_model)

    def _project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x: [T, D] -> q [T, H, E], k and v [T, G, E]."""
        heads = self.qkv(x).view(x.size(0), -1, self.head_width)
        q, k, v = heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return q, k, v

    def forward(self, x: Tensor, side: Packed, rotation: Tensor | None) -> Tensor:
        """x: [T, D]; rotation: [T, E] for rotary positions. Returns [T, D]."""
        q, k, v = self._project(x, rotation)
        mixed = attention(q, k, v, side, side, causal=self.causal, window=self.window)
        out: Tensor = self.out(mixed.flatten(1))
        return out

    def step(self, x: Tensor, cache: KeyValueCache, rotation: Tensor | None) -> Tensor:
        """One more token of every hypothesis. x: [B * K, D]; rotation: [B * K, E]. Returns [B * K, D]."""
        q, k, v = self._project(x, rotation)
        keys, values = cache.append(k, v)
        if self.window is not None:
            keys, values = keys[:, :, -self.window - 1 :], values[:, :, -self.window - 1 :]
        grouped = self.num_kv_heads != self.num_heads
        mixed = scaled_dot_product_attention(q[:, :, None], keys, values, enable_gqa=grouped)
        out: Tensor = self.out(mixed.flatten(1))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention from the target over the encoded source (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, d_model: int, num_heads: int, num_kv_heads: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_width = d_model // num_heads
        self.q = nn.Linear(d_model, d_model)
        self.kv = nn.Linear(d_model, 2 * num_kv_heads * self.head_width)
        self.out = nn.Linear(d_model, d_model)

    def _project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory: [S, D] -> k and v, [S, G, E]."""
        k, v = self.kv(memory).view(memory.size(0), 2 * self.num_kv_heads, self.head_width).chunk(2, dim=1)
        return k, v

    def forward(self, x: Tensor, side: Packed, memory: Tensor, memory_side: Packed) -> Tensor:
        """x: [T, D]; memory: [S, D], the encoded source. Returns [T, D]."""
        q = self.q(x).view(x.size(0), self.num_heads, self.head_width)
        k, v = self._project_memory(memory)
        out: Tensor = self.out(attention(q, k, v, side, memory_side, causal=False).flatten(1))
        return out

    def project_once(self, memory: Tensor, memory_side: Packed) -> tuple[Tensor, Tensor]:
        """Keys and values of the source for all steps of a search: two of [B, G, L, E]."""
        k, v = (x.index_select(0, memory_side.grid) for x in self._project_memory(memory))
        shape = (memory_side.num_sentences, memory_side.max_length, self.num_kv_heads, self.head_width)
        return k.view(shape).transpose(1, 2).contiguous(), v.view(shape).transpose(1, 2).contiguous()

    def step(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """One more token of every hypothesis; a sentence's hypotheses are queries over one copy of its source.

        x: [B * K, D]; keys, values: [B, G, L, E]; mask: [B, 1, 1, L] bool. Returns [B * K, D].
        """
        q = self.q(x).view(keys.size(0), -1, self.num_heads, self.head_width).transpose(1, 2)  # [B, H, K, E]
        grouped = self.num_kv_heads != self.num_heads
        mixed = scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=grouped)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(x.size(0), -1))
        return out
