"""ReLU of a linear layer on CUDA, computed by the matrix product itself.

Separately, the compiler's kernel would read and write the layer's whole output once more.

Shapes: ``T`` tokens, ``D`` inputs, ``F`` outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def linear_relu(x: Tensor, linear: nn.Linear) -> Tensor:
    """``relu(linear(x))``: [T, D] -> [T, F]."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return _linear_relu(x.to(dtype), linear.weight.to(dtype), linear.bias.to(dtype))


@torch.library.custom_op("seq2seq::linear_relu", mutates_args=())  # so that the compiler does not take it apart
def _linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch._addmm_activation(bias, x, weight.t())


@_linear_relu.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.size(0), weight.size(0))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, output = ctx.saved_tensors
    grad = grad.masked_fill(output <= 0, 0.0)
    return grad @ weight, grad.t() @ x, grad.sum(dim=0)


_linear_relu.register_autograd(_backward, setup_context=_save)
