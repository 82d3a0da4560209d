"""What every program is given: the shape of the model, the text, and, for the peers, the pairs of each step."""

from __future__ import annotations

import pickle
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# preset of the product's config: layers on each side, d_model, d_ff, heads
SHAPES = {
    "tiny": (1, 32, 64, 2),  # for the tests
    "small": (4, 256, 1024, 4),
    "base": (6, 512, 2048, 8),
    "big": (6, 1024, 4096, 16),
}
DROPOUT = 0.1
LABEL_SMOOTHING = 0.1
BETAS, EPS, CLIP_NORM, LEARNING_RATE, WARMUP_STEPS = (0.9, 0.98), 1e-9, 1.0, 5e-4, 100
MAX_LENGTH = 256
SEED = 1
# Ids with a fixed meaning, as in seq2seq.data.symbols; stated here so that peers load nothing of ours.
PAD_ID, BOS_ID, EOS_ID = 0, 2, 3


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What every job gets; travels as JSON."""

    src: tuple[str, ...]
    device: str
    threads: int
    started: float = 0.0  # when the job's process was started, seconds since 1970; filled in by then


@dataclass(frozen=True, kw_only=True)
class TrainSpec(JobSpec):
    """One training benchmark, the same for all programs."""

    size: str
    tgt: tuple[str, ...]
    folder: str  # where the work lies: tokenizer, corpus, steps
    vocab_size: int  # asked for; small text gives fewer
    batch_tokens: int  # most real target tokens of a step
    warmup: int  # steps before measuring
    steps: int  # measured steps
    # For ours alone; peers train as a plain benchmark says.
    dropout: float = DROPOUT
    precision: str = "auto"
    compiled: bool = True  # on CUDA; there is nothing compiled on the CPU
    ema_decay: float = 0.0  # peers average no weights

    @classmethod
    def of(cls, options: Namespace, name: str) -> TrainSpec:
        """The benchmark ``name`` as the command line asks for it; makes the folder for its work."""
        folder = options.out / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        same = ("src", "tgt", "device", "threads", "size", "vocab_size", "batch_tokens", "warmup", "steps")
        return cls(folder=str(folder), **{key: getattr(options, key) for key in same})

    @property
    def steps_file(self) -> Path:
        """The sentence pairs of each step, written by ``bench.data``."""
        return Path(self.folder) / "steps.pickle"


@dataclass(frozen=True)
class PeerShape:
    """What a peer needs to know to build the same model; its norms are before the sublayers."""

    layers: int
    d_model: int
    d_ff: int
    heads: int
    vocab_size: int  # joint; source, target and output embeddings are one matrix


@dataclass(frozen=True)
class StepPairs:
    """The pairs of one step, by length; all sentences end with EOS."""

    src: list[NDArray[np.int64]]
    tgt: list[NDArray[np.int64]]


def save_steps(path: Path, steps: list[StepPairs], vocab_size: int) -> None:
    """Write the steps for :func:`load_steps`."""
    path.write_bytes(pickle.dumps((steps, vocab_size)))


def load_steps(path: Path) -> tuple[list[StepPairs], int]:
    """All steps, and the size of the joint vocabulary."""
    steps, vocab_size = pickle.loads(path.read_bytes())
    return steps, vocab_size
