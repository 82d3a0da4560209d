"""Promise: the search is the textbook's, beam 1 is plain greedy search, and no output depends on its batch.

The model is a toy whose next-token logits are random but fixed numbers for each (sentence, prefix), so the search can
be compared with a plain one, and a wide beam with an enumeration of all outputs. Shapes: ``B`` sentences, ``K``
hypotheses of each, ``V`` vocabulary.
"""

import math
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

from seq2seq.config import DecodeConfig
from seq2seq.data.packed import PackedBatch, pack_sentences
from seq2seq.decode import search as search_module
from seq2seq.decode.search import search
from seq2seq.decode.stepper import EagerStepper, begin
from seq2seq.model.state import State
from tests.model.variants import all_architectures

BOS, EOS = 2, 3


@pytest.fixture(autouse=True)
def all_ids_are_words(monkeypatch):
    """In the toy's small vocabularies, ids below EOS may be chosen, too."""
    monkeypatch.setattr(search_module, "FIRST_ID", 0)


@cache
def toy_logits(sentence: int, prefix: tuple[int, ...], vocabulary: int, sharpness: float) -> torch.Tensor:
    rng = np.random.default_rng([7, sentence, len(prefix), *prefix])
    return torch.from_numpy(sharpness * rng.normal(size=vocabulary)).float()


class ToyState(State):
    """Keeps the prefix of every hypothesis and checks what the search does to it."""

    def __init__(self, names, num_hypotheses, steps):
        super().__init__(num_hypotheses)
        self.of_sentences["name"] = torch.tensor(names)
        self.of_hypotheses["prefix"] = torch.zeros(len(names), 1, steps, dtype=torch.int64)
        self.sentences = list(names)

    def follow(self, parents):
        assert parents.shape == (len(self.sentences), self.num_hypotheses)
        assert parents.min() >= 0
        assert parents.max() < self.num_hypotheses
        super().follow(parents)

    def keep(self, sentences):
        self.sentences = [self.sentences[int(s)] for s in sentences]
        super().keep(sentences)


class ToyModel:
    tags = ()

    def __init__(self, vocabulary, sharpness):
        self.vocabulary, self.sharpness = vocabulary, sharpness
        self.rows_fed = 0

    def begin(self, src, num_hypotheses, room):
        self.state = ToyState(src, num_hypotheses, room)
        return self.state

    def step(self, tokens, state):
        names, prefixes = state.of_sentences["name"], state.of_hypotheses["prefix"]
        assert names.tolist() == state.sentences
        assert state.length < prefixes.size(2), "more steps than there is room for"
        assert tokens.shape == prefixes.shape[:2] == (len(names), state.num_hypotheses if state.length else 1)
        prefixes[:, :, state.length] = tokens
        self.rows_fed += tokens.numel()
        held = prefixes[:, :, : state.length + 1].tolist()
        logits = [
            [toy_logits(name, tuple(prefix), self.vocabulary, self.sharpness) for prefix in hypotheses]
            for name, hypotheses in zip(names.tolist(), held, strict=True)
        ]
        return torch.stack([torch.stack(rows) for rows in logits])


def run(
    names,
    max_lengths,
    vocabulary=5,
    sharpness=1.0,
    alpha=1.0,
    uniforms=None,
    make_model=ToyModel,
    num_best=None,
    **options,
):
    """The hypotheses of the sentences ``names``, and the model at the end."""
    decode = DecodeConfig().model_copy(update={"beam_size": 4, **options})
    model = make_model(vocabulary, sharpness)
    stepper = EagerStepper(model, begin(model, names, max_lengths, decode, uniforms), decode)
    return search(stepper, max_lengths, decode.num_hypotheses, alpha, num_best), model


def log_prob(name, ids, vocabulary=5, sharpness=1.0):
    """The toy model's log-probability of ``ids`` followed by EOS."""
    total, prefix = 0.0, (BOS,)
    for token in (*ids, EOS):
        total += float(toy_logits(name, prefix, vocabulary, sharpness).log_softmax(-1)[token])
        prefix = (*prefix, token)
    return total


