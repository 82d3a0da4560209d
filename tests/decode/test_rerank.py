"""Reranking with a reverse model."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seq2seq.config import DecodeConfig
from seq2seq.decode.rerank import with_reverse
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from tests.toy import sentences

BEAM = DecodeConfig(beam_size=6, n_best=4, max_length_ratio=1, max_length_offset=3, split_sentences=True)


@pytest.fixture(scope="module")
def reverse(translator: Translator) -> Translator:
    """A model from yy to xx: what it computes is not good, but depends on both texts."""
    data = translator.config.data
    config = translator.config.replace("data", src_lang=data.target_language, tgt_lang=data.source_language)
    return replace(translator, config=config)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return [*(src for src, _ in sentences(20, seed=9)), ""]


def test_candidates_are_ranked_by_both_models(translator: Translator, reverse: Translator, lines: list[str]) -> None:
    """Guards against sides that are exchanged, a total in place of a mean, and a list that was cut before it was
    ranked."""
    candidates = list(translator.translate_stream(lines, BEAM, n_best=6))
    ranked = list(with_reverse(translator, reverse, 0.7).translate_stream(lines, BEAM))
    assert with_reverse(translator, reverse, 0.7).translate(lines, BEAM, n_best=1) == [best[0].text for best in ranked]
    changed = 0
    for line, several, best in zip(lines, candidates, ranked, strict=True):
        if not line:
            assert [one.text for one in best] == [""]
            continue
        scored = reverse.score([one.text for one in several], [line] * len(several))
        totals = {}
        for one, back in zip(several, scored, strict=True):
            assert back.log_prob is not None or not one.text
            own = one.log_prob / one.num_tokens
            totals[one.text] = -math.inf if back.log_prob is None else own + 0.7 * back.log_prob / len(back.tokens)
        expected = sorted(totals, key=lambda text: -totals[text])
        assert [one.text for one in best] == expected[: len(best)]
        assert len(best) == min(4, len(several))
        np.testing.assert_allclose([one.score for one in best], [totals[one.text] for one in best], atol=1e-4)
        changed += best[0].text != several[0].text
    assert changed > 3


def test_the_ranking_does_not_depend_on_the_batch(
    translator: Translator, reverse: Translator, lines: list[str]
) -> None:
    """Contract 3, and samples can be ranked, too."""
    both = with_reverse(translator, reverse)
    for decode in (BEAM, DecodeConfig(sample=True, num_samples=6, n_best=2)):
        whole = list(both.translate_stream(lines, decode))
        single = [next(both.translate_windows([line], decode, done=i))[0] for i, line in enumerate(lines)]
        assert [[one.text for one in several] for several in single] == [[one.text for one in best] for best in whole]


def test_a_line_of_several_sentences_is_ranked_by_sentence(translator: Translator, reverse: Translator) -> None:
    """Guards against a reverse model that reads several sentences although it has learnt single ones."""
    both = with_reverse(translator, reverse)
    first, second, line = both.translate(["Ka to.", "Mi ren.", "Ka to. Mi ren."], BEAM)
    assert line == f"{first} {second}"


def test_what_the_reverse_model_cannot_read_is_reported(translator: Translator, reverse: Translator) -> None:
    """Guards against a line that is lost, or chosen by chance, where the reverse model takes only short ones."""
    short = replace(reverse, config=reverse.config.replace("data", max_length=6))
    problems: dict[int, str] = {}
    lines = ["ka", "ka to mi ren sol vu", "ka"]
    found = list(with_reverse(translator, short).translate_stream(lines, BEAM, problems.setdefault))
    expected = list(translator.translate_stream(lines, BEAM))
    assert [one.text for one in found[1]] == [one.text for one in expected[1]]
    assert problems[2] == "too long for the reverse model; the candidates keep their order"
    assert found[0][0].score != expected[0][0].score


def test_what_cannot_rerank_is_refused(model: Path, translator: Translator, reverse: Translator) -> None:
    """Guards against a model of the same direction, which would prefer copies of the source, and against a search with
    nothing to choose from."""
    with pytest.raises(UserError, match=r"^--rerank: the model translates from xx to yy; give one from yy to xx$"):
        with_reverse(translator, translator)
    unknown = replace(translator, config=translator.config.replace("data", src_lang="zz", tgt_lang="xx"))
    with pytest.raises(UserError, match=r"translates from zz to xx; give one from yy to xx$"):
        with_reverse(translator, unknown)
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(UserError, match=r"^--rerank-weight: must be a number of at least 0, not"):
            with_reverse(translator, reverse, weight)
    both = with_reverse(translator, reverse)
    with pytest.raises(UserError, match=r"^a reverse model needs several candidates; raise beam_size$"):
        both.translate(["ka"], beam_size=1)
    with pytest.raises(UserError, match=r"^a reverse model needs choose: score, not mbr$"):
        both.translate(["ka"], BEAM, choose="mbr")


def test_the_identity_has_model_and_weight(translator: Translator, reverse: Translator) -> None:
    """Guards against --resume that continues with another choice."""
    own = translator.identity()
    identities = [own, with_reverse(translator, reverse).identity(), with_reverse(translator, reverse, 0.9).identity()]
    assert len({str(identity) for identity in identities}) == 3
    assert all(identity["model"] == own["model"] for identity in identities)
