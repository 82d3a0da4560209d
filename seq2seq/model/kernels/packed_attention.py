"""The fastest kernel for attention over packed sentences.

Device, dtype and sizes select it: variable-length attention on CUDA, plain products for short sentences on the CPU in
fp32, and PyTorch's padded kernel otherwise. What all of them compute is equation 1 in :mod:`seq2seq.model.attention`.

Shapes: ``T`` tokens of the query side, ``S`` tokens of the key side, ``B`` sentences, ``H`` heads, ``G`` key/value
heads (``G`` divides ``H``), ``E`` width of a head, ``L`` grid length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from seq2seq.data.packed import Packed
from seq2seq.model.kernels.grid import from_grid, to_grid
from seq2seq.model.kernels.short_attention import ShortAttention, split_parts

# Longest sentences for plain products on the CPU, in tokens. They are faster up to about 100, but need more memory.
SHORT = 64
# Mean tokens of a sentence from which FlashAttention is taken on CUDA. For shorter ones its tiles have four times the
# work (varlen.py). Measured by scripts/gpu_check.sh on an H100: for sentences of 32, 64, 128 and 256 tokens it takes
# 1.7, 1.2, 0.95 and 0.7 times as long as the other kernel.
FLASH_LENGTH = 112


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
    """:func:`packed_attention` by the faster of two kernels."""
    from seq2seq.model.kernels import varlen  # slow to load in some releases of PyTorch

    q, k, v = split_parts(heads, num_heads, dim=1)
    is_long = q.size(0) + k.size(0) >= 2 * FLASH_LENGTH * q_side.num_sentences
    grouped = k.size(1) != q.size(1)  # the other kernel copies grouped heads
    if window is not None or (_has_flash(q.dtype, q.size(2)) and (is_long or grouped)):
        return varlen.flash_attention(q, k, v, q_side, k_side, causal=causal, window=window)
    if len(heads) == 1 and not grouped:
        return varlen.EfficientSelfAttention.apply(heads[0], q_side, causal)
    return varlen.efficient_attention(q, k, v, q_side, k_side, causal=causal)


def packed_attention(
    heads: Sequence[Tensor],
    num_heads: int,
    q_side: Packed,
    k_side: Packed,
    *,
    causal: bool,
    window: int | None = None,
) -> Tensor:
    """Scaled dot-product attention within each sentence.

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
