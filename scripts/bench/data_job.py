"""Job: one stage of preparing data, by the package's own functions."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.ours import make_config
from bench.workload import SEED, TrainSpec
from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.prepare import prepare_data


def run(values: dict[str, Any]) -> dict[str, Any]:
    """``build`` makes tokenizer and corpus, ``open`` finds them made, ``plan`` orders an epoch of many pairs."""
    values.pop("started")
    stage, planned_pairs = values.pop("stage"), values.pop("planned_pairs")
    spec = TrainSpec(**values)
    config = make_config(spec, Path(spec.folder) / "run")
    started = time.perf_counter()
    data = prepare_data(config, show_progress=False)
    seconds = time.perf_counter() - started
    if stage == "plan":
        lengths = (data.train.src_lengths, data.train.tgt_lengths)
        src, tgt = (np.resize(side, planned_pairs) for side in lengths)  # the corpus over and over
        started = time.perf_counter()
        plan_epoch(src, tgt, step_budgets(src, tgt, spec.batch_tokens), SEED, 0)
        seconds = time.perf_counter() - started
    text_bytes = sum(_text_bytes(Path(path)) for path in (*spec.src, *spec.tgt))
    return {"seconds": seconds, "pairs": data.train.num_pairs, "text_bytes": text_bytes}


def _text_bytes(path: Path) -> int:
    """Bytes of a plain or gzip file, unpacked."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed:
        return path.stat().st_size
    with gzip.open(path) as file:
        return sum(len(block) for block in iter(lambda: file.read(1 << 20), b""))
