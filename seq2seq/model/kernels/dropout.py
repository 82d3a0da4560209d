"""Dropout with a mask that is fast to draw on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Full-range 64-bit words: `random_` without bounds would leave the top bit zero.
_LOWEST_INT64 = -(2**63)


class _Dropped(torch.autograd.Function):
    """Dropout of ``z``, in place, with scaling; it saves only one byte per element for the gradient.

    ``keep`` is -1 (all bits set) or 0, so the bitwise "and" with a number gives the number or 0.0.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.keep, ctx.scale = keep, scale
        _bits(z).bitwise_and_(keep)
        ctx.mark_dirty(z)
        return z.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        dropped = (_bits(grads[0]) & ctx.keep).view(grads[0].dtype)
        return dropped.mul_(ctx.scale), None, None


def _bits(x: Tensor) -> Tensor:
    return x.view(torch.int32 if x.element_size() == 4 else torch.int16)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014); on the CPU in place, with eight mask entries from each random 64-bit word.

    ``torch.nn.functional.dropout`` draws one 32-bit number per element on one CPU thread, which takes more than 1/4 of
    a training step. Here each element gets one random byte. So the probability is rounded to 1/256, and kept values are
    scaled by the exact inverse of the rounded keep probability. On the CPU the words come from ``generator``, or from
    torch's default generator if it is None; the same seed gives the same mask.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.generator: torch.Generator | None = None
        self.threshold = round(p * 256)  # elements with a byte below it are dropped
        assert 0 <= self.threshold < 256

    def forward(self, x: Tensor) -> Tensor:
        """x: any shape, 16 or 32 bits per number. On the CPU it is overwritten, so no other gradient may need it."""
        if not self.training or self.threshold == 0:
            return x
        if x.is_cuda:  # PyTorch's dropout is free there, because the compiler fuses it with other operations
            return torch.nn.functional.dropout(x, self.threshold / 256)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        words.random_(_LOWEST_INT64, None, generator=self.generator)
        keep = (words.view(torch.int8)[: x.numel()].view(x.shape) >= self.threshold - 128).view(torch.int8).neg_()
        return _Dropped.apply(x, keep, 256 / (256 - self.threshold))
