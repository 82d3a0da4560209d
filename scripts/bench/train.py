"""The training benchmark: steps of the same text by every program in turn, for several rounds."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from bench import process
from bench.process import checked, usage
from bench.programs import PEERS, RECURRENT_PEERS, Program, choose
from bench.report import Bar, Spread, draw_bars, failure, table
from bench.workload import changed, training_spec
from seq2seq.model.flops import FlopsPerToken

_OURS = Program("seq2seq", "seq2seq (this package)", "bench.ours")
_HEADER = (
    *("training", "target tokens/s", "all tokens/s", "GFLOP/s", "of peak", "fill"),
    *("memory MiB", "data wait", "start-up s"),
)


def benchmark(options: Namespace) -> dict[str, Any]:
    """Measure, print the table and draw the picture; returns what it measured for the JSON file."""
    jobs = options.out / "jobs" / options.report
    spec = training_spec(options, options.report)
    work = checked(process.run_job("bench.data:steps", spec, jobs), "the text could not be prepared")
    spec = changed(spec, joint_pieces=work["vocab_size"])
    print(
        f"{options.size}: {work['corpus_pairs']:,} pairs, {work['vocab_size']:,} pieces; measured are {options.steps} "
        f"steps after {options.warmup}",
        flush=True,
    )
    others, missing = choose(RECURRENT_PEERS if options.architecture == "recurrent" else PEERS, options.peers)
    programs = [_OURS, *others]
    rounds = []
    for number in range(1, options.rounds + 1):
        peak = _measure_peak(spec, jobs)
        runs = {
            program.name: process.run_and_print(
                f"round {number}: {program.title}", program.job, spec, jobs, "tgt_tokens", "target tokens/s"
            )
            for program in programs
        }
        rounds.append({"peak": peak, "runs": runs})
    rows, bars = _summarise(programs, rounds, FlopsPerToken(*work["flops"]))
    print("", table(_HEADER, rows), "", *missing, sep="\n")
    model = "LSTM with attention" if options.architecture == "recurrent" else "Transformer"
    title = f"Training, {options.size} {model}, {options.device}, threads: {options.threads}"
    draw_bars(options.out / f"{options.report}.png", title, "real target tokens per second", bars)
    return {"work": work, "rounds": rounds, "table": rows}


def _measure_peak(spec: Namespace, jobs: Path) -> dict[str, Any]:
    """What the machine can do at this moment."""
    peak = checked(process.run_job("bench.machine", spec, jobs), "the machine's peak could not be measured")
    print(
        f"peak: {peak['matmul_flops'] / 1e9:,.0f} GFLOP/s in matrix products, "
        f"{peak['copy_bytes'] / 1e9:.1f} GB/s in memory copies{usage(peak)}",
        flush=True,
    )
    return peak


def _summarise(
    programs: list[Program], rounds: list[dict[str, Any]], flops: FlopsPerToken
) -> tuple[list[list[str]], list[Bar]]:
    """A row of the table and a bar for each program; the row of one that failed says why."""
    rows, bars = [], []
    for program in programs:
        runs = [one["runs"][program.name] for one in rounds]
        if failed := failure(runs):
            rows.append([program.title, failed, *[""] * (len(_HEADER) - 2)])
            continue
        speed = Spread.of([run["tgt_tokens"] / run["seconds"] for run in runs])
        rates = [flops.total(run["src_tokens"], run["tgt_tokens"]) / run["seconds"] for run in runs]
        shares = [rate / one["peak"]["matmul_flops"] for rate, one in zip(rates, rounds, strict=True)]
        rows.append(
            [
                program.title,
                speed.show(),
                Spread.of([(run["src_tokens"] + run["tgt_tokens"]) / run["seconds"] for run in runs]).show(),
                Spread.of(rates).show(1e9),
                f"{Spread.of(shares).show(0.01)} %",
                f"{runs[0]['fill']:.3f}",
                Spread.of([run["peak_bytes"] for run in runs]).show(2**20),
                f"{Spread.of([run['wait_seconds'] / run['seconds'] for run in runs]).show(0.01, 1)} %",
                Spread.of([run["startup_seconds"] for run in runs]).show(digits=1),
            ]
        )
        bars.append((program.title, speed, program.ours))
    return rows, bars
