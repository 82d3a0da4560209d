"""What the machine is, and the most it can do: matrix products and memory copies, measured as a job of its own."""

from __future__ import annotations

import functools
import platform
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

from bench.workload import SHAPES
from seq2seq import __version__
from seq2seq.data.parallel import num_cores

_SECONDS_PER_SHAPE = 1.0
_COPY_BYTES = 256 << 20


def describe(device: str) -> dict[str, Any]:
    """The machine in words, and versions, for the report."""
    return {
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "seq2seq": __version__},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run(spec: Namespace) -> dict[str, Any]:
    """Job: the peaks of the device, with matrix products as large as those of the spec's model among others.

    ``matmul`` holds FLOP/s for each shape [m, k] x [k, n], the best of several tries; ``matmul_flops`` is the best of
    all. ``copy_bytes`` is bytes read and written per second by a copy.
    """
    device = spec.device
    _, d_model, d_ff, _ = SHAPES[spec.size]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    squares = (4096, 8192) if device == "cuda" else (512, 1024, 2048)
    shapes = [(n, n, n) for n in squares] + [(4096, d_model, d_ff), (4096, d_ff, d_model)]
    matmul = {}
    for m, k, n in shapes:
        a, b = (torch.randn(size, device=device, dtype=dtype) for size in ((m, k), (k, n)))
        out = torch.empty(m, n, device=device, dtype=dtype)
        matmul[f"{m}x{k}x{n}"] = 2 * m * k * n / _best(spec.threads, torch.mm, a, b, out=out)
    source = torch.ones(_COPY_BYTES // 4, device=device)
    copy = 2 * _COPY_BYTES / _best(spec.threads, torch.empty_like(source).copy_, source)
    return {"matmul": matmul, "matmul_flops": max(matmul.values()), "copy_bytes": copy}


def _best(threads: int, call: Callable[..., object], *arguments: Any, **options: Any) -> float:
    """Seconds of the fastest call."""
    timer = Timer("call()", globals={"call": functools.partial(call, *arguments, **options)}, num_threads=threads)
    return min(timer.blocked_autorange(min_run_time=_SECONDS_PER_SHAPE).times)
