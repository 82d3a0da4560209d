"""A small real training for attacks: all that a run does, on the embedded corpus, in a minute on one core."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_VALID_LINES, _TEST_LINES = 100, 300

# Filters, two tokenizers, several epochs sampled anew, dropout, an average of the weights, a schedule.
_CONFIG = """\
run_dir: run  # in the folder where the command runs, so that two runs can have the same config to the byte
data:
  train: {src: ../text/train.en, tgt: ../text/train.zh}
  valid: {src: ../text/valid.en, tgt: ../text/valid.zh}
  test: {src: ../text/test.en, tgt: ../text/test.zh}
  max_length: 12
tokenizer: {joint: false, vocab_size: 900, sampling: 0.1}
model: {preset: tiny, encoder_layers: 2, decoder_layers: 2, d_model: 64, num_heads: 2, d_ff: 128, dropout: 0.1}
optim: {lr: 4e-3, schedule: cosine, warmup_steps: 20}
train: {batch_tokens: 3000, max_steps: 240, validate_every: 16, save_every: 10, ema_decay: 0.9, patience: null}
decode: {beam_size: 2}
"""


def write_text(folder: Path, train_lines: int | None = None) -> None:
    """Write the texts that :func:`write_config` names to ``folder/text``, all of the training text or its beginning.

    All of it comes twice, so that a corpus is built by several processes.
    """
    (folder / "text").mkdir(parents=True)
    for side in ("en", "zh"):
        for name, count in (("train", train_lines), ("valid", _VALID_LINES), ("test", _TEST_LINES)):
            lines = (ROOT / "data" / f"{name}.{side}").read_bytes().splitlines(keepends=True)
            text = b"".join(lines[:count] if count else lines * 2)
            (folder / "text" / f"{name}.{side}").write_bytes(text)


def write_config(folder: Path) -> Path:
    """Write ``folder/config.yaml``; the text is beside ``folder``, the run will be in it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(_CONFIG, encoding="utf-8")
    return folder / "config.yaml"


def environment() -> dict[str, str]:
    """For a process of its own: the package of this checkout, one thread, no CUDA, no rank of an outer run."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def training(*overrides: str) -> list[str]:
    """The command, to be run in the folder of the config; it marks its phases."""
    return [sys.executable, str(ROOT / "scripts/faults/marked.py"), "config.yaml", "train.device=cpu", *overrides]
