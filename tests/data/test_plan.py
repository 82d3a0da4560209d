"""Promise: the plan is a pure function of its arguments, and loses no pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.data.plan import EpochPlan, plan_epoch, step_budgets


def made_up_lengths(num_pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    src = rng.integers(1, 60, num_pairs).astype(np.int32)
    return src, np.maximum(1, src + rng.integers(-5, 6, num_pairs)).astype(np.int32)


def plan_of(src: np.ndarray, tgt: np.ndarray, batch_tokens: int, seed: int = 1, epoch: int = 0) -> EpochPlan:
    return plan_epoch(src, tgt, step_budgets(src, tgt, batch_tokens), seed, epoch)


some_lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80)


@settings(deadline=None, max_examples=100)
@given(pairs=some_lengths, budget=st.integers(1, 120), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
def test_plan_covers_every_pair_once_within_the_budgets(pairs, budget, seed, epoch):
    """Guards against pairs lost or doubled, empty steps, a budget that holds on one side only, and steps cut early."""
    src, tgt = (np.array(side, dtype=np.int32) for side in zip(*pairs, strict=True))
    budgets = step_budgets(src, tgt, budget)
    plan = plan_epoch(src, tgt, budgets, seed, epoch)
    steps = [plan.step(i) for i in range(plan.num_steps)]
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(pairs)))

    def fits(step):
        return src[step].sum() <= budgets[0] and tgt[step].sum() <= budgets[1]

    assert all(len(step) == 1 or fits(step) for step in steps)
    assert all(
        len(step) > 0 and not fits(plan.order[begin : begin + len(step) + 1])
        for begin, step in zip(plan.starts[:-2], steps[:-1], strict=True)
    )
    again = plan_epoch(src.astype(np.int64), tgt.copy(), budgets, seed, epoch)
    assert np.array_equal(plan.order, again.order)
    assert np.array_equal(plan.starts, again.starts)


def test_budgets_are_target_tokens_and_source_in_proportion():
    """batch_tokens counts target tokens, as the config says, whichever side is longer."""
    assert step_budgets(np.array([2, 4]), np.array([1, 2]), 100) == (200, 100)
    assert step_budgets(np.array([1, 2]), np.array([2, 5]), 100) == (43, 100)
    nothing = np.array([], dtype=np.int64)
    assert plan_epoch(nothing, nothing, step_budgets(nothing, nothing, 5), 0, 0).num_steps == 0


def test_plan_of_a_pair_longer_than_the_budget_is_a_step_of_its_own():
    """Guards against an endless loop, or a dropped pair, where one sentence exceeds batch_tokens."""
    lengths = np.array([3, 50, 3, 70, 3])
    plan = plan_of(lengths, lengths, 9)
    steps = [plan.step(i).tolist() for i in range(plan.num_steps)]
    assert [1] in steps
    assert [3] in steps
    assert sorted(plan.order) == [0, 1, 2, 3, 4]


def test_plan_differs_by_epoch_and_seed():
    """Guards against epochs that repeat one order, or the same batches in another order."""
    src, tgt = made_up_lengths(4000)
    plans = [plan_of(src, tgt, 200, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0), (0, 1))]
    batches = [{frozenset(plan.step(i).tolist()) for i in range(plan.num_steps)} for plan in plans]
    for i, one in enumerate(batches):
        for j, other in enumerate(batches[:i]):
            assert not np.array_equal(plans[i].order, plans[j].order)
            assert len(one & other) < 0.05 * len(one)


def test_plan_is_the_one_it_always_was():
    """Golden order: a change of it breaks the continuation of every run begun before (contract 2), so PLAN_VERSION has
    to change with it."""
    src = np.array([7, 3, 9, 4, 12, 5, 6, 8, 2, 10, 11, 4])
    tgt = np.array([6, 4, 9, 3, 10, 7, 6, 9, 3, 12, 8, 5])
    plan = plan_of(src, tgt, 20, seed=1, epoch=2)
    assert [plan.step(i).tolist() for i in range(plan.num_steps)] == [
        [6, 0],
        [9, 3],
        [5, 4],
        [11, 8, 1, 10],
        [7, 2],
    ]


@settings(deadline=None, max_examples=60)
@given(num_pairs=st.integers(1, 300), lengths=st.sampled_from([(1,), (1, 2, 3), range(1, 41), (1, 2, 70_000)]))
def test_plan_answers_a_surplus_of_either_side(num_pairs, lengths):
    """Parity with the recipe in the plainest way; so the running proportion of both sides never strays by more than
    the most uneven pair."""
    src, tgt = np.random.default_rng(num_pairs).choice(lengths, (2, num_pairs)).astype(np.int32)
    plan = plan_of(src, tgt, 30, 5, 6)
    shuffled = np.random.Generator(np.random.PCG64([5, 6])).permutation(num_pairs)
    surplus = src * (int(tgt.sum()) / int(src.sum())) - tgt
    sources, targets = ([i for i in shuffled if (surplus[i] > 0) == more] for more in (True, False))
    order, reached = [], [0.0, 0.0]
    while sources or targets:
        with_next = [reached[n] + abs(surplus[q[0]]) if q else np.inf for n, q in enumerate((sources, targets))]
        tied = with_next[0] == with_next[1]
        first = shuffled.tolist().index(sources[0]) < shuffled.tolist().index(targets[0]) if tied else False
        chosen = 0 if with_next[0] < with_next[1] or first else 1
        reached[chosen] = with_next[chosen]
        order.append(int((sources, targets)[chosen].pop(0)))
    assert plan.order.tolist() == order
    assert np.abs(surplus[plan.order].cumsum()).max() <= np.abs(surplus).max() * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize("ratio", [0.5, 1, 3])
def test_steps_are_full_on_both_sides_and_alike(ratio):
    """What is not full is computed for nothing where shapes are fixed: at 4,096 tokens under 1 percent. And every step
    is a sample of all lengths, from the first to the last."""
    tgt, noise = made_up_lengths(40_000)[0], np.random.default_rng(1).normal(0, 3, 40_000)
    src = np.maximum(1, tgt * ratio + noise).astype(np.int32)
    budgets = step_budgets(src, tgt, 4096)
    plan = plan_epoch(src, tgt, budgets, 0, 0)
    for side, budget in zip((src, tgt), budgets, strict=True):
        sums = np.add.reduceat(side[plan.order], plan.starts[:-1])[:-1]
        assert sums.mean() >= 0.99 * budget
        assert sums.min() >= 0.97 * budget
    means = np.array([tgt[plan.step(i)].mean() for i in range(plan.num_steps - 1)])
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.15
    assert np.abs(means - tgt.mean()).max() < 5 * tgt.std() / np.sqrt(4096 / tgt.mean())


def test_plan_of_a_million_pairs():
    """Guards against work per pair in Python: a million pairs would take minutes (the suite would notice)."""
    src, tgt = made_up_lengths(1_000_000)
    plan = plan_of(src, tgt, 4096, 3, 1)
    assert np.array_equal(np.sort(plan.order), np.arange(1_000_000))
    assert np.add.reduceat(tgt[plan.order], plan.starts[:-1]).max() <= 4096
