"""Promise: a search under constraints finds what the constraints allow, with the model's own log-probabilities.

A beam as wide as there are outputs finds all of them, so it is compared with an enumeration of all outputs that obey.
The toy model is that of the tests of the search; its words are the ids 4, 5 and 6.
"""

import copy
from itertools import product

import numpy as np
import pytest
import torch

from seq2seq.config import DecodeConfig
from seq2seq.data.packed import pack_sentences
from seq2seq.data.symbols import EOS_ID
from seq2seq.decode import stepper as stepper_module
from seq2seq.decode.constraints import Bans, Beginning, Beginnings, PieceTable, Rules
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.decode.search import search
from seq2seq.decode.stepper import Constraints, EagerStepper, GraphStepper, begin
from seq2seq.decode.terms import WORD, Term, Terms, beam_for, spelling
from seq2seq.model import state as state_module
from tests.decode.test_search import ToyModel, log_prob
from tests.decode.test_stepper import graphs_of
from tests.model.variants import ALL

VOCABULARY, LONGEST = 7, 6
WORDS = (4, 5, 6)
OUTPUTS = [ids for length in range(LONGEST) for ids in product(WORDS, repeat=length)]


def table(size=VOCABULARY, joining=()):
    """Pieces in the order of their ids; those that are ``joining`` continue the word before and after them."""
    joins = np.isin(np.arange(size), joining) * WORD
    return PieceTable(np.arange(size), joins, joins)


def term(*ids, count=1, exact=False, bounded=False, joining=(), size=VOCABULARY):
    """A term of these ids in one spelling; ``bounded``: as a whole word."""
    bits = WORD if bounded else 0
    return Term((spelling(ids, bits, bits, table(size, joining)),), count, exact)


def find(name, constraints, beam_size=370, longest=LONGEST, enough=None, uniforms=None):
    """The hypotheses of one sentence of the toy model."""
    decode = DecodeConfig().model_copy(update={"beam_size": beam_size, "sample": uniforms is not None})
    if uniforms is not None:
        decode = decode.model_copy(update={"n_best": beam_size})
    model = ToyModel(VOCABULARY, 1.0)
    stepper = EagerStepper(model, begin(model, [name], [longest], decode, uniforms, constraints), decode, constraints)
    (found,) = search(stepper, [longest], beam_size, 1.0, None, enough)
    return found


def check_all(constraints, obeys, must_be_found=lambda ids: True):
    """All outputs that obey are found, best first, and no other; some of them need not be found."""
    for name in range(3):
        found = find(name, constraints())
        scores = {ids: log_prob(name, ids, VOCABULARY) for ids in OUTPUTS if obeys(ids)}
        assert scores
        there = {h.ids for h in found}
        expected = sorted(scores, key=lambda ids: -scores[ids] / ((6 + len(ids)) / 6))
        expected = [ids for ids in expected if ids in there or must_be_found(ids)]
        assert expected
        assert there == set(expected)
        assert [h.ids for h in found] == expected
        assert [h.log_prob for h in found] == pytest.approx([scores[ids] for ids in expected], abs=1e-5)


def has(ids, sequence):
    return any(ids[at : at + len(sequence)] == sequence for at in range(len(ids)))


def repeats(ids, size):
    grams = [ids[at : at + size] for at in range(len(ids) - size + 1)]
    return len(grams) > len(set(grams))


@pytest.mark.parametrize("sequences", [[(6,)], [(4, 5)], [(5, 5, 4), (6, 4)], [(4,), (6, 6), (5, 6, 5)]])
def test_banned_sequences_are_never_written(sequences):
    """Guards against a ban of a part of a sequence, at a wrong place, or only for the first hypothesis."""
    check_all(
        lambda: Constraints((Bans(sequences, 0, 1, LONGEST),)), lambda ids: not any(has(ids, s) for s in sequences)
    )


@pytest.mark.parametrize("ngram", [1, 2, 3])
def test_no_ngram_is_written_twice(ngram):
    """Guards against n-grams that overlap, and those of another hypothesis or of memory that was not written."""
    check_all(lambda: Constraints((Bans([], ngram, 1, LONGEST),)), lambda ids: not repeats(ids, ngram))


