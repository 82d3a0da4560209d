"""Which device computes, and in which precision."""

from __future__ import annotations

import ctypes
import sys
import time

import torch

from seq2seq.errors import UserError

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called "cpu", "cuda" or "auto" (CUDA where there is one).

    Args:
        local_rank: which CUDA device, for several processes on a machine.

    Raises:
        UserError: CUDA is asked for and not there, or there are fewer devices than processes.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda is asked for, but PyTorch sees no CUDA device here; use cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= (number := torch.cuda.device_count()):
        raise UserError(f"process {local_rank + 1} of this machine has no CUDA device, there are {number}; start fewer")
    return torch.device("cuda", local_rank)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What "fp32", "bf16" or "auto" (bf16 on CUDA where the GPU has it, fp32 on the CPU) means to compute in.

    Raises:
        UserError: the GPU is asked for bf16 and is too old for it.
    """
    if precision == "fp32" or (precision == "auto" and device.type != "cuda"):
        return torch.float32
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        if precision == "auto":
            return torch.float32
        name = torch.cuda.get_device_name(device)
        raise UserError(f"bf16 is asked for, and this GPU ({name}) has none; use precision fp32 or auto")
    return torch.bfloat16


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, where it is glibc; a step is 2 to 10 % faster.

    By default it gives large blocks back to the system, which has to clear every page of them again at the next step.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product on ``device`` with all threads: the best of a few.

    It takes about a third of a second. Training cannot be faster than this. On the CPU it is measured in CPU time,
    which other programs on the same cores hardly change: in wall time they made it up to ten times too low.
    """
    on_cpu = device.type == "cpu"
    size, repeats = (2048, 5) if on_cpu else (8192, 10)
    clock, clocks = (time.process_time, torch.get_num_threads()) if on_cpu else (time.perf_counter, 1)
    a, b = torch.ones(2, size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        _finish(device)
        started = clock()
        torch.mm(a, b)
        _finish(device)
        best = min(best, (clock() - started) / clocks)
    return 2 * size**3 / best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
