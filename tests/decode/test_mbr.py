"""Minimum Bayes risk: the candidate that is most like the others."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.chrf import CHRF

from seq2seq.config import DecodeConfig
from seq2seq.decode import mbr as mbr_module
from seq2seq.decode.files import translate_file
from seq2seq.decode.mbr import expected_chrf, pairwise_chrf
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from tests.toy import sentences, write_lines

SAMPLES = DecodeConfig(
    sample=True, choose="mbr", num_samples=8, n_best=3, seed=5, max_length_ratio=1, max_length_offset=3
)
BEAM = DecodeConfig(choose="mbr", beam_size=6, n_best=6, max_length_ratio=1, max_length_offset=3)
TEXTS = [
    *(
        "",
        " ",
        "a",
        "aa",
        "abcde",
        "abcdef",
        "abcdefg",
        "aaaaaaaaaaaa",
        "abababab ab",
        "a b c d e f g",
        "😀 b",
        "b\ud800",
    ),
    *("Ein Mann reitet.", "Ein Mann reitet auf einem Pferd.", "Zwei Hunde spielen.", "两只狗在玩。", "狗在玩"),
]


@pytest.mark.parametrize("block", [mbr_module._BLOCK, 40])
def test_chrf_is_that_of_sacrebleu(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against another effective order, n-grams that run into the next text, repeats that count once, and n-grams
    that are lost between two blocks."""
    monkeypatch.setattr(mbr_module, "_BLOCK", block)
    expected = [[CHRF().sentence_score(text, [reference]).score for reference in TEXTS] for text in TEXTS]
    np.testing.assert_allclose(pairwise_chrf(TEXTS), expected, rtol=0, atol=1e-9)


