"""The profile of a training step: its kernels (on the CPU: operators), what they are for, and when nothing ran.

It is taken in a real run of this package. After the warm-up come three times the steps that are asked for: as they are;
on CUDA one by one, each begun when the device has nothing to do, to know what the host needs for a step; and under the
profiler.
"""

from __future__ import annotations

import re
import statistics
import time
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity

from bench import process
from bench.ours import train
from bench.process import checked, synchronise
from bench.report import table
from bench.workload import changed, training_spec
from seq2seq.config import TrainConfig
from seq2seq.data.loader import Step, load_steps

# What a kernel or operator is for, by its name; the first pattern that is found in it says so.
_GROUPS = {
    # Batched products occur in attention alone.
    "attention": r"flash|fmha|attention|attn|scaled_dot|\bbmm|baddbmm",
    # With clipping and the average of the weights: they work on lists of tensors, as nothing else does.
    "optimizer": r"multi_tensor_apply|_foreach_|fused_?adam|vector_norm|lerp",
    "matrix products": r"gemm|gemv|nvjet|cutlass|cublas|xmma|splitK|triton_tem|\b(add)?mm_?\b|matmul|linear\b",
    # The loss's passes over the logits; on the CPU the softmax of attention, too.
    "loss, softmax": r"softmax|amax|logsumexp|scatter_add|scatter_gather|aten::gather$|nll_loss|SmoothedCrossEntropy",
    # Casts are copies where nothing else is fused into them.
    "copies": r"Memcpy|Memset|CatArray|copy_kernel|aten::(_to_copy|copy_|to|clone|cat|contiguous|fill_|zero_|zeros|"
    r"empty\w*)$|^triton_poi_fused_(_to_copy|_?(clone|view|t|transpose|permute|slice|cat|zeros|fill))+_\d+$",
    "norms, elementwise, dropout": r"elementwise|reduce_kernel|triton_|norm|dropout|random|relu|gelu|threshold"
    r"|aten::(add|mul|sub|div|sum|mean|bitwise\w*|ge|where|masked_fill)_?$",
}
_ELSE = "everything else"
_MOST = 25  # kernels in the table; the JSON file has all
_WIDTH = 90  # letters of their names
_NOISE = re.compile(r"^void |at::native::|\(anonymous namespace\)::|<unnamed>::|autograd::engine::evaluate_function: ")
_SYNCHRONISES = "called a synchronizing CUDA operation"  # how PyTorch warns of one
_Kernels = list[dict[str, Any]]  # name, group, and of a step: seconds, calls; the longest first


def group_of(name: str) -> str:
    """What a kernel or operator is for."""
    return next((group for group, pattern in _GROUPS.items() if re.search(pattern, name, re.IGNORECASE)), _ELSE)


def benchmark(options: Namespace) -> dict[str, Any]:
    """Measure and print the tables; returns what it measured for the JSON file."""
    # The folder of the training benchmark, which may have prepared the text; the average of the weights as users have.
    average = TrainConfig.model_fields["ema_decay"].default
    spec = training_spec(options, f"train-{options.size}", ema_decay=average)
    run = checked(process.run_job("bench.profile", spec, options.out / "jobs" / f"profile-{options.size}"), "failed")
    kernels: _Kernels = run["kernels"]
    print(
        f"{options.size} on {options.device}: {run['tgt_tokens'] / run['seconds']:,.0f} target tokens/s, "
        f"{run['tgt_tokens']:,.0f} per step; {options.steps} steps after {options.warmup}"
    )
    longest = [
        (f"{_NOISE.sub('', kernel['name']).replace('|', '/')[:_WIDTH]} ({kernel['group']})", [kernel])
        for kernel in kernels[:_MOST]
    ]
    groups = [(group, [k for k in kernels if k["group"] == group]) for group in [*_GROUPS, _ELSE]]
    for title, parts in (("kernel (group)", [*longest, ("others", kernels[_MOST:])]), ("group", groups)):
        print("", _kernel_table(title, [*parts, ("all", kernels)]), sep="\n")
    print("", table(("a step", "as it is", "under the profiler"), step_rows(run)), "", sep="\n")
    if run["epochs"] > 1:
        print(f"the text ended {run['epochs'] - 1} times, and to begin it anew takes time: give more, or lower --steps")
    for place, number in sorted((run["syncs"] or {}).items(), key=lambda item: -item[1]):
        print(f"waits for the device {number:g} times per step: {place}")
    return run


def _kernel_table(title: str, parts: list[tuple[str, _Kernels]]) -> str:
    """Time per step, share and calls of named kernels together; the last part is all of them."""
    sums = [[sum(kernel[key] for kernel in part) for key in ("seconds", "calls")] for _, part in parts]
    rows = [
        [name, f"{1000 * own:.3f}", f"{100 * own / sums[-1][0]:.1f} %", f"{calls:,.1f}"]
        for (name, _), (own, calls) in zip(parts, sums, strict=True)
    ]
    return table([title, "ms per step", "share", "calls per step"], rows)


