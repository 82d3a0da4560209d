"""Cards from texts: what the training text adds, and what happens without it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from seq2seq.data.formats.pairs import SentencePair
from seq2seq.errors import DataError
from seq2seq.evaluate.card import Card, SystemCard
from seq2seq.evaluate.make_card import CARD, Evaluated, Training, make_card, write_card
from seq2seq.evaluate.scores import fingerprint_lines, score
from seq2seq.evaluate.significance import compare
from seq2seq.evaluate.slices import Translated
from seq2seq.evaluate.training_text import read_training_text
from tests.toy import sentences


def pairs_of(count: int, seed: int) -> list[SentencePair]:
    return [SentencePair(src, tgt, line, line % 2) for line, (src, tgt) in enumerate(sentences(count, seed))]


def test_many_chunks_in_many_processes_are_as_one() -> None:
    """Guards against counts or matches of the last chunk alone, and against words that only the training text has."""
    text, test = pairs_of(300, 1), sentences(20, 2)
    sources, references = [src for src, _ in test], [[tgt for _, tgt in test]]
    seen: list[int] = []
    whole = read_training_text(iter(text), sources, references)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seq2seq.evaluate.training_text._CHUNK_PAIRS", 50)
        cut = read_training_text(iter(text), sources, references, seen.append)
    assert cut == whole
    assert seen == [50] * 6
    assert cut.pairs == {0: 150, 1: 150}
    assert cut.source_words == Counter(
        word for pair in text for word in pair.src.split() if word in " ".join(sources).split()
    )
    wanted = set(" ".join(references[0]).split())
    assert cut.target_words == Counter(word for pair in text for word in pair.tgt.split() if word in wanted)
    assert read_training_text(iter(()), sources, references).pairs.total() == 0


def card_of(training: Training | None) -> tuple[Card, list[str], list[str]]:
    test = sentences(30, 5)
    sources, references = [src for src, _ in test], [tgt for _, tgt in test]
    translations = [text if line % 3 else "dor" for line, text in enumerate(references)]
    measures = compare({"": translations}, [references], resample=False).systems[0].measures
    evaluated = Evaluated(SystemCard(name="hyp", is_model=False), "test", measures, training=training)
    return make_card(Translated(sources, translations, [references]), evaluated), translations, references


def test_scores_without_the_lines_that_are_in_the_training_text(tmp_path: Path) -> None:
    """Guards against the score of the overlapping lines, and line numbers from 0; the file reads back as the card."""
    planted = [SentencePair(*sentences(30, 5)[line], 0) for line in (0, 3, 29)]
    card, translations, references = card_of(Training((), lambda: iter(planted), {"repeats": 2}))
    overlap = card.overlap
    assert overlap is not None
    assert {1, 4, 30} <= set(overlap.lines)
    assert (overlap.training_pairs, card.left_out) == (3, {"repeats": 2})
    assert overlap.exact_pairs >= 3
    assert overlap.near_sources == len(overlap.lines) - len({1, 4, 30})  # exact ones are not near, too
    assert not {1, 4, 30} & {line for line, _, _ in overlap.examples}
    rest = [line for line in range(30) if line + 1 not in overlap.lines]
    alone = score([translations[line] for line in rest], [references[line] for line in rest])
    assert [one.score for one in overlap.without] == pytest.approx([alone.bleu, alone.chrf])
    assert overlap.without[0].signature == alone.bleu_signature
    assert card.scores[0].name == "BLEU"
    assert card.test.ref_blake2b == (fingerprint_lines(references),)
    write_card(card, tmp_path / "new")
    assert Card.model_validate_json((tmp_path / "new" / CARD).read_bytes()) == card


def test_training_text_that_cannot_be_read_is_a_note() -> None:
    """Guards against a card that is lost because a file is damaged."""

    def damaged() -> Iterator[SentencePair]:
        yield SentencePair("ka", "dor", 0)
        raise DataError("train.xx.gz: damaged")

    card, *_ = card_of(Training((), damaged, {}))
    assert card.overlap is None
    assert card.notes == (
        "the training text cannot be read, so overlap and rare words are not known: train.xx.gz: damaged",
    )
    assert "words that" not in "".join(one.kind for one in card.recalls)
    assert card_of(None)[0].overlap is None
