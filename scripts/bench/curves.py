"""The losses of one and the same run in other number formats, step by step: same seed, data and config.

A format that computes something else shows in the first steps; a leak shows as memory that grows during a run.
Without dropout, as its masks may come from other random numbers where something else is compiled.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from typing import Any

from bench import process
from bench.process import checked, usage
from bench.report import draw_losses, table
from bench.workload import changed, training_spec

EAGER = "eager"
VARIANTS: dict[str, dict[str, Any]] = {  # what a run's spec says
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    EAGER: {"precision": "bf16", "compiled": False},
}
_SPAN = 100  # steps at the start and at the end that are looked at by themselves


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
    spec = training_spec(options, f"train-{options.size}", steps=measured, dropout=options.dropout)
    # By itself, so that the memory it takes is not that of the first variant's training.
    prepared = checked(process.run_job("bench.data:build", spec, jobs), "the text could not be prepared")
    runs: list[tuple[str, dict[str, Any]]] = []
    problems: list[str] = []
    for variant in options.variants:
        run = process.run_job("bench.ours", changed(spec, **VARIANTS[variant]), jobs)
        runs.append((variant, run))
        said = "failed" if "error" in run else f"{run['seconds'] / measured:.3f} s per step, {run['left_out']} left out"
        print(f"{variant}: {said}{usage(run)}", flush=True)
        if "error" in run:
            problems.append(f"{variant}: failed: {run['error']}")
        elif None in run["losses"]:
            problems.append(f"{variant}: the loss of step {run['losses'].index(None) + 1} is not finite")
    whole = [(variant, run) for variant, run in runs if None not in run.get("losses", [None])]
    rows = _summarise(whole, measured) if whole else [[]]
    if whole:
        print(f"\n{table(rows[0], rows[1:])}\n")
        title = f"{options.size} Transformer, {options.device}, {prepared['pairs']:,} pairs"
        draw_losses(options.out / f"curves-{options.size}.png", title, [(name, run["losses"]) for name, run in whole])
    return {"runs": runs, "table": rows, "problems": problems}


def _summarise(whole: list[tuple[str, dict[str, Any]]], measured: int) -> list[list[str]]:
    """The table, with a column for each run; all differences are to the first run."""
    names, runs = zip(*whole, strict=True)
    first = runs[0]["losses"]
    span = min(_SPAN, len(first))
    rows = [["losses", *names], ["seconds per step", *(f"{run['seconds'] / measured:.3f}" for run in runs)]]
    parts = {f"first {span} steps": slice(span), "all steps": slice(None), f"last {span} steps": slice(-span, None)}
    for where, part in parts.items():
        rows.append([f"mean loss, {where}", *(f"{statistics.mean(run['losses'][part]):.4f}" for run in runs)])
        apart = [[abs(a - b) for a, b in zip(run["losses"], first, strict=True)][part] for run in runs[1:]]
        for kind, of in (("largest", max), ("mean", statistics.mean)):
            rows.append([f"{kind} difference to {names[0]}, {where}", "", *(f"{of(values):.2g}" for values in apart)])
    for after, key in (("a tenth of the steps", "early_peak_bytes"), ("all", "peak_bytes")):
        rows.append([f"peak memory after {after}, MiB", *(f"{run[key] / 2**20:,.0f}" for run in runs)])
    return rows
