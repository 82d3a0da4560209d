"""The check of a GPU can be started everywhere, and says at once where there is none."""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.data.packed import PackedBatch
from seq2seq.data.symbols import EOS_ID
from seq2seq.model import attention
from seq2seq.model.kernels import packed_attention
from seq2seq.model.transformer import Transformer
from tests.toy import ROOT, environment

sys.path.insert(0, str(ROOT / "scripts"))

import gpu_check
from bench import gpu, process


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``bash scripts/gpu_check.sh`` from another folder, in this environment, without a GPU."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    here = {**environment(), "PATH": path, "VIRTUAL_ENV": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    words = ("bash", str(ROOT / "scripts" / "gpu_check.sh"), *words)
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=here, timeout=300)


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    """Guards against a check that takes minutes on a CPU, or ends with a traceback."""
    done = check(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "device cuda: PyTorch finds no CUDA device here; use cpu or auto\n"
    assert not (tmp_path / "runs").exists()


def test_its_help_says_what_the_verdicts_are(tmp_path: Path) -> None:
    """Guards against a table that its readers cannot understand."""
    done = check(tmp_path, "--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("ok", "slow", "WRONG", "skipped", "gpu-check.md", "--src", "--model"))


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that need no more of a GPU than its name."""
    monkeypatch.setattr(gpu, "CUDA", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


def _layouts(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, ...]]:
    """The number of heads in each tensor that attention gets from now on, grows with every call."""
    found, plain = set(), packed_attention.packed_attention

    def spy(heads: Any, *args: Any, **options: Any) -> torch.Tensor:
        found.add(tuple(x.size(1) for x in heads))
        return plain(heads, *args, **options)

    monkeypatch.setattr(packed_attention, "packed_attention", spy)
    monkeypatch.setattr(attention, "packed_attention", spy)  # as the model knows it
    return found


def test_attention_is_checked_as_the_model_calls_it(
    monkeypatch: pytest.MonkeyPatch,
    on_the_cpu: None,
    make_model: Callable[..., Transformer],
    batch_of: Callable[..., PackedBatch],
) -> None:
    """Guards against a check of kernels that training does not use: queries, keys and values in one tensor have a
    kernel call of their own."""
    model, batch = make_model(num_heads=8, d_model=64), batch_of([([5, EOS_ID], [6, 7, EOS_ID])])
    of_the_model = _layouts(monkeypatch)
    model(batch)
    of_the_check = _layouts(monkeypatch)
    errors = gpu.attention_errors(argparse.Namespace())["errors"]
    assert of_the_check == of_the_model
    assert {name.split(",")[0] for name in errors} == {"bfloat16", "float16", "float32"}
    assert all(error < gpu_check._ERRORS[name.split(",")[0]] for name, error in errors.items())


@pytest.mark.parametrize("part", range(3))
def test_one_wrong_gradient_of_attention_is_seen(monkeypatch: pytest.MonkeyPatch, on_the_cpu: None, part: int) -> None:
    """Guards against an error in the small gradients of queries or keys that is lost beside those of the values."""
    plain = packed_attention.packed_attention

    def broken(heads: Any, *args: Any, **options: Any) -> torch.Tensor:
        if heads[0].dtype == torch.bfloat16 and len(heads) == 1:
            parts = list(heads[0].split(8, dim=1))
            parts[part] = parts[part].detach() + 0.97 * (parts[part] - parts[part].detach())
            heads = [torch.cat(parts, dim=1)]
        return plain(heads, *args, **options)

    monkeypatch.setattr(packed_attention, "packed_attention", broken)
    errors = gpu.attention_errors(argparse.Namespace())["errors"]
    assert min(error for name, error in errors.items() if name.startswith("bfloat16")) > gpu_check._ERRORS["bfloat16"]


def test_a_card_without_bf16_is_checked_in_what_it_has(monkeypatch: pytest.MonkeyPatch, on_the_cpu: None) -> None:
    """Guards against kernels that a Turing card does not have, which would end its check."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(gpu, "_milliseconds", lambda function: 1.0)
    assert list(gpu.attention_errors(argparse.Namespace())["errors"]) == [
        "float16, memory-efficient",
        "float32, memory-efficient",
    ]
    assert all(list(row) == ["memory-efficient"] for row in gpu.attention_times(argparse.Namespace())["times"].values())


def _rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, found: dict[str, Any] | Callable[..., dict[str, Any]]
) -> list[str]:
    """The last lines of the table, the last one first, of a step whose jobs end with ``found``, or what it returns."""

    def run_job(job: str, spec: argparse.Namespace, *args: object, **options: object) -> dict[str, Any]:
        if job == "bench.gpu:environment":
            return {"words": {}, "peak": 1.0, "has_bfloat16": False, "why_not_compiled": None}
        return found(spec) if callable(found) else found

    monkeypatch.setattr(process, "run_job", run_job)
    text = tmp_path / "text"
    check = gpu_check.Check(argparse.Namespace(out=tmp_path, src=text, tgt=text, model=None, only=step))
    check.run()
    return (tmp_path / "gpu-check.md").read_text(encoding="utf-8").splitlines()[-1:-7:-1]


def test_verdict_of_a_step_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a verdict "WRONG" for a card that is only small."""
    rows = _rows(tmp_path, monkeypatch, "steps", {"error": "OutOfMemoryError: out of memory at step 1"})
    assert all("skipped" in row and "out of memory" in row for row in rows)
    rows = _rows(tmp_path, monkeypatch, "steps", {"error": "RuntimeError: no kernel"})
    assert all("WRONG" in row for row in rows)


def test_verdict_of_a_step_that_has_no_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against steps that are called wrong because others took the 20 minutes."""
    monkeypatch.setattr(gpu_check, "_SECONDS", -1)
    rows = _rows(tmp_path, monkeypatch, "steps", {})
    assert all("skipped" in row and "20 minutes" in row for row in rows)


def test_break_even_of_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a table that ends the check where a card has one of the kernels only."""
    both = {
        "32": {"FlashAttention": 2.0, "memory-efficient": 1.0},
        "64": {"FlashAttention": 1.0, "memory-efficient": 2.0},
    }
    rows = _rows(tmp_path, monkeypatch, "attention-times", {"times": both, "flash_length": 64})
    assert "FlashAttention is faster from 64 tokens on" in rows[0]
    assert [row.split("taken: ")[1].split(" ")[0] for row in rows[1:3]] == ["FlashAttention", "memory-efficient"]
    one = {mean: {"memory-efficient": 1.0} for mean in both}
    rows = _rows(tmp_path, monkeypatch, "attention-times", {"times": one, "flash_length": 64})
    assert "FlashAttention is faster at none" in rows[0]
    assert all("taken: memory-efficient" in row and "ok" in row for row in rows[1:3])


@pytest.mark.parametrize(("auto", "verdict"), [(5.06, "WRONG"), (5.04, "ok"), (None, "WRONG")])
def test_losses_are_those_of_the_precision_that_the_card_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auto: float | None, verdict: str
) -> None:
    """Guards against bf16 on a card that lacks it, and a verdict that overlooks a difference, or a loss of NaN."""
    losses = {("cpu", "fp32"): 5.0, ("cuda", "fp32"): 5.0, ("cuda", "auto"): auto}
    found = _rows(
        tmp_path, monkeypatch, "losses", lambda spec: {"losses": [6.0, losses.pop((spec.device, spec.precision))]}
    )
    assert [row.split(" | ")[0].strip("| ") for row in found[:2]] == [
        "losses, precision auto",
        "losses, precision fp32",
    ]
    assert [row.split(" | ")[-1].strip("| ") for row in found[:2]] == [verdict, "ok"]


def test_tests_that_cannot_run_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a verdict "WRONG" for a package or a kind of number that is missing."""
    assert "skipped" in _rows(tmp_path, monkeypatch, "tests", {})[0]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "hypothesis" else object())
    assert "not installed: hypothesis | skipped" in _rows(tmp_path, monkeypatch, "tests", {})[0]
