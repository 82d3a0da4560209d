"""Promise: an epoch has of every dataset what its weight says, no pair returns before all others were seen, and all of
it depends on the seed and the number of the epoch alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.config import TextFiles
from seq2seq.data.mixture import Mixture, names_of
from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.errors import DataError


class Pairs:
    """Stands for a corpus: of ten lines of text, those that are kept."""

    def __init__(self, lines):
        rng = np.random.default_rng(len(lines))
        self.lines = np.array(lines)
        self.src_lengths, self.tgt_lengths = rng.integers(2, 30, size=(2, len(lines)))


def dataset(name="a", **keys):
    return TextFiles(src=[f"{name}.en"], tgt=[f"{name}.de"], **keys)


def mixture(*datasets, counts=(4, 6), lines=range(10)):
    return Mixture(Pairs(list(lines)), datasets, counts)


def test_shares_of_three_epochs_equal_the_weights():
    """Guards against a weight that counts pairs of the text instead of those kept, or rounds in every epoch."""
    mixed = mixture(dataset(weight=2.5), dataset("b", weight=0.5), lines=[0, 1, 3, 4, 5, 6, 7, 8, 9])
    counts = Counter(pair for epoch in range(4) for pair in mixed.pairs(1, epoch).tolist())
    assert sum(counts[pair] for pair in range(3)) == 4 * round(2.5 * 3)
    assert sum(counts[pair] for pair in range(3, 9)) == 4 * 3
    assert set(counts.values()) <= {2, 10, 11}  # 32 draws of 3 pairs; 12 of 6


@given(st.floats(0.1, 4), st.integers(0, 5), st.integers(1, 40))
def test_every_pair_is_seen_before_one_returns(weight, seed, size):
    """Guards against epochs that draw anew: some pairs would never be seen, and others in each of them."""
    mixed = mixture(dataset(weight=weight), counts=(size,), lines=range(size))
    seen = np.zeros(size, int)
    for epoch in range(8):
        pairs = mixed.pairs(seed, epoch)
        assert len(pairs) == max(1, round(weight * size))
        seen += np.bincount(pairs, minlength=size)
        assert seen.max() - seen.min() <= 1
        assert np.array_equal(pairs, mixed.pairs(seed, epoch))


def test_epochs_differ_and_so_do_seeds():
    """Guards against the same half of a text in every epoch."""
    mixed = mixture(dataset(weight=0.5), counts=(100,), lines=range(100))
    drawn = [tuple(mixed.pairs(seed, epoch)) for seed, epoch in ((1, 0), (1, 1), (1, 2), (2, 0), (2, 2))]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn[0]) | set(drawn[1]) == set(range(100))


def test_datasets_come_and_go():
    """Guards against epochs that count from 0 in one place and from 1 in the other."""
    mixed = mixture(dataset(until_epoch=2), dataset("b", from_epoch=2, weight=0.5))
    assert [sorted(set((mixed.pairs(3, epoch) >= 4).tolist())) for epoch in range(4)] == [
        [False],
        [False, True],
        [True],
        [True],
    ]
    late = [pair for epoch in (1, 2) for pair in mixed.pairs(3, epoch).tolist() if pair >= 4]
    assert sorted(late) == list(range(4, 10))  # its own first turn is epoch 2


def test_whole_text_has_the_plan_of_before():
    """Guards against another order for the runs that have no weights: they could not be continued."""
    mixed = mixture(dataset(), dataset("b"))
    corpus = mixed.corpus
    budgets = step_budgets(corpus.src_lengths, corpus.tgt_lengths, 40)
    expected = plan_epoch(corpus.src_lengths, corpus.tgt_lengths, budgets, 7, 2)
    found = mixed.plan(40, 7, 2)
    assert np.array_equal(found.order, expected.order)
    assert np.array_equal(found.starts, expected.starts)
    assert mixed.fingerprint == ""
    assert mixture(dataset(), dataset("b", weight=2)).fingerprint
    everything = plan_epoch(corpus.src_lengths, corpus.tgt_lengths, budgets, 7, 2, np.arange(10))
    assert np.array_equal(everything.order, expected.order)


def test_a_plan_has_the_pairs_of_its_epoch():
    """Guards against a plan that shuffles the corpus instead of what was drawn."""
    mixed = mixture(dataset(weight=3), dataset("b", weight=0.5))
    plan = mixed.plan(40, 7, 1)
    assert sorted(plan.order.tolist()) == mixed.pairs(7, 1).tolist()
    assert plan.starts[-1] == len(plan.order)
    src, _ = mixed.usual_lengths
    assert len(src) == 3 * 4 + 3
    late = mixture(dataset(), dataset("b", from_epoch=9))
    assert late.plan(40, 7, 0).num_steps < late.usual_steps(40, 7)
    assert late.usual_steps(40, 7) == mixture(dataset(), dataset("b")).usual_steps(40, 7)


def test_an_epoch_without_pairs_is_refused():
    """Guards against an epoch of no steps, after which training would begin the next one for ever."""
    mixed = mixture(dataset(), dataset("b", from_epoch=2), counts=(4, 6), lines=range(4, 10))
    with pytest.raises(DataError, match="epoch 1 has no pairs"):
        mixed.plan(40, 7, 0)
    assert mixed.plan(40, 7, 1).num_steps


def test_names_differ():
    """Guards against losses of two datasets under one name."""
    datasets = [dataset(), dataset(), dataset(name="a", weight=2.0), TextFiles(src=["x"], tgt=["y"], name="a.en")]
    assert names_of(datasets) == ["a.en", "a.en (2)", "a.en (3)", "a.en (4)"]


def test_words():
    mixed = mixture(
        dataset(weight=2.5, tag="bt"), dataset("b", from_epoch=3), dataset("c", until_epoch=4), counts=(4, 3, 3)
    )
    assert str(mixed) == "a.en: 4 pairs x 2.5, tag bt; b.en: 3 pairs from epoch 3 on; c.en: 3 pairs in epochs 1 to 4"
    assert str(mixture(dataset(), counts=(10,))) == ""
