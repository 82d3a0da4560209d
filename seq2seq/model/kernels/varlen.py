"""Attention over packed sentences on CUDA, without padding. PyTorch has two kernels for it.

FlashAttention (Dao 2023) computes tiles of 128 x 128 scores: a sentence of 25 tokens fills 4 % of one. Its backward
pass also keeps 128 fp32 rows for each sentence. The memory-efficient kernel (Rabe & Staats 2021) computes tiles of 64 x
64. So it is faster for short sentences. It has all dtypes; FlashAttention has no fp32, and fp16 not on older GPUs.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from seq2seq.data.packed import Packed

# PyTorch 2.11 accepts fewer key heads than query heads; later releases need a flag for that.
_GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, q_side: Packed, k_side: Packed, *, causal: bool, window: int | None
) -> Tensor:
    """:func:`seq2seq.model.attention.attention` in bf16, for heads of at most 256 numbers."""
    # The longest sentence as the limit means the same as -1, no limit. But for -1, PyTorch 2.14 takes cuDNN's kernel on
    # some GPUs, which plans anew for every shape; before cuDNN 9.25 it can compute NaN if a sentence is empty.
    reach = max(q_side.max_length, k_side.max_length) if window is None else window
    out = varlen_attn(
        q,
        k,
        v,
        q_side.offsets,
        k_side.offsets,
        q_side.max_length,
        k_side.max_length,
        window_size=(reach, 0 if causal else reach),
        **(_GROUPED if k.size(1) != q.size(1) else {}),  # type: ignore[arg-type]
    )
    assert isinstance(out, Tensor)
    return out


_FROM_TOP_LEFT = 1  # the memory-efficient kernel's number for the causal mask


def efficient_attention(q: Tensor, k: Tensor, v: Tensor, q_side: Packed, k_side: Packed, *, causal: bool) -> Tensor:
    """:func:`seq2seq.model.attention.attention` without a window."""
    if k.size(1) != q.size(1):
        k, v = (x.repeat_interleave(q.size(1) // k.size(1), dim=1) for x in (k, v))
    out, *_ = torch.ops.aten._efficient_attention_forward(
        q.unsqueeze(0),
        k.unsqueeze(0),
        v.unsqueeze(0),
        None,
        q_side.offsets,
        k_side.offsets,
        q_side.max_length,
        k_side.max_length,
        0.0,
        _FROM_TOP_LEFT if causal else 0,
        compute_log_sumexp=True,
    )
    return out.squeeze(0)


class EfficientSelfAttention(torch.autograd.Function):
    """:func:`efficient_attention` of queries, keys and values in one tensor, [T, 3 H, E].

    The kernel writes their gradients into one tensor, too. Otherwise the gradients would have to be copied together.
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, side: Packed, causal: bool) -> Tensor:  # noqa: D102
        ctx.side, ctx.mask = side, _FROM_TOP_LEFT if causal else 0
        q, k, v = heads.unsqueeze(0).chunk(3, dim=2)
        lengths = side.offsets, side.offsets, side.max_length, side.max_length
        out, log_sums, seed, offset, *_ = torch.ops.aten._efficient_attention_forward(
            q, k, v, None, *lengths, 0.0, ctx.mask, compute_log_sumexp=True
        )
        ctx.save_for_backward(heads, out, log_sums, seed, offset)
        return out.squeeze(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: D102
        return _gradient(grads[0], *ctx.saved_tensors, ctx.side.offsets, ctx.side.max_length, ctx.mask), None, None


# An operator of its own, because PyTorch 2.15 compiles nothing that reads three results of another one as one tensor.
@torch.library.custom_op("seq2seq::efficient_attention_backward", mutates_args=())
def _gradient(
    grad: Tensor,
    heads: Tensor,
    out: Tensor,
    log_sums: Tensor,
    seed: Tensor,
    offset: Tensor,
    offsets: Tensor,
    max_length: int,
    mask: int,
) -> Tensor:
    q, k, v = heads.unsqueeze(0).chunk(3, dim=2)
    grad_q, *_ = torch.ops.aten._efficient_attention_backward(
        grad.unsqueeze(0),
        q,
        k,
        v,
        None,
        out,
        offsets,
        offsets,
        max_length,
        max_length,
        log_sums,
        0.0,
        seed,
        offset,
        mask,
        False,  # there is no bias that needs a gradient
        shared_storage_dqdkdv=True,
    )
    _, number, width = heads.shape
    return grad_q.as_strided(heads.shape, (number * width, width, 1), 0)


@_gradient.register_fake
def _shape(grad: Tensor, heads: Tensor, *_: object) -> Tensor:
    return heads.new_empty(heads.shape)