def enumerate_all(name, max_length, alpha, vocabulary=5, sharpness=1.0):
    """Every output of at most ``max_length`` tokens with EOS: (score, ids), best first."""
    words = [token for token in range(vocabulary) if token != EOS]
    outputs = [ids for length in range(max_length) for ids in product(words, repeat=length)]
    penalties = {ids: ((5 + len(ids) + 1) / 6) ** alpha for ids in outputs}
    return sorted(((log_prob(name, ids, vocabulary, sharpness) / penalties[ids], ids) for ids in outputs), reverse=True)


def assert_same(found, expected, tolerance=1e-5):
    assert [h.ids for h in found] == [ids for _, ids in expected]
    for hypothesis, (score, _) in zip(found, expected, strict=True):
        assert hypothesis.score == pytest.approx(score, abs=tolerance)


# ------------------------------------------------------------------------------------------------------- beam search


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.5])
@pytest.mark.parametrize("max_lengths", [[4, 4, 4], [1, 4, 2], [3, 1, 1]])
def test_a_wide_beam_finds_everything_in_order(alpha, max_lengths):
    """Guards against any mistake in scores, penalties, back-pointers, or the forced end: with a beam as wide as there
    are outputs, all of them come back, best first. Vocabulary 4 (smaller than the beam), three sentences at once."""
    found, _ = run([0, 1, 2], max_lengths, vocabulary=4, beam_size=40, alpha=alpha)
    for name, max_length in enumerate(max_lengths):
        expected = enumerate_all(name, max_length, alpha, vocabulary=4)
        assert len(expected) == sum(3**n for n in range(max_length))
        assert_same(found[name], expected)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_a_beam_as_wide_as_the_continuations_finds_the_best(alpha):
    """Guards against the end of a sentence that loses hypotheses: 20 continuations at most exist, so a beam of 20 is
    exact for the best 20 of the 21 outputs."""
    names = list(range(8))
    found, _ = run(names, [3] * 8, beam_size=20, alpha=alpha)
    for name in names:
        assert_same(found[name], enumerate_all(name, 3, alpha)[:20])


def plain_beam_search(name, max_length, beam_size, alpha, vocabulary=5, sharpness=1.0):
    """The textbook procedure with copied prefixes: [(score, ids), ...], best first, and the number of steps."""
    live, finished = [(0.0, (BOS,))], []
    for length in range(1, max_length + 1):
        grown = []
        for total, prefix in live:
            log_p = toy_logits(name, prefix, vocabulary, sharpness).log_softmax(-1).tolist()
            choices = range(vocabulary) if length < max_length else [EOS]
            grown += [(total + log_p[token], (*prefix, token)) for token in choices]
        grown.sort(reverse=True)
        penalty = ((5 + length) / 6) ** alpha
        finished += [(total / penalty, ids[1:-1]) for total, ids in grown[:beam_size] if ids[-1] == EOS]
        live = [(total, ids) for total, ids in grown if ids[-1] != EOS][:beam_size]
        if len(finished) >= beam_size:
            break
    return sorted(finished, reverse=True)[:beam_size], length


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 4.0])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("vocabulary", [4, 7, 70])
@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_the_search_is_the_plain_one(alpha, beam_size, vocabulary, sharpness):
    """Guards against a sentence that ends a step too early or too late, EOS taken where K better continuations exist,
    back-pointers mixed up, and sentences that disturb each other."""
    names, max_lengths = list(range(12)), [9, 3, 7, 1, 9, 5, 2, 8, 9, 4, 6, 9]
    options = {"vocabulary": vocabulary, "sharpness": sharpness}
    found, model = run(names, max_lengths, beam_size=beam_size, alpha=alpha, **options)
    rows = 0
    for name, max_length in zip(names, max_lengths, strict=True):
        expected, steps = plain_beam_search(name, max_length, beam_size, alpha, **options)
        assert_same(found[name], expected)
        rows += 1 + (steps - 1) * beam_size
    assert model.rows_fed == rows


@pytest.mark.parametrize("vocabulary", [3, 64, 65, 700])
@pytest.mark.parametrize("count", [2, 10])
def testbest_continuations_are_those_of_a_full_sort(vocabulary, count):
    """Guards against a piece of the vocabulary that is not looked through: several of the best in one piece, and in the
    last one, which is not full."""
    offsets = torch.tensor([[0.0, -0.3], [-5.0, 0.0], [0.0, -math.inf]])
    logits = torch.randn(3, 2, vocabulary, generator=torch.Generator().manual_seed(1))
    logits[0, 0] = logits[0, 0].sort().values  # the best of the first hypothesis stand at the end, side by side
    best, tokens, parents = search_module.best_continuations(logits, offsets, count)
    totals = (logits + offsets[:, :, None]).flatten(1)
    expected, order = functional.pad(totals, (0, count), value=-math.inf).topk(count, dim=1)
    torch.testing.assert_close(best, expected)
    real = expected > -math.inf
    assert torch.equal((parents * vocabulary + tokens)[real], order[real])
    assert ((tokens >= 0) & (tokens < vocabulary)).all()


