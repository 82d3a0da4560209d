"""Attention over short sentences by plain matrix products.

PyTorch's CPU kernel computes one head of one sentence at a time; with 20 tokens, its overhead is larger than the
arithmetic. Here the heads of all sentences are matrices of one batched product. The memory for the scores grows with
the square of the length, so this is for short sentences only.

Shapes: ``T`` tokens, ``N`` heads, ``H`` query heads, ``G`` key heads (and value heads), ``R = H / G`` query heads per
key head, ``E`` width of a head, ``B`` sentences, ``L`` grid length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seq2seq.data.packed import Packed
from seq2seq.model.kernels.grid import heads_from_grid, heads_to_grid


def split_parts(parts: Sequence[Tensor], num_heads: int, dim: int) -> Sequence[Tensor]:
    """Queries, keys and values from one, two or three tensors, which have the heads in this order along ``dim``.

    num_heads: H.
    """
    num_kv_heads = (sum(part.size(dim) for part in parts) - num_heads) // 2
    if len(parts) == 1:
        return torch.split(parts[0], [num_heads, num_kv_heads, num_kv_heads], dim=dim)
    return parts if len(parts) == 3 else (parts[0], *torch.split(parts[1], num_kv_heads, dim=dim))


def _matrices(x: Tensor, num_kv_heads: int) -> Tensor:
    """[N, B, L, E] -> [G * B, R * L, E]: one matrix per sentence and key head; without a copy if R is 1."""
    matrices = x.view(num_kv_heads, -1, *x.shape[1:]).transpose(1, 2)
    return matrices.reshape(num_kv_heads * x.size(1), -1, x.size(3))


def _softmax_(scores: Tensor) -> Tensor:
    """Softmax over the last dimension; may overwrite ``scores``."""
    if scores.size(-1) >= 16:
        return scores.softmax(dim=-1)
    weights = scores.sub_(scores.amax(dim=-1, keepdim=True)).exp_()  # PyTorch's softmax is slow for such short rows
    return weights.div_(weights.sum(dim=-1, keepdim=True))


class ShortAttention(torch.autograd.Function):
    """Attention [T, H, E] of queries, keys and values in one or more tensors; fp32.

    With scores Z = a Q K^T + bias, probabilities P = softmax(Z), and the result O = P V::

        dV = P^T dO      dP = dO V^T      dZ = P * (dP - rowsum(P * dP))      dQ = a dZ K      dK = a dZ^T Q

    Small products are several times slower if the right matrix is transposed, so transposed K and V are copied.
    """

    @staticmethod
    def forward(ctx: Any, q_side: Packed, k_side: Packed, num_heads: int, bias: Tensor, *parts: Tensor) -> Tensor:
        """bias: [1 or B, 1, 1 or L, L]; parts: ``heads`` of :func:`seq2seq.model.attention.attention`."""
        ctx.sides = (q_side, *[k_side] * (len(parts) - 1))
        ctx.num_heads = num_heads
        grids = [heads_to_grid(part, side) for part, side in zip(parts, ctx.sides, strict=True)]
        queries, keys, values = split_parts(grids, num_heads, dim=0)
        q, k, v = (_matrices(x, keys.size(0)) for x in (queries, keys, values))
        z = torch.bmm(q, k.transpose(1, 2).contiguous())  # [G * B, R * L, L]
        z = z.view(keys.size(0), q_side.num_sentences, -1, q_side.max_length, k_side.max_length)
        z = torch.add(bias, z, alpha=q.size(2) ** -0.5)
        # Zeros for queries after a sentence's end, so that they give no gradient; in an empty sentence they are NaN.
        padding = q_side.key_bias.isneginf().view(q_side.num_sentences, 1, -1, 1)
        p = _softmax_(z).masked_fill_(padding, 0.0).view(q.size(0), q.size(1), -1)
        ctx.save_for_backward(p, *grids)
        mixed = torch.bmm(p, v).view(keys.size(0), q_side.num_sentences, -1, *queries.shape[2:])
        return heads_from_grid(mixed.transpose(1, 2).flatten(0, 1), q_side)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of each part, with one gather per part."""
        p, *grids = ctx.saved_tensors
        grads = [torch.empty_like(grid) for grid in grids]
        queries, keys, values = split_parts(grids, ctx.num_heads, dim=0)
        grad_queries, grad_keys, grad_values = split_parts(grads, ctx.num_heads, dim=0)
        grad_mixed = heads_to_grid(grad[0], ctx.sides[0])
        q, k, v, do = (_matrices(x, keys.size(0)) for x in (queries, keys, values, grad_mixed))
        torch.bmm(p.transpose(1, 2), do, out=grad_values.flatten(0, 1))
        dp = torch.bmm(do, v.transpose(1, 2).contiguous()).mul_(p)
        dz = dp.addcmul_(p, dp.sum(dim=-1, keepdim=True), value=-1).mul_(q.size(2) ** -0.5)
        torch.bmm(dz.transpose(1, 2), q, out=grad_keys.flatten(0, 1))
        if queries.size(0) == keys.size(0):
            torch.bmm(dz, k, out=grad_queries.flatten(0, 1))
        else:
            dq = torch.bmm(dz, k).view(keys.size(0), queries.size(1), -1, *queries.shape[2:])
            grad_queries.copy_(dq.transpose(1, 2).flatten(0, 1))
        return None, None, None, None, *(heads_from_grid(x, side) for x, side in zip(grads, ctx.sides, strict=True))
