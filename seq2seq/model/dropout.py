"""Dropout whose mask costs little on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Full-range 64-bit words: `random_` without bounds would leave the top bit zero.
_LOWEST_INT64 = -(2**63)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) with eight mask entries from each random 64-bit word.

    ``torch.nn.functional.dropout`` draws one 32-bit number per element on one CPU thread, which takes over a quarter
    of a training step. Here each element gets one random byte, so the probability is rounded to 1/256 and the kept
    values are scaled by the exact inverse of the rounded keep probability. The words come from torch's generator of
    the tensor's device: the same seed gives the same mask.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.threshold = round(p * 256)  # bytes below it are dropped
        assert 0 <= self.threshold < 256

    def forward(self, x: Tensor) -> Tensor:
        """x: any shape and floating dtype; the same shape and dtype comes back."""
        if not self.training or self.threshold == 0:
            return x
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        words.random_(_LOWEST_INT64, None)
        keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.threshold
        return x * (keep * (256 / (256 - self.threshold))).to(x.dtype)

    def extra_repr(self) -> str:
        """The probability as it is, rounded to 1/256."""
        return f"p={self.threshold / 256:.4g}"