@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
def test_a_beam_of_one_is_greedy(alpha):
    """Guards against EOS that is not the likeliest token, and against going on after it for a better score: the output
    is the chain of likeliest tokens up to the first EOS, whatever the length penalty."""
    ends = set()
    for name in range(40):
        ids = []
        while len(ids) < 7:
            token = int(toy_logits(name, (BOS, *ids), 5, 2.0).argmax())
            if token == EOS:
                break
            ids.append(token)
        ((found,),), model = run([name], [8], sharpness=2.0, beam_size=1, alpha=alpha)
        assert found.ids == tuple(ids)
        assert model.rows_fed == len(ids) + 1
        ends.add(len(ids))
    assert ends == set(range(8))


def test_n_best_is_sorted_and_without_doubles():
    """Guards against beams that start equal and stay equal, and against lists in order of finding."""
    found, _ = run(list(range(20)), [6] * 20, beam_size=5)
    for hypotheses in found:
        assert len(hypotheses) == 5
        assert len({h.ids for h in hypotheses}) == 5
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert all(EOS not in h.ids for h in hypotheses)


def test_the_best_come_alone():
    """Guards against a search for few that returns others than the first of many."""
    found, _ = run(list(range(20)), [6] * 20, beam_size=5)
    for count in (1, 3):
        some, _ = run(list(range(20)), [6] * 20, beam_size=5, num_best=count)
        assert some == [hypotheses[:count] for hypotheses in found]


def test_scores_are_the_models():
    """Guards against a score without EOS, a penalty that does not count it, and sums that drift."""
    found, _ = run([0, 1, 2], [6] * 3, beam_size=4, alpha=0.7)
    for name, hypotheses in enumerate(found):
        for h in hypotheses:
            assert h.log_prob == pytest.approx(log_prob(name, h.ids), abs=1e-5)
            assert h.score == pytest.approx(h.log_prob / ((5 + len(h.ids) + 1) / 6) ** 0.7, rel=1e-9)


def test_the_end_is_forced_at_the_longest_length_and_paid_for():
    """Guards against unfinished outputs that compare as if EOS were free, and against lengths beyond the limit."""
    never = -30.0

    class NeverEnds(ToyModel):
        def step(self, tokens, state):
            logits = super().step(tokens, state)
            logits[:, :, EOS] = never
            return logits

    found, _ = run([0, 1], [3, 6], make_model=NeverEnds, beam_size=2, alpha=0.0)
    for hypotheses, longest in zip(found, (3, 6), strict=True):
        assert [len(h.ids) + 1 for h in hypotheses] == [longest] * 2
        assert all(never - 15 < h.log_prob < never for h in hypotheses)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_an_end_at_the_longest_length_says_whether_it_was_forced(beam_size):
    """Guards against a false alarm where a hypothesis ends by itself at its longest length, and against a cut that
    nobody sees: an end is the search's own if it is among the best K continuations of the last step."""
    names, kinds = list(range(40)), set()
    for longest in (1, 3):
        found, _ = run(names, [longest] * 40, beam_size=beam_size)
        roomy, _ = run(names, [longest + 9] * 40, beam_size=beam_size)
        for hypotheses, others in zip(found, roomy, strict=True):
            by_itself = {h.ids for h in others}
            for h in hypotheses:
                assert h.cut == (len(h.ids) + 1 == longest and h.ids not in by_itself)
                kinds.add((h.cut, len(h.ids) + 1 == longest))
    assert kinds >= {(True, True), (False, True)}


def test_a_sample_at_the_longest_length_says_whether_it_was_cut():
    """The same for samples: cut are those that drew another token than EOS at the last step."""
    names = list(range(20))
    (found, _), (roomy, _) = sample(names, [3] * 20, 4), sample(names, [12] * 20, 4)
    for hypotheses, others in zip(found, roomy, strict=True):
        assert sorted(not h.cut for h in hypotheses) == sorted(len(h.ids) < 3 for h in others)
        assert all(len(h.ids) == 2 for h in hypotheses if h.cut)