def step_rows(run: dict[str, Any]) -> list[list[str]]:
    """How long a step takes and how much of it nothing ran, without the profiler and with it."""
    plain, profiled, busy = (1000 * run[f"{key}seconds"] for key in ("", "profiled_", "busy_"))
    rows = [
        ["wall time, ms", f"{plain:.3f}", f"{profiled:.3f}"],
        ["something ran, ms", "", f"{busy:.3f}"],
        ["idle, ms", f"{max(0.0, plain - busy):.3f}", f"{profiled - busy:.3f}"],
        ["idle, share", f"{max(0.0, 1 - busy / plain):.1%}", f"{1 - busy / profiled:.1%}"],
    ]
    if run["host_seconds"] is not None:
        rows.append(["host's own time, ms", f"{1000 * run['host_seconds']:.3f}", ""])
        rows.append(["host waits for the device, times", f"{sum(run['syncs'].values()):g}", ""])
    return rows


def run(spec: Namespace) -> dict[str, Any]:
    """Job: train for a few steps; all figures are per step."""
    result: dict[str, Any] = {"epochs": 0, "host_seconds": None, "syncs": None}
    labels: list[int] = []  # of each step
    phases = _phases(spec, result, labels)  # continues from one yield to the next, which stand for a step each
    next(phases)

    def probe(*args: Any, **options: Any) -> Iterator[Step]:
        result["epochs"] += 1
        for step in load_steps(*args, **options):
            labels.append(step.num_labels)
            yield step
            next(phases, None)

    steps = (3 if spec.device == "cuda" else 2) * spec.steps + 1  # the last step does not come back here
    train(changed(spec, steps=steps), Path(spec.folder) / f"run-{spec.started}", probe)
    return result


def _phases(spec: Namespace, result: dict[str, Any], labels: list[int]) -> Iterator[None]:
    cuda = spec.device == "cuda"
    for _ in range(spec.warmup):
        yield
    yield from _timed(spec, result, "seconds")
    result["tgt_tokens"] = sum(labels[spec.warmup :][: spec.steps]) / spec.steps
    if cuda:
        yield from measure_host(spec, result)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    # On the CPU the operators run in threads of the training's own.
    all_threads = None if cuda else _ExperimentalConfig(profile_all_threads=True)
    with torch.profiler.profile(activities=activities, experimental_config=all_threads) as profiler:
        yield from _timed(spec, result, "profiled_seconds")
    device = DeviceType.CUDA if cuda else DeviceType.CPU
    ran = [e for e in profiler.events() or () if e.device_type == device and not e.is_user_annotation]
    if not ran:
        raise RuntimeError("PyTorch's profiler recorded no kernels; may this user read the device's counters?")
    own, calls = Counter[str](), Counter(event.name for event in ran)
    for event in ran:  # less the operators inside it
        own[event.name] += event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
    result["kernels"] = [
        {"name": name, "group": group_of(name), "seconds": us / 1e6 / spec.steps, "calls": calls[name] / spec.steps}
        for name, us in own.most_common()
    ]
    spans = ((event.time_range.start, event.time_range.end) for event in ran)
    result["busy_seconds"] = busy_time(spans) / 1e6 / spec.steps


def _timed(spec: Namespace, result: dict[str, Any], name: str) -> Iterator[None]:
    synchronise(spec.device)
    started = time.perf_counter()
    for _ in range(spec.steps):
        yield
    synchronise(spec.device)
    result[name] = (time.perf_counter() - started) / spec.steps


def measure_host(spec: Namespace, result: dict[str, Any]) -> Iterator[None]:
    """What the host does for a step while the device waits for nothing else, and where it waits for the device."""
    seconds, places = [], Counter[str]()
    for _ in range(spec.steps):
        synchronise(spec.device)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            started = time.perf_counter()
            yield
            seconds.append(time.perf_counter() - started)
            torch.cuda.set_sync_debug_mode("default")
        places.update(f"{w.filename}:{w.lineno}" for w in caught if str(w.message).startswith(_SYNCHRONISES))
    result["host_seconds"] = statistics.median(seconds)
    result["syncs"] = {place: number / spec.steps for place, number in places.items()}


def busy_time(spans: Iterable[tuple[float, float]]) -> float:
    """The time in which something ran, from begins and ends; what ran at the same time counts once."""
    busy, last = 0.0, float("-inf")
    for begin, end in sorted(spans):
        busy += max(0.0, end - max(begin, last))
        last = max(last, end)
    return busy
