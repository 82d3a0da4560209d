"""Which part of each step a process computes, and in how many micro-batches."""

from __future__ import annotations

from dataclasses import replace

import torch

from seq2seq.config import Config
from seq2seq.data.batching import Capacity
from seq2seq.data.corpus import Corpus
from seq2seq.data.loader import Share
from seq2seq.device import compute_dtype
from seq2seq.model.attention import has_packed_kernel
from seq2seq.train.distributed import Processes

_CPU_MICRO_BATCH_TOKENS = 1024  # target tokens; with fewer, threads wait for each other in Python


def share_of(config: Config, corpus: Corpus, processes: Processes) -> Share:
    """The share of this process in the steps of a run. On CUDA all micro-batches have the same shapes."""
    tokens = config.train.step_tokens
    if processes.device.type == "cpu":
        number = micro_batches_on_cpu(tokens // processes.count, torch.get_num_threads())
        return Share(processes.rank, processes.count, config.train.accumulate or number)
    number = config.train.accumulate or 1
    longest = max(int(corpus.src_lengths.max()), int(corpus.tgt_lengths.max()))
    if config.tokenizer.sampling:  # another sampling may be longer
        longest = max(longest, config.data.max_length)
    capacity = Capacity.of(corpus.src_lengths, corpus.tgt_lengths, tokens, processes.count * number, longest)
    dtype = compute_dtype(config.train.precision, processes.device)
    packed = has_packed_kernel(processes.device, dtype, config.model.d_model // config.model.num_heads)
    capacity = replace(capacity, with_grid=not packed)
    return Share(processes.rank, processes.count, number, capacity)


def micro_batches_on_cpu(tokens: int, threads: int) -> int:
    """How many micro-batches a step of so many target tokens is cut into: as many for each of those :func:`at_once`."""
    parallel = at_once(threads, tokens // _CPU_MICRO_BATCH_TOKENS)
    return parallel * max(1, round(tokens / parallel / _CPU_MICRO_BATCH_TOKENS))


def at_once(threads: int, micro_batches: int) -> int:
    """How many of the micro-batches to compute at a time, on as many threads each, so that no thread is left over."""
    return max(n for n in range(1, threads + 1) if threads % n == 0 and n <= max(1, micro_batches))
