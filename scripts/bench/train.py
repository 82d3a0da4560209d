"""The training benchmark: steps of the same text by every program in turn, for several rounds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import peers
from bench.load import usage
from bench.machine import describe
from bench.options import Options, Program, choose
from bench.process import run_job
from bench.report import Bar, Spread, draw_bars, table
from bench.workload import SHAPES, TrainSpec
from seq2seq.model.flops import FlopsPerToken

OURS = Program("seq2seq", "seq2seq (this package)", "bench.ours", ours=True)
_HEADER = (
    "training",
    "target tokens/s",
    "all tokens/s",
    "GFLOP/s",
    "of peak",
    "fill",
    "memory MiB",
    "data wait",
    "start-up s",
)


def benchmark(options: Options) -> dict[str, Any]:
    """Measure, print the table and draw the picture; returns everything for the JSON file."""
    jobs = options.out / "jobs" / f"train-{options.size}"
    spec = TrainSpec.of(options, f"train-{options.size}")
    Path(spec.folder).mkdir(parents=True, exist_ok=True)
    work = run_job("bench.prepare", asdict(spec), jobs, options.threads)
    if "error" in work:
        raise SystemExit(f"the text could not be prepared: {work['error']}")
    print(
        f"{options.size}: {work['corpus_pairs']:,} pairs, {work['vocab_size']:,} pieces; measured are {options.steps} "
        f"steps after {options.warmup}",
        flush=True,
    )
    others, missing = choose(peers.NAMES, options.peers, "bench.peers")
    programs = [OURS, *others]
    rounds = []
    for number in range(1, options.rounds + 1):
        peak = measure_peak(options, jobs)
        runs = {}
        for program in programs:
            run = run_job(program.module, asdict(spec), jobs, options.threads)
            runs[program.name] = run
            said = run.get("error") or f"{run['tgt_tokens'] / run['seconds']:,.0f} target tokens/s"
            print(f"round {number}: {program.title}: {said}{usage(run)}", flush=True)
        rounds.append({"peak": peak, "runs": runs})
    rows, bars = summarise(programs, rounds, work)
    print(f"\n{table(_HEADER, rows)}\n")
    for line in missing:
        print(line)
    picture = options.out / f"train-{options.size}.png"
    title = f"Training, {options.size} Transformer, {options.device}, threads: {options.threads}"
    if bars and not draw_bars(picture, title, "real target tokens per second", bars):
        print("no picture: pip install matplotlib")
    return {"machine": describe(options.device), "spec": asdict(spec), "work": work, "rounds": rounds, "table": rows}


def measure_peak(options: Options, jobs: Path) -> dict[str, Any]:
    """What the machine can do at this moment."""
    _, d_model, d_ff, _ = SHAPES[options.size]
    values = {"device": options.device, "threads": options.threads, "d_model": d_model, "d_ff": d_ff}
    peak = run_job("bench.machine", values, jobs, options.threads)
    if "error" in peak:
        raise SystemExit(f"the machine's peak could not be measured: {peak['error']}")
    print(
        f"peak: {peak['matmul_flops'] / 1e9:,.0f} GFLOP/s in matrix products, "
        f"{peak['copy_bytes'] / 1e9:.1f} GB/s in memory copies{usage(peak)}",
        flush=True,
    )
    return peak


def summarise(
    programs: list[Program], rounds: list[dict[str, Any]], work: dict[str, Any]
) -> tuple[list[list[str]], list[Bar]]:
    """A row of the table and a bar for each program; one that failed says why in its row."""
    rows, bars = [], []
    flops = FlopsPerToken(*work["flops"])
    for program in programs:
        runs = [(r["runs"][program.name], r["peak"]) for r in rounds]
        failed = [run["error"] for run, _ in runs if "error" in run]
        if failed:
            rows.append([program.title, f"failed: {failed[0][:80]}", *[""] * (len(_HEADER) - 2)])
            continue
        speed = Spread.of([run["tgt_tokens"] / run["seconds"] for run, _ in runs])
        rates = [flops.total(run["src_tokens"], run["tgt_tokens"]) / run["seconds"] for run, _ in runs]
        rows.append(
            [
                program.title,
                speed.show(),
                Spread.of([(run["src_tokens"] + run["tgt_tokens"]) / run["seconds"] for run, _ in runs]).show(),
                Spread.of(rates).show(1e9),
                Spread.of([rate / peak["matmul_flops"] for rate, (_, peak) in zip(rates, runs, strict=True)]).show(0.01)
                + " %",
                f"{runs[0][0]['fill']:.3f}",
                Spread.of([run["peak_bytes"] for run, _ in runs]).show(2**20),
                Spread.of([run["wait_seconds"] / run["seconds"] for run, _ in runs]).show(0.01, 1) + " %",
                Spread.of([run["startup_seconds"] for run, _ in runs]).show(digits=1),
            ]
        )
        bars.append(Bar(program.title, speed, program.ours))
    return rows, bars
