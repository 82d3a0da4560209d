"""Promise: an explanation is of the translation that the model gives, and its numbers are the model's."""

import math
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from seq2seq.config import DecodeConfig
from seq2seq.data.symbols import EOS_ID
from seq2seq.decode.explain import run_once
from seq2seq.decode.explanation import Explanation, Node
from seq2seq.decode.translator import Translator
from seq2seq.errors import ModelError, UserError
from tests.toy import sentences

BEAM = DecodeConfig(beam_size=3, max_length_ratio=1, max_length_offset=3, length_penalty=0.8)


LINES = [src for src, _ in sentences(12, seed=9)]


def path_to(explanation: Explanation, node: Node) -> list[Node]:
    """The nodes from the first token to a node."""
    found = [node]
    while found[0].parent is not None:
        found.insert(0, explanation.beam[found[0].parent])
    return found


@pytest.mark.parametrize("text", LINES)
def test_what_is_explained_is_the_translation(translator: Translator, text: str) -> None:
    """Guards against an explanation of another search: text, score, pieces and beam belong to what translate gives."""
    explained = translator.explain(text, decode=BEAM)
    (expected,) = next(iter(translator.translate_stream([text], BEAM)))
    told = explained.translation
    assert told.text == expected.text
    assert told.score == pytest.approx(expected.score, abs=1e-4)
    assert sum(told.log_probs) == pytest.approx(expected.log_prob, abs=1e-4)
    assert explained.attention.target == told.pieces
    assert [node.piece for node in path_to(explained, explained.beam[explained.best])] == told.pieces
    assert explained.beam[explained.best].score == pytest.approx(expected.score, abs=1e-4)
    assert told.pieces[-1] == "</s>"
    for piece, log_prob, candidates in zip(told.pieces, told.log_probs, told.candidates, strict=True):
        shown = {candidate.piece: candidate.probability for candidate in candidates}
        assert list(shown.values()) == sorted(shown.values(), reverse=True)
        assert piece not in shown or shown[piece] == pytest.approx(math.exp(log_prob), rel=1e-4)
        assert sum(shown.values()) <= 1.0001


def test_every_hypothesis_of_the_beam_is_what_the_model_says(translator: Translator) -> None:
    """Guards against parents of another step, and log-probabilities that belong to a neighbour: each is computed again
    from the pieces on its path."""
    text = LINES[0]
    explained = translator.explain(text, decode=BEAM)
    src = [*translator.tokenizers.src.encode([text])[0], EOS_ID]
    vocabulary = translator.tokenizers.tgt.pieces(range(translator.tokenizers.tgt.vocab_size))
    for node in explained.beam:
        path = path_to(explained, node)
        assert [one.step for one in path] == list(range(node.step + 1))
        ids = [vocabulary.index(one.piece) for one in path]
        log_probs = run_once(translator.engine, src, ids).log_probs  # type: ignore[arg-type]
        assert node.log_prob == pytest.approx(log_probs[np.arange(len(ids)), ids].sum(), abs=1e-4)
        assert node.score == pytest.approx(node.log_prob / ((6 + node.step) / 6) ** 0.8)


def test_the_beam_is_a_tree_of_beam_size(translator: Translator) -> None:
    """Guards against hypotheses that are missing or invented, and a wrong word about how they ended."""
    for text in LINES:
        explained = translator.explain(text, decode=BEAM)
        parents = {node.parent for node in explained.beam}
        last = max(node.step for node in explained.beam)
        for index, node in enumerate(explained.beam):
            assert node.parent is None or node.parent < index
            assert (node.parent is None) == (node.step == 0)
            assert (index in parents) == (node.state == "continued")
            if node.state in ("dropped", "open"):
                assert (node.step == last) == (node.state == "open")
            assert (node.piece == "</s>") == (node.state in ("finished", "cut"))
        for step, nodes in groupby(explained.beam, key=lambda node: node.step):
            live = [node for node in nodes if node.state in ("continued", "dropped", "open")]
            assert len(live) == 3 or step == last
        assert sum(node.state in ("finished", "cut") for node in explained.beam) >= 3


def test_a_hypothesis_at_its_limit_is_cut(translator: Translator) -> None:
    """Guards against a branch that ends without a reason."""
    short = BEAM.model_copy(update={"max_length_ratio": 0.01, "max_length_offset": 2})
    explained = translator.explain(LINES[0], decode=short)
    assert max(node.step for node in explained.beam) == 1
    last = [node for node in explained.beam if node.step == 1]
    assert len(last) == 3
    assert "cut" in {node.state for node in last} <= {"cut", "finished"}  # finished, if it was likely to end there


