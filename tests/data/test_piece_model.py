"""Promise: a SentencePiece file is read and written without the package protobuf, and damage is one line."""

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.data.piece_model import CONTROL, UNUSED, Piece, PieceModel
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.errors import DataError
from tests.export.marian import pieces_of, sentence_lines, sentencepiece_model

TEXT = "We invited Anna and Ben to the garden."


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def content(request):
    return sentencepiece_model(sentence_lines("en", 300), 150, request.param)


def encode(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model).encode(TEXT, out_type=str)


def test_what_is_read_is_written(content):
    """Guards against fields that are lost: normaliser, trainer settings, scores."""
    model = PieceModel.parse(content)
    assert [piece.text for piece in model.pieces] == pieces_of(content)
    assert PieceModel.parse(model.serialise()) == model
    assert model.normaliser
    assert len(model.serialise()) == len(content)
    processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    assert [piece.score for piece in model.pieces] == processor.get_score(list(range(len(model.pieces))))


def test_our_special_ids(content):
    """Guards against a tokenizer that cuts text in another way once its ids are ours, or that does not load."""
    model = PieceModel.parse(content)
    changed = model.with_pieces([Piece("<fra>", 0.0, CONTROL), *reversed(model.pieces[3:])])
    tokenizer = Tokenizer(changed.serialise())
    assert tokenizer.tags == {"fra": 4}
    assert tokenizer.vocab_size == len(model.pieces) + 2
    assert tokenizer.pieces(tokenizer.encode([TEXT])[0]) == encode(content)


def test_unused_pieces_do_not_change_how_text_is_cut():
    """Guards against pieces of another language, which a unigram model must not use, but which have ids."""
    content = sentencepiece_model(sentence_lines("en", 300), 150)
    model = PieceModel.parse(content)
    foreign = [Piece(text, 0.0, UNUSED) for text in ("▁We▁invited", "nvited", "☃")]
    tokenizer = Tokenizer(model.with_pieces([*model.pieces[3:], *foreign]).serialise())
    assert tokenizer.pieces(tokenizer.encode([TEXT])[0]) == encode(content)
    ids = tokenizer.encode(["a ☃ b ☃☃"])[0]
    assert ids.count(tokenizer.vocab_size - 1) == 1  # two of them are one unknown piece, which has no id
    assert ids.count(1) == 1
    assert tokenizer.decode_batch([[tokenizer.vocab_size - 1]]) == ["☃"]


@settings(max_examples=200)
@given(st.data())
def test_damage_is_a_data_error(data):
    """Guards against crashes by files from strangers: every other byte and every cut is readable or a DataError."""
    content = PieceModel((Piece("a", 1.0), Piece("b", 2.0, UNUSED)), ((2, b"\x18\x02"), (3, b"\x12\x02ab"))).serialise()
    at = data.draw(st.integers(0, len(content) - 1))
    damaged = content[:at] + bytes([data.draw(st.integers(0, 255))]) + content[at + 1 :]
    for attempt in (damaged, content[:at]):
        try:
            model = PieceModel.parse(attempt)
            assert isinstance(model.is_bpe, bool)
            assert isinstance(model.normaliser, bytes)
            model.with_pieces(model.pieces).serialise()
        except DataError:
            pass
