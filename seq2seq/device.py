"""Which device computes, and in which precision."""

from __future__ import annotations

import torch

from seq2seq.errors import UserError


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called "cpu", "cuda" or "auto" (CUDA where there is one).

    Args:
        local_rank: which CUDA device, for several processes on a machine.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda is asked for, but PyTorch sees no CUDA device here; use cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether "fp32", "bf16" or "auto" (bf16 on CUDA, fp32 on the CPU) means to compute in bf16."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")
