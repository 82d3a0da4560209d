"""Rotary positions of all heads at once, with few operations on memory.

What it computes is :func:`seq2seq.model.positions.rotate`, for queries and keys together: ten operations with the
gradient instead of over thirty, and attention gets one tensor instead of three.

Shapes: ``T`` tokens, ``N`` heads, ``E`` width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RotatedHeads(torch.autograd.Function):
    """[T, N, E], of which the first heads are rotated and the others copied; fp32 on the CPU.

    The gradient is rotated back, by the negative angles.
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, rotation: Tensor, num_rotated: int) -> Tensor:
        """rotation: [T, E], E / 2 cosines and then E / 2 sines; num_rotated: queries and keys."""
        ctx.rotation, ctx.num_rotated = rotation, num_rotated
        return _rotated(heads, rotation, num_rotated, sign=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of ``heads``."""
        return _rotated(grads[0], ctx.rotation, ctx.num_rotated, sign=-1), None, None


def _rotated(heads: Tensor, rotation: Tensor, num_rotated: int, sign: int) -> Tensor:
    cos, sin = rotation[:, None].chunk(2, dim=-1)
    turned = heads.clone()
    a, b = heads[:, :num_rotated].chunk(2, dim=-1)
    turned_a, turned_b = turned[:, :num_rotated].chunk(2, dim=-1)
    turned_a.mul_(cos).addcmul_(b, sin, value=-sign)
    turned_b.mul_(cos).addcmul_(a, sin, value=sign)
    return turned
