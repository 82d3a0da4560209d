"""Job: tokenizer, corpus and the sentence pairs of each step, made once for all programs of a training benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.ours import make_config
from bench.workload import SEED, StepPairs, TrainSpec, save_steps
from seq2seq.data.batching import plan_epoch
from seq2seq.data.prepare import prepare_data
from seq2seq.model.flops import training_flops


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Prepare, and tell how much work it is: tokens and operations of the measured steps."""
    values.pop("started")
    spec = TrainSpec(**values)
    config = make_config(spec, Path(spec.folder) / "prepare")
    data = prepare_data(config, show_progress=False)
    corpus = data.train
    plan = plan_epoch(corpus.src_lengths, corpus.tgt_lengths, spec.batch_tokens, SEED, 0)
    if plan.num_steps < spec.warmup + spec.steps:
        return {"error": f"the text fills {plan.num_steps} steps only; lower --steps, or give more text"}
    steps = []
    for index in range(spec.warmup + spec.steps):
        pairs = plan.step(index)
        steps.append(StepPairs([corpus.src(i).astype(int) for i in pairs], [corpus.tgt(i).astype(int) for i in pairs]))
    vocab_size = data.tokenizers.tgt.vocab_size
    save_steps(spec.steps_file, steps, vocab_size)
    measured = steps[spec.warmup :]
    num_src, num_tgt = sum(s.num_src for s in measured), sum(s.num_tgt for s in measured)
    return {
        "src_tokens": num_src,
        "tgt_tokens": num_tgt,
        "flops": training_flops(config.model, vocab_size).total(num_src, num_tgt),
        "pairs": sum(len(step.src) for step in measured),
        "vocab_size": vocab_size,
        "corpus_pairs": corpus.num_pairs,
        "steps_per_epoch": plan.num_steps,
        "model": config.model.model_dump(),
    }
