"""Clocks and memory of the process that is being measured."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
from pathlib import Path


def peak_memory_bytes(device: str) -> int:
    """The most memory held so far: resident set of this process, or what PyTorch took of the GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory(device: str) -> None:
    """Let the peak start anew from what is held now, where the system can do that (Linux, CUDA)."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def synchronise(device: str) -> None:
    """Wait until the device has done what it was told to."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def versions(*packages: str) -> dict[str, str]:
    """Versions of the installed ones among these packages."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
