"""Attention over packed sentences, and one decoding step of it over a cache.

Shapes: ``T`` tokens of the query side, ``S`` tokens of the key side, ``B`` sentences, ``K`` hypotheses per sentence,
``H`` heads, ``G`` key/value heads (``G`` divides ``H``), ``E`` width of a head, ``D`` model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from seq2seq.config import ModelConfig
from seq2seq.data.packed import Packed
from seq2seq.model.kernels.grid import from_grid, to_grid
from seq2seq.model.kernels.short_attention import ShortAttention, split_parts
from seq2seq.model.positions import rotate
from seq2seq.model.state import State

# Longest sentences for plain products on the CPU, in tokens. They are faster up to about 100, but need more memory.
SHORT = 64
# Mean tokens of a sentence from which FlashAttention is taken on CUDA. For shorter ones its tiles have four times the
# work (varlen.py). The number comes from the sizes of the tiles; scripts/gpu_check.sh measures both kernels.
FLASH_LENGTH = 64


def _bias(q_side: Packed, k_side: Packed, *, causal: bool, window: int | None) -> Tensor:
    """[1 or B, 1, 1 or L, L], added to the scores: 0 for a visible key, else minus infinity.

    Causal attention needs no padding mask, because padding comes after all real tokens.
    """
    if window is None and not causal:
        return k_side.key_bias
    length, device = q_side.max_length, k_side.key_bias.device
    reach = length if window is None else window
    at = torch.arange(length, device=device)
    distance = at[:, None] - at
    outside = (distance > reach) | (distance < (0 if causal else -reach))
    seen = torch.zeros(1, 1, length, length, device=device).masked_fill_(outside, -math.inf)
    return seen if causal else seen + k_side.key_bias


def _has_flash(dtype: torch.dtype, head_width: int) -> bool:
    """Whether FlashAttention can be used on CUDA; in fp16, some GPUs have it and others do not."""
    return dtype == torch.bfloat16 and head_width <= 256


def has_packed_kernel(device: torch.device, dtype: torch.dtype, head_width: int, window: int | None) -> bool:
    """Whether attention runs without padding, so that batches (:class:`Packed`) need no grid."""
    return device.type == "cuda" and head_width % 8 == 0 and (window is None or _has_flash(dtype, head_width))


def _varlen_attention(
    heads: Sequence[Tensor], num_heads: int, q_side: Packed, k_side: Packed, *, causal: bool, window: int | None
) -> Tensor:
    """:func:`attention` by the faster of two kernels."""
    from seq2seq.model.kernels import varlen  # slow to load in some releases of PyTorch

    q, k, v = split_parts(heads, num_heads, dim=1)
    is_long = q.size(0) + k.size(0) >= 2 * FLASH_LENGTH * q_side.num_sentences
    grouped = k.size(1) != q.size(1)  # the other kernel copies grouped heads
    if window is not None or (_has_flash(q.dtype, q.size(2)) and (is_long or grouped)):
        return varlen.flash_attention(q, k, v, q_side, k_side, causal=causal, window=window)
    if len(heads) == 1 and not grouped:
        return varlen.EfficientSelfAttention.apply(heads[0], q_side, causal)
    return varlen.efficient_attention(q, k, v, q_side, k_side, causal=causal)


def attention(
    heads: Sequence[Tensor],
    num_heads: int,
    q_side: Packed,
    k_side: Packed,
    *,
    causal: bool,
    window: int | None = None,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) within each sentence.

    Device, dtype and sizes select the kernel: variable-length attention on CUDA, plain products for short sentences on
    the CPU in fp32, and PyTorch's padded kernel otherwise.

    Args:
        heads: queries [T, H, E] of ``q_side``, then keys and values [S, G, E] of ``k_side``, in three tensors; or
            queries, and keys and values in one [S, 2 G, E]; or all in one [T, H + 2 G, E]. Fewer tensors are faster.
            Both sides have the same sentences in the same order.
        num_heads: H.
        causal: whether a token sees only itself and earlier tokens (self-attention).
        window: maximum distance of a key in tokens, to either side (self-attention); None: no limit.

    Returns:
        [T, H, E].
    """
    short = max(q_side.max_length, k_side.max_length) <= SHORT
    if short and all(part.device.type == "cpu" and part.dtype == torch.float32 for part in heads):
        bias = _bias(q_side, k_side, causal=causal, window=window)
        return ShortAttention.apply(q_side, k_side, num_heads, bias, *heads)
    if has_packed_kernel(heads[0].device, heads[0].dtype, heads[0].size(2), window):
        return _varlen_attention(heads, num_heads, q_side, k_side, causal=causal, window=window)
    q, k, v = split_parts(heads, num_heads, dim=1)
    plain_causal = causal and window is None  # the kernel's own mask
    out = scaled_dot_product_attention(
        to_grid(q, q_side).transpose(1, 2),  # [B, L, H, E] -> [B, H, L, E]
        to_grid(k, k_side).transpose(1, 2),
        to_grid(v, k_side).transpose(1, 2),
        attn_mask=None if plain_causal else _bias(q_side, k_side, causal=causal, window=window).to(q.dtype),
        is_causal=plain_causal,
        enable_gqa=k.size(1) != q.size(1),
    )
    return from_grid(out.transpose(1, 2), q_side)


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

    def __init__(self, config: ModelConfig, *, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.head_width = config.num_heads, config.d_model // config.num_heads
        self.causal, self.window = causal, config.attention_window
        self.heads = [config.num_heads, config.num_kv_heads, config.num_kv_heads]  # queries, keys, values
        self.qkv = FusedLinear(config.d_model, [n * self.head_width for n in self.heads])
        self.out = nn.Linear(config.d_model, config.d_model)

    def head_weights(self) -> list[Tensor]:
        """The weights whose rows are those of the heads, one head after the other."""
        return [self.qkv.weight]

    def _project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x: [T, D] -> q [T, H, E], k and v [T, G, E]."""
        q, k, v = self.qkv(x).view(x.size(0), -1, self.head_width).split(self.heads, dim=1)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return q, k, v

    def forward(self, x: Tensor, side: Packed, rotation: Tensor | None) -> Tensor:
        """x: [T, D]; rotation: [T, E] for rotary positions. Returns [T, D]."""
        if rotation is None:
            heads: Sequence[Tensor] = [self.qkv(x).view(x.size(0), -1, self.head_width)]
        else:
            heads = self._project(x, rotation)
        mixed = attention(heads, self.num_heads, side, side, causal=self.causal, window=self.window)
        return self.out(mixed.flatten(1))

    def step(self, x: Tensor, rotation: Tensor | None, mask: Tensor, state: State, number: int) -> Tensor:
        """One decoding step: the next token of every hypothesis, with the earlier keys and values in ``state``.

        x: [B * K, D]; rotation: [1, E]; mask: [B, 1, K, N], from :meth:`State.mark`; number: of the layer, to name its
        caches. Returns [B * K, D].
        """
        q, k, v = self._project(x, rotation)
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
        self.q = nn.Linear(config.d_model, config.d_model)
        self.kv = FusedLinear(config.d_model, [config.num_kv_heads * self.head_width] * 2)
        self.out = nn.Linear(config.d_model, config.d_model)

    def head_weights(self) -> list[Tensor]:
        """The weights whose rows are those of the heads, one head after the other."""
        return [self.q.weight, self.kv.weight]

    def forward(self, x: Tensor, side: Packed, memory: Tensor, memory_side: Packed) -> Tensor:
        """x: [T, D]; memory: [S, D], the encoded source. Returns [T, D]."""
        heads = [y.view(y.size(0), -1, self.head_width) for y in (self.q(x), self.kv(memory))]
        return self.out(attention(heads, self.num_heads, side, memory_side, causal=False).flatten(1))

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
        q = self.q(x).view(x.size(0), self.num_heads, self.head_width)
        return self.out(attend_step(q, keys, values, mask))
