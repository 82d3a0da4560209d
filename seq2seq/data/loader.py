"""The steps of an epoch as packed batches, made ahead of need by one thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from seq2seq.data.batching import Capacity, EpochPlan, Indices, PackedBatch, pack_pairs, split_step
from seq2seq.data.corpus import Corpus

STEPS_AHEAD = 4


@dataclass(frozen=True)
class Share:
    """Which part of each step this process computes: every step is split into ``processes * accumulate`` batches."""

    rank: int = 0
    processes: int = 1
    accumulate: int = 1
    capacity: Capacity | None = None  # of each batch, where shapes must not change


@dataclass(frozen=True)
class Step:
    """One optimizer step's work for this process."""

    batches: list[PackedBatch]
    num_labels: int  # target tokens of the whole step, over all processes
    num_src: int  # source tokens, likewise
    pairs: Indices  # [sentences] of the whole step, likewise
    waited: float = 0.0  # seconds that training stood still until the step was there

    @property
    def shape(self) -> str:
        """How large it is, in words: what this process has of it, and the tokens of all."""
        sentences = sum(batch.src.num_sentences for batch in self.batches)
        longest = max(max(batch.src.max_length, batch.tgt.max_length) for batch in self.batches)
        return (
            f"{sentences:,} sentences in micro-batches of {sentences // len(self.batches):,} and up to {longest:,} "
            f"tokens a sentence ({self.num_src:,} source x {self.num_labels:,} target tokens)"
        )


def _split(corpus: Corpus, step: Indices, share: Share) -> list[Indices]:
    """The parts of a step, of which every process has as many: ``accumulate``, or more where one would not fit."""
    src, tgt = corpus.src_lengths[step], corpus.tgt_lengths[step]
    number = share.processes * share.accumulate
    if share.capacity is None:
        return split_step(step, src, tgt, number, by_length=True)
    while True:
        parts = split_step(step, src, tgt, number, by_length=False)
        sizes = ((corpus.src_lengths[part].sum(), corpus.tgt_lengths[part].sum(), len(part)) for part in parts)
        if all(share.capacity.fits(*map(int, size)) for size in sizes):
            return parts
        assert number < 4 * len(step), "not even one sentence fits"
        number *= 2


def _pack(corpus: Corpus, indices: Indices, capacity: Capacity | None) -> PackedBatch:
    return pack_pairs(*corpus.take("src", indices), *corpus.take("tgt", indices), capacity)


def load_steps(corpus: Corpus, plan: EpochPlan, share: Share, device: torch.device, first: int = 0) -> Iterator[Step]:
    """The steps of ``plan`` from number ``first`` on, on ``device``.

    Packing runs in a thread; on CUDA batches are pinned there, so that the copy does not wait.
    """

    def prepare(index: int) -> Step:
        step = plan.step(index)
        parts = _split(corpus, step, share)
        mine = parts[share.rank :: share.processes]  # some of the short sentences and some of the long ones
        batches = [_pack(corpus, part, share.capacity) for part in mine]
        if device.type == "cuda":
            batches = [batch.pin() for batch in batches]
        num_src, num_labels = (int(side[step].sum()) for side in (corpus.src_lengths, corpus.tgt_lengths))
        return Step(batches, num_labels, num_src, step)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
        ahead: deque[Future[Step]] = deque()
        for index in range(first, plan.num_steps):
            ahead.append(pool.submit(prepare, index))
            if len(ahead) > STEPS_AHEAD:
                yield _receive(ahead.popleft(), device)
        while ahead:
            yield _receive(ahead.popleft(), device)


def _receive(prepared: Future[Step], device: torch.device) -> Step:
    asked = time.monotonic()
    step = prepared.result()
    waited = time.monotonic() - asked
    return replace(step, batches=[batch.to(device) for batch in step.batches], waited=waited)
