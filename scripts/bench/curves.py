"""The losses of one and the same run in other number formats, step by step: same seed, data and config.

A format that computes something else shows in the first steps; a leak shows as memory that grows while a run goes on.
Without dropout, as its masks may come from other random numbers where something else is compiled.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.load import usage
from bench.machine import describe
from bench.options import Options
from bench.process import run_job
from bench.report import draw_losses, table
from bench.workload import TrainSpec

EAGER = "eager"
VARIANTS: dict[str, dict[str, Any]] = {  # what a run's spec says
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    EAGER: {"precision": "bf16", "compiled": False},
}
_SPAN = 100  # steps at the start and at the end that are looked at by themselves
_Run = tuple[str, dict[str, Any]]  # a variant's name, and what its job told


def benchmark(options: Options) -> dict[str, Any]:
    """Train, print the table and draw the picture; returns everything for the JSON file.

    ``problems`` in it are lines about runs that failed or gave a loss that is no finite number.
    """
    if options.device == "cpu" and EAGER in options.variants:
        raise SystemExit(f"on the CPU nothing is compiled, so {EAGER} is bf16: leave it out of --variants")
    if options.steps <= options.warmup:
        raise SystemExit(
            f"--steps ({options.steps}) must be more than --warmup ({options.warmup}), which is part of them"
        )
    jobs = options.out / "jobs" / f"curves-{options.size}"
    spec = TrainSpec.of(options, f"train-{options.size}")  # where the training benchmark may have prepared the text
    spec = replace(spec, steps=options.steps - options.warmup, dropout=options.dropout)
    Path(spec.folder).mkdir(parents=True, exist_ok=True)
    # By itself, so that the memory it takes is not that of the first variant's training.
    prepared = run_job("bench.data_job", {**asdict(spec), "stage": "build", "planned_pairs": 0}, jobs, options.threads)
    if "error" in prepared:
        raise SystemExit(f"the text could not be prepared: {prepared['error']}")
    runs: list[_Run] = []
    for variant in options.variants:
        run = run_job("bench.ours", asdict(replace(spec, **VARIANTS[variant])), jobs, options.threads)
        runs.append((variant, run))
        said = (
            "failed" if "error" in run else f"{run['seconds'] / spec.steps:.3f} s per step, {run['left_out']} left out"
        )
        print(f"{variant}: {said}{usage(run)}", flush=True)
    problems = [problem for problem in (_problem(*run) for run in runs) if problem]
    whole = [run for run in runs if _problem(*run) is None]
    rows = _summarise(whole, spec.steps) if whole else [[]]
    if whole:
        print(f"\n{table(rows[0], rows[1:])}\n")
        losses = [(variant, run["losses"]) for variant, run in whole]
        title = f"{options.size} Transformer, {options.device}, {prepared['pairs']:,} pairs"
        if not draw_losses(options.out / f"curves-{options.size}.png", title, losses):
            print("no picture: pip install matplotlib")
    report = {"machine": describe(options.device), "spec": asdict(spec), "runs": runs, "table": rows}
    return {**report, "problems": problems}


def _problem(variant: str, run: dict[str, Any]) -> str | None:
    """What is wrong with a run, if anything."""
    if "error" in run:
        return f"{variant}: failed: {run['error']}"
    if None in run["losses"]:
        return f"{variant}: the loss of step {run['losses'].index(None) + 1} is not finite"
    return None


def _summarise(runs: list[_Run], steps: int) -> list[list[str]]:
    """The table, with a column for each run; all differences are to the first run."""
    name, first = runs[0][0], runs[0][1]["losses"]
    span = min(_SPAN, len(first))
    parts = {f"first {span} steps": slice(span), "all steps": slice(None), f"last {span} steps": slice(-span, None)}
    rows: dict[str, list[str]] = {"losses": [variant for variant, _ in runs]}
    rows["seconds per step"] = [f"{run['seconds'] / steps:.3f}" for _, run in runs]
    for where, part in parts.items():
        rows[f"mean loss, {where}"] = [f"{statistics.mean(run['losses'][part]):.4f}" for _, run in runs]
        apart = [[abs(a - b) for a, b in zip(run["losses"], first, strict=True)][part] for _, run in runs[1:]]
        for kind, of in (("largest", max), ("mean", statistics.mean)):
            rows[f"{kind} difference to {name}, {where}"] = ["", *(f"{of(values):.2g}" for values in apart)]
    for after, key in (("a tenth of the steps", "early_peak_bytes"), ("all", "peak_bytes")):
        rows[f"peak memory after {after}, MiB"] = [f"{run[key] / 2**20:,.0f}" for _, run in runs]
    return [[title, *cells] for title, cells in rows.items()]
