"""What every program is given: the shape of the model, the recipe, and, for the peers, the pairs of each step."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# preset of the product's config: layers on each side, d_model, d_ff, heads
SHAPES = {
    "tiny": (1, 32, 64, 2),  # for the tests
    "small": (4, 256, 1024, 4),
    "base": (6, 512, 2048, 8),
    "big": (6, 1024, 4096, 16),
}
# The same for --architecture recurrent, whose presets have no d_ff and no heads.
RECURRENT_SHAPES = {"tiny": (1, 32, 0, 0), "small": (2, 256, 0, 0), "base": (2, 512, 0, 0), "big": (4, 1024, 0, 0)}
DROPOUT = 0.1
LABEL_SMOOTHING = 0.1
BETAS, EPS, CLIP_NORM, LEARNING_RATE, WARMUP_STEPS = (0.9, 0.98), 1e-9, 1.0, 5e-4, 100
MAX_LENGTH = 256
SEED = 1
# Ids with a fixed meaning, as in seq2seq.data.symbols; stated here so that peers load nothing of ours.
PAD_ID, BOS_ID, EOS_ID = 0, 2, 3

# What ours alone is asked for; peers train as a plain benchmark says.
_OURS = {"dropout": DROPOUT, "precision": "auto", "compiled": True, "ema_decay": 0.0}  # peers average no weights


class StepPairs(NamedTuple):
    """The pairs of one step, by length; all sentences end with EOS."""

    src: list[NDArray[np.int64]]
    tgt: list[NDArray[np.int64]]


def changed(spec: Namespace, **values: Any) -> Namespace:
    """A spec that says something else."""
    return Namespace(**{**vars(spec), **values})


def shape_of(spec: Namespace) -> tuple[int, int, int, int]:
    """Layers on each side, d_model, d_ff and heads of the model to measure."""
    return (RECURRENT_SHAPES if spec.architecture == "recurrent" else SHAPES)[spec.size]


def training_spec(options: Namespace, name: str, **ours: Any) -> Namespace:
    """What the jobs of a training get: the options of the command line, the folder for its work, and ``ours``.

    The folder holds the corpus, the tokenizer, and ``steps.pickle``: the pairs of each step, by ``bench.data``.
    """
    folder: Path = options.out / "work" / name
    folder.mkdir(parents=True, exist_ok=True)
    return changed(options, folder=str(folder), **{**_OURS, **ours})
