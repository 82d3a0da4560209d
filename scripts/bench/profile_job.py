"""Job: where the time of a training step goes, in a real run of this package.

After the warm-up come three times as many steps as are asked for: as they are, to know how long they take; on CUDA one
by one, each begun when the device has nothing to do, to know what the host needs for a step; and under the profiler.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity

from bench.meter import synchronise, versions
from bench.ours import train
from bench.workload import TrainSpec
from seq2seq import __version__
from seq2seq.data.loader import Step, load_steps

_SYNCHRONISES = "called a synchronizing CUDA operation"  # how PyTorch warns of one


@dataclass(frozen=True)
class Span:
    """One run of a kernel, on the CPU of an operator."""

    name: str
    begin: float  # seconds
    end: float
    own: float  # seconds less those of the operators inside it


class Phases:
    """Stands between the loader and the training, and acts between any two steps."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec = spec
        self._labels: list[int] = []  # of each step
        self.result: dict[str, Any] = {"epochs": 0, "host_seconds": None, "syncs": None}
        self._between = self._measure()  # goes on from one yield to the next, which stand for a step each
        next(self._between)

    def __call__(self, *args: Any, **options: Any) -> Iterator[Step]:
        """What ``load_steps`` gives, with its arguments."""
        self.result["epochs"] += 1
        for step in load_steps(*args, **options):
            self._labels.append(step.num_labels)
            yield step
            next(self._between, None)

    def _measure(self) -> Iterator[None]:
        spec, cuda = self._spec, self._spec.device == "cuda"
        for _ in range(spec.warmup):
            yield
        first = len(self._labels)
        synchronise(spec.device)
        started = time.perf_counter()
        for _ in range(spec.steps):
            yield
        synchronise(spec.device)
        self.result["seconds"] = (time.perf_counter() - started) / spec.steps
        self.result["tgt_tokens"] = sum(self._labels[first : first + spec.steps]) / spec.steps
        if cuda:
            yield from self.measure_host()
        profiler = torch.profiler.profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])],
            # On the CPU the operators run in threads of the training's own.
            experimental_config=None if cuda else _ExperimentalConfig(profile_all_threads=True),
        )
        profiler.start()
        started = time.perf_counter()
        for _ in range(spec.steps):
            yield
        synchronise(spec.device)
        self.result["profiled_seconds"] = (time.perf_counter() - started) / spec.steps
        profiler.stop()
        spans = list(_spans(profiler, DeviceType.CUDA if cuda else DeviceType.CPU))
        if not spans:
            raise RuntimeError("PyTorch's profiler recorded no kernels; may this user read the device's counters?")
        self.result |= {"busy_seconds": busy_seconds(spans) / spec.steps, "kernels": _kernels(spans, spec.steps)}

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


def _spans(profiler: torch.profiler.profile, device: DeviceType) -> Iterator[Span]:
    """What ran on the device; annotations only bracket it."""
    for event in profiler.events() or ():
        if event.device_type == device and not event.is_user_annotation:
            begin, end = event.time_range.start / 1e6, event.time_range.end / 1e6
            own = event.self_cpu_time_total / 1e6 if device == DeviceType.CPU else end - begin
            yield Span(event.name, begin, end, own)


def busy_seconds(spans: Iterable[Span]) -> float:
    """Seconds in which something ran; what ran at the same time counts once."""
    busy = 0.0
    last = float("-inf")
    for span in sorted(spans, key=lambda span: span.begin):
        busy += max(0.0, span.end - max(span.begin, last))
        last = max(last, span.end)
    return busy


def _kernels(spans: Iterable[Span], steps: int) -> list[dict[str, Any]]:
    """Seconds and calls per step of each, the longest first."""
    runs: dict[str, list[float]] = {}
    for span in spans:
        runs.setdefault(span.name, []).append(span.own)
    kernels = [{"name": name, "seconds": sum(own) / steps, "calls": len(own) / steps} for name, own in runs.items()]
    return sorted(kernels, key=lambda kernel: -kernel["seconds"])


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train for a few steps; all figures are per step."""
    started = values.pop("started")
    spec = TrainSpec(**values)
    phases = Phases(spec)
    rounds = 3 if spec.device == "cuda" else 2
    last = 1  # after the measured ones: training ends in its last step, which does not come back here
    training = train(replace(spec, steps=rounds * spec.steps + last), Path(spec.folder) / f"run-{started}", phases)
    return {
        **phases.result,
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "versions": {"seq2seq": __version__, **versions("torch")},
    }
