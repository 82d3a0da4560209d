"""Promise: the plan is a pure function of its arguments, loses no pair, and packing only lays sentences end to end."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seq2seq.data.batching import Capacity, deal, most_sentences, pack, pack_pairs, pack_sentences, plan_epoch
from seq2seq.data.symbols import BOS_ID, EOS_ID, IGNORE_LABEL


def made_up_lengths(num_pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    src = rng.integers(1, 60, num_pairs).astype(np.int32)
    return src, np.maximum(1, src + rng.integers(-5, 6, num_pairs)).astype(np.int32)


some_lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80)


@settings(deadline=None, max_examples=100)
@given(pairs=some_lengths, budget=st.integers(1, 120), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
def test_plan_covers_every_pair_once_within_the_budget(pairs, budget, seed, epoch):
    """Guards against pairs lost or doubled, empty steps, and a budget that holds on one side only."""
    src, tgt = (np.array(side, dtype=np.int32) for side in zip(*pairs, strict=True))
    plan = plan_epoch(src, tgt, budget, seed, epoch)
    steps = [plan.step(i) for i in range(plan.num_steps)]
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(pairs)))
    for step in steps:
        assert len(step) > 0
        assert len(step) == 1 or (src[step].sum() <= budget and tgt[step].sum() <= budget)
    again = plan_epoch(src.astype(np.int64), tgt.copy(), budget, seed, epoch)
    assert np.array_equal(plan.order, again.order)
    assert np.array_equal(plan.starts, again.starts)


def test_plan_leaves_no_step_that_could_have_been_longer():
    """Guards against cutting too early: one off in the search for the longest run would waste part of each step.

    Sentences of 1 token, 10 to a step: every step but the last is full. With a tight other side, that one decides.
    """
    ones = np.ones(95, dtype=np.int32)
    assert sorted(np.diff(plan_epoch(ones, ones, 10, 0, 0).starts).tolist()) == [5] + [10] * 9
    assert sorted(np.diff(plan_epoch(2 * ones, ones, 10, 0, 0).starts).tolist()) == [5] * 19
    assert sorted(np.diff(plan_epoch(ones, 2 * ones, 10, 0, 0).starts).tolist()) == [5] * 19


def test_plan_of_a_pair_longer_than_the_budget_is_a_step_of_its_own():
    """Guards against an endless loop, or a dropped pair, where one sentence exceeds batch_tokens."""
    lengths = np.array([3, 50, 3, 70, 3])
    plan = plan_epoch(lengths, lengths, 9, 1, 0)
    steps = sorted(sorted(plan.step(i).tolist()) for i in range(plan.num_steps))
    assert steps == [[0, 2, 4], [1], [3]]


def test_plan_differs_by_epoch_and_seed():
    """Guards against epochs that repeat one order, or the same batches in another order."""
    src, tgt = made_up_lengths(4000)
    plans = [plan_epoch(src, tgt, 200, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0), (0, 1))]
    batches = [{frozenset(plan.step(i).tolist()) for i in range(plan.num_steps)} for plan in plans]
    for i, one in enumerate(batches):
        for j, other in enumerate(batches[:i]):
            assert not np.array_equal(plans[i].order, plans[j].order)
            assert len(one & other) < 0.05 * len(one)


def test_plan_is_the_one_it_always_was():
    """Golden order: a change of it breaks the continuation of every run begun before (contract 2)."""
    src = np.array([7, 3, 9, 4, 12, 5, 6, 8, 2, 10, 11, 4])
    tgt = np.array([6, 4, 9, 3, 10, 7, 6, 9, 3, 12, 8, 5])
    plan = plan_epoch(src, tgt, 20, seed=1, epoch=2)
    steps = [plan.step(i).tolist() for i in range(plan.num_steps)]
    assert steps == [[6, 0, 5], [4], [10, 7], [2], [9], [8, 3, 1, 11]]


@settings(deadline=None, max_examples=60)
@given(
    num_pairs=st.integers(1, 300),
    lengths=st.sampled_from([(1,), (1, 2, 3), range(1, 41), (1, 2, 3, 65_534, 65_535, 65_536, 70_000)]),
    batch_tokens=st.sampled_from([1, 7, 30, 200_000]),
)
def test_plan_sorts_windows_by_both_lengths(num_pairs, lengths, batch_tokens):
    """Guards against lengths that run into each other where they share an integer; parity with numpy's lexsort.

    The reference repeats the plan's recipe in the plainest way.
    """
    rng = np.random.default_rng(num_pairs)
    src, tgt = rng.choice(lengths, (2, num_pairs)).astype(np.int32)
    plan = plan_epoch(src, tgt, batch_tokens, 5, 6)
    rng = np.random.Generator(np.random.PCG64([5, 6]))
    order = rng.permutation(num_pairs)
    window = max(1, 100 * batch_tokens * num_pairs // max(1, int(tgt.sum())))
    clipped = [np.minimum(side, 65535)[order] for side in (src, tgt)]
    order = order[np.lexsort((*clipped, np.arange(num_pairs) // window))].tolist()
    steps = []
    while order:
        size = 1
        while (
            size < min(len(order), most_sentences(tgt, batch_tokens))
            and max(src[order[: size + 1]].sum(), tgt[order[: size + 1]].sum()) <= batch_tokens
        ):
            size += 1
        steps.append(order[:size])
        order = order[size:]
    assert [plan.step(i).tolist() for i in range(plan.num_steps)] == [steps[i] for i in rng.permutation(len(steps))]


def test_plan_mixes_lengths_across_steps_but_not_within():
    """Guards against steps of like lengths served in order of length (a curriculum), and against unsorted steps."""
    src, tgt = made_up_lengths(20000)
    plan = plan_epoch(src, tgt, 600, 0, 0)
    means = np.array([tgt[plan.step(i)].mean() for i in range(plan.num_steps)])
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.15
    spread = np.mean([np.ptp(tgt[plan.step(i)]) for i in range(plan.num_steps)])
    assert spread < 6
    # Sorting happens in windows, so that neighbours in length differ from epoch to epoch: a step is no global quantile.
    assert means.std() > 10


def test_plan_of_a_million_pairs():
    """Guards against work per pair in Python: a million pairs would take minutes (the suite would notice)."""
    src, tgt = made_up_lengths(1_000_000)
    plan = plan_epoch(src, tgt, 4096, 3, 1)
    assert np.array_equal(np.sort(plan.order), np.arange(1_000_000))
    assert np.add.reduceat(tgt[plan.order], plan.starts[:-1]).max() <= 4096
    assert np.add.reduceat(src[plan.order], plan.starts[:-1]).max() <= 4096


@settings(deadline=None, max_examples=60)
@example(lengths=[(length, 10 + length % 7) for length in [1, 50] * 30], num_parts=2)
@given(lengths=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=60), num_parts=st.integers(1, 9))
def test_deal_covers_and_balances(lengths, num_parts):
    """Guards against sentences lost between ranks and against one rank with all the long ones of either side, which
    would not fit into its fixed shapes."""
    lengths = np.array(lengths, dtype=np.int64).reshape(-1, 2)
    step = np.arange(len(lengths)) + 100
    parts = deal(step, *lengths.T, num_parts)
    assert len(parts) == num_parts
    assert sorted(np.concatenate(parts).tolist()) == step.tolist()
    for side in lengths.T:
        tokens = [int(side[part - 100].sum()) for part in parts]
        assert max(tokens) - min(tokens) <= (side.max() if len(lengths) else 0)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def check_layout(side, sentences):
    """``side`` is what :class:`Packed` says about these sentences."""
    assert side.ids.tolist() == [i for s in sentences for i in s]
    assert side.positions.tolist() == [p for s in sentences for p in range(len(s))]
    assert side.lengths.tolist() == [len(s) for s in sentences]
    assert side.offsets.tolist() == [sum(map(len, sentences[:i])) for i in range(len(sentences) + 1)]
    assert side.max_length == max(map(len, sentences))
    assert side.num_sentences == len(sentences)
    assert side.offsets.dtype == torch.int32
    assert {t.dtype for t in (side.ids, side.positions, side.lengths, side.cells, side.grid)} == {torch.int64}
    # The grid, read by rows, holds each sentence from the left, and the cells are its inverse.
    assert side.grid.numel() == side.num_sentences * side.max_length
    assert side.grid[side.cells].tolist() == list(range(side.ids.numel()))
    rows = side.ids[side.grid].view(side.num_sentences, side.max_length)
    assert [row[: len(s)].tolist() for row, s in zip(rows, sentences, strict=True)] == [list(s) for s in sentences]
    padding = torch.ones(side.grid.numel(), dtype=torch.bool).index_fill_(0, side.cells, False)
    assert not side.grid[padding].any()


sentence = st.lists(st.integers(4, 60000), max_size=9).map(lambda ids: [*ids, EOS_ID])


@settings(deadline=None, max_examples=60)
@given(pairs=st.lists(st.tuples(sentence, sentence), min_size=1, max_size=9))
def test_pack_pairs_layout(pairs):
    """Guards against a shift that carries a token over from the sentence before, and against wrong offsets."""
    src, tgt = zip(*pairs, strict=True)
    flat = [(np.concatenate(side).astype(np.uint16), np.array([len(s) for s in side], np.int32)) for side in (src, tgt)]
    batch = pack_pairs(*flat[0], *flat[1])
    check_layout(batch.src, src)
    check_layout(batch.tgt, [[BOS_ID, *s[:-1]] for s in tgt])
    assert batch.labels.tolist() == [i for s in tgt for i in s]
    assert batch.labels.dtype == torch.int64
    assert batch.num_labels == sum(map(len, tgt))
    check_layout(pack_sentences(src), src)


def test_pack_pairs_of_nothing_is_one_ignored_pair():
    """Guards against a rank without sentences that skips the step and leaves the others waiting."""
    none = np.array([], dtype=np.int64)
    batch = pack_pairs(none, none, none, none)
    assert batch.num_labels == 0
    assert batch.labels.tolist() == [IGNORE_LABEL]
    check_layout(batch.src, [[EOS_ID]])
    check_layout(batch.tgt, [[EOS_ID]])


@pytest.mark.parametrize(
    ("ids", "lengths"),
    [
        pytest.param([5, 6, 3], [], id="no sentence"),
        pytest.param([5, 6, 3], [0, 3], id="an empty sentence"),
        pytest.param([5, 6, 3], [2], id="tokens left over"),
        pytest.param([5, 6, 3], [2, 2], id="tokens missing"),
        pytest.param([5, 6, 3], [4, -1], id="a negative length"),
    ],
)
def test_pack_refuses_defects(ids, lengths):
    """Guards against a layout that silently shifts the sentences after a defect."""
    with pytest.raises(AssertionError):
        pack(np.array(ids), np.array(lengths, dtype=np.int64))


def test_moving_a_batch_keeps_all_of_it():
    """Guards against a field forgotten when a batch moves to another device."""
    batch = pack_pairs(*(np.array(x) for x in ([5, 3, 6, 7, 3], [2, 3], [8, 3, 3], [2, 1])))
    moved = batch.to(torch.device("meta"))
    for side in (moved.src, moved.tgt):
        assert all(getattr(side, f).is_meta for f in ("ids", "positions", "offsets", "lengths", "cells", "grid"))
    assert moved.labels.is_meta
    assert (moved.num_labels, moved.src.max_length, moved.tgt.max_length) == (3, 3, 2)
    assert moved.src.ids.shape == batch.src.ids.shape


def test_capacity_fits_every_step_and_changes_no_sentence():
    """Guards against a batch that meets its capacity only nearly always: a run would die of it hours later."""
    rng = np.random.default_rng(0)
    src_lengths, tgt_lengths = rng.integers(1, 30, size=(2, 3000))
    src_lengths[:50], tgt_lengths[50:100] = 100, 100  # unlike ones fill one side alone
    tgt_lengths[1000:1800] = 1  # many to a step
    for num_parts in (1, 3):
        capacity = Capacity.of(100, most_sentences(tgt_lengths, 256), 256, num_parts)
        plan = plan_epoch(src_lengths, tgt_lengths, 256, seed=1, epoch=0)
        for index in range(plan.num_steps):
            step = plan.step(index)
            for part in deal(step, src_lengths[step], tgt_lengths[step], num_parts):
                src, tgt = (rng.integers(4, 50, size=lengths[part].sum()) for lengths in (src_lengths, tgt_lengths))
                plain = pack_pairs(src, src_lengths[part], tgt, tgt_lengths[part]) if part.size else None
                batch = pack_pairs(src, src_lengths[part], tgt, tgt_lengths[part], capacity)
                assert batch.labels.shape == batch.tgt.ids.shape == (capacity.tgt_tokens,)
                assert batch.src.ids.shape == (capacity.src_tokens,)
                for side in (batch.src, batch.tgt):
                    assert side.offsets.shape == (capacity.sentences + 1,)
                    assert int(side.offsets[-1]) == side.ids.numel()
                    assert int(side.lengths.max()) <= side.max_length == capacity.max_length
                assert torch.equal(batch.src.lengths > 0, batch.tgt.lengths > 0)
                assert batch.num_labels == int((batch.labels != IGNORE_LABEL).sum()) == tgt.size
                if plain is not None:
                    for name in ("ids", "positions"):
                        assert torch.equal(getattr(batch.src, name)[: src.size], getattr(plain.src, name))
                        assert torch.equal(getattr(batch.tgt, name)[: tgt.size], getattr(plain.tgt, name))
                    assert torch.equal(batch.labels[: tgt.size], plain.labels)


def test_capacity_wastes_little():
    """The room for filling is under 2 percent at a real size."""
    capacity = Capacity.of(max_length=256, max_sentences=1000, batch_tokens=25_000, num_parts=1)
    assert capacity.tgt_tokens <= 25_000 * 1.02
