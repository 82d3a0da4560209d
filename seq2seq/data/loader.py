"""Loader: the steps of an epoch as packed batches, which one thread prepares in advance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seq2seq.data.corpus import Corpus
from seq2seq.data.packed import Indices, PackedBatch
from seq2seq.data.parallel import map_ahead
from seq2seq.data.plan import EpochPlan

STEPS_AHEAD = 4

# Function from the corpus and the pairs of a step to the micro-batches of this process.
PackStep = Callable[[Corpus, Indices], list[PackedBatch]]


@dataclass(frozen=True)
class Step:
    """The batches of this process for one optimizer step."""

    batches: list[PackedBatch]
    num_labels: int  # target tokens of the whole step, over all processes
    num_src: int  # source tokens of the whole step, over all processes
    pairs: Indices  # [sentences] of the whole step, over all processes
    waited: float = 0.0  # seconds that training waited for this step

    @property
    def shape(self) -> str:
        """The size of the step for messages: sentences of this process, tokens of all processes."""
        sentences = sum(batch.src.num_sentences for batch in self.batches)
        longest = max(max(batch.src.max_length, batch.tgt.max_length) for batch in self.batches)
        return (
            f"{sentences:,} sentences of up to {longest:,} tokens in micro-batches of "
            f"{sentences // len(self.batches):,} ({self.num_src:,} source and {self.num_labels:,} target tokens)"
        )


def load_steps(
    corpus: Corpus, plan: EpochPlan, pack_step: PackStep, device: torch.device, first: int = 0
) -> Iterator[Step]:
    """Yield the steps of ``plan`` from number ``first`` on, on ``device``.

    ``pack_step`` runs in a thread. For CUDA the thread pins the batches, so that copying them does not block.
    """

    def prepare(index: int) -> Step:
        step = plan.step(index)
        batches = pack_step(corpus, step)
        if device.type == "cuda":
            batches = [batch.map(Tensor.pin_memory) for batch in batches]
        num_src, num_labels = (int(side[step].sum()) for side in (corpus.src_lengths, corpus.tgt_lengths))
        return Step(batches, num_labels, num_src, step)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
        steps = map_ahead(pool, prepare, range(first, plan.num_steps), STEPS_AHEAD)
        started = time.monotonic()
        for step in steps:
            waited = time.monotonic() - started
            yield replace(step, batches=[batch.to(device) for batch in step.batches], waited=waited)
            started = time.monotonic()
