"""Conversion between packed tokens and a padded grid, for attention kernels that need a grid.

A grid has a row for each sentence and a cell for each position. Cells after a sentence's end repeat token 0; the
caller masks them.

Shapes: ``T`` tokens, ``B`` sentences, ``L`` grid length, ``N`` heads, ``E`` width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seq2seq.data.packed import Packed


class _ToGrid(torch.autograd.Function):
    """[T, ...] to [B * L, ...]: a gather. Its gradient is a gather, too, because masked cells have no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: Packed) -> Tensor:
        ctx.side = side
        return x.index_select(0, side.grid)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].index_select(0, ctx.side.cells), None


class _FromGrid(torch.autograd.Function):
    """[B * L, ...] to [T, ...]: the inverse of :class:`_ToGrid`; cells after a sentence's end get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: Packed) -> Tensor:
        ctx.side = side
        return x.index_select(0, side.cells)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        grid = grad.new_zeros(ctx.side.grid.size(0), *grad.shape[1:])
        return grid.index_copy_(0, ctx.side.cells, grad), None


def to_grid(x: Tensor, side: Packed) -> Tensor:
    """[T, ...] -> [B, L, ...], with a gradient."""
    return _ToGrid.apply(x, side).view(side.num_sentences, side.max_length, *x.shape[1:])


def from_grid(grid: Tensor, side: Packed) -> Tensor:
    """[B, L, ...] -> [T, ...]: the inverse of :func:`to_grid`, with a gradient."""
    return _FromGrid.apply(grid.flatten(0, 1), side)


def heads_to_grid(x: Tensor, side: Packed) -> Tensor:
    """[T, N, E] -> [N, B, L, E] in one gather; cells after a sentence's end repeat token 0."""
    heads = torch.arange(x.size(1), device=x.device)
    rows = side.grid * x.size(1) + heads[:, None]  # [N, B * L]
    grid = x.reshape(-1, x.size(2)).index_select(0, rows.flatten())
    return grid.view(x.size(1), side.num_sentences, side.max_length, x.size(2))


def heads_from_grid(grid: Tensor, side: Packed) -> Tensor:
    """[N, B, L, E] -> [T, N, E]: the inverse of :func:`heads_to_grid`; also its gradient, if masked cells have none."""
    heads = torch.arange(grid.size(0), device=grid.device)
    rows = side.cells[:, None] + heads * side.grid.size(0)  # [T, N]
    return grid.flatten(0, 2).index_select(0, rows.flatten()).view(*rows.shape, -1)