def test_a_translation_begins_as_given():
    """Guards against a beginning that is shifted, cut or ended early. In the place of its last pieces, a longer piece
    may stand: here 6 in the place of (5, 4), and 5 or 6 in the place of the last 4."""
    beginning = Beginning((4, 5, 4), ((0, 0), (6, 7), (5, 7)))
    starts = [(4, 6), (4, 5, 4), (4, 5, 5), (4, 5, 6)]
    check_all(
        lambda: Constraints((Beginnings([beginning], table()),)),
        lambda ids: any(ids[: len(start)] == start for start in starts),
    )


@pytest.mark.parametrize(
    ("terms", "joining"),
    [
        ([{"ids": (4, 5)}], ()),
        ([{"ids": (4,)}, {"ids": (6, 6)}], ()),
        ([{"ids": (4,), "count": 2}], ()),
        ([{"ids": (5,), "count": 2, "exact": True}], ()),
        ([{"ids": (4, 4, 5)}], ()),
        ([{"ids": (4,), "bounded": True}], (6,)),
        ([{"ids": (5,), "bounded": True}, {"ids": (6,)}], (6,)),
        ([{"ids": (6, 6), "bounded": True}], (6,)),
    ],
)
def test_terms_are_written(terms, joining):
    """Guards against translations without their terms, with a part of one, inside another word or not often enough,
    and against translations with their terms that the search cannot reach. When the room becomes just enough for what
    is missing, only the shortest way is left."""
    made = [term(*one["ids"], **{key: one[key] for key in one if key != "ids"}, joining=joining) for one in terms]

    def count(ids, one):
        size, found, at = len(one["ids"]), 0, 0
        while at <= len(ids) - size:
            beside = (*ids[max(0, at - 1) : at], *ids[at + size : at + size + 1])
            there = ids[at : at + size] == one["ids"] and not (one.get("bounded") and set(beside) & set(joining))
            found, at = found + there, at + (size if there else 1)
        return found

    def obeys(ids):
        counts = [(count(ids, one), one.get("count", 1), one.get("exact")) for one in terms]
        return all(there == wanted if exact else there >= wanted for there, wanted, exact in counts)

    def after(one):  # a whole word counts only when the next piece is there
        return joining[0] if one.get("bounded") else 0

    def has_room(ids):
        lacking = [
            sum(max(0, one.get("count", 1) - count((*ids[:at], after(one)), one)) * len(one["ids"]) for one in terms)
            for at in range(len(ids))
        ]
        return all(pieces < LONGEST - 1 - at for at, pieces in enumerate(lacking) if pieces > 0)

    def constraints():
        part = Terms([made], table(joining=joining))
        return Constraints((part,), part)

    check_all(constraints, obeys, has_room)


@pytest.mark.parametrize("beam_size", [1, 2, 4])
@pytest.mark.parametrize("sequences", [[(4, 6, 5), (5, 5)], [(4, 5), (4, 6), (4, 4)], [(4, 4, 5), (4, 4, 6)]])
def test_a_narrow_beam_has_its_terms_up_to_the_limit(sequences, beam_size):
    """Guards against hypotheses with terms that others push out of the beam, and against terms for which there is no
    room any more, also if several begin alike: whatever the model prefers, here it always finds a translation with
    terms that just fit."""
    some = [term(*ids) for ids in sequences]
    least = sum(map(len, sequences)) + 1
    for name in range(30):
        for longest in (least, least + 1, least + 4):
            part = Terms([some], table())
            found = find(name, Constraints((part,), part), beam_size, longest, enough=1)
            assert found, (name, longest)
            for hypothesis in found:
                assert all(has(hypothesis.ids, ids) for ids in sequences)
                assert hypothesis.log_prob == pytest.approx(log_prob(name, hypothesis.ids, VOCABULARY), abs=1e-4)
    part = Terms([some], table())
    assert find(0, Constraints((part,), part), beam_size, 4) == []  # they do not fit


