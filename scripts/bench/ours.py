"""Job: a real training run of this package, read from its own log.

Everything that training does is in it: loading, dropout, clipping, the optimizer, and the metrics files.
Validation and saving come after the last step and are not measured.
"""

from __future__ import annotations

import json
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench import workload
from bench.process import peak_memory_bytes
from bench.workload import shape_of
from seq2seq.config import Config, TextFiles
from seq2seq.data.formats.pairs import read_pairs
from seq2seq.data.loader import Step, load_steps
from seq2seq.device import choose_device
from seq2seq.train import setup, trainer
from seq2seq.train.distributed import Processes


def make_config(spec: Namespace, run_dir: Path) -> Config:
    """The workload as a config of this package; defaults where the workload says nothing."""
    layers, d_model, d_ff, heads = shape_of(spec)
    shape = {"encoder_layers": layers, "decoder_layers": layers, "d_model": d_model, "dropout": spec.dropout}
    if spec.architecture == "recurrent":
        shape |= {"architecture": "recurrent", "cell": "lstm", "attention": "dot"}
    else:
        shape |= {"d_ff": d_ff, "num_heads": heads, "norm_position": "pre"}  # norms are where the peers have them
    num_steps = spec.warmup + spec.steps
    text = {"src": spec.src, "tgt": spec.tgt}
    never = 10 * num_steps
    return Config.model_validate(
        {
            "run_dir": run_dir,
            "seed": workload.SEED,
            "data": {
                "train": text,
                "valid": _valid_files(text, Path(spec.folder)),
                "max_length": workload.MAX_LENGTH,
                "cache_dir": Path(spec.folder) / "cache",
            },
            "tokenizer": {"kind": "bpe", "vocab_size": spec.vocab_size},
            "model": shape,
            "optim": {
                "lr": workload.LEARNING_RATE,
                "betas": workload.BETAS,
                "eps": workload.EPS,
                # Below num_steps, as the config wants it; speed does not depend on it.
                "warmup_steps": min(workload.WARMUP_STEPS, num_steps - 1),
                "clip_norm": workload.CLIP_NORM,
            },
            "train": {
                **{key: getattr(spec, key) for key in ("batch_tokens", "ema_decay", "device", "precision", "threads")},
                "label_smoothing": workload.LABEL_SMOOTHING,
                "max_steps": num_steps,
                "validate_every": never,
                "save_every": never,
            },
            "decode": {"beam_size": 1, "max_length_ratio": 1.0, "max_length_offset": 0},
        }
    ).all_stated()


def _valid_files(text: dict[str, list[str]], folder: Path) -> dict[str, Path]:
    """The first few pairs: a run wants validation text, and validates once when it is over."""
    files = {side: folder / f"valid.{side}" for side in text}
    if not all(path.is_file() for path in files.values()):
        first = list(islice(read_pairs(TextFiles.model_validate(text)), 4))
        for side, path in files.items():
            path.write_text("".join(f"{getattr(pair, side)}\n" for pair in first), encoding="utf-8")
    return files


class _Probe:
    """Stands between the loader and the training: what is in a step, how long is it waited for, when is it done?"""

    def __init__(self, spec: Namespace) -> None:
        self._device, self._tenth = spec.device, max(1, (spec.warmup + spec.steps) // 10)
        self.waits: list[float] = []  # seconds, of each step
        self.tokens: list[tuple[int, int, int]] = []  # of each step: source, target, and both with filling
        self.first_step_done: float | None = None
        self.early_peak_bytes = self.peak_bytes = 0  # after a tenth of the steps, and after all

    def __call__(self, *args: Any, **options: Any) -> Iterator[Step]:
        steps = load_steps(*args, **options)
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


def train(spec: Namespace, run_dir: Path, probe: Callable[..., Iterator[Step]]) -> setup.Run:
    """A whole run of the real trainer, whose steps come through ``probe``, called as ``load_steps`` is."""
    with ExitStack() as changed:
        changed.enter_context(mock.patch.object(trainer, "load_steps", probe))
        if not spec.compiled:
            changed.enter_context(torch.compiler.set_stance("force_eager"))
        done = setup.set_up(make_config(spec, run_dir), Processes(0, 1, choose_device(spec.device)))
        trainer.train(done)
    return done


def run(spec: Namespace) -> dict[str, Any]:
    """Train for a few steps."""
    run_dir = Path(spec.folder) / f"run-{spec.started}"
    probe = _Probe(spec)
    done = train(spec, run_dir, probe)
    seconds = [r["seconds"] for r in _records(run_dir / "timing.jsonl") if "seconds" in r and r["step"] > spec.warmup]
    trained = [r for r in _records(run_dir / "metrics.jsonl") if "loss" in r]
    num_src, num_tgt, computed = map(sum, zip(*probe.tokens[spec.warmup :], strict=True))
    assert probe.first_step_done is not None
    return {
        "seconds": sum(seconds),
        "step_seconds": seconds,
        "wait_seconds": sum(probe.waits[spec.warmup :]),
        "startup_seconds": probe.first_step_done - spec.started,
        "peak_bytes": probe.peak_bytes,
        "early_peak_bytes": probe.early_peak_bytes,
        "src_tokens": num_src,
        "tgt_tokens": num_tgt,
        "fill": (num_src + num_tgt) / computed,  # packed: nothing but attention on the CPU sees padding
        "losses": [r["loss"] if math.isfinite(r["loss"]) else None for r in trained],  # of the warm-up, too
        "last_loss": trained[-1]["loss"],
        "left_out": sum("bad" in r for r in trained),  # steps that the guard kept from the weights
        "parameters": sum(p.numel() for p in done.model.parameters()),
    }


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