def test_each_candidate_counts_as_often_as_it_was_drawn() -> None:
    """Guards against a text that was drawn often but has one vote, and weights that belong to other candidates."""
    chosen, weights = ["aab", "abc", "aab", "xyz"], [1.0, 4.0, 2.0, 0.5]
    scores = pairwise_chrf(chosen)
    np.testing.assert_allclose(expected_chrf(chosen, [1.0] * 4), scores.mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(expected_chrf(chosen, weights), scores @ weights / 7.5, atol=1e-9)
    assert expected_chrf(["abc"], [0.1]).tolist() == [100]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return [*(src for src, _ in sentences(20, seed=9)), "", "ka to. Mi ren."]


def found_by(translator: Translator, lines: list[str], decode: DecodeConfig) -> list[list[Translation]]:
    return list(translator.translate_stream(lines, decode))


def by_hand(candidates: list[Translation], sample: bool) -> list[tuple[str, float]]:
    """Different texts and their utility, the best first, with sacreBLEU."""
    weights = [1.0 if sample else math.exp(one.log_prob) for one in candidates]
    utility = {}
    for one in candidates:
        scores = [CHRF().sentence_score(one.text, [other.text]).score for other in candidates]
        utility[one.text] = np.average(scores, weights=weights)
    return sorted(utility.items(), key=lambda item: -round(item[1], 9))


@pytest.mark.parametrize("decode", [SAMPLES, BEAM], ids=["samples", "beam"])
def test_the_best_are_those_most_like_the_candidates(
    decode: DecodeConfig, translator: Translator, lines: list[str]
) -> None:
    """Guards against a choice among fewer candidates than were asked for, such as the n_best best by score, and against
    a text that is listed twice."""
    every = {"choose": "score", "num_samples": None, "n_best": decode.num_hypotheses}
    candidates = found_by(translator, lines, decode.model_copy(update=every))
    chosen = found_by(translator, lines, decode)
    assert translator.translate(lines, decode, n_best=1) == [best[0].text for best in chosen]
    others = 0
    for line, several, best in zip(lines, candidates, chosen, strict=True):
        if not line:
            assert [(one.text, one.score) for one in best] == [("", 0.0)]
        elif len(several) > 1:
            expected = by_hand(several, decode.sample)[: decode.n_best]
            assert [one.text for one in best] == [text for text, _ in expected]
            assert [one.score for one in best] == pytest.approx([score for _, score in expected])
            by_text = {one.text: one.log_prob for one in reversed(several)}
            assert best[0].log_prob == pytest.approx(by_text[best[0].text], abs=1e-5)
            others += best[0].text != several[0].text
    assert others > 3  # else the most likely one would do


@pytest.mark.parametrize("decode", [SAMPLES, BEAM], ids=["samples", "beam"])
def test_the_choice_does_not_depend_on_the_batch(
    decode: DecodeConfig, translator: Translator, lines: list[str]
) -> None:
    """Contract 3."""
    whole = found_by(translator, lines, decode)
    for batch_tokens in (1, 100):
        batched = found_by(translator, lines, decode.model_copy(update={"batch_tokens": batch_tokens}))
        assert [[one.text for one in best] for best in batched] == [[one.text for one in best] for best in whole]


@pytest.mark.parametrize("split", [True, False])
def test_a_line_in_parts_is_chosen_part_by_part(split: bool, translator: Translator) -> None:
    """Guards against candidates of whole lines, where the k-th sentences of all parts must be good together, and a
    chrF above 100. Without splitting, the line is cut because it is too long."""
    parts = ["Ka to.", "Mi ren."] if split else ["ka to " * 7, "mi ren " * 7]
    line = " ".join(parts) if split else "".join(parts)
    decode = BEAM.model_copy(update={"n_best": 1, "split_sentences": split})
    ((best,),) = found_by(translator, [line], decode)
    assert 0 < best.score <= 100
    if split:
        alone = [one[0] for one in found_by(translator, parts, decode)]
        assert best.text == " ".join(one.text for one in alone)
        assert best.score == pytest.approx(sum(one.score for one in alone) / 2)


def test_token_scores_are_those_of_the_chosen_one(translator: Translator, lines: list[str]) -> None:
    """Guards against the lowest log-probability of another candidate, which stands where this one stood."""
    (window,) = translator.translate_windows(lines, SAMPLES, token_scores=True)
    for line, best in zip(lines, window, strict=True):
        for one in best if line else ():
            (scored,) = translator.score([line], [one.text])
            if scored.log_prob is not None and scored.log_prob == pytest.approx(one.log_prob, abs=1e-4):
                assert one.lowest == pytest.approx(min(number for _, number in scored.tokens), abs=1e-4)


def test_samples_are_different_only_where_there_are_more(translator: Translator, lines: list[str]) -> None:
    """num_samples alone takes the most likely of more samples; without it, each sample is returned."""
    sharp = SAMPLES.model_copy(update={"choose": "score", "temperature": 0.3})
    every = found_by(translator, lines, sharp.model_copy(update={"num_samples": None, "n_best": 8}))
    best = found_by(translator, lines, sharp)
    assert [len(several) for several in every] == [8] * len(lines)
    assert any(len({one.text for one in several}) < 8 for several in every)
    for several, chosen in zip(every, best, strict=True):
        assert [one.text for one in chosen] == list(dict.fromkeys(one.text for one in several))[:3]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"choose": "mbr", "beam_size": 2}, "choose: mbr needs at least 3 candidates; raise beam_size"),
        ({"choose": "mbr", "sample": True}, "choose: mbr needs at least 3 candidates; raise num_samples"),
        ({"sample": True, "num_samples": 2, "n_best": 3}, "n_best: must be at most num_samples (2), not 3"),
        ({"num_samples": 2}, "num_samples: has no effect in beam search; set sample=True, or remove this key"),
    ],
)
def test_settings_without_a_choice_are_refused(given: dict[str, object], expected: str, translator: Translator) -> None:
    """Guards against a choice among one or two candidates, which is none."""
    with pytest.raises(UserError) as caught:
        translator.translate(["kato"], DecodeConfig(), **given)
    assert str(caught.value) == expected


def test_a_resumed_translation_has_the_same_choice(
    translator: Translator, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against random numbers that start again, and a file of which one half was chosen in another way."""
    monkeypatch.setattr("seq2seq.decode.windows.WINDOW_LINES", 5)
    write_lines(tmp_path / "in", lines)

    def run(decode: DecodeConfig, name: str) -> bytes:
        translate_file(translator, str(tmp_path / "in"), str(tmp_path / name), decode, resume=True)
        return (tmp_path / name).read_bytes()

    def interrupted(search: Callable[..., object], calls: list[int]) -> Callable[..., object]:
        def stop(*arguments: object) -> object:
            calls.append(1)
            if len(calls) > 2:
                raise KeyboardInterrupt
            return search(*arguments)

        return stop

    whole = run(SAMPLES, "whole")
    with monkeypatch.context() as patched:
        patched.setattr(translator.engine, "search", interrupted(translator.engine.search, []))
        with pytest.raises(KeyboardInterrupt):
            run(SAMPLES, "out")
    with pytest.raises(UserError, match=r"decode\.choose was mbr, now it is score"):
        run(SAMPLES.model_copy(update={"choose": "score"}), "out")
    assert run(SAMPLES, "out") == whole
