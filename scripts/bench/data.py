"""The data benchmark: building tokenizer and corpus, opening them again, planning an epoch, and waiting for batches.

Its jobs use the package's own functions. Another job prepares the training of all programs. Ours takes the steps of its
own plan, which are random mixtures of lengths. Peers pad, so they get what suits them: the same number of steps, each
of sentences of similar lengths, from all over the lengths that there are.
"""

from __future__ import annotations

import shutil
import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.meter import usage
from bench.ours import make_config
from bench.process import checked, run_job
from bench.report import Bar, Spread, draw_bars, table
from bench.workload import SEED, StepPairs, TrainSpec, save_steps
from seq2seq.config import ModelConfig
from seq2seq.data.corpus_writer import SIDES
from seq2seq.data.formats.lines import read_lines
from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.prepare import PreparedData, prepare_data
from seq2seq.model.flops import training_flops
from seq2seq.train.microbatches import split_step

_PLANNED_PAIRS = 1_000_000
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
            run = run_job(f"bench.data:{stage}", spec, jobs, watch_children=True)
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
        ("plan", "planning an epoch", 2, f"{_PLANNED_PAIRS:,} pairs"),
    ):
        seconds, memory = (Spread.of([run[key] for run in stages[stage]]) for key in ("seconds", "peak_tree_bytes"))
        rows.append([what, seconds.show(digits=digits), comment, memory.show(2**20)])
    return [*rows, ["waiting for batches while training", "", f"{waits} % of a step", ""]]


def run(values: dict[str, Any], stage: str) -> dict[str, Any]:
    """Job: ``build`` makes tokenizer and corpus, ``open`` finds them made, ``plan`` orders an epoch of many pairs.

    ``steps`` writes the pairs of each step for the peers, and returns how much work a token is.
    """
    spec = TrainSpec(**values)
    config = make_config(spec, Path(spec.folder) / "run")
    started = time.perf_counter()
    data = prepare_data(config, show_progress=False)
    seconds = time.perf_counter() - started
    if stage == "steps":
        return _write_steps(spec, data, config.model)
    if stage == "plan":
        lengths = (data.train.src_lengths, data.train.tgt_lengths)
        src, tgt = (np.resize(side, _PLANNED_PAIRS) for side in lengths)  # the corpus over and over
        started = time.perf_counter()
        plan_epoch(src, tgt, step_budgets(src, tgt, spec.batch_tokens), SEED, 0)
        seconds = time.perf_counter() - started
    text_bytes = sum(len(line) + 1 for path in (*spec.src, *spec.tgt) for line in read_lines(Path(path)))
    return {"seconds": seconds, "pairs": data.train.num_pairs, "text_bytes": text_bytes}


def _write_steps(spec: TrainSpec, data: PreparedData, model: ModelConfig) -> dict[str, Any]:
    corpus = data.train
    lengths = corpus.src_lengths, corpus.tgt_lengths
    plan = plan_epoch(*lengths, step_budgets(*lengths, spec.batch_tokens), SEED, 0)
    number = spec.warmup + spec.steps
    if plan.num_steps < number:
        return {"error": f"the text fills {plan.num_steps} steps only; lower --steps, or give more text"}
    src_lengths, tgt_lengths = (side[plan.order] for side in lengths)
    alike = split_step(plan.order, src_lengths, tgt_lengths, plan.num_steps, by_length=True)
    steps = []
    for at in np.random.default_rng(SEED).permutation(number):
        pairs = alike[(2 * at + 1) * plan.num_steps // (2 * number)]  # the middle one of each of `number` ranges
        src, tgt = ([corpus.sentence(side, i).astype(int) for i in pairs] for side in SIDES)
        steps.append(StepPairs(src, tgt))
    vocab_size = data.tokenizers.tgt.vocab_size
    save_steps(spec.steps_file, steps, vocab_size)
    flops = training_flops(model, vocab_size)
    return {
        "flops": [flops.src, flops.tgt],
        "vocab_size": vocab_size,
        "corpus_pairs": corpus.num_pairs,
        "steps_per_epoch": plan.num_steps,
        "model": model.model_dump(),
    }
