"""Job: a real training run of this package, read from its own log.

Everything that training does is in it: loading, dropout, clipping, the optimizer, and the metrics files.
Validation and saving come after the last step and are not measured.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench import workload
from bench.meter import peak_memory_bytes, versions
from bench.workload import SHAPES, TrainSpec
from seq2seq import __version__
from seq2seq.config import Config, TextFiles
from seq2seq.data.formats.pairs import read_pairs
from seq2seq.data.loader import Step, load_steps
from seq2seq.device import choose_device
from seq2seq.train.distributed import Processes
from seq2seq.train.trainer import Trainer


def make_config(spec: TrainSpec, run_dir: Path) -> Config:
    """The workload as a config of this package; defaults where the workload says nothing."""
    layers, d_model, d_ff, heads = SHAPES[spec.size]
    num_steps = spec.warmup + spec.steps
    valid_src, valid_tgt = _valid_files(spec)
    return Config.model_validate(
        {
            "run_dir": run_dir,
            "seed": workload.SEED,
            "data": {
                "train": {"src": spec.src, "tgt": spec.tgt},
                "valid": {"src": valid_src, "tgt": valid_tgt},
                "max_length": workload.MAX_LENGTH,
                "cache_dir": Path(spec.folder) / "cache",
            },
            "tokenizer": {"kind": "bpe", "vocab_size": spec.vocab_size},
            "model": {
                "encoder_layers": layers,
                "decoder_layers": layers,
                "d_model": d_model,
                "d_ff": d_ff,
                "num_heads": heads,
                "dropout": spec.dropout,
                "norm_position": spec.norm_position,
            },
            "optim": {
                "lr": workload.LEARNING_RATE,
                "betas": workload.BETAS,
                "eps": workload.EPS,
                "warmup_steps": min(
                    workload.WARMUP_STEPS, num_steps - 1
                ),  # a bound of the config; speed does not depend on it
                "clip_norm": workload.CLIP_NORM,
            },
            "train": {
                "batch_tokens": spec.batch_tokens,
                "label_smoothing": workload.LABEL_SMOOTHING,
                "ema_decay": spec.ema_decay,
                "max_steps": num_steps,
                "validate_every": 10 * num_steps,
                "save_every": 10 * num_steps,
                "device": spec.device,
                "precision": spec.precision,
                "threads": spec.threads,
            },
            "decode": {"beam_size": 1, "max_length_ratio": 1.0, "max_length_offset": 0},
        }
    )


def _valid_files(spec: TrainSpec) -> tuple[Path, Path]:
    """The first few pairs: a run wants validation text, and validates once when it is over."""
    src_path, tgt_path = Path(spec.folder) / "valid.src", Path(spec.folder) / "valid.tgt"
    if not (src_path.is_file() and tgt_path.is_file()):
        pairs = read_pairs(TextFiles.model_validate({"src": spec.src, "tgt": spec.tgt}))
        first = [next(pairs) for _ in range(4)]
        src_path.write_text("".join(f"{pair.src}\n" for pair in first), encoding="utf-8")
        tgt_path.write_text("".join(f"{pair.tgt}\n" for pair in first), encoding="utf-8")
    return src_path, tgt_path


class _Probe:
    """Stands between the loader and the training: what is in a step, how long is it waited for, when is it done?"""

    def __init__(self, load_steps: Callable[..., Iterator[Step]], spec: TrainSpec) -> None:
        self._load_steps, self._device = load_steps, spec.device
        self._tenth = max(1, (spec.warmup + spec.steps) // 10)
        self.waits: list[float] = []  # seconds, of each step
        self.tokens: list[tuple[int, int, int]] = []  # of each step: source, target, and both with filling
        self.first_step_done: float | None = None
        self.early_peak_bytes = self.peak_bytes = 0  # after a tenth of the steps, and after all

    def __call__(self, *args: Any, **options: Any) -> Iterator[Step]:
        steps = self._load_steps(*args, **options)
        try:
            while True:
                started = time.perf_counter()
                step = next(steps, None)
                self.waits.append(time.perf_counter() - started)
                if step is None:
                    return
                computed = sum(batch.src.ids.numel() + batch.tgt.ids.numel() for batch in step.batches)
                self.tokens.append((step.num_src, step.num_labels, computed))
                yield step
                self.first_step_done = self.first_step_done or time.time()
                if len(self.tokens) == self._tenth:
                    self.early_peak_bytes = peak_memory_bytes(self._device)
        finally:  # before validation and saving
            self.peak_bytes = peak_memory_bytes(self._device)


def train(spec: TrainSpec, run_dir: Path, probe: Callable[..., Iterator[Step]]) -> Trainer:
    """A whole run of the real trainer, whose steps come through ``probe``, called as ``load_steps`` is."""
    module = Trainer.__module__
    with ExitStack() as changed:
        changed.enter_context(mock.patch(f"{module}.load_steps", probe))
        if not spec.compiled:
            changed.enter_context(torch.compiler.set_stance("force_eager"))
        training = Trainer(make_config(spec, run_dir), Processes(0, 1, choose_device(spec.device)))
        training.run()
    return training


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train for a few steps."""
    started = values.pop("started")
    spec = TrainSpec(**values)
    run_dir = Path(spec.folder) / f"run-{started}"
    probe = _Probe(load_steps, spec)
    training = train(spec, run_dir, probe)
    timing = [r for r in _records(run_dir / "timing.jsonl") if "seconds" in r and r["step"] > spec.warmup]
    trained = [r for r in _records(run_dir / "metrics.jsonl") if "loss" in r]
    num_src, num_tgt, computed = map(sum, zip(*probe.tokens[spec.warmup :], strict=True))
    assert probe.first_step_done is not None
    return {
        "seconds": sum(record["seconds"] for record in timing),
        "step_seconds": [record["seconds"] for record in timing],
        "wait_seconds": sum(probe.waits[spec.warmup :]),
        "startup_seconds": probe.first_step_done - started,
        "peak_bytes": probe.peak_bytes,
        "early_peak_bytes": probe.early_peak_bytes,
        "src_tokens": num_src,
        "tgt_tokens": num_tgt,
        "fill": (num_src + num_tgt) / computed,  # packed: nothing but attention on the CPU sees padding
        "losses": [r["loss"] if math.isfinite(r["loss"]) else None for r in trained],  # of the warm-up, too
        "last_loss": trained[-1]["loss"],
        "left_out": sum("bad" in r for r in trained),  # steps that the guard kept from the weights
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "versions": {"seq2seq": __version__, **versions("torch")},
    }


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
