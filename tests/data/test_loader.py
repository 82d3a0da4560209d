"""Promise: a loader started in the middle gives the rest of the epoch, and shares of a step make up the step."""

import threading
import time
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from seq2seq.data import loader
from seq2seq.data.corpus import build_corpus
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.loader import load_steps
from seq2seq.data.packed import Capacity
from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.symbols import EOS_ID
from seq2seq.train.microbatches import MicroBatches

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tiny_tokenizers, tmp_path_factory):
    rng = np.random.default_rng(1)
    words = ["kato", "mi", "rensol", "to", "kaka", "solmi"]

    def line() -> str:
        return " ".join(rng.choice(words, size=rng.integers(1, 9)))

    pairs = [SentencePair(line(), line(), i) for i in range(120)]
    return build_corpus(tmp_path_factory.mktemp("corpus") / "c", pairs, tiny_tokenizers, "f")


@pytest.fixture(scope="module")
def plan(corpus):
    lengths = corpus.src_lengths, corpus.tgt_lengths
    return plan_epoch(*lengths, step_budgets(*lengths, 64), seed=1, epoch=0)


def pairs_of(batch):
    """The (source, target) pairs of a batch as tuples; none for the pair that stands for an empty part."""
    if batch.num_labels == 0:
        return []
    sides = []
    for side, ids in ((batch.src, batch.src.ids), (batch.tgt, batch.labels)):
        offsets = side.offsets.tolist()
        sides.append([tuple(ids[a:b].tolist()) for a, b in pairwise(offsets)])
    return list(zip(*sides, strict=True))


def stored(corpus, step):
    return sorted((tuple(corpus.sentence("src", i).tolist()), tuple(corpus.sentence("tgt", i).tolist())) for i in step)


def test_steps_are_the_plans(corpus, plan):
    """Guards against steps out of order (packing runs ahead in a thread), left out at the end, or of other pairs."""
    assert plan.num_steps > 2 * loader.STEPS_AHEAD
    steps = list(load_steps(corpus, plan, MicroBatches(), CPU))
    assert len(steps) == plan.num_steps
    for number, step in enumerate(steps):
        (batch,) = step.batches
        assert sorted(pairs_of(batch)) == stored(corpus, plan.step(number))
        assert step.num_labels == batch.num_labels == sum(len(tgt) for _, tgt in pairs_of(batch))
        assert all(tgt[-1] == EOS_ID for _, tgt in pairs_of(batch))


@pytest.mark.parametrize("first", [0, 1, 7, -1, None])
def test_from_the_middle_as_from_the_start(corpus, plan, first):
    """Guards against a resumed run that sees other batches than the run that was not stopped (contract 2)."""
    first = plan.num_steps if first is None else first % plan.num_steps
    whole = [[pairs_of(b) for b in step.batches] for step in load_steps(corpus, plan, MicroBatches(accumulate=2), CPU)]
    rest = load_steps(corpus, plan, MicroBatches(accumulate=2), CPU, first=first)
    assert [[pairs_of(b) for b in step.batches] for step in rest] == whole[first:]


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 3), (2, 1), (3, 2), (5, 4)])
def test_shares_partition_each_step(corpus, plan, processes, accumulate):
    """Guards against pairs seen by two ranks or by none, and a divisor that counts a rank's own tokens (contract 5).

    With 20 parts some steps have fewer pairs than parts, and some parts are empty.
    """
    shares = [MicroBatches(rank, processes, accumulate) for rank in range(processes)]
    ranks = [list(load_steps(corpus, plan, share, CPU)) for share in shares]
    for number in range(plan.num_steps):
        steps = [rank[number] for rank in ranks]
        assert all(len(step.batches) == accumulate for step in steps)
        batches = [batch for step in steps for batch in step.batches]
        found = sorted(pair for batch in batches for pair in pairs_of(batch))
        assert found == stored(corpus, plan.step(number))
        assert {step.num_labels for step in steps} == {sum(batch.num_labels for batch in batches)}


def test_without_fixed_shapes_a_batch_has_like_lengths(corpus, plan):
    """Guards against padding: where kernels pad, a micro-batch of mixed lengths takes up to twice the time."""
    for step in load_steps(corpus, plan, MicroBatches(accumulate=3), CPU):
        longest = [torch.maximum(batch.src.lengths, batch.tgt.lengths) for batch in step.batches if batch.num_labels]
        assert all(one.max() <= other.min() for one, other in pairwise(longest))


@pytest.mark.parametrize("processes", [1, 2])
def test_what_does_not_fit_is_split_further(corpus, plan, processes):
    """Guards against a run that ends at a step whose parts are more uneven than the fixed shapes allow for, and against
    processes that disagree about the number of parts and wait for each other for ever."""
    longest = int(max(corpus.src_lengths.max(), corpus.tgt_lengths.max()))
    room = longest + 8
    for capacity in (Capacity(room, room, 40, longest), Capacity(200, 200, 10, longest)):
        shares = [MicroBatches(rank, processes, 1, capacity) for rank in range(processes)]
        ranks = [list(load_steps(corpus, plan, share, CPU)) for share in shares]
        numbers = set()
        for number in range(plan.num_steps):
            batches = [rank[number].batches for rank in ranks]
            assert len({len(mine) for mine in batches}) == 1
            numbers.add(len(batches[0]))
            assert {batch.tgt.ids.numel() for mine in batches for batch in mine} == {capacity.tgt_tokens}
            labels = sum(batch.num_labels for mine in batches for batch in mine)
            assert labels == ranks[0][number].num_labels == corpus.tgt_lengths[plan.step(number)].sum()
        assert max(numbers) >= 2


def test_waiting_is_measured(corpus, plan):
    """Guards against a figure that stays 0 when the loader is slow, or that counts what training itself takes."""
    assert plan.num_steps >= 10
    waited = []
    for step in islice(load_steps(corpus, plan, MicroBatches(), CPU), 10):
        waited.append(step.waited)
        time.sleep(0.05)
    assert sum(waited) < 0.2

    def slow(corpus, step):
        time.sleep(0.05)
        return MicroBatches()(corpus, step)

    waited = [step.waited for step in islice(load_steps(corpus, plan, slow, CPU), 10)]
    assert 0.4 < sum(waited) < 5


def test_an_error_in_packing_surfaces(corpus, plan):
    """Guards against an error in the thread that hangs the run or ends the epoch early; the steps before it come."""
    bad = plan.step(6)[0]

    def fail(corpus, step):
        if bad in step:
            raise RuntimeError("planted")
        return MicroBatches()(corpus, step)

    steps = load_steps(corpus, plan, fail, CPU)
    for _ in range(6):
        next(steps)
    with pytest.raises(RuntimeError, match="planted"):
        next(steps)


def test_leaving_early_ends_the_thread(corpus, plan):
    """Guards against a thread left behind where training ends in the middle of an epoch."""
    steps = load_steps(corpus, plan, MicroBatches(), CPU)
    next(steps)
    steps.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
