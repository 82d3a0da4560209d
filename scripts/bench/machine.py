"""What the machine is, and the most it can do: matrix products and memory copies, measured as a job of its own."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.workload import SHAPES

_SECONDS_PER_SHAPE = 1.0
_COPY_BYTES = 256 << 20


def describe(device: str) -> dict[str, Any]:
    """The machine in words, for the report."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Job: the peaks of the device, with matrix products as large as those of the spec's model among others.

    ``matmul`` holds FLOP/s for each shape [m, k] x [k, n], the best of several tries; ``matmul_flops`` is the best of
    all. ``copy_bytes`` is bytes read and written per second by a copy.
    """
    import torch

    device, threads = values["device"], values["threads"]
    _, d_model, d_ff, _ = SHAPES[values["size"]]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    squares = (4096, 8192) if device == "cuda" else (512, 1024, 2048)
    shapes = [(n, n, n) for n in squares] + [(4096, d_model, d_ff), (4096, d_ff, d_model)]
    matmul = {}
    for m, k, n in shapes:
        a = torch.randn(m, k, device=device, dtype=dtype)
        b = torch.randn(k, n, device=device, dtype=dtype)
        out = torch.empty(m, n, device=device, dtype=dtype)
        seconds = _best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), threads)  # type: ignore[misc]
        matmul[f"{m}x{k}x{n}"] = 2 * m * k * n / seconds
    source = torch.ones(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copy = 2 * _COPY_BYTES / _best(lambda: target.copy_(source), threads)
    return {"matmul": matmul, "matmul_flops": max(matmul.values()), "copy_bytes": copy}


def _best(call: Callable[[], object], threads: int) -> float:
    """Seconds of the fastest call."""
    from torch.utils.benchmark import Timer

    timer = Timer("call()", globals={"call": call}, num_threads=threads)
    return min(timer.blocked_autorange(min_run_time=_SECONDS_PER_SHAPE).times)
