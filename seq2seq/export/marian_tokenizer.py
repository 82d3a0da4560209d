"""Tokenizers as Hugging Face's MarianTokenizer has them, made from ours, and back.

Theirs are a SentencePiece model for each side, which cuts text into pieces, and a table from pieces to ids, usually one
for both sides. In ours the ids are those of the SentencePiece model itself. What a piece means to a user is the same in
both: ``>>fra<<`` before a source sentence of theirs is the tag ``fra`` of ours.
"""

from __future__ import annotations

import io
import tempfile
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sentencepiece

from seq2seq.data.normalise import is_removed, normalise
from seq2seq.data.piece_model import (
    BYTE,
    CONTROL,
    NORMAL,
    SPECIAL_PIECES,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
    PieceModel,
)
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair
from seq2seq.errors import ModelError

NO_ROW = -1


@dataclass(frozen=True)
class Vocabulary:
    """Their table of one side, and the ids of their special tokens in it."""

    ids: Mapping[str, int]
    unk: int
    eos: int
    pad: int
    start: int  # what the decoder reads first

    @property
    def codes(self) -> dict[str, int]:
        """The language tokens, such as ``>>fra<<``, in the order of their ids."""
        found = [(at, text) for text, at in self.ids.items() if text[:2] == ">>" and text[-2:] == "<<" and text[2:-2]]
        return {text: at for at, text in sorted(found)}


@dataclass(frozen=True)
class Side:
    """A tokenizer of ours, and where its embeddings come from."""

    model: bytes
    rows: list[int]  # [V] their row for each of our ids; NO_ROW: zeros
    added: int  # pieces that their table lacks, and that stand for <unk>


def joint_side(content: bytes, vocabulary: Vocabulary) -> Side | None:
    """Source and target in one, for one SentencePiece model; None if their table lacks some of its pieces."""
    model = PieceModel.parse(content)
    return None if _missing(model, vocabulary) else _side(content, model, vocabulary, every=True, missing=[])


def source_side(content: bytes, vocabulary: Vocabulary, *, every: bool) -> Side:
    """A source side of its own.

    A piece that their table lacks is <unk> for them. Without it, text would be cut in another way. So it stays, and its
    vector is a copy of the one of <unk>.

    Args:
        every: keep all pieces of their table. Otherwise those of the source, and those that are written in characters
            that the source does not know: where these stand alone in a text, their id is looked up in the table.
    """
    model = PieceModel.parse(content)
    return _side(content, model, vocabulary, every=every, missing=_missing(model, vocabulary))


def target_side(content: bytes, vocabulary: Vocabulary) -> Side:
    """A target side of its own, with all pieces of their table: the model can choose any.

    It has no pieces that their table lacks, because the model cannot write them.
    """
    return _side(content, PieceModel.parse(content), vocabulary, every=True, missing=[])


def _missing(model: PieceModel, vocabulary: Vocabulary) -> list[Piece]:
    kinds = (NORMAL, USER_DEFINED, BYTE, UNUSED)
    return [piece for piece in model.pieces if piece.kind in kinds and piece.text not in vocabulary.ids]


def _side(content: bytes, model: PieceModel, vocabulary: Vocabulary, *, every: bool, missing: list[Piece]) -> Side:
    own = {piece.text: piece for piece in model.pieces if piece.kind not in (CONTROL, UNKNOWN)}
    codes = vocabulary.codes
    special = {vocabulary.unk, vocabulary.eos, vocabulary.pad, vocabulary.start}
    pieces = [Piece(f"<{code[2:-2]}>", 0.0, CONTROL) for code in codes]
    pad = NO_ROW if vocabulary.start == vocabulary.pad else vocabulary.pad
    rows = [pad, vocabulary.unk, vocabulary.start, vocabulary.eos, *codes.values()]
    # A merge of BPE may give any piece, also one that is not to be used; so those of another side would change it.
    known = None if model.is_bpe else {text for text, piece in own.items() if len(text) == 1 and piece.kind != UNUSED}
    for at, text in sorted((at, text) for text, at in vocabulary.ids.items() if text not in codes):
        if at in special:
            continue
        if every or text in own or (known is not None and known.isdisjoint(text)):
            pieces.append(own.get(text, Piece(text, 0.0, UNUSED)))
            rows.append(at)
    pieces += missing
    rows += [vocabulary.unk] * len(missing)
    changed = model.with_pieces(pieces)
    # The bytes of a tokenizer of ours that comes back stay as they were.
    return Side(content if changed.pieces == model.pieces else changed.serialise(), rows, len(missing))


def their_source(source: bytes, target: bytes) -> tuple[bytes, bool]:
    """A source model without our rules of normalisation, and whether it had them (see :func:`normalising_model`)."""
    model = PieceModel.parse(source)
    if not model.normaliser or model.normaliser != _our_rules():
        return source, False
    if PieceModel.parse(target).pieces == model.pieces:
        return target, True
    return model.with_normaliser(b"").serialise(), True


def normalising_model(tokenizer: Tokenizer) -> bytes:
    """A SentencePiece model that normalises its text by itself, where our tokenizer does it before.

    Its rules replace strings, one after the other. They cannot see that a removed character stood inside of a composed
    one, nor what stands beside a joiner; our rules can.
    """
    if not tokenizer.normalises:
        return tokenizer.model
    return PieceModel.parse(tokenizer.model).with_normaliser(_our_rules()).serialise()


@cache
def _our_rules() -> bytes:
    """The rules of ``data/normalise.py`` as SentencePiece compiles them: 170 KB, in about two seconds."""
    rules = {}
    for character in map(chr, (*range(1, 0xD800), *range(0xE000, 0x110000))):
        composed, parts = unicodedata.normalize("NFC", character), unicodedata.normalize("NFD", character)
        if composed != character:
            rules[character] = composed
        elif is_removed(character):
            rules[character] = ""
        elif character.isspace() and character != " ":
            rules[character] = normalise(character)
        elif parts != character:
            rules[parts] = character
            rules[unicodedata.normalize("NFC", parts[:-1]) + parts[-1]] = character

    def codes(text: str) -> str:
        return " ".join(f"{ord(character):X}" for character in text)

    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rules.tsv"
        lines = [f"{codes(text)}\t{codes(replacement)}\n" for text, replacement in rules.items()]
        table.write_text("".join(lines), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c"] * 3),
            model_writer=model,
            vocab_size=10,
            hard_vocab_limit=False,
            normalization_rule_tsv=str(table),
            minloglevel=2,
        )
    return PieceModel.parse(model.getvalue()).normaliser


def their_tables(tokenizers: TokenizerPair) -> tuple[dict[str, int], dict[str, int]]:
    """The tables from pieces to ids of source and target. The ids are ours.

    Raises:
        ModelError: a piece has the name of a special token or of a tag.
    """
    tables = []
    for tokenizer in (tokenizers.src, tokenizers.tgt):
        texts = tokenizer.pieces(range(tokenizer.vocab_size))
        texts[: len(SPECIAL_PIECES)] = [piece.text for piece in SPECIAL_PIECES]
        for tag, at in tokenizer.tags.items():
            texts[at] = f">>{tag}<<"
        table = {text: at for at, text in enumerate(texts)}
        if len(table) < len(texts):
            raise ModelError("two pieces of the vocabulary have one name; train the tokenizer again")
        tables.append(table)
    return tables[0], tables[1]
