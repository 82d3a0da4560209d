"""Products of matrices in bf16 on a CPU that multiplies them faster than those in fp32, for training.

PyTorch's library for them compiles a kernel for each size of a matrix and keeps a thousand, which takes gigabytes if
every batch has other sizes. So rows of zeros fill up the matrices here, and there are few sizes.

Shapes: ``T`` tokens, ``R`` the same or up to 63 more, ``D`` inputs, ``F`` outputs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 64  # R is a multiple of it


def _missing_rows(x: Tensor) -> int:
    return -x.size(0) % ROWS


def _rounded(x: Tensor) -> Tensor:
    """[T, D] -> [R, D] in bf16; the last rows are zeros."""
    rounded = x.new_empty(x.size(0) + _missing_rows(x), x.size(1), dtype=torch.bfloat16)
    rounded[: x.size(0)] = x
    rounded[x.size(0) :] = 0
    return rounded


class _Linear(torch.autograd.Function):
    """A linear layer, [T, D] -> [T, F]: fp32 outside; matrices and results are rounded to bf16, sums are not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rounded, matrix = _rounded(x), weight.bfloat16()
        ctx.save_for_backward(rounded, matrix)
        return F.linear(rounded, matrix, bias.bfloat16())[: x.size(0)].float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        (grad,) = grads
        rounded = _rounded(grad)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            (rounded @ matrix)[: grad.size(0)].float() if of_x else None,
            (rounded.t() @ x).float() if of_weight else None,
            grad.sum(dim=0) if of_bias else None,
        )


def _forward(linear: nn.Linear, x: Tensor) -> Tensor:
    if x.dim() != 2:
        return F.linear(x, linear.weight, linear.bias)
    result: Tensor = _Linear.apply(x, linear.weight, linear.bias)
    return result


def round_linear_layers(model: nn.Module) -> None:
    """Make all linear layers of a model multiply in bf16 from now on."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def round_hidden(hidden: Tensor) -> Tensor:
    """Hidden states for a loss whose products are in bf16, [T, D] -> [R, D] in bf16; with a gradient."""
    return F.pad(hidden, (0, 0, 0, _missing_rows(hidden))).bfloat16()
