"""How an optimizer step is cut into micro-batches: their number, their sentences, and which process computes them.

A step of the plan is cut into ``world_size * accumulate`` micro-batches, and every process computes every
``world_size``-th of them. On the CPU a micro-batch holds sentences of similar lengths, because the kernels pad. On CUDA
every micro-batch has the same shapes (:class:`Capacity`), because what is compiled for one shape fits no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from seq2seq.config import Config, ModelConfig, RecurrentConfig
from seq2seq.data.corpus import Corpus
from seq2seq.data.mixture import Mixture
from seq2seq.data.packed import Capacity, Indices, PackedBatch, pack_pairs
from seq2seq.data.plan import Lengths, step_budgets
from seq2seq.device import compute_dtype
from seq2seq.model.kernels.packed_attention import has_packed_kernel
from seq2seq.train.distributed import Processes

_CPU_TOKENS = 1024  # target tokens of a micro-batch on the CPU; with fewer, threads wait for each other in Python
_LEAST_CPU_TOKENS = 512  # for a thread of its own, which is better than two threads for each operation
_FILLINGS = 4  # filling sentences, of a token at least, that there is room for beyond a full batch


@dataclass(frozen=True)
class MicroBatches:
    """Cuts a step and packs the part of this process. Call it with the corpus and the pairs of a step."""

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    capacity: Capacity | None = None  # of each micro-batch, where shapes must not change

    def __call__(self, corpus: Corpus, step: Indices) -> list[PackedBatch]:
        """The micro-batches of this process: ``accumulate``, or more if a part exceeds the capacity."""
        mine = self.cut(corpus, step)[self.rank :: self.world_size]  # short sentences and long ones
        return [pack_pairs(*corpus.take("src", part), *corpus.take("tgt", part), self.capacity) for part in mine]

    def cut(self, corpus: Corpus, step: Indices) -> list[Indices]:
        """The pairs of every micro-batch of a step. Every process gets the same number of micro-batches."""
        src, tgt = corpus.src_lengths[step], corpus.tgt_lengths[step]
        number = self.world_size * self.accumulate
        if self.capacity is None:
            return split_step(step, src, tgt, number, by_length=True)
        while True:
            bounds = _even_bounds(src, tgt, number)
            # A step of 512 GPUs has half a million pairs: running sums are faster than to gather the lengths again.
            sums = (np.concatenate([[0], side.cumsum(dtype=np.int64)])[bounds] for side in (src, tgt))
            sizes = np.stack([np.diff(numbers) for numbers in (*sums, bounds)], axis=1)
            if all(self.capacity.fits(*size) for size in sizes.tolist()):
                return np.split(step, bounds[1:-1])
            assert number < 4 * len(step), "not even one sentence fits"
            number *= 2


def microbatches_of(config: Config, mixture: Mixture, processes: Processes) -> MicroBatches:
    """How this process cuts the steps of a run."""
    tokens = config.train.batch_tokens
    if processes.device.type == "cpu":
        number = number_on_cpu(tokens // processes.world_size, torch.get_num_threads())
        return MicroBatches(processes.rank, processes.world_size, config.train.accumulate or number)
    number = config.train.accumulate or 1
    if isinstance(config.model, RecurrentConfig):  # its steps are not captured, so shapes may change
        return MicroBatches(processes.rank, processes.world_size, number)
    longest = max(int(mixture.corpus.src_lengths.max()), int(mixture.corpus.tgt_lengths.max()))
    if config.tokenizer.sampling:  # another sampling may be longer
        longest = max(longest, config.data.max_length)
    dtype = compute_dtype(config.train.precision, processes.device)
    head_width, window, plain = config.model.d_model, None, False
    if isinstance(config.model, ModelConfig):
        head_width, window = head_width // config.model.num_heads, config.model.attention_window
        plain = config.model.plain_attention
    packed = has_packed_kernel(processes.device, dtype, head_width, window) and not plain
    capacity = capacity_of(*mixture.usual_lengths, tokens, processes.world_size * number, longest)
    capacity = replace(capacity, with_grid=not packed)
    return MicroBatches(processes.rank, processes.world_size, number, capacity)


def too_large(config: Config, what: str) -> str:
    """For the error that memory has run out at a step: ``what`` it was, and what to change."""
    return (
        f"{what}: raise train.accumulate, or lower train.batch_tokens ({config.train.batch_tokens}) or data.max_length "
        f"({config.data.max_length}), all in a new run_dir; or free memory and run the same command again"
    )


def number_on_cpu(tokens: int, threads: int) -> int:
    """The number of micro-batches for a step of ``tokens`` target tokens: a multiple of those :func:`at_once`."""
    parallel = at_once(threads, tokens // _LEAST_CPU_TOKENS)
    return parallel * max(1, round(tokens / parallel / _CPU_TOKENS))


def at_once(threads: int, micro_batches: int) -> int:
    """How many micro-batches to compute at a time, each on the same number of threads, so that no thread is idle."""
    return max(n for n in range(1, threads + 1) if threads % n == 0 and n <= max(1, micro_batches))


def capacity_of(
    src_lengths: Lengths, tgt_lengths: Lengths, batch_tokens: int, num_parts: int, max_length: int
) -> Capacity:
    """Room for nearly every part when steps of ``batch_tokens`` are split into ``num_parts`` mixed ones.

    Random mixtures hardly differ in size, so little room is left over: filling takes time like real tokens, and kernels
    do some work for every sentence, even an empty one. A part that does not fit is split further.

    Args:
        src_lengths, tgt_lengths: of the pairs of an epoch, in tokens with EOS.
        max_length: of any sentence, in tokens.
    """
    sides = (src_lengths, tgt_lengths)
    shares = [budget / num_parts for budget in step_budgets(*sides, batch_tokens)]
    if num_parts > 1:  # a part may have a long sentence more than another, on either side; one of many a longer one
        deviations = 3 + math.log10(num_parts)
        shares = [s + float(x.mean() + deviations * x.std()) for s, x in zip(shares, sides, strict=True)]
    least = max_length + max(shares) / max_length  # the longest sentence, and a token for each filling one
    rooms = [max(share, least) + _FILLINGS for share in shares]
    src, tgt = (math.ceil(room / 8) * 8 for room in rooms)  # matrix kernels want whole vectors of 16 bytes
    mean, spread = float(tgt_lengths.mean()), float(tgt_lengths.std())
    number = shares[1] / mean
    number += 4 * math.sqrt(number) * spread / mean  # its standard deviations in a mixture
    sentences = math.ceil(max(number, max(src, tgt) / max_length)) + _FILLINGS
    return Capacity(src, tgt, sentences, max_length)


def split_step(
    step: Indices, src_lengths: Lengths, tgt_lengths: Lengths, num_parts: int, *, by_length: bool
) -> list[Indices]:
    """A step's sentences cut into parts of equal tokens, up to half a sentence at either end; some may be empty.

    Args:
        src_lengths, tgt_lengths: [len(step)], of its sentences.
        by_length: sort the sentences first, so that kernels that pad a part to its longest sentence pad little. Without
            it, parts are as mixed as the plan, and as even on each side.
    """
    if by_length:
        order = np.lexsort((src_lengths + tgt_lengths, np.maximum(src_lengths, tgt_lengths)))
        step, src_lengths, tgt_lengths = step[order], src_lengths[order], tgt_lengths[order]
    return np.split(step, _even_bounds(src_lengths, tgt_lengths, num_parts)[1:-1])


def _even_bounds(src_lengths: Lengths, tgt_lengths: Lengths, num_parts: int) -> Indices:
    """[num_parts + 1] where parts of equal tokens begin and end."""
    lengths = src_lengths.astype(np.int64) + tgt_lengths
    ends = lengths.cumsum()
    inner = np.searchsorted(ends - lengths / 2, ends[-1] * np.arange(1, num_parts) / num_parts)
    return np.concatenate([[0], inner, [len(lengths)]])