def test_terms_come_where_they_are_likely():
    """Guards against a beam whose better hypotheses push out those with a part of a term, until the term stands at the
    end because there is no more room: what is found is nearly as likely as the best of all outputs with the term."""
    some, lost = [term(4, 6, 5)], []
    outputs = [ids for length in range(8) for ids in product(WORDS, repeat=length) if has(ids, (4, 6, 5))]
    for name in range(12):
        part = Terms([some], table())
        found = find(name, Constraints((part,), part), beam_for(some, 2), 8, enough=2)
        likely = max(log_prob(name, ids, VOCABULARY) for ids in outputs)
        lost.append(likely - max(h.log_prob for h in found))
    assert min(lost) > -1e-4
    assert np.mean(lost) < 0.7


def test_an_automaton_finds_every_start():
    """Guards against a term that is missed after a false start, such as 4 4 5 in 4 4 4 5."""
    one = spelling((4, 4, 5, 4, 4, 6), 0, 0, table())
    for text in product(WORDS, repeat=7):
        state = 0
        for end, piece in enumerate(text, start=1):
            columns = [column for column, other in enumerate(one.ids) if other == piece]
            state = int(one.transitions[state, columns[0]]) if columns else 0
            longest = max(n for n in range(min(end, 6) + 1) if text[end - n : end] == one.ids[:n])
            assert state == longest


def test_samples_obey(monkeypatch):
    """Guards against constraints that only beam search knows."""
    uniforms = np.random.default_rng(0).random((1, 40, LONGEST))
    beginning = Beginning((6,), ((0, 0),))
    found = find(
        1, Constraints((Beginnings([beginning], table()), Bans([(5, 4)], 2, 1, LONGEST))), 40, uniforms=uniforms
    )
    assert len({h.ids for h in found}) > 8
    assert all(h.ids[0] == 6 and not has(h.ids, (5, 4)) and not repeats(h.ids, 2) for h in found)


# ------------------------------------------------------------------------------------------------------- real models

BEAM = DecodeConfig(beam_size=3, n_best=3, max_length_ratio=1, max_length_offset=9)
RULES = Rules(((9,), (7, 8)), table(23, joining=range(15, 23)))


def sources_of(make_pairs, wanted=True):
    """Sentences with a beginning, with terms, with both, and with neither."""
    pairs = make_pairs([(4, 1), (9, 1), (2, 1), (12, 1), (7, 1), (5, 1), (6, 1)])
    sources = [Source(src, (n, 0)) for n, (src, _) in enumerate(pairs)]
    if not wanted:
        return sources
    beginning = Beginning((12, 13, 6), ((0, 0), (14, 17), (6, 8)))
    some = (term(10, 11, 10, size=23), term(20, bounded=True, joining=range(15, 23), size=23))
    extras = [
        (None, ()),
        (beginning, ()),
        (None, some),
        (beginning, some),
        (None, some[:1]),
        (None, ()),
        (beginning, ()),
    ]
    return [Source(s.ids, s.key, *extra) for s, extra in zip(sources, extras, strict=True)]


def obeys(source, ids):
    if 9 in ids or has(ids, (7, 8)) or repeats(ids, 2):
        return False
    starts = [(12, piece) for piece in range(14, 17)] + [(12, 13, 6), (12, 13, 7)]
    if source.beginning is not None and not any(ids[: len(start)] == start for start in starts):
        return False
    return all(has(ids, one.spellings[0].ids) for one in source.terms)


@pytest.mark.parametrize(
    "names", [["pre"], ["modern"], ["gru-additive"], ["narrow"], ["pre", "gru-dot-fed", "narrow"]], ids=str
)
@pytest.mark.parametrize("beam_size", [1, 3])
def test_every_architecture_obeys(make_model, make_pairs, names, beam_size):
    """Guards against tensors of a constraint that do not follow their hypothesis or stay with their sentence: alone, in
    a batch and in another order every line has the same translations, which obey. Those that want nothing of their own
    have what they have among others that want nothing."""
    engine = TorchEngine([make_model(**ALL[name]).eval() for name in names], torch.float32)
    decode = BEAM.model_copy(update={"beam_size": beam_size, "n_best": 1, "no_repeat_ngram": 2})
    sources = sources_of(make_pairs)
    together = engine.search(sources, decode, RULES)
    for source, hypotheses in zip(sources, together, strict=True):
        assert hypotheses
        assert all(obeys(source, h.ids) for h in hypotheses)
        (alone,) = engine.search([source], decode, RULES)
        assert [h.ids for h in alone] == [h.ids for h in hypotheses]
        assert [h.score for h in alone] == pytest.approx([h.score for h in hypotheses], abs=1e-4)
    assert [[h.ids for h in hs] for hs in engine.search(sources[::-1], decode, RULES)[::-1]] == [
        [h.ids for h in hs] for hs in together
    ]
    plain = engine.search(sources_of(make_pairs, wanted=False), decode, RULES)
    assert [plain[n] for n in (0, 5)] == [together[n] for n in (0, 5)]


