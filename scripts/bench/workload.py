"""What every program is given: the shape of the model, the text, and, for the peers, the pairs of each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.options import Options

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


@dataclass(frozen=True)
class TrainSpec:
    """One training benchmark, the same for all programs; travels as JSON."""

    size: str
    src: tuple[str, ...]
    tgt: tuple[str, ...]
    folder: str  # where the work lies: tokenizer, corpus, steps
    vocab_size: int  # asked for; small text gives fewer
    batch_tokens: int  # most real target tokens of a step
    warmup: int  # steps before measuring
    steps: int  # measured steps
    device: str
    threads: int
    norm_position: str = "pre"
    # What ours alone is told; peers train as a plain benchmark says.
    dropout: float = DROPOUT
    precision: str = "auto"
    compiled: bool = True  # on CUDA; there is nothing compiled on the CPU
    ema_decay: float = 0.0  # peers average no weights

    @classmethod
    def of(cls, options: Options, name: str) -> TrainSpec:
        """The benchmark ``name`` as the command line asks for it."""
        return cls(
            size=options.size,
            src=tuple(map(str, options.src)),
            tgt=tuple(map(str, options.tgt)),
            folder=str(options.out / "work" / name),
            vocab_size=options.vocab_size,
            batch_tokens=options.batch_tokens,
            warmup=options.warmup,
            steps=options.steps,
            device=options.device,
            threads=options.threads,
        )

    @property
    def steps_file(self) -> Path:
        """The sentence pairs of each step, written by ``bench.prepare``."""
        return Path(self.folder) / "steps.npz"

    @property
    def half(self) -> bool:
        """Whether the computation is in bf16."""
        return self.device == "cuda"


@dataclass(frozen=True)
class PeerShape:
    """What a peer needs to know to build the same model."""

    layers: int
    d_model: int
    d_ff: int
    heads: int
    vocab_size: int  # joint; source, target and output embeddings are one matrix
    pre_norm: bool


Sentences = list[NDArray[np.int64]]


@dataclass(frozen=True)
class StepPairs:
    """The pairs of one step, by length; all sentences end with EOS."""

    src: Sentences
    tgt: Sentences

    @property
    def num_src(self) -> int:
        """Real source tokens."""
        return sum(map(len, self.src))

    @property
    def num_tgt(self) -> int:
        """Real target tokens."""
        return sum(map(len, self.tgt))


def save_steps(path: Path, steps: list[StepPairs], vocab_size: int) -> None:
    """Write the steps for :func:`load_steps`."""
    arrays: dict[str, NDArray[np.int64]] = {
        "vocab_size": np.array(vocab_size),
        "pairs": np.array([len(step.src) for step in steps]),
    }
    for side in ("src", "tgt"):
        sentences = [sentence for step in steps for sentence in getattr(step, side)]
        arrays[f"{side}_ids"] = np.concatenate(sentences)
        arrays[f"{side}_lengths"] = np.array([len(sentence) for sentence in sentences])
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_steps(path: Path) -> tuple[list[StepPairs], int]:
    """All steps, and the size of the joint vocabulary."""
    with np.load(path) as arrays:
        bounds = np.cumsum(arrays["pairs"])[:-1]
        sides = [_by_step(arrays[f"{side}_ids"], arrays[f"{side}_lengths"], bounds) for side in ("src", "tgt")]
        steps = [StepPairs(src, tgt) for src, tgt in zip(*sides, strict=True)]
        return steps, int(arrays["vocab_size"])


def _by_step(
    ids: NDArray[np.int64], lengths: NDArray[np.int64], bounds: NDArray[np.int64]
) -> Iterator[list[NDArray[np.int64]]]:
    sentences = np.split(ids.astype(np.int64), np.cumsum(lengths)[:-1])
    last = 0
    for bound in [*bounds.tolist(), len(sentences)]:
        yield sentences[last:bound]
        last = bound


def peer_shape(spec: TrainSpec, vocab_size: int) -> PeerShape:
    """The model of the workload as peers state it."""
    return PeerShape(*SHAPES[spec.size], vocab_size, spec.norm_position == "pre")
