"""What a process computes of a step: no thread idle on a CPU, one shape for every batch on CUDA."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seq2seq.data.loader import load_steps
from seq2seq.data.packed import pack_pairs
from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.prepare import prepare_data
from seq2seq.data.symbols import IGNORE_LABEL
from seq2seq.train.distributed import Processes
from seq2seq.train.microbatches import MicroBatches, at_once, capacity_of, microbatches_of, number_on_cpu, split_step
from tests.data.test_plan import made_up_lengths, plan_of
from tests.toy import toy_config, write_text_files


@pytest.mark.parametrize(
    ("tokens", "threads", "number", "parallel"),
    [
        (4096, 1, 4, 1),
        (4096, 3, 3, 3),
        (4096, 4, 4, 4),
        (4096, 8, 8, 8),
        (4096, 16, 8, 8),  # two threads for each
        (25000, 4, 24, 4),
        (2048, 4, 4, 4),
        (2048, 3, 3, 3),
        (1024, 2, 2, 2),
        (1024, 4, 2, 2),
        (1024, 3, 1, 1),  # three threads for it
        (120, 4, 1, 1),
    ],
)
def test_a_step_is_cut_so_that_no_thread_is_idle(tokens: int, threads: int, number: int, parallel: int) -> None:
    """Parts too small for a thread are slower than a shared one, and a part too many keeps one thread at work alone."""
    assert number_on_cpu(tokens, threads) == number
    assert at_once(threads, number) == parallel


@pytest.mark.parametrize(
    "settings",
    [(), ("train.accumulate=2",), ("tokenizer.sampling=0.3",), ("train.precision=fp32",), ("model.num_heads=4",)],
)
def test_on_cuda_all_batches_have_one_shape(
    tmp_path: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shape that changes would be compiled anew; here on the CPU, as far as the batches go."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    text = write_text_files(tmp_path / "text")
    config = toy_config(text, tmp_path / "run", "train.batch_tokens=300", *settings)
    data = prepare_data(config, show_progress=False)
    corpus = data.train
    lengths = corpus.src_lengths, corpus.tgt_lengths
    plan = plan_epoch(*lengths, step_budgets(*lengths, 300), 1, 0)
    shapes, labels = set(), 0
    for rank in range(2):
        cut = microbatches_of(config, data.mixture, Processes(rank, 2, torch.device("cuda")))
        assert cut.capacity is not None
        assert cut.capacity.max_length == (config.data.max_length if config.tokenizer.sampling else np.max(lengths))
        for step in load_steps(corpus, plan, cut, torch.device("cpu")):
            shapes |= {(batch.src.ids.shape, batch.tgt.offsets.shape, batch.src.grid.shape) for batch in step.batches}
            labels += sum(batch.num_labels for batch in step.batches)
    ((*_, grid),) = shapes
    padded = config.model.num_heads == 4  # no kernel for heads of width 4
    assert (grid.numel() > 0) == padded
    assert labels == corpus.tgt_lengths.sum()


def test_only_what_is_captured_has_fixed_shapes(tmp_path: Path) -> None:
    """Filling sentences of a recurrent model would be as long as the longest allowed, and it computes step by step."""
    text = write_text_files(tmp_path / "text")
    for name in ("recurrent", "convolutional"):
        config = toy_config(
            text, tmp_path / name, f"model={{architecture: {name}, preset: tiny}}", "train.precision=fp32"
        )
        data = prepare_data(config, show_progress=False)
        cut = microbatches_of(config, data.mixture, Processes(0, 1, torch.device("cuda")))
        assert (cut.capacity is None) == (name == "recurrent")


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=60),
    num_parts=st.integers(1, 9),
    by_length=st.booleans(),
)
def test_parts_of_a_step_cover_it_evenly(lengths, num_parts, by_length):
    """Guards against sentences lost between processes and against one process with all the long ones."""
    lengths = np.array(lengths)
    step = np.arange(len(lengths)) + 100
    parts = split_step(step, *lengths.T, num_parts, by_length=by_length)
    assert len(parts) == num_parts
    assert sorted(np.concatenate(parts).tolist()) == step.tolist()
    tokens = np.array([lengths[part - 100].sum() for part in parts])
    assert np.abs(tokens - lengths.sum() / num_parts).max() <= lengths.sum(axis=1).max()
    if by_length:
        longest = [lengths[part - 100].max(axis=1) for part in parts if part.size]
        assert all(one.max() <= other.min() for one, other in pairwise(longest))
    else:
        assert np.array_equal(np.concatenate(parts), step)


def filled(src_lengths, tgt_lengths, part, capacity):
    """Plain and filled batch of some pairs, checked against each other and against the capacity."""
    rng = np.random.default_rng(0)
    src, tgt = (rng.integers(4, 50, size=lengths[part].sum()) for lengths in (src_lengths, tgt_lengths))
    batch = pack_pairs(src, src_lengths[part], tgt, tgt_lengths[part], capacity)
    assert batch.labels.shape == batch.tgt.ids.shape == (capacity.tgt_tokens,)
    assert batch.src.ids.shape == (capacity.src_tokens,)
    for side in (batch.src, batch.tgt):
        assert side.offsets.shape == (capacity.sentences + 1,)
        assert int(side.offsets[-1]) == side.ids.numel()
        assert int(side.lengths.max()) <= side.max_length == capacity.max_length
    assert torch.equal(batch.src.lengths > 0, batch.tgt.lengths > 0)
    assert batch.num_labels == int((batch.labels != IGNORE_LABEL).sum()) == tgt.size
    if part.size:
        plain = pack_pairs(src, src_lengths[part], tgt, tgt_lengths[part])
        for name in ("ids", "positions"):
            assert torch.equal(getattr(batch.src, name)[: src.size], getattr(plain.src, name))
            assert torch.equal(getattr(batch.tgt, name)[: tgt.size], getattr(plain.tgt, name))
        assert torch.equal(batch.labels[: tgt.size], plain.labels)


def fits(capacity, src_lengths, tgt_lengths, part):
    return capacity.fits(int(src_lengths[part].sum()), int(tgt_lengths[part].sum()), len(part))


@settings(deadline=None, max_examples=100)
@given(
    pairs=st.lists(st.tuples(st.integers(2, 90), st.integers(2, 90)), min_size=1, max_size=60),
    batch_tokens=st.integers(1, 2000),
    num_parts=st.integers(1, 5),
)
@example(pairs=[(2, 90)] * 20, batch_tokens=2000, num_parts=1)
@example(pairs=[(90, 2)] * 20, batch_tokens=1, num_parts=3)
def test_what_fits_can_be_filled_and_every_single_pair_fits(pairs, batch_tokens, num_parts):
    """Guards against a batch that meets its capacity only nearly always: a run would die of it hours later. (Every
    sentence has two tokens at least, a piece and EOS.)"""
    src, tgt = np.array(pairs).T
    capacity = capacity_of(src, tgt, batch_tokens, num_parts, max_length=int(max(src.max(), tgt.max())))
    for part in (np.array([], dtype=int), *np.arange(len(src))[:, None]):
        assert fits(capacity, src, tgt, part)
    for end in range(len(src) + 1):
        if fits(capacity, src, tgt, np.arange(end)):
            filled(src, tgt, np.arange(end), capacity)


@pytest.mark.parametrize(("num_parts", "waste"), [(1, 0.005), (4, 0.08)])
def test_capacity_wastes_little(num_parts, waste):
    """Of steps of 4,096 tokens all but a few parts fit, which are computed in pieces; of tokens and sentences little is
    left over."""
    src, tgt = made_up_lengths(40_000)
    capacity = capacity_of(src, tgt, 4096, num_parts, max_length=64)
    plan = plan_of(src, tgt, 4096)
    parts = [
        part
        for step in map(plan.step, range(plan.num_steps - 1))
        for part in split_step(step, src[step], tgt[step], num_parts, by_length=False)
    ]
    assert np.mean([fits(capacity, src, tgt, part) for part in parts]) >= 0.99
    for side, room in ((src, capacity.src_tokens), (tgt, capacity.tgt_tokens)):
        assert side[plan.order[: plan.starts[-2]]].sum() / len(parts) >= (1 - waste) * room - 15
    assert capacity.sentences <= 1.8 * np.mean([len(part) for part in parts])
    for part in parts[:: len(parts) // 8]:
        if fits(capacity, src, tgt, part):
            filled(src, tgt, part, capacity)


def test_of_many_parts_none_is_too_large():
    """Guards against steps that take twice as long on hundreds of GPUs, because one part without room halves all."""
    rng = np.random.default_rng(0)
    src = rng.lognormal(3, 0.6, 200_000).clip(2, 250).astype(np.int32)  # few long sentences, as in real text
    tgt = (src * rng.lognormal(0, 0.15, len(src))).clip(2, 250).astype(np.int32)
    tokens, num_parts = 2_000 * 400, 400
    cut = MicroBatches(world_size=num_parts, capacity=capacity_of(src, tgt, tokens, num_parts, max_length=250))
    plan = plan_of(src, tgt, tokens)
    corpus: Any = SimpleNamespace(src_lengths=src, tgt_lengths=tgt)
    steps = [cut.cut(corpus, plan.step(number)) for number in range(plan.num_steps)]
    assert len(steps) > 4
    assert all(len(parts) == num_parts for parts in steps)