def test_what_cannot_be_is_translated_without(make_model, make_pairs):
    """Guards against a line without a translation, or with one of full length, because its terms are banned or do not
    fit."""
    engine = TorchEngine(make_model().eval(), torch.float32)
    plain = sources_of(make_pairs, wanted=False)
    expected = engine.search(plain, BEAM, RULES)
    for impossible in (term(7, 8, size=23), term(*[10, 11] * 20, size=23)):
        asked = [Source(s.ids, s.key, None, (impossible,)) for s in plain]
        assert engine.search(asked, BEAM, RULES) == expected


@pytest.mark.parametrize("device", ["recorded", pytest.param("cuda", marks=[pytest.mark.gpu])])
@torch.inference_mode()
def test_fixed_shapes_obey(make_model, make_pairs, monkeypatch, device):
    """Guards against a graph that reads the constraints of an earlier batch, waits for the device, or counts positions
    on the host."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    monkeypatch.setattr(stepper_module, "_SENTENCES", 1)
    monkeypatch.setattr(state_module, "_STEPS", 2)
    model = make_model(positions="rotary").eval()
    graphs = graphs_of(model, device)
    sources = sources_of(make_pairs)
    other = Beginning((6, 5), ((0, 0), (0, 0)))
    moved = [Source(s.ids, s.key, other if s.beginning else None, s.terms[::-1]) for s in sources[::-1]]
    engine = TorchEngine(copy.deepcopy(model), torch.float32)
    found = 0
    for batch in (sources[:2], moved[-2:], sources[2:4], moved[3:5], sources[5:], sources[:2]):
        for ngram in (0, 2):
            decode = BEAM.model_copy(update={"no_repeat_ngram": ngram, "beam_size": 12 if batch[0].terms else 3})
            made = stepper_constraints(batch, decode)
            lengths = [engine.longest_output(len(source.ids), decode) for source in batch]
            src = pack_sentences([source.ids for source in batch], grid_length=12)
            here = EagerStepper(model, begin(model, src, lengths, decode, None, made), decode, made)
            state = begin(graphs.model, src.to(graphs.device), lengths, decode, None, made)
            there = GraphStepper(graphs, graphs.model, state, decode, made)
            ours, theirs = (search(one, lengths, decode.beam_size, 1.0, None, 3) for one in (there, here))
            assert [[h.ids for h in hs] for hs in ours] == [[h.ids for h in hs] for hs in theirs]
            assert all(
                source.beginning is other or obeys(source, h.ids)
                for source, hs in zip(batch, ours, strict=True)
                for h in hs
                if ngram
            )
            found += sum(map(len, ours))
    assert found > 20
    assert len(graphs) > 4


def stepper_constraints(batch, decode):
    from seq2seq.decode.engine import Batch

    return Batch(list(batch), decode, 3, RULES).constraints(30)


def test_without_constraints_there_is_no_work(make_model, make_pairs, monkeypatch):
    """Guards against steps that pay for what nobody asked for."""
    names = []
    engine = TorchEngine(make_model().eval(), torch.float32)
    monkeypatch.setattr(Constraints, "allow", lambda *args: names.append("allow"))
    engine.search(sources_of(make_pairs, wanted=False), BEAM)
    batch = stepper_constraints(sources_of(make_pairs, wanted=False), BEAM.model_copy(update={"suppress": ()}))
    assert not names
    assert EOS_ID not in [ids[0] for ids in RULES.banned]
    assert [type(part) for part in batch.parts] == [Bans]
