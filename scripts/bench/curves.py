"""The losses of one and the same run in other number formats, step by step: same seed, data and config.

A format that computes something else shows in the first steps; a leak shows as memory that grows during a run.
Without dropout, as its masks may come from other random numbers where something else is compiled.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from dataclasses import asdict, replace
from typing import Any

from bench.meter import usage
from bench.process import checked, run_job
from bench.report import draw_losses, table
from bench.workload import TrainSpec

EAGER = "eager"
VARIANTS: dict[str, dict[str, Any]] = {  # what a run's spec says
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    EAGER: {"precision": "bf16", "compiled": False},
}
_SPAN = 100  # steps at the start and at the end that are looked at by themselves
_Runs = list[tuple[str, dict[str, Any]]]  # a variant's name, and the result of its job


def benchmark(options: Namespace) -> dict[str, Any]:
    """Train, print the table and draw the picture; returns what it measured for the JSON file.

    ``problems`` in it are lines about runs that failed or gave a loss that is no finite number.
    """
    if options.device == "cpu" and EAGER in options.variants:
        raise SystemExit(f"on the CPU nothing is compiled, so {EAGER} is bf16: leave it out of --variants")
    if (measured := options.steps - options.warmup) <= 0:
        stated = f"--steps ({options.steps}) must be more than --warmup ({options.warmup})"
        raise SystemExit(f"{stated}, which is part of them")
    jobs = options.out / "jobs" / f"curves-{options.size}"
    # The folder of the training benchmark, which may have prepared the text.
    spec = replace(TrainSpec.of(options, f"train-{options.size}"), steps=measured, dropout=options.dropout)
    # By itself, so that the memory it takes is not that of the first variant's training.
    prepared = checked(run_job("bench.data:build", spec, jobs), "the text could not be prepared")
    runs: _Runs = []
    for variant in options.variants:
        run = run_job("bench.ours", replace(spec, **VARIANTS[variant]), jobs)
        runs.append((variant, run))
        said = "failed" if "error" in run else f"{run['seconds'] / measured:.3f} s per step, {run['left_out']} left out"
        print(f"{variant}: {said}{usage(run)}", flush=True)
    problems = [f"{variant}: {problem}" for variant, run in runs if (problem := _problem(run))]
    whole = [(variant, run) for variant, run in runs if not _problem(run)]
    rows = _summarise(whole, measured) if whole else [[]]
    if whole:
        print(f"\n{table(rows[0], rows[1:])}\n")
        title = f"{options.size} Transformer, {options.device}, {prepared['pairs']:,} pairs"
        draw_losses(options.out / f"curves-{options.size}.png", title, [(name, run["losses"]) for name, run in whole])
    return {"spec": asdict(spec), "runs": runs, "table": rows, "problems": problems}


def _problem(run: dict[str, Any]) -> str | None:
    if "error" in run:
        return f"failed: {run['error']}"
    return f"the loss of step {run['losses'].index(None) + 1} is not finite" if None in run["losses"] else None


def _summarise(runs: _Runs, measured: int) -> list[list[str]]:
    """The table, with a column for each run; all differences are to the first run."""
    names, results = zip(*runs, strict=True)
    first = results[0]["losses"]
    span = min(_SPAN, len(first))
    rows = [["losses", *names], ["seconds per step", *(f"{run['seconds'] / measured:.3f}" for run in results)]]
    parts = {f"first {span} steps": slice(span), "all steps": slice(None), f"last {span} steps": slice(-span, None)}
    for where, part in parts.items():
        rows.append([f"mean loss, {where}", *(f"{statistics.mean(run['losses'][part]):.4f}" for run in results)])
        apart = [[abs(a - b) for a, b in zip(run["losses"], first, strict=True)][part] for run in results[1:]]
        for kind, of in (("largest", max), ("mean", statistics.mean)):
            rows.append([f"{kind} difference to {names[0]}, {where}", "", *(f"{of(values):.2g}" for values in apart)])
    for after, key in (("a tenth of the steps", "early_peak_bytes"), ("all", "peak_bytes")):
        rows.append([f"peak memory after {after}, MiB", *(f"{run[key] / 2**20:,.0f}" for run in results)])
    return rows