@pytest.mark.parametrize("beam_size", [1, 5, 30])
@pytest.mark.parametrize("sampling", [False, True])
def test_banned_tokens_are_never_chosen(beam_size, sampling, monkeypatch):
    """Guards against outputs with padding, unknown or BOS, also at the first step, where all hypotheses share their
    logits, and where fewer continuations than beams are left; scores stay the model's."""
    monkeypatch.setattr(search_module, "FIRST_ID", EOS)
    names = list(range(12))
    search_for = (
        sample if sampling else lambda names, longest, k, **options: run(names, longest, beam_size=k, **options)
    )
    found, _ = search_for(names, [4] * 12, beam_size, vocabulary=6)
    for name, hypotheses in enumerate(found):
        assert hypotheses
        for h in hypotheses:
            assert set(h.ids) <= {4, 5}
            assert h.log_prob == pytest.approx(log_prob(name, h.ids, vocabulary=6), abs=1e-5)


@pytest.mark.parametrize("vocabulary", [4, 5])
@pytest.mark.parametrize("beam_size", [3, 9, 30])
def test_a_beam_wider_than_the_vocabulary(vocabulary, beam_size):
    """Guards against an index error, doubles, or outputs of dead beams where there are fewer choices than beams, and
    against a sentence with fewer outputs than the beam has room for, where more exist."""
    found, _ = run([0, 1], [2, 4], vocabulary=vocabulary, beam_size=beam_size)
    for name, max_length in ((0, 2), (1, 4)):
        assert_same(found[name], plain_beam_search(name, max_length, beam_size, 1.0, vocabulary)[0])
        assert len(found[name]) == min(beam_size, sum((vocabulary - 1) ** n for n in range(max_length)))


def test_no_sentence_depends_on_its_batch():
    """Guards against results that differ with the batch (contract 3): alone, in a batch, and in another order."""
    names, max_lengths = list(range(15)), [1 + (5 * i) % 9 for i in range(15)]
    together, _ = run(names, max_lengths, sharpness=2.0)
    backwards, _ = run(names[::-1], max_lengths[::-1], sharpness=2.0)
    assert together == backwards[::-1]
    for name in names:
        assert run([name], [max_lengths[name]], sharpness=2.0)[0] == [together[name]]


def test_finished_sentences_leave_the_batch():
    """Guards against work on finished sentences: the state drops them, and the other rows stay aligned (the toy state
    checks that at every step)."""
    _, model = run([0, 1, 2], [2, 9, 1], sharpness=0.1, beam_size=3)
    assert model.state.sentences == [1]
    assert model.rows_fed <= 3 + 3 * (2 + 2 + 7)


@all_architectures
def test_with_a_real_model(make_model, make_pairs, options):
    """Guards against a state that does not follow the search: scores are those of the whole model, teacher-forced."""
    model = make_model(**options).eval()
    sources = [src for src, _ in make_pairs([(4, 1), (9, 1), (2, 1)])]
    decode, max_lengths = DecodeConfig(beam_size=3), [9, 4, 7]
    with torch.no_grad():
        state = begin(model, pack_sentences(sources), max_lengths, decode)
        found = search(EagerStepper(model, state, decode), max_lengths, 3, 1.0)
        for source, hypotheses in zip(sources, found, strict=True):
            for h in hypotheses:
                src, tgt = pack_sentences([source]), pack_sentences([[BOS, *h.ids]])
                log_p = model.logits(model(PackedBatch(src, tgt, tgt.ids, len(tgt.ids)))).log_softmax(-1)
                expected = log_p.gather(1, torch.tensor([*h.ids, EOS])[:, None]).sum()
                assert h.log_prob == pytest.approx(expected.item(), abs=1e-4)


# ---------------------------------------------------------------------------------------------------------- sampling


def sample(names, max_lengths, num_samples, seed=0, **options):
    rngs = [np.random.default_rng([seed, name]) for name in names]
    uniforms = np.stack([rng.random((12, num_samples)).T for rng in rngs])
    return run(names, max_lengths, sample=True, n_best=num_samples, uniforms=uniforms, **options)


