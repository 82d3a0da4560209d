"""Promise: the ReLU inside the product is the ReLU after it, in value and gradient."""

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from seq2seq.model.kernels.linear_relu import linear_relu


@pytest.mark.parametrize("num_tokens", [1, 7])
def test_value_and_gradient(num_tokens: int) -> None:
    """Guards against a gradient that passes where the output is zero, and against mixed-up factors."""
    torch.manual_seed(0)
    linear, x = nn.Linear(5, 6), torch.randn(num_tokens, 5, requires_grad=True)
    grad = torch.randn(num_tokens, 6)
    inputs = [x, *linear.parameters()]
    found, expected = linear_relu(x, linear), relu(linear(x))
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_operator_can_be_compiled() -> None:
    """Guards against an operator whose shape or gradient the compiler does not know."""
    linear = nn.Linear(4, 3)
    torch.library.opcheck(torch.ops.seq2seq.linear_relu.default, (torch.randn(2, 4), linear.weight, linear.bias))
