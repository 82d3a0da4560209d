"""Promise: the score of a given translation is the model's own, whatever is scored beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seq2seq.config import DecodeConfig
from seq2seq.data.packed import pack_sentences
from seq2seq.data.symbols import BOS_ID, EOS_ID
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.decode.explain import run_once
from seq2seq.decode.translator import Translator
from seq2seq.errors import DataError, ModelError
from seq2seq.languages import count_words
from seq2seq.model import loss
from seq2seq.model.interface import Seq2SeqModel
from tests.toy import sentences

PLAIN = DecodeConfig()
LENGTHS = [(5, 7), (2, 1), (9, 3), (1, 12), (6, 6), (3, 20)]
ARCHITECTURES = [
    {},
    {"positions": "rotary", "activation": "swiglu", "norm": "rmsnorm", "num_kv_heads": 2, "output_bias": True},
    {"architecture": "recurrent"},
    {"architecture": "convolutional"},
]
Pairs = list[tuple[list[int], list[int]]]


@torch.inference_mode()
def by_hand(model: Seq2SeqModel, source: Sequence[int], target: Sequence[int]) -> list[float]:
    """Forced decoding: the model's step, token by token, where the search would choose."""
    state = model.begin(pack_sentences([source]), 1, len(target))
    found = []
    for read, label in zip([BOS_ID, *target[:-1]], target, strict=True):
        logits = model.step(torch.tensor([[read]]), state)
        found.append(float(logits[0, 0].double().log_softmax(dim=-1)[label]))
        state.follow(torch.zeros(1, 1, dtype=torch.int64))
    return found


def scores(engine: TorchEngine, pairs: Pairs, **options: Any) -> list[list[float]]:
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    decode = PLAIN.model_copy(update=options)
    return [found.tolist() for found in engine.score(sources, targets, decode)]


@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
def test_a_score_is_that_of_forced_decoding(
    make_model: Callable[..., Any], make_pairs: Callable[..., Pairs], options: dict[str, Any]
) -> None:
    """Guards against labels that are shifted by one, a missing </s>, and pairs in another order."""
    model, pairs = make_model(**options).eval(), make_pairs(LENGTHS)
    found = scores(TorchEngine(model), pairs)
    for pair, of_tokens in zip(pairs, found, strict=True):
        np.testing.assert_allclose(of_tokens, by_hand(model, *pair), atol=1e-5)


@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
def test_a_score_does_not_depend_on_the_batch(
    make_model: Callable[..., Any], make_pairs: Callable[..., Pairs], options: dict[str, Any]
) -> None:
    """Guards against sentences that see each other, and padding that counts."""
    engine, pairs = TorchEngine(make_model(**options).eval()), make_pairs(LENGTHS)
    together = scores(engine, pairs)
    for other in (
        [scores(engine, [pair])[0] for pair in pairs],
        scores(engine, pairs, batch_tokens=1),
        scores(engine, pairs[::-1], batch_tokens=24)[::-1],
    ):
        for one, expected in zip(other, together, strict=True):
            np.testing.assert_allclose(one, expected, atol=1e-5)


def test_an_ensemble_scores_with_the_mean_of_its_members(
    make_model: Callable[..., Any], make_pairs: Callable[..., Pairs]
) -> None:
    """Guards against an ensemble that scores in another way than it searches."""
    members = [make_model().eval(), make_model(architecture="recurrent").eval()]
    pairs = make_pairs(LENGTHS)
    of_members = [scores(TorchEngine(member), pairs) for member in members]
    for together, *alone in zip(scores(TorchEngine(members), pairs), *of_members, strict=True):
        np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)


@pytest.mark.parametrize("members", [1, 2])
def test_a_hypothesis_has_the_score_that_the_search_gave_it(
    make_model: Callable[..., Any], make_pairs: Callable[..., Pairs], members: int
) -> None:
    """Guards against two ways to score, for example one that leaves out what the search never chooses."""
    engine = TorchEngine([make_model(**options).eval() for options in ARCHITECTURES[:members]])
    sources = [source for source, _ in make_pairs(LENGTHS)]
    found = engine.search([Source(ids, (0, 0)) for ids in sources], PLAIN)
    scored = engine.score(sources, [[*several[0].ids, EOS_ID] for several in found], PLAIN)
    for several, log_probs in zip(found, scored, strict=True):
        assert log_probs.sum() == pytest.approx(several[0].log_prob, abs=1e-4)


