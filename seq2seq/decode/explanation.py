"""What can be seen of one translation: the records that ``Translator.attention`` and ``Translator.explain`` return.

Shapes: ``S`` source tokens and ``T`` target tokens, each with the end-of-sentence token; ``N`` layers, ``H`` heads,
``P`` positions, ``D`` model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention weights of a source and a target sentence; every row of a map sums to 1.

    Row t of ``decoder`` and ``cross`` is where the model looked when it predicted target token t.
    """

    source: list[str]  # the S pieces that the encoder read, the last one is </s>
    target: list[str]  # the T pieces that were predicted, the last one is </s>
    read: list[str]  # the T pieces that the decoder read: <s>, then the target without </s>
    encoder: Array | None  # [N, H, S, S]; None: the model has no self-attention
    decoder: Array | None  # [N, H, T, T], zero to the right of the diagonal
    cross: Array | None  # [N, H, T, S]; None: the model has no attention over the source

    @property
    def alignment(self) -> Array | None:
        """[T, S]: the mean of ``cross`` over layers and heads."""
        return None if self.cross is None else self.cross.mean(axis=(0, 1))

    def __repr__(self) -> str:
        maps = {"encoder": self.encoder, "decoder": self.decoder, "cross": self.cross}
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in maps.items() if x is not None)
        return f"Attention({' '.join(self.source)!r} -> {' '.join(self.target)!r}; {shapes or 'no attention'})"


@dataclass(frozen=True)
class Candidate:
    """A token that the model weighed."""

    piece: str
    probability: float


@dataclass(frozen=True)
class Scored:
    """A target sentence, token by token, and its score."""

    text: str
    pieces: list[str]  # T, the last one is </s>
    log_probs: list[float]  # T, natural logarithms
    candidates: list[list[Candidate]]  # for each token the most likely ones, best first; it may not be among them
    score: float  # the sum of log_probs divided by the length penalty


@dataclass(frozen=True)
class Node:
    """A hypothesis of the beam after one more token."""

    parent: int | None  # index of the node that it continues; None: of the first token
    step: int  # from 0
    piece: str
    log_prob: float  # of the whole hypothesis so far
    score: float  # log_prob divided by the length penalty
    # continued: by other nodes; dropped: better hypotheses took its place; open: it was in the beam when the search
    # ended; finished: it chose </s>; cut: it had to choose </s>, because it reached the length limit.
    state: Literal["continued", "dropped", "open", "finished", "cut"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """A translation and how the model came to it."""

    architecture: str
    source_text: str
    attention: Attention
    translation: Scored
    reference: Scored | None  # the target that the user gave
    beam_size: int
    length_penalty: float
    beam: list[Node]  # parents come first
    best: int  # index in ``beam`` of the </s> of the translation
    positions: Literal["sinusoidal", "learned", "rotary", "none"]
    position_vectors: Array | None  # of the P first target positions; see Seq2SeqModel.position_vectors

    def __repr__(self) -> str:
        own, reference = self.translation, self.reference
        scores = f"score {own.score:.3f}" + ("" if reference is None else f", reference {reference.score:.3f}")
        model = f"{self.architecture}, beam {self.beam_size}"
        return f"Explanation({self.source_text!r} -> {own.text!r}: {scores}; {model})"
