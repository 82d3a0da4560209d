"""Promise: dropout drops each element by itself with the stated probability and scales the others exactly."""

import math

import pytest
import torch
from pydantic import ValidationError

from seq2seq.config import ModelConfig
from seq2seq.model.kernels.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.3, 0.5, 0.9])
def test_rate_and_scale(p):
    """Guards against top bits that are always zero, a threshold off by one, and a scale for p before rounding."""
    torch.manual_seed(1)
    threshold = round(p * 256)
    rounded = threshold / 256
    n = 400_003  # no multiple of 8
    kept = Dropout(p)(torch.ones(n))
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(256 / (256 - threshold), dtype=torch.float32))}
    dropped = int((kept == 0).sum())
    assert abs(dropped - n * rounded) < 5 * math.sqrt(n * rounded * (1 - rounded))
    # Every byte of a word is as good as another, and neighbours are independent.
    for byte in range(8):
        part = kept[byte::8]
        assert abs(float((part == 0).float().mean()) - rounded) < 5 * math.sqrt(rounded * (1 - rounded) / len(part))
    both = float(((kept[1:] == 0) & (kept[:-1] == 0)).float().mean())
    assert abs(both - rounded**2) < 0.006


def test_same_seed_same_mask():
    """Guards against a mask from outside torch's generator, which a resumed run could not draw again (contract 2)."""
    dropout, x = Dropout(0.3), torch.randn(7, 13)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(x.clone()))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(dropout(x.clone()), dropout(x.clone()))


def test_evaluation_and_zero_are_the_identity():
    """Guards against noise in translation, and against random numbers drawn for nothing (which would shift others)."""
    x = torch.randn(5, 3)
    before = torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_is_the_mask(dtype):
    """Guards against a backward pass with another mask than the forward pass, and against a change of dtype."""
    torch.manual_seed(0)
    x = torch.randn(9, 11).to(dtype).requires_grad_()
    out = Dropout(0.25)(1 * x)
    assert out.dtype == dtype
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
    torch.testing.assert_close(grad * x, out)  # bf16: one rounding more or less
    assert set(grad.unique().tolist()) == {0.0, float(torch.tensor(4 / 3, dtype=dtype))}


def test_every_rate_that_the_config_allows():
    """Guards against an assertion, which tells a person nothing, for a rate that rounds to dropping everything."""
    Dropout(ModelConfig(dropout=0.9).dropout)
    with pytest.raises(ValidationError):
        ModelConfig(dropout=0.999)
