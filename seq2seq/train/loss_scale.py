"""The factor of the loss in fp16, which keeps small gradients above the smallest number of that format.

fp16 has numbers from 6e-8 to 65,504. The loss is multiplied by the scale, so all gradients of the backward pass are,
too; they are divided by it afterwards, in fp32. If one of them is too large for fp16, the step is skipped and the scale
is halved. After 2,000 steps without that, the scale is doubled (Micikevicius et al. 2018, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

_START = 2.0**13
_LEAST = 1.0  # gradients that are too large without a scale will not become smaller
_STEPS_TO_GROW = 2_000


class LossScale:
    """The scale and its state are on the device and are never read back; a power of two changes no other bit."""

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), _START, device=device)  # fp32 []
        self._good_steps = torch.zeros((), dtype=torch.int32, device=device)  # in a row

    def update(self, norm: Tensor) -> Tensor:
        """Adapt the scale after a step.

        Args:
            norm: [] of the step's gradient; not a finite number if a gradient was too large for fp16.

        Returns:
            Whether the step's gradients were too large and a smaller scale can help: bool [].
        """
        too_large = ~torch.isfinite(norm)
        can_help = too_large & (self.value > _LEAST)
        torch._amp_update_scale_(self.value, self._good_steps, too_large.float(), 2.0, 0.5, _STEPS_TO_GROW)
        self.value.clamp_(min=_LEAST)
        return can_help

    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint."""
        return {"value": self.value, "good_steps": self._good_steps}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave; nothing if it is empty, as in the checkpoint of a bf16 run."""
        for name, tensor in tensors.items():
            self.tensors()[name].copy_(tensor)
