"""Promise: an ensemble's log-probabilities are the means of its members', whatever their architectures."""

import pytest
import torch

from seq2seq.config import DecodeConfig
from seq2seq.data.packed import PackedBatch, pack_sentences
from seq2seq.data.symbols import BOS_ID, PAD_ID
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.model.ensemble import Ensemble, mean_log_probs
from seq2seq.model.quantize import Int8Linear

MIXED = [
    {"attention_window": 2, "positions": "rotary"},
    {"architecture": "recurrent", "cell": "lstm", "input_feeding": True, "d_model": 12},
    {"architecture": "convolutional", "d_model": 8},
]
BEAM = DecodeConfig(beam_size=3, max_length_ratio=1, max_length_offset=4, n_best=3)


@pytest.fixture
def members(make_model):
    return [make_model(**options).eval() for options in MIXED]


@pytest.fixture
def sources(make_pairs):
    pairs = make_pairs([(4, 1), (9, 1), (2, 1), (12, 1), (7, 1)])
    return [Source(src, (n, 0)) for n, (src, _) in enumerate(pairs)]


def of_whole(model, src, tgt):
    """The log-probability of a target by one pass over it."""
    read = pack_sentences([[BOS_ID, *tgt[:-1]]])
    logits = model.logits(model(PackedBatch(pack_sentences([src]), read, torch.tensor(tgt), len(tgt))))
    return logits.log_softmax(dim=-1).gather(1, torch.tensor(tgt)[:, None]).sum().item()


@torch.no_grad()
def test_a_score_is_the_mean_of_the_members_scores(members, sources):
    """Guards against a mean of probabilities, one that softmax normalises again, and caches of members that follow the
    parents of another step: every hypothesis of a search is scored by its members alone, in one pass."""
    found = TorchEngine(members, torch.float32).search(sources, BEAM)
    for source, hypotheses in zip(sources, found, strict=True):
        assert len(hypotheses) == 3
        for hypothesis in hypotheses:
            scores = [of_whole(model, source.ids, [*hypothesis.ids, 3]) for model in members]
            assert hypothesis.log_prob == pytest.approx(sum(scores) / len(scores), abs=1e-4)
            whole = of_whole(Ensemble(members), source.ids, [*hypothesis.ids, 3])
            assert hypothesis.log_prob == pytest.approx(whole, abs=1e-4)


def test_one_model_twice_is_the_model(members, sources):
    """Guards against numbers that are not finite where members agree: nothing is missing from the sum then."""
    for model in members:
        alone = TorchEngine(model, torch.float32).search(sources, BEAM)
        twice = TorchEngine([model, model], torch.float32).search(sources, BEAM)
        assert [[h.ids for h in hs] for hs in twice] == [[h.ids for h in hs] for hs in alone]
        for one, other in zip(twice, alone, strict=True):
            assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-4)


def test_hypotheses_do_not_depend_on_the_batch(members, sources):
    """Contract 3 for ensembles."""
    together = TorchEngine(members, torch.float32).search(sources, BEAM)
    for source, expected in zip(sources, together, strict=True):
        (alone,) = TorchEngine(members, torch.float32).search([source], BEAM)
        assert [h.ids for h in alone] == [h.ids for h in expected]
        assert [h.score for h in alone] == pytest.approx([h.score for h in expected], abs=1e-4)


@torch.no_grad()
def test_what_is_missing_goes_to_padding(members):
    """Guards against a distribution whose sum is not 1, which the search would scale."""
    src, model = pack_sentences([[5, 6, 3]]), Ensemble(members)
    logits = model.step(torch.tensor([[BOS_ID]]), model.begin(src, 2, 5))
    torch.testing.assert_close(logits.logsumexp(dim=-1), torch.zeros(1, 1), atol=1e-6, rtol=0)
    own = [m.step(torch.tensor([[BOS_ID]]), m.begin(src, 2, 5)).log_softmax(dim=-1) for m in members]
    others = torch.arange(logits.size(-1)) != PAD_ID
    torch.testing.assert_close(logits[..., others], torch.stack(own).mean(dim=0)[..., others])


def test_members_that_agree_leave_nothing_to_padding():
    """Guards against the logarithm of a number below 0, where rounding makes the sum 1 or more."""
    for seed in range(20):
        logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(seed))
        logits[:, PAD_ID] = -100.0
        assert mean_log_probs([logits, logits]).isfinite().all()


def test_int8_quantises_every_member(members, sources, monkeypatch):
    """Guards against members that stay in fp32."""
    monkeypatch.setattr("seq2seq.decode.engine.int8_layer", lambda shapes: Int8Linear)
    engine = TorchEngine(members[:2], torch.float32)
    found = engine.search(sources, BEAM.model_copy(update={"quantize": "int8"}))
    assert all(found)
    for member in engine._quantized.members:
        assert member.quantized_output is not None
        assert not any(type(module) is torch.nn.Linear for module in member.modules())


def test_the_shortest_limit_counts(make_model, members):
    """Guards against positions that one of the members does not have."""
    assert Ensemble([make_model(positions="learned", max_length=11), *members]).max_length == 11
    assert Ensemble(members[:2]).max_length is None
