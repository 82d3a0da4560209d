"""Promise: products in bf16 are those in fp32 up to rounding, and come in few sizes."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seq2seq.model.kernels.rounded_products import ROWS, _Linear, round_hidden, round_linear_layers


def rounded(linear: nn.Linear) -> nn.Linear:
    round_linear_layers(linear)
    return linear


@pytest.mark.parametrize("tokens", [1, ROWS - 1, ROWS, ROWS + 1, 200])
def test_a_linear_layer_and_its_gradients_are_near_those_in_fp32(tokens: int) -> None:
    """Guards against rows that were filled up, but count; and against sums in bf16."""
    torch.manual_seed(0)
    exact, near = nn.Linear(96, 40), rounded(nn.Linear(96, 40))
    near.load_state_dict(exact.state_dict())
    found = []
    for linear in (exact, near):
        x = torch.linspace(-1, 1, tokens * 96).view(tokens, 96).sin().requires_grad_()
        y = linear(x)
        y.backward(torch.linspace(1, 2, y.numel()).view_as(y))
        assert (y.shape, y.dtype) == ((tokens, 40), torch.float32)
        found.append([y.detach(), *(p.grad for p in (x, linear.weight, linear.bias))])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert other is not None
        assert other.dtype == torch.float32
        assert float((one - other).norm()) < 0.01 * float(one.norm())


def test_few_sizes_are_multiplied() -> None:
    """Guards against gigabytes of compiled kernels: a new size of every matrix in every batch."""
    sizes, linear = set(), rounded(nn.Linear(32, 16))
    with mock.patch.object(F, "linear", side_effect=F.linear) as multiplied:
        for tokens in range(1, 3 * ROWS):
            linear(torch.randn(tokens, 32))
            sizes.add(multiplied.call_args.args[0].shape)
    assert sizes == {(rows, 32) for rows in (ROWS, 2 * ROWS, 3 * ROWS)}
    hidden = round_hidden(torch.randn(ROWS + 5, 32))
    assert (hidden.shape, hidden.dtype) == ((2 * ROWS, 32), torch.bfloat16)


def test_no_gradient_is_computed_for_nothing() -> None:
    """A frozen layer needs none for its weights, which takes a third of a layer's time."""
    x, weight = torch.zeros(ROWS, 32).bfloat16(), torch.zeros(16, 32).bfloat16()
    for needed in ((True, False, False), (False, True, True)):
        grads = _Linear.backward(SimpleNamespace(saved_tensors=(x, weight), needs_input_grad=needed), torch.ones(3, 16))
        assert tuple(grad is not None for grad in grads) == needed


def test_what_is_no_list_of_tokens_stays_exact() -> None:
    """Some architectures give a layer tokens by sentence and position."""
    linear = nn.Linear(32, 16)
    x = torch.randn(2, 3, 32)
    wanted = linear(x)
    assert torch.equal(rounded(linear)(x), wanted)
