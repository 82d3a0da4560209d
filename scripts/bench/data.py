"""The data benchmark: building tokenizer and corpus, opening them again, planning an epoch, and waiting for batches."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.load import usage
from bench.machine import describe
from bench.options import Options
from bench.process import run_job
from bench.report import Bar, Spread, draw_bars, table
from bench.workload import TrainSpec

_PLANNED_PAIRS = 1_000_000
_HEADER = ("data", "seconds", "", "memory MiB")


def benchmark(options: Options) -> dict[str, Any]:
    """Measure, print the table and draw the picture; returns everything for the JSON file."""
    jobs = options.out / "jobs" / "data"
    spec = TrainSpec.of(options, "data")
    work = Path(spec.folder)
    stages: dict[str, list[dict[str, Any]]] = {"build": [], "open": [], "plan": [], "train": []}
    for number in range(1, options.rounds + 1):
        shutil.rmtree(work, ignore_errors=True)  # build from nothing
        work.mkdir(parents=True)
        for stage in ("build", "open", "plan"):
            values = {**asdict(spec), "stage": stage, "planned_pairs": _PLANNED_PAIRS}
            stages[stage].append(
                _checked(run_job("bench.data_job", values, jobs, options.threads, watch_children=True))
            )
        _checked(run_job("bench.prepare", asdict(spec), jobs, options.threads))
        stages["train"].append(_checked(run_job("bench.ours", asdict(spec), jobs, options.threads)))
        print(
            f"round {number}: built in {stages['build'][-1]['seconds']:.1f} s{usage(stages['build'][-1])}", flush=True
        )
    rows = _rows(stages)
    pairs, size = stages["build"][0]["pairs"], stages["build"][0]["text_bytes"]
    print(f"\n{pairs:,} pairs, {size / 1e6:.1f} MB of text\n\n{table(_HEADER, rows)}\n")
    seconds = {stage: Spread.of([run["seconds"] for run in stages[stage]]) for stage in ("build", "open", "plan")}
    bars = [Bar(stage, spread, ours=True) for stage, spread in seconds.items()]
    if not draw_bars(options.out / f"data-{options.size}.png", "Preparing data", "seconds", bars):
        print("no picture: pip install matplotlib")
    return {"machine": describe(options.device), "spec": asdict(spec), "stages": stages, "table": rows}


def _checked(run: dict[str, Any]) -> dict[str, Any]:
    if "error" in run:
        raise SystemExit(f"failed: {run['error']}")
    return run


def _rows(stages: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    def seconds(stage: str, digits: int) -> str:
        return Spread.of([run["seconds"] for run in stages[stage]]).show(digits=digits)

    def memory(stage: str) -> str:
        return Spread.of([run["peak_tree_bytes"] for run in stages[stage]]).show(2**20)

    speed = Spread.of([run["text_bytes"] / run["seconds"] for run in stages["build"]]).show(1e6, 2)
    waits = Spread.of([run["wait_seconds"] / run["seconds"] for run in stages["train"]]).show(0.01, 2)
    return [
        ["tokenizer and corpus from text", seconds("build", 2), f"{speed} MB/s", memory("build")],
        ["opening them again", seconds("open", 3), "text checked against its fingerprint", memory("open")],
        ["planning an epoch", seconds("plan", 2), f"{_PLANNED_PAIRS:,} pairs", memory("plan")],
        ["waiting for batches while training", "", f"{waits} % of a step", ""],
    ]
