"""Job: tokenizer, corpus and the sentence pairs of each step, made once for all programs of a training benchmark.

Ours takes the steps of its own plan, which are random mixtures of lengths. Peers pad, so they get what suits them:
steps of sentences of like lengths, as many, and from all over the lengths that there are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.ours import make_config
from bench.workload import SEED, StepPairs, TrainSpec, save_steps
from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.prepare import prepare_data
from seq2seq.model.flops import training_flops
from seq2seq.train.microbatches import split_step


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Prepare, and tell how much work a token is."""
    values.pop("started")
    spec = TrainSpec(**values)
    config = make_config(spec, Path(spec.folder) / "prepare")
    data = prepare_data(config, show_progress=False)
    corpus = data.train
    lengths = corpus.src_lengths, corpus.tgt_lengths
    plan = plan_epoch(*lengths, step_budgets(*lengths, spec.batch_tokens), SEED, 0)
    number = spec.warmup + spec.steps
    if plan.num_steps < number:
        return {"error": f"the text fills {plan.num_steps} steps only; lower --steps, or give more text"}
    src_lengths, tgt_lengths = (side[plan.order] for side in lengths)
    alike = split_step(plan.order, src_lengths, tgt_lengths, plan.num_steps, by_length=True)
    order = np.random.default_rng(SEED).permutation(number)
    steps = []
    for at in order:
        pairs = alike[(2 * at + 1) * plan.num_steps // (2 * number)]  # the middle one of each of `number` ranges
        steps.append(StepPairs([corpus.src(i).astype(int) for i in pairs], [corpus.tgt(i).astype(int) for i in pairs]))
    vocab_size = data.tokenizers.tgt.vocab_size
    save_steps(spec.steps_file, steps, vocab_size)
    flops = training_flops(config.model, vocab_size)
    return {
        "flops": [flops.src, flops.tgt],
        "vocab_size": vocab_size,
        "corpus_pairs": corpus.num_pairs,
        "steps_per_epoch": plan.num_steps,
        "model": config.model.model_dump(),
    }
