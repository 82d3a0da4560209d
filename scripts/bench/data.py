"""The data benchmark: building tokenizer and corpus, opening them again, planning an epoch, and waiting for batches."""

from __future__ import annotations

import shutil
from argparse import Namespace
from dataclasses import asdict
from typing import Any

from bench.meter import usage
from bench.prepare import PLANNED_PAIRS
from bench.process import checked, run_job
from bench.report import Bar, Spread, draw_bars, table
from bench.workload import TrainSpec

_HEADER = ("data", "seconds", "", "memory MiB")
_STAGES = ("build", "open", "plan")


def benchmark(options: Namespace) -> dict[str, Any]:
    """Measure, print the table and draw the picture; returns what it measured for the JSON file."""
    jobs = options.out / "jobs" / "data"
    stages: dict[str, list[dict[str, Any]]] = {stage: [] for stage in (*_STAGES, "train")}
    for number in range(1, options.rounds + 1):
        shutil.rmtree(options.out / "work" / "data", ignore_errors=True)  # build from nothing
        spec = TrainSpec.of(options, "data")
        for stage in _STAGES:
            run = run_job(f"bench.prepare:{stage}", spec, jobs, watch_children=True)
            stages[stage].append(checked(run, "failed"))
        stages["train"].append(checked(run_job("bench.ours", spec, jobs), "failed"))
        built = stages["build"][-1]
        print(f"round {number}: built in {built['seconds']:.1f} s{usage(built)}", flush=True)
    rows = _rows(stages)
    pairs, size = stages["build"][0]["pairs"], stages["build"][0]["text_bytes"]
    print(f"\n{pairs:,} pairs, {size / 1e6:.1f} MB of text\n\n{table(_HEADER, rows)}\n")
    bars = [Bar(stage, Spread.of([run["seconds"] for run in stages[stage]]), ours=True) for stage in _STAGES]
    draw_bars(options.out / f"data-{options.size}.png", "Preparing data", "seconds", bars)
    return {"spec": asdict(spec), "stages": stages, "table": rows}


def _rows(stages: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    speed = Spread.of([run["text_bytes"] / run["seconds"] for run in stages["build"]]).show(1e6, 2)
    waits = Spread.of([run["wait_seconds"] / run["seconds"] for run in stages["train"]]).show(0.01, 2)
    rows = []
    for stage, what, digits, comment in (
        ("build", "tokenizer and corpus from text", 2, f"{speed} MB/s"),
        ("open", "opening them again", 3, "text checked against its fingerprint"),
        ("plan", "planning an epoch", 2, f"{PLANNED_PAIRS:,} pairs"),
    ):
        seconds, memory = (Spread.of([run[key] for run in stages[stage]]) for key in ("seconds", "peak_tree_bytes"))
        rows.append([what, seconds.show(digits=digits), comment, memory.show(2**20)])
    return [*rows, ["waiting for batches while training", "", f"{waits} % of a step", ""]]