def test_samples_follow_the_distribution():
    """Guards against a biased draw, or samples that share their random numbers: 4000 outputs of at most 3 tokens
    against the exact probabilities of all (chi-square within five standard deviations)."""
    ((*found,),), _ = sample([0], [3], 4000, vocabulary=4)
    assert len(found) == 4000
    outputs = {}
    for _, ids in enumerate_all(0, 3, 0.0, vocabulary=4):
        if len(ids) < 2:
            outputs[ids] = math.exp(log_prob(0, ids, vocabulary=4))
        else:  # the end is forced, so all of the prefix's probability ends here
            last = float(toy_logits(0, (BOS, *ids), 4, 1.0).log_softmax(-1)[EOS])
            outputs[ids] = math.exp(log_prob(0, ids, vocabulary=4) - last)
    assert sum(outputs.values()) == pytest.approx(1, abs=1e-5)
    counts = dict.fromkeys(outputs, 0)
    for h in found:
        counts[h.ids] += 1
        assert h.log_prob == pytest.approx(log_prob(0, h.ids, vocabulary=4), abs=1e-5)
    chi_square = sum((counts[ids] - 4000 * p) ** 2 / (4000 * p) for ids, p in outputs.items())
    freedom = len(outputs) - 1
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)


def first_tokens(**options):
    """Share of each first token (vocabulary 5) among 4000 samples."""
    ((*found,),), _ = sample([3], [2], 4000, **options)
    counts = np.zeros(5)
    for h in found:
        counts[h.ids[0] if h.ids else EOS] += 1
    return counts / 4000


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        pytest.param({}, lambda p: p == p, id="all"),
        pytest.param({"temperature": 0.5}, lambda p: p == p, id="cold"),
        pytest.param({"temperature": 3.0}, lambda p: p == p, id="hot"),
        pytest.param({"top_k": 2}, lambda p: p >= np.sort(p)[-2], id="top-k"),
        pytest.param({"top_k": 50}, lambda p: p == p, id="top-k-beyond-the-vocabulary"),
        pytest.param({"top_p": 0.7}, lambda p: np.sort(p)[::-1].cumsum().searchsorted(0.7) >= rank(p), id="top-p"),
        pytest.param({"top_p": 1e-6}, lambda p: p == p.max(), id="top-p-tiny"),
        pytest.param({"top_k": 3, "top_p": 0.6, "temperature": 2.0}, None, id="together"),
    ],
)
def test_filters(options, keep):
    """Guards against a filter that keeps one token too many or too few, or forgets to share out the rest."""
    logits = toy_logits(3, (BOS,), 5, 1.0).double().numpy() / options.get("temperature", 1.0)
    p = np.exp(logits) / np.exp(logits).sum()
    if keep is None:
        p = np.where(p >= np.sort(p)[-3], p, 0)
        p /= p.sum()
        kept = np.sort(p)[::-1].cumsum().searchsorted(0.6) >= rank(p)
    else:
        kept = keep(p)
    expected = np.where(kept, p, 0) / p[kept].sum()
    found = first_tokens(**options)
    assert not found[~kept].any()
    assert np.abs(found - expected).max() < 5 * math.sqrt(0.25 / 4000)


def rank(p):
    """0 for the likeliest token, 1 for the next."""
    return (-p).argsort().argsort()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_extreme_random_numbers(uniform):
    """Guards against a token of probability 0, or an index past the vocabulary, at the ends of the unit interval."""
    p = torch.tensor([0.0, 0.4, 0.0, 0.6, 0.0])
    token = search_module._sample(p.log()[None], torch.tensor([uniform], dtype=torch.float64), DecodeConfig())
    assert token.tolist() == [1 if uniform == 0 else 3]


def test_samples_do_not_depend_on_the_batch():
    """Guards against random numbers that go by place in the batch, also after others have left it (contract 3)."""
    names, max_lengths = list(range(9)), [1 + (5 * i) % 9 for i in range(9)]
    together, _ = sample(names, max_lengths, 3)
    backwards, _ = sample(names[::-1], max_lengths[::-1], 3)
    assert together == backwards[::-1]
    for name in names:
        assert sample([name], [max_lengths[name]], 3)[0] == [together[name]]
    assert all(len(hypotheses) == 3 for hypotheses in together)
    assert sample(names, max_lengths, 3, seed=1)[0] != together
