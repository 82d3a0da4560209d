"""Promise: a GPU that cannot be used is reported in one line, and is never replaced by the CPU without a word."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

from seq2seq.device import choose_device, compute_dtype, multiplies_bf16_fast, training_dtype, why_not_compiled
from seq2seq.errors import UserError

CUDA = torch.device("cuda", 0)
TOO_OLD = "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by ..."


def without_cuda(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    def init() -> None:
        raise RuntimeError(reason)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)


def gpus(monkeypatch: pytest.MonkeyPatch, number: int, capability: tuple[int, int] = (9, 0), **build: object) -> None:
    """As if PyTorch had found this many GPUs; ``built_for``: what its build has code for."""
    built_for = build.get("built_for", ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)


@pytest.mark.parametrize(
    "reason", ["Found no NVIDIA driver on your system. Please check", "No CUDA GPUs are available"]
)
def test_the_cpu_where_there_is_no_gpu(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_cuda(monkeypatch, reason)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device cuda: PyTorch finds no CUDA device here; use cpu or auto"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_an_old_driver_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a run of days on the CPU of a machine whose GPU only needs another driver."""
    without_cuda(monkeypatch, TOO_OLD)
    with pytest.raises(UserError, match=rf"device {name}: .*driver on your system is too old \(found version 12040\)"):
        choose_device(name)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "built_for", "supported"),
    [
        ((7, 0), ["sm_75", "sm_80", "sm_90"], False),
        ((6, 1), ["sm_50", "sm_60", "sm_70"], True),  # code for 6.0 runs on 6.1
        ((8, 9), ["sm_75", "sm_80", "sm_90"], True),
        ((8, 0), ["sm_75", "sm_86", "sm_90"], False),
        ((12, 1), ["sm_90", "sm_100a", "compute_100"], True),  # compiled by the driver
        ((10, 3), ["sm_90", "sm_100a"], True),
        ((9, 0), ["gfx90a", "gfx942"], True),  # AMD's names say nothing here
    ],
)
def test_a_gpu_without_code_is_reported(
    capability: tuple[int, int], built_for: list[str], supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against "no kernel image is available" in the middle of the start."""
    gpus(monkeypatch, 1, capability, built_for=built_for)
    if supported:
        assert choose_device("auto") == CUDA
    else:
        with pytest.raises(UserError, match=r"does not support this GPU \(Tesla V100, compute") as error:
            choose_device("auto")
        assert "\n" not in str(error.value)


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against PyTorch's words for `torchrun --nproc-per-node 3` on a machine with two devices."""
    gpus(monkeypatch, 2)
    assert choose_device("auto", 1) == torch.device("cuda", 1)
    with pytest.raises(UserError, match="process 3 of this machine has no CUDA device, there are 2"):
        choose_device("auto", 2)


def test_slurm_shows_each_task_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against "process 3 has no CUDA device" where each of eight tasks sees its own device as number 0."""
    gpus(monkeypatch, 1)
    monkeypatch.setenv("SLURM_LOCALID", "2")
    assert choose_device("auto", 2) == CUDA
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "torchrun inside a task sees all devices of the task")
    with pytest.raises(UserError, match="start fewer processes"):
        choose_device("auto", 2)


def test_what_the_compiler_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards against a traceback of 40 lines at the first step of a machine without a C compiler."""
    gpus(monkeypatch, 1)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/clang" if name == "clang" else None)
    monkeypatch.delenv("CC", raising=False)
    assert why_not_compiled(CUDA) is None
    (tmp_path / "Python.h").unlink()
    assert "Python.h" in str(why_not_compiled(CUDA))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "no C compiler" in str(why_not_compiled(CUDA))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "triton is not installed" in str(why_not_compiled(CUDA))
    gpus(monkeypatch, 1, (6, 1))
    assert "too old" in str(why_not_compiled(CUDA))


@pytest.mark.parametrize(
    ("name", "capabilities", "fast"),
    [
        ("cpu", {"amx_bf16": True}, True),
        ("cpu", {"avx512_bf16": True}, False),
        ("cpu", None, False),
        ("cuda", {}, True),
    ],
)
def test_bf16_only_where_it_is_faster(
    name: str, capabilities: dict[str, bool] | None, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without AMX a CPU takes up to four times as long for it. A release of PyTorch may not say what the CPU can."""
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert multiplies_bf16_fast(torch.device(name)) is fast


def test_training_lowers_no_dtype_on_the_cpu() -> None:
    """Guards against the whole computation in bf16, which takes twice as long as in fp32."""
    assert [training_dtype(name, torch.device("cpu")) for name in ("auto", "fp32", "bf16")] == [torch.float32] * 3
    with pytest.raises(UserError, match="precision fp16: only for CUDA"):
        training_dtype("fp16", torch.device("cpu"))


def test_translating_in_bf16_needs_a_gpu() -> None:
    """Guards against gigabytes of kernels, one for each size of a matrix in the search, and no gain in time."""
    with pytest.raises(UserError, match="precision bf16: only for CUDA; on the CPU use fp32 or auto"):
        compute_dtype("bf16", torch.device("cpu"))