def test_logits_are_computed_in_chunks(
    make_model: Callable[..., Any], make_pairs: Callable[..., Pairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against the logits of a whole batch in memory: 8,192 tokens of a large vocabulary are a gigabyte."""
    model, pairs = make_model().eval(), make_pairs(LENGTHS)
    engine, most = TorchEngine(model), 0
    expected, plain = scores(engine, pairs), model.logits

    def seen(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, len(hidden))
        return plain(hidden)  # type: ignore[no-any-return]

    monkeypatch.setattr(model, "logits", seen)
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", 3 * 23)
    for one, other in zip(scores(engine, pairs), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert most == 3


def test_int8_is_used_where_it_is_asked_for(translator: Translator) -> None:
    """Guards against --quantize int8 that scores in fp32."""
    src, tgt = (list(side) for side in zip(*sentences(8, seed=3), strict=True))
    decode = translator.engine.settle(PLAIN.model_copy(update={"quantize": "int8"}), print)
    found = [
        sum(one.log_prob or 0 for one in translator.score_stream(zip(src, tgt, strict=True), each))
        for each in (PLAIN, decode)
    ]
    assert (found[0] != found[1]) == (decode.quantize is not None)
    assert found[0] == pytest.approx(found[1], rel=0.2)


# --------------------------------------------------------------------------------------------------------------- text


def test_texts_are_scored_as_they_are_tokenised(translator: Translator) -> None:
    """Guards against scores of other ids than the text has, and against a second way to score in explain."""
    pairs = sentences(12, seed=9)
    found = translator.score([src for src, _ in pairs], [tgt for _, tgt in pairs])
    for (src, tgt), score in zip(pairs, found, strict=True):
        ids = [*translator.tokenizers.tgt.encode([tgt])[0], EOS_ID]
        source = [*translator.tokenizers.src.encode([src])[0], EOS_ID]
        expected = run_once(translator.engine, source, ids).log_probs[range(len(ids)), ids]  # type: ignore[arg-type]
        reference = translator.explain(src, tgt).reference
        assert reference is not None
        assert [piece for piece, _ in score.tokens] == reference.pieces
        for numbers in (expected, reference.log_probs):
            np.testing.assert_allclose([log_prob for _, log_prob in score.tokens], numbers, atol=1e-5)
        assert score.log_prob == pytest.approx(float(expected.sum()), abs=1e-4)
        assert score.per_token == pytest.approx(score.log_prob / len(ids))
        assert score.per_word == pytest.approx(score.log_prob / len(tgt.split()))


def test_what_cannot_be_scored_is_reported_and_the_rest_is_not_shifted(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against texts that are cut silently, scores of blank lines, and line numbers of a window."""
    monkeypatch.setattr("seq2seq.decode.windows.WINDOW_LINES", 2)
    long = "sol " * 60
    src = ["ka to", "", " ", "", long, "ka", "ka", "ka to"]
    tgt = ["dor", "dor", "\u3000", "", "dor", long, "", "dor"]
    problems: list[tuple[int, str]] = []
    found = list(
        translator.score_stream(
            zip(src, tgt, strict=True), PLAIN, lambda line, message: problems.append((line, message))
        )
    )
    assert [line for line, _ in problems] == [2, 5, 6]
    assert "the source is blank" in problems[0][1]
    assert problems[1][1].startswith("not scored: the source has 60")
    assert "the model takes at most 23" in problems[1][1]
    assert problems[2][1].startswith("not scored: the target has")
    assert [score.log_prob is None for score in found] == [False, True, False, False, True, True, False, False]
    assert found[2] == found[3]
    assert (found[2].log_prob, found[2].per_token, found[2].per_word, found[2].tokens) == (0, 0, 0, ())
    assert [piece for piece, _ in found[6].tokens] == ["</s>"]
    assert found[7].log_prob == pytest.approx(found[0].log_prob, abs=1e-5)
    assert found[1].per_token is found[1].per_word is None


def test_wrong_arguments_of_score(translator: Translator) -> None:
    """Guards against strings whose letters are scored, and against lists of which the rest is ignored."""
    with pytest.raises(TypeError, match="score"):
        translator.score("ka", ["dor"])
    with pytest.raises(DataError, match="2 sources but 1 targets"):
        translator.score(["ka", "to"], ["dor"])
    assert translator.score([], []) == []


def test_a_model_without_numbers_is_an_error(model: Path) -> None:
    """Guards against scores of nan that look like lines without a score."""
    broken = Translator.load(model, device="cpu")
    broken.engine.model.output_weight.data.fill_(np.nan)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="no finite numbers"):
        broken.score(["ka"], ["dor"])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("  ", 0),
        ("Er geht.", 2),
        ("Er , geht", 3),
        ("我用Twitter。", 3),
        ("我们走了。", 4),
        ("。", 1),
        ("나는 간다", 2),
        ("ไป", 2),
    ],
)
def test_words_are_counted_in_scripts_with_and_without_spaces(text: str, number: int) -> None:
    """Guards against a Chinese line that counts as one word, which would make its score per word that of the line."""
    assert count_words(text) == number


def test_scores_of_tokens_belong_to_the_translation(translator: Translator, model: Path) -> None:
    """Guards against the lowest token of another line, and a mean over the tokens of another part."""
    lines = ["", *(src for src, _ in sentences(6, seed=5)), "ka to. " * 20]
    decode = translator.config.decode
    (window,) = translator.translate_windows(lines, decode, token_scores=True)
    for line, (one, *_) in zip(lines, window, strict=True):
        if not line:
            assert (one.lowest, one.num_tokens, one.per_token) == (0, 0, 0)
            continue
        assert one.lowest is not None
        assert one.log_prob / one.num_tokens == pytest.approx(one.per_token)
        assert one.lowest <= one.per_token <= 0
        if len(line) < 60:
            explained = translator.explain(line).translation
            assert one.num_tokens == len(explained.log_probs)
            assert one.lowest == pytest.approx(min(explained.log_probs), abs=1e-4)
