"""The data benchmark: building tokenizer and corpus, opening them again, planning an epoch, and waiting for batches.

Its jobs use the package's own functions. Another job prepares the training of all programs. Ours takes the steps of its
own plan, which are random mixtures of lengths. Peers pad, so they get what suits them: the same number of steps, each
of sentences of similar lengths, from all over the lengths that there are.
"""

from __future__ import annotations

import pickle
import shutil
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from bench import process
from bench.ours import make_config
from bench.process import checked, usage
from bench.report import Spread, draw_bars, table
from bench.workload import SEED, StepPairs, training_spec
from seq2seq.config import ModelConfig, RecurrentConfig
from seq2seq.data.corpus_writer import SIDES
from seq2seq.data.formats.lines import read_lines
from seq2seq.data.packed import Indices
from seq2seq.data.plan import Lengths, plan_epoch, step_budgets
from seq2seq.data.prepare import PreparedData, prepare_data
from seq2seq.model.flops import training_flops
from seq2seq.train.microbatches import split_step

_PLANNED_PAIRS = 1_000_000
_HEADER = ("data", "seconds", "", "memory MiB")
_STAGES = {  # of the job: what it does, and digits of its seconds
    "build": ("tokenizer and corpus from text", 2),
    "open": ("opening them again", 3),
    "plan": ("planning an epoch", 2),
}


def benchmark(options: Namespace) -> dict[str, Any]:
    """Measure, print the table and draw the picture; returns what it measured for the JSON file."""
    jobs = options.out / "jobs" / "data"
    stages: dict[str, list[dict[str, Any]]] = {stage: [] for stage in (*_STAGES, "train")}
    for number in range(1, options.rounds + 1):
        shutil.rmtree(options.out / "work" / "data", ignore_errors=True)  # build from nothing
        spec = training_spec(options, "data")
        for stage in _STAGES:
            run = process.run_job(f"bench.data:{stage}", spec, jobs, watch_children=True)
            stages[stage].append(checked(run, "failed"))
        stages["train"].append(checked(process.run_job("bench.ours", spec, jobs), "failed"))
        built = stages["build"][-1]
        print(f"round {number}: built in {built['seconds']:.1f} s{usage(built)}", flush=True)
    speed = Spread.of([run["text_bytes"] / run["seconds"] for run in stages["build"]]).show(1e6, 2)
    waits = Spread.of([run["wait_seconds"] / run["seconds"] for run in stages["train"]]).show(0.01, 2)
    comments = (f"{speed} MB/s", "text checked against its fingerprint", f"{_PLANNED_PAIRS:,} pairs")
    rows, bars = [], []
    for (stage, (what, digits)), comment in zip(_STAGES.items(), comments, strict=True):
        seconds, memory = (Spread.of([run[key] for run in stages[stage]]) for key in ("seconds", "peak_tree_bytes"))
        rows.append([what, seconds.show(digits=digits), comment, memory.show(2**20)])
        bars.append((stage, seconds, True))
    rows.append(["waiting for batches while training", "", f"{waits} % of a step", ""])
    pairs, size = stages["build"][0]["pairs"], stages["build"][0]["text_bytes"]
    print(f"\n{pairs:,} pairs, {size / 1e6:.1f} MB of text\n\n{table(_HEADER, rows)}\n")
    draw_bars(options.out / f"data-{options.size}.png", "Preparing data", "seconds", bars)
    return {"stages": stages, "table": rows}


def run(spec: Namespace, stage: str) -> dict[str, Any]:
    """Job: ``build`` makes tokenizer and corpus, ``open`` finds them made, ``plan`` orders an epoch of many pairs.

    ``steps`` writes the pairs of each step for the peers, and returns how much work a token is.
    """
    config = make_config(spec, Path(spec.folder) / "run")
    started = time.perf_counter()
    data = prepare_data(config, show_progress=False)
    seconds = time.perf_counter() - started
    if stage == "steps":
        assert isinstance(config.model, (ModelConfig, RecurrentConfig))
        return _write_steps(spec, data, config.model)
    if stage == "plan":
        lengths = (data.train.src_lengths, data.train.tgt_lengths)
        src, tgt = (np.resize(side, _PLANNED_PAIRS) for side in lengths)  # the corpus over and over
        started = time.perf_counter()
        plan_epoch(src, tgt, step_budgets(src, tgt, spec.batch_tokens), SEED, 0)
        seconds = time.perf_counter() - started
    text_bytes = sum(len(line) + 1 for path in (*spec.src, *spec.tgt) for line in read_lines(Path(path)))
    return {"seconds": seconds, "pairs": data.train.num_pairs, "text_bytes": text_bytes}


def steps_of_like_lengths(src: Lengths, tgt: Lengths, batch_tokens: int, epoch: int) -> list[Indices]:
    """The steps of an epoch for programs that pad: each of pairs of similar lengths, the shortest first.

    There are as many of them as ours would make; pairs of equal lengths come together in a new way in each epoch.
    """
    plan = plan_epoch(src, tgt, step_budgets(src, tgt, batch_tokens), SEED, epoch)
    return split_step(plan.order, src[plan.order], tgt[plan.order], plan.num_steps, by_length=True)


def _write_steps(spec: Namespace, data: PreparedData, model: ModelConfig | RecurrentConfig) -> dict[str, Any]:
    corpus = data.train
    alike = steps_of_like_lengths(corpus.src_lengths, corpus.tgt_lengths, spec.batch_tokens, epoch=0)
    number = spec.warmup + spec.steps
    if len(alike) < number:
        return {"error": f"the text fills {len(alike)} steps only; lower --steps, or give more text"}
    steps = []
    for at in np.random.default_rng(SEED).permutation(number):
        pairs = alike[(2 * at + 1) * len(alike) // (2 * number)]  # the middle one of each of `number` ranges
        src, tgt = ([corpus.sentence(side, i).astype(int) for i in pairs] for side in SIDES)
        steps.append(StepPairs(src, tgt))
    (Path(spec.folder) / "steps.pickle").write_bytes(pickle.dumps(steps))
    vocab_size = data.tokenizers.tgt.vocab_size
    flops = training_flops(model, vocab_size)
    return {
        "flops": [flops.src, flops.tgt],
        "vocab_size": vocab_size,
        "corpus_pairs": corpus.num_pairs,
        "steps_per_epoch": len(alike),
        "model": model.model_dump(),
    }
