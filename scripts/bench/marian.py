"""Job of time to quality: train Hugging Face's Marian model in the usual loop for some minutes, then test it.

What is not training favours it: the minutes begin when its tokenizer is made and its speed is measured, and it is
never validated. What is no part of a recipe is as with ours: source text in one spelling, byte fallback, pairs that are
too long left out, the limits of the search.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench import peers
from bench.data import steps_of_like_lengths
from bench.padded import collate, make_optimizer, train_step
from bench.peers import PaddedBatch, PeerShape
from bench.process import peak_memory_bytes, synchronise
from bench.translators.transformers import translator_of
from bench.workload import MAX_LENGTH, SEED, StepPairs, changed
from seq2seq.config import DataConfig, DecodeConfig, OptimConfig, TokenizerConfig
from seq2seq.data.corpus import why_left_out
from seq2seq.data.formats.pairs import Text, read_pairs
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.data.vocabulary import learn_tokenizers
from seq2seq.evaluate import score
from seq2seq.files import write_text
from seq2seq.train.optim import MovingAverage, learning_rate

_UNTIMED, _TIMED = 5, 20  # first steps, which say how many there is time for
_TIMED_SHARE = 0.01  # of the minutes, at least: seconds of other programs must not decide
_WARMUP = 0.1  # share of the steps
_BEAM_SIZE, _LENGTH_PENALTY = 5, 1.0  # as ours and as theirs by default
_LAST = 50  # steps whose mean loss is recorded


@dataclass(frozen=True)
class Recipe:
    """How the model is made and trained. Both recipes smooth labels, clip gradients and warm up alike."""

    shape: PeerShape  # its vocab_size is what is asked for; little text gives fewer pieces
    tokenizer: Literal["unigram", "bpe"]
    lr: float
    betas: tuple[float, float]
    schedule: Literal["linear", "cosine"]  # to zero
    sentences: int | None = None  # of a batch, in random order
    tokens: int | None = None  # target tokens of a batch, of sentences of similar lengths, where sentences is None
    averaged: float = 0.0  # share of the steps that a moving average of the weights sees; 0: the last weights

    def as_json(self) -> dict[str, Any]:
        """Plain values, as a JSON file gives them back."""
        return {**asdict(self), "betas": list(self.betas)}


RECIPES = {
    # The size of OPUS-MT, trained as transformers' Trainer does.
    "usual": Recipe(
        shape=PeerShape(layers=6, d_model=512, d_ff=2048, heads=8, vocab_size=8_000, dropout=0.1),
        tokenizer="unigram",
        lr=5e-4,
        betas=(0.9, 0.999),
        schedule="linear",
        sentences=32,
    ),
    # What our own measurements say about little text and little time.
    "best": Recipe(
        shape=PeerShape(layers=4, d_model=128, d_ff=256, heads=4, vocab_size=4_000, dropout=0.2),
        tokenizer="bpe",
        lr=3e-3,
        betas=(0.9, 0.98),
        schedule="cosine",
        tokens=1_024,
        averaged=0.05,
    ),
}


def run(spec: Namespace, name: str) -> dict[str, Any]:
    """Job: train for ``spec.minutes`` on the text of ``spec.data``, translate the test text, and score it."""
    recipe, data = RECIPES[name], DataConfig.model_validate(spec.data)
    torch.set_num_threads(spec.threads)
    torch.manual_seed(SEED)
    tokenizers, pairs = read_text(data.train, recipe)
    model, loss_of = peers.marian(replace(recipe.shape, vocab_size=tokenizers.tgt.vocab_size))
    model.to(spec.device).train()
    batches = make_batches(pairs, recipe)
    pace = _step_seconds(_Training(model, loss_of, batches, recipe, 1), 60 * spec.minutes)
    steps = max(2, round(60 * spec.minutes / pace))
    training = _Training(model, loss_of, batches, recipe, steps)
    seconds = training.run()
    assert data.test is not None
    src, references = ([getattr(pair, side) for pair in read_pairs(data.test)] for side in ("src", "tgt"))
    search = changed(spec, beam_size=_BEAM_SIZE, length_penalty=_LENGTH_PENALTY)
    started = time.perf_counter()
    texts = translator_of(training.result.eval(), tokenizers, DecodeConfig(), search)(src)
    test_seconds = time.perf_counter() - started
    write_text(Path(spec.folder) / f"{name}-{spec.minutes:g}.hyp.txt", "".join(f"{text}\n" for text in texts))
    loss = torch.stack(list(training.losses)).mean().item()
    return {
        **score(texts, [references], target_language=data.target_language).as_json(),
        "seconds": seconds,
        "steps": steps,
        "planned_step_seconds": pace,
        "epochs": math.ceil(training.pairs / len(pairs.src)),
        "tgt_tokens": training.tokens,
        "last_loss": loss if math.isfinite(loss) else None,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "vocab_size": tokenizers.tgt.vocab_size,
        "test_seconds": test_seconds,
        "peak_bytes": peak_memory_bytes(spec.device),
    }


def read_text(text: Text, recipe: Recipe) -> tuple[TokenizerPair, StepPairs]:
    """A joint tokenizer and all training pairs that are short enough, as ours has them."""
    config = TokenizerConfig(kind=recipe.tokenizer, joint=True, vocab_size=recipe.shape.vocab_size)
    tokenizers, _ = learn_tokenizers(read_pairs(text), config, max_length=MAX_LENGTH)
    texts = zip(*((pair.src, pair.tgt) for pair in read_pairs(text)), strict=True)
    sides = (side.encode(lines) for side, lines in zip((tokenizers.src, tokenizers.tgt), texts, strict=True))
    pairs = StepPairs([], [])
    for both in zip(*sides, strict=True):
        src, tgt = (np.array([*ids, EOS_ID]) for ids in both)
        if why_left_out(len(src), len(tgt), MAX_LENGTH, None) is None:
            pairs.src.append(src)
            pairs.tgt.append(tgt)
    return tokenizers, pairs


def make_batches(pairs: StepPairs, recipe: Recipe) -> Iterator[StepPairs]:
    """Epoch after epoch in new batches; each has all pairs once."""
    rng = np.random.default_rng(SEED)
    src_lengths, tgt_lengths = (np.array([len(sentence) for sentence in side]) for side in pairs)
    for epoch in count():
        if recipe.sentences is not None:
            order = rng.permutation(len(pairs.src))
            batches = np.split(order, range(recipe.sentences, len(order), recipe.sentences))
        else:
            assert recipe.tokens is not None
            batches = steps_of_like_lengths(src_lengths, tgt_lengths, recipe.tokens, epoch)
        for at in rng.permutation(len(batches)):
            if batches[at].size:
                yield StepPairs(*([side[i] for i in batches[at]] for side in pairs))


class _Training:
    """The usual loop, with a learning rate that has fallen to zero after a fixed number of steps."""

    def __init__(
        self,
        model: Any,
        loss_of: Callable[[PaddedBatch], Tensor],
        batches: Iterator[StepPairs],
        recipe: Recipe,
        num_steps: int,
    ) -> None:
        self._model, self._loss_of, self._batches, self._num_steps = model, loss_of, batches, num_steps
        self.device: str = next(model.parameters()).device.type
        self._optimizer = make_optimizer(model, recipe.betas)
        decay = 1 - 1 / max(5.0, recipe.averaged * num_steps)
        self._average = MovingAverage(model, decay) if recipe.averaged else None
        warmup = max(1, round(_WARMUP * num_steps))
        self._schedule = OptimConfig(lr=recipe.lr, schedule=recipe.schedule, warmup_steps=warmup)
        self.losses: deque[Tensor] = deque(maxlen=_LAST)
        self.pairs = self.tokens = 0  # that it has seen; target tokens

    def step(self, number: int, lr: float) -> None:
        """Step ``number``, counted from 1; a learning rate of 0 leaves the weights as they are."""
        batch = collate(next(self._batches), self.device)
        self.losses.append(train_step(self._loss_of, self._optimizer, batch, lr))
        if self._average is not None:
            self._average.update(number)
        self.pairs, self.tokens = self.pairs + len(batch.src), self.tokens + batch.num_labels

    def run(self) -> float:
        """All steps; returns the seconds that they took."""
        started = time.perf_counter()
        for number in range(1, self._num_steps + 1):
            self.step(number, learning_rate(number, self._schedule, self._num_steps))
        synchronise(self.device)
        return time.perf_counter() - started

    @property
    def result(self) -> Any:
        """The model to test."""
        return self._model if self._average is None else self._average.model


def _step_seconds(training: _Training, available: float) -> float:
    """The mean time of a step, measured for a share of the seconds that are available; the weights stay as they are."""
    for _ in range(_UNTIMED):
        training.step(1, 0.0)
    synchronise(training.device)
    number, started, seconds = 0, time.perf_counter(), 0.0
    while number < _TIMED or seconds < _TIMED_SHARE * available:
        training.step(1, 0.0)
        synchronise(training.device)
        number, seconds = number + 1, time.perf_counter() - started
    return seconds / number
