"""Job: where the time of a training step goes, in a real run of this package.

After the warm-up come three times as many steps as are asked for: as they are; on CUDA one by one, each begun when the
device has nothing to do, to know what the host needs for a step; and under the profiler.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity

from bench.meter import synchronise
from bench.ours import train
from bench.workload import TrainSpec
from seq2seq.data.loader import Step, load_steps

_SYNCHRONISES = "called a synchronizing CUDA operation"  # how PyTorch warns of one


class Phases:
    """Stands between the loader and the training, and acts between any two steps."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec = spec
        self._labels: list[int] = []  # of each step
        self.result: dict[str, Any] = {"epochs": 0, "host_seconds": None, "syncs": None}
        self._between = self._measure()  # continues from one yield to the next, which stand for a step each
        next(self._between)

    def __call__(self, *args: Any, **options: Any) -> Iterator[Step]:
        """Called as ``load_steps`` is."""
        self.result["epochs"] += 1
        for step in load_steps(*args, **options):
            self._labels.append(step.num_labels)
            yield step
            next(self._between, None)

    def _timed(self, name: str) -> Iterator[None]:
        synchronise(self._spec.device)
        started = time.perf_counter()
        for _ in range(self._spec.steps):
            yield
        synchronise(self._spec.device)
        self.result[name] = (time.perf_counter() - started) / self._spec.steps

    def _measure(self) -> Iterator[None]:
        spec, cuda = self._spec, self._spec.device == "cuda"
        for _ in range(spec.warmup):
            yield
        yield from self._timed("seconds")
        self.result["tgt_tokens"] = sum(self._labels[spec.warmup :][: spec.steps]) / spec.steps
        if cuda:
            yield from self.measure_host()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        # On the CPU the operators run in threads of the training's own.
        all_threads = None if cuda else _ExperimentalConfig(profile_all_threads=True)
        with torch.profiler.profile(activities=activities, experimental_config=all_threads) as profiler:
            yield from self._timed("profiled_seconds")
        device = DeviceType.CUDA if cuda else DeviceType.CPU
        ran = [e for e in profiler.events() or () if e.device_type == device and not e.is_user_annotation]
        if not ran:
            raise RuntimeError("PyTorch's profiler recorded no kernels; may this user read the device's counters?")
        own, calls = Counter[str](), Counter(event.name for event in ran)
        for event in ran:  # less the operators inside it
            own[event.name] += event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
        self.result["kernels"] = [
            {"name": name, "seconds": us / 1e6 / spec.steps, "calls": calls[name] / spec.steps}
            for name, us in own.most_common()
        ]
        spans = ((event.time_range.start, event.time_range.end) for event in ran)
        self.result["busy_seconds"] = busy_time(spans) / 1e6 / spec.steps

    def measure_host(self) -> Iterator[None]:
        """What the host does for a step while the device waits for nothing else, and where it waits for the device."""
        seconds, places = [], Counter[str]()
        for _ in range(self._spec.steps):
            synchronise(self._spec.device)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                started = time.perf_counter()
                yield
                seconds.append(time.perf_counter() - started)
                torch.cuda.set_sync_debug_mode("default")
            places.update(f"{w.filename}:{w.lineno}" for w in caught if str(w.message).startswith(_SYNCHRONISES))
        self.result["host_seconds"] = statistics.median(seconds)
        self.result["syncs"] = {place: number / self._spec.steps for place, number in places.items()}


def busy_time(spans: Iterable[tuple[float, float]]) -> float:
    """The time in which something ran, from begins and ends; what ran at the same time counts once."""
    busy, last = 0.0, float("-inf")
    for begin, end in sorted(spans):
        busy += max(0.0, end - max(begin, last))
        last = max(last, end)
    return busy


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train for a few steps; all figures are per step."""
    started = values.pop("started")
    spec = TrainSpec(**values)
    phases = Phases(spec)
    steps = (3 if spec.device == "cuda" else 2) * spec.steps + 1  # the last step does not come back here
    train(replace(spec, steps=steps), Path(spec.folder) / f"run-{started}", phases)
    return phases.result