def test_a_reference_is_scored_as_the_translation_is(translator: Translator) -> None:
    """Guards against two ways to score: the model's own translation as reference gets the model's own score."""
    explained = [(line, translator.explain(line, decode=BEAM).translation) for line in LINES]
    pieces = translator.tokenizers.tgt.pieces
    line, own = next(  # one that is spelled as the tokenizer spells its text
        (line, own)
        for line, own in explained
        if [*pieces(translator.tokenizers.tgt.encode([own.text])[0]), "</s>"] == own.pieces
    )
    again = translator.explain(line, reference=own.text, decode=BEAM).reference
    other = translator.explain(line, reference=f"{own.text} hex", decode=BEAM).reference
    assert again == own
    assert other is not None
    assert other.score < own.score


def test_options_that_are_no_beam_search_are_ignored(translator: Translator) -> None:
    """Guards against a picture of sampling or of rounded weights under the name of the beam."""
    odd = BEAM.model_copy(update={"sample": True, "n_best": 2, "quantize": "int8"})
    assert translator.explain(LINES[0], decode=odd).translation == translator.explain(LINES[0], decode=BEAM).translation


def test_attention_has_the_documented_shapes(translator: Translator) -> None:
    """Guards against maps that do not fit the pieces beside them."""
    seen = translator.attention(LINES[0], "hex gudor")
    model = translator.config.model
    num_src, num_tgt = len(seen.source), len(seen.target)
    assert seen.encoder is not None
    assert seen.decoder is not None
    assert seen.cross is not None
    heads = model.num_heads  # type: ignore[union-attr]
    assert seen.encoder.shape == (model.encoder_layers, heads, num_src, num_src)
    assert seen.decoder.shape == (model.decoder_layers, heads, num_tgt, num_tgt)
    assert seen.cross.shape == (model.decoder_layers, heads, num_tgt, num_src)
    assert seen.alignment is not None
    np.testing.assert_allclose(seen.alignment.sum(axis=1), 1, atol=1e-5)
    assert seen.read == ["<s>", *seen.target[:-1]]
    assert seen.source[-1] == seen.target[-1] == "</s>"
    explained = translator.explain(LINES[0])
    own = translator.attention(LINES[0])
    assert own.target == explained.attention.target
    assert own.cross is not None
    assert explained.attention.cross is not None
    np.testing.assert_array_equal(own.cross, explained.attention.cross)


def test_a_notebook_shows_a_line_and_not_thousands_of_numbers(translator: Translator) -> None:
    """What a cell prints when its last line is an explanation or its attention."""
    explained = translator.explain("a b c", "C B A")
    source, target = (len(pieces) for pieces in (explained.attention.source, explained.attention.target))
    shown = repr(explained.attention)
    assert "\n" not in shown
    assert len(shown) < 300
    assert f"cross {[*explained.attention.cross.shape[:2], target, source]}" in shown
    shown = repr(explained)
    assert "\n" not in shown
    assert len(shown) < 300
    assert f"'a b c' -> {explained.translation.text!r}" in shown
    assert f"reference {explained.reference.score:.3f}" in shown


def test_positions_are_those_of_the_model(translator: Translator) -> None:
    """Guards against a picture of another encoding."""
    explained = translator.explain(LINES[0])
    assert explained.positions == "sinusoidal"
    assert explained.position_vectors is not None
    assert explained.position_vectors.shape == (32, 32)
    np.testing.assert_allclose(explained.position_vectors[3, :2], [math.sin(3), math.cos(3)], atol=1e-6)


def test_what_cannot_be_explained_is_refused_in_one_line(translator: Translator, model: Path) -> None:
    """Guards against tracebacks for texts that have no tokens or too many, and for ensembles."""
    mistakes = {
        "the sentence is blank": lambda: translator.explain(" \n"),
        "the reference is blank": lambda: translator.explain("hex", reference=""),
        "the target is blank": lambda: translator.attention("hex", "\t"),
        "the sentence has": lambda: translator.explain("hex " * 500),
        "the reference has": lambda: translator.explain("hex", reference="hex " * 500),
        "an ensemble cannot be explained": lambda: Translator.load([model, model], device="cpu").explain("hex"),
    }
    for message, mistake in mistakes.items():
        with pytest.raises(UserError, match=message) as raised:
            mistake()
        assert "\n" not in str(raised.value)


def test_a_model_without_numbers_is_an_error(model: Path) -> None:
    """Guards against a page of NaN."""
    broken = Translator.load(model, device="cpu")
    broken.engine.model.output_weight.data.fill_(math.nan)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="no finite numbers"):
        broken.explain(LINES[0])
