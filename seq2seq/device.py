"""Choice of device and dtype, and speed of the machine."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from seq2seq.errors import UserError

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device for "cpu", "cuda" or "auto" (CUDA if there is one).

    Args:
        local_rank: which CUDA device, for several processes on a machine.

    Raises:
        UserError: there is no CUDA device; there is one, but PyTorch cannot use it (then for "auto", too: the CPU would
            be much slower than expected); or there are fewer devices than processes.
    """
    if name == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's warnings about old drivers and GPUs; ours follow
        if not torch.cuda.is_available():
            return _without_cuda(name)
        number = torch.cuda.device_count()
        if number == 1 and "SLURM_LOCALID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
            local_rank = 0  # Slurm shows each task its own device only
        if local_rank >= number:
            raise UserError(
                f"process {local_rank + 1} of this machine has no CUDA device, there are {number}; start fewer "
                "processes"
            )
        device = torch.device("cuda", local_rank)
        _check_supported(device)
    return device


def _without_cuda(name: str) -> torch.device:
    """The CPU, if there is no CUDA device and ``name`` is "auto"."""
    try:
        torch.cuda.init()
        reason = "unknown reason"
    except (RuntimeError, AssertionError) as error:  # its message has the reason
        reason = re.split(r"\. |\n", str(error))[0]
    if re.search("no NVIDIA driver|No CUDA GPUs|not compiled with CUDA", reason):
        if name == "auto":
            return torch.device("cpu")
        raise UserError("device cuda: PyTorch finds no CUDA device here; use cpu or auto")
    raise UserError(
        f"device {name}: PyTorch {torch.__version__} cannot use the GPU ({reason}); update the GPU's driver, install a "
        "PyTorch that is built for an older CUDA version, or use cpu"
    )


def _check_supported(device: torch.device) -> None:
    """Raise UserError if this build of PyTorch has no code for the device."""
    major, minor = torch.cuda.get_device_capability(device)
    kinds = [re.fullmatch(r"(sm|compute)_(\d+)(\d)a?", name) for name in torch.cuda.get_arch_list()]
    built_for = [(kind[1], int(kind[2]), int(kind[3])) for kind in kinds if kind]
    exact = any(kind == "sm" and first == major and last <= minor for kind, first, last in built_for)
    later = any(kind == "compute" and (first, last) <= (major, minor) for kind, first, last in built_for)
    if built_for and not exact and not later:
        raise UserError(
            f"device {device.type}: PyTorch {torch.__version__} does not support this GPU "
            f"({torch.cuda.get_device_name(device)}, compute capability {major}.{minor}), only "
            f"{', '.join(f'{first}.{last}' for _, first, last in built_for)}; install a PyTorch that is built for "
            "another CUDA version, or use cpu"
        )


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype for "fp32", "bf16", "fp16" or "auto".

    auto is fp32 on the CPU. On a GPU it is bf16, on an older one fp16 if that is fast there, else fp32.

    Raises:
        UserError: bf16 on a GPU that is too old for it, or another precision than fp32 on the CPU, where it would take
            more time, and gigabytes for a kernel for each size of a matrix.
    """
    if device.type != "cuda":
        if precision not in ("auto", "fp32"):
            raise UserError(f"precision {precision}: only for CUDA; on the CPU use fp32 or auto")
        return torch.float32
    if precision == "auto":
        capability = torch.cuda.get_device_capability(device)
        precision = "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    elif precision == "bf16" and torch.cuda.get_device_capability(device) < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise UserError(f"precision bf16: this GPU ({name}) does not support it; use fp16, fp32 or auto")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of :func:`compute_dtype`, but fp32 on the CPU, where training computes at most its products in bf16
    (``model/kernels/rounded_products.py``).

    Raises:
        UserError: see :func:`compute_dtype`.
    """
    on_cpu = device.type != "cuda"
    return torch.float32 if on_cpu and precision == "bf16" else compute_dtype(precision, device)


def multiplies_bf16_fast(device: torch.device) -> bool:
    """Whether products of matrices take several times less time in bf16 than in fp32: on a GPU, or a CPU with AMX.

    On other CPUs they take as long, or longer.
    """
    # Older releases of PyTorch do not have the function.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cuda" or bool(capabilities.get("amx_bf16"))


def why_not_compiled(device: torch.device) -> str | None:
    """What ``torch.compile`` lacks for this CUDA device; None: nothing.

    Its compiler, Triton, builds a small extension module, with a C compiler and the header files of Python.
    """
    if torch.cuda.get_device_capability(device) < (7, 0):
        return f"this GPU ({torch.cuda.get_device_name(device)}) is too old for Triton"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "there is no C compiler; install gcc"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "there is no Python.h; install Python's header files (python3-dev)"
    return None


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step, which makes a step 2 to 10 % faster.

    By default, glibc returns large blocks to the system, which must clear all their pages again at the next step.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def device_name(device: torch.device) -> str:
    """What people call a device: the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product on ``device`` with all threads; best of a few.

    It is an upper bound for training, and takes about 0.3 s to measure. The numbers are random, because a GPU computes
    with constant ones at less power, and so at a higher clock rate. On the CPU it uses CPU time, because other
    programs on the same cores can make wall time 10 times too long.
    """
    on_cpu = device.type == "cpu"
    size, repeats = (2048, 5) if on_cpu else (8192, 10) if dtype != torch.float32 else (4096, 10)
    clock, clocks = (time.process_time, torch.get_num_threads()) if on_cpu else (time.perf_counter, 1)
    own = torch.Generator(device).manual_seed(0)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype, generator=own)
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
