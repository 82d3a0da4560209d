"""The profile of a training step: its kernels (on the CPU: operators), what they are for, and when nothing ran."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.machine import describe
from bench.options import Options
from bench.process import run_job
from bench.report import table
from bench.workload import TrainSpec
from seq2seq.config import TrainConfig

# What a kernel or operator is for, by its name; the first pattern that is found in it says so.
_GROUPS = (
    # Batched products occur in attention alone.
    ("attention", r"flash|fmha|attention|attn|scaled_dot|\bbmm|baddbmm"),
    # With clipping and the average of the weights: they work on lists of tensors, as nothing else does.
    ("optimizer", r"multi_tensor_apply|_foreach_|fused_?adam|vector_norm|lerp"),
    ("matrix products", r"gemm|gemv|nvjet|cutlass|cublas|xmma|splitK|triton_tem|\b(add)?mm_?\b|matmul|linear\b"),
    # The loss's passes over the logits; on the CPU the softmax of attention, too.
    ("loss, softmax", r"softmax|amax|logsumexp|scatter_add|scatter_gather|aten::gather$|nll_loss|SmoothedCrossEntropy"),
    # Casts are copies where nothing else is fused into them.
    (
        "copies",
        r"Memcpy|Memset|CatArray|copy_kernel|aten::(_to_copy|copy_|to|clone|cat|contiguous|fill_|zero_|zeros|empty\w*)$"
        r"|^triton_poi_fused_(_to_copy|_?(clone|view|t|transpose|permute|slice|cat|zeros|fill))+_\d+$",
    ),
    (
        "norms, elementwise, dropout",
        r"elementwise|reduce_kernel|triton_|norm|dropout|random|relu|gelu|threshold"
        r"|aten::(add|mul|sub|div|sum|mean|bitwise\w*|ge|where|masked_fill)_?$",
    ),
)
_ELSE = "everything else"
_MOST = 25  # kernels in the table; the JSON file has all
_WIDTH = 90  # letters of their names
_NOISE = re.compile(r"^void |at::native::|\(anonymous namespace\)::|<unnamed>::|autograd::engine::evaluate_function: ")


def group_of(name: str) -> str:
    """What a kernel or operator is for."""
    return next((group for group, pattern in _GROUPS if re.search(pattern, name, re.IGNORECASE)), _ELSE)


def benchmark(options: Options) -> dict[str, Any]:
    """Measure and print the tables; returns everything for the JSON file."""
    spec = replace(
        TrainSpec.of(options, f"train-{options.size}"),  # where the training benchmark may have prepared the text
        ema_decay=TrainConfig.model_fields["ema_decay"].default,  # a step as users have it
    )
    Path(spec.folder).mkdir(parents=True, exist_ok=True)
    run = run_job("bench.profile_job", asdict(spec), options.out / "jobs" / f"profile-{options.size}", options.threads)
    if "error" in run:
        raise SystemExit(f"failed: {run['error']}")
    kernels = [{**kernel, "group": group_of(kernel["name"])} for kernel in run.pop("kernels")]
    print(
        f"{options.size} on {options.device}: {run['tgt_tokens'] / run['seconds']:,.0f} target tokens/s, "
        f"{run['tgt_tokens']:,.0f} per step; {options.steps} steps after {options.warmup}"
    )
    print(f"\n{table(*_kernel_table(kernels))}\n\n{table(*_group_table(kernels))}\n\n{table(*step_table(run))}\n")
    if run["epochs"] > 1:
        print(f"the text ended {run['epochs'] - 1} times, and to begin it anew takes time: give more, or lower --steps")
    for place, number in sorted((run["syncs"] or {}).items(), key=lambda item: -item[1]):
        print(f"waits for the device {number:g} times per step: {place}")
    return {"machine": describe(options.device), "spec": asdict(spec), **run, "kernels": kernels}


def _row(name: str, kernels: Sequence[dict[str, Any]], total: float) -> list[str]:
    """Time per step, share and calls of some kernels together."""
    seconds, calls = (sum(kernel[key] for kernel in kernels) for key in ("seconds", "calls"))
    return [name, f"{1000 * seconds:.3f}", f"{100 * seconds / total:.1f} %", f"{calls:,.1f}"]


def _kernel_table(kernels: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    total = sum(kernel["seconds"] for kernel in kernels)
    rows = []
    for kernel in kernels[:_MOST]:
        name = _NOISE.sub("", kernel["name"]).replace("|", "/")
        rows.append([*_row(name[:_WIDTH], [kernel], total), kernel["group"]])
    if rest := kernels[_MOST:]:
        rows.append([*_row(f"{len(rest)} others", rest, total), ""])
    return ["kernel", "ms per step", "share", "calls per step", "group"], rows


def _group_table(kernels: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    total = sum(kernel["seconds"] for kernel in kernels)
    rows = []
    for group in [*(group for group, _ in _GROUPS), _ELSE]:
        rows.append(_row(group, [kernel for kernel in kernels if kernel["group"] == group], total))
    return ["group", "ms per step", "share", "calls per step"], [*rows, _row("all", kernels, total)]


def step_table(run: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """How long a step takes and how much of it nothing ran, without the profiler and with it."""
    plain, profiled, busy = (1000 * run[f"{key}seconds"] for key in ("", "profiled_", "busy_"))
    rows = [
        ["wall time, ms", f"{plain:.3f}", f"{profiled:.3f}"],
        ["something ran, ms", "", f"{busy:.3f}"],
        ["idle, ms", f"{max(0.0, plain - busy):.3f}", f"{profiled - busy:.3f}"],
        ["idle, share", f"{max(0.0, 1 - busy / plain):.1%}", f"{1 - busy / profiled:.1%}"],
    ]
    if run["host_seconds"] is None:
        rows += [["host's own time, ms", "not applicable", ""], ["host waits for the device", "not applicable", ""]]
    else:
        rows += [
            ["host's own time, ms", f"{1000 * run['host_seconds']:.3f}", ""],
            ["host waits for the device, times", f"{sum(run['syncs'].values()):g}", ""],
        ]
    return ["a step", "as it is", "under the profiler"], rows
