"""More pieces for the vocabulary of a trained model: those of a tokenizer that was trained on new text, and new tags.

The old pieces keep their ids, so that all vectors of the model keep their rows; new pieces are appended.

- **bpe**: the score of a piece is the negative rank of its merge. The new merges come after the old ones, in their own
  order: text is first cut as before, and then the new merges join what they find.
- **unigram**: scores are logarithms of probabilities in both models, so the new pieces keep theirs.

In both kinds, some pieces of the new tokenizer would never be used beside the old ones: a bpe piece whose parts the old
merges cut elsewhere, or a unigram piece that is less likely than its parts. They are left out: a piece is added if the
extended model cuts the piece's own text into this piece alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import sentencepiece

from seq2seq.data.tokenizer import Tokenizer, TokenizerPair

# The model file is a protocol buffer, ModelProto of sentencepiece_model.proto. If a message is followed by another one,
# a reader appends the lists of the second one to those of the first, and takes single values from the second one. So a
# piece is added by writing it at the end of the file.
_NORMAL, _CONTROL = 1, 3  # kinds of pieces
_NO_SPACE_BEFORE_TEXT = b"\x1a\x04\x18\x00\x20\x00"  # normalizer_spec: no add_dummy_prefix, no remove_extra_whitespaces


def _piece(text: str, score: float, kind: int) -> bytes:
    """A model file that has this piece alone. Fields of a piece: 1 its text, 2 its score, 3 its kind."""
    content = _text(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes((0x18, kind))
    return _text(1, content)


def _text(field: int, content: bytes) -> bytes:
    """A field that holds text or a message: its number and type, the length in groups of seven bits, the content."""
    length, groups = len(content), bytearray()
    while length > 127:
        groups.append(length & 127 | 128)
        length >>= 7
    return bytes((field << 3 | 2, *groups, length)) + content


def _within_words(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """A processor that takes text as it is: without a space before it, a piece can be cut like a part of a word."""
    return sentencepiece.SentencePieceProcessor(model_proto=model + _NO_SPACE_BEFORE_TEXT)


class Parts:
    """The pieces of a tokenizer that make other pieces."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._processor = _within_words(tokenizer.model)

    def __call__(self, piece: str) -> list[int]:
        """The ids into which the tokenizer cuts a piece of another one: characters that it lacks are bytes or unknown.

        A tag has no parts.
        """
        ids: list[int] = self._processor.encode(piece)
        return ids


def _ordinary(processor: sentencepiece.SentencePieceProcessor) -> list[tuple[str, float]]:
    """The pieces that text is cut into, bytes excluded, and their scores: for bpe in the order of the merges."""
    special = ("is_control", "is_unknown", "is_unused", "is_byte")
    ids = [i for i in range(processor.get_piece_size()) if not any(getattr(processor, test)(i) for test in special)]
    return [(processor.id_to_piece(i), processor.get_score(i)) for i in ids]


def extended(old: Tokenizer, new: Tokenizer | None, tags: Iterable[str], *, bpe: bool) -> Tokenizer:
    """The old tokenizer with the pieces of the new one, of the same kind, and with these tags, where it lacks them."""
    model = b"".join((old.model, *(_piece(f"<{tag}>", 0.0, _CONTROL) for tag in tags if tag not in old.tags)))
    if new is not None:
        known = dict(_ordinary(sentencepiece.SentencePieceProcessor(model_proto=old.model)))
        added = _ordinary(sentencepiece.SentencePieceProcessor(model_proto=new.model))
        added = [(piece, score) for piece, score in added if piece not in known]
        added.sort(key=lambda one: -one[1])
        if bpe:
            last = min(known.values(), default=0.0)
            added = [(piece, last - rank) for rank, (piece, _) in enumerate(added, start=1)]
        everything = _within_words(model + _pieces(added))
        kept = [one for one in added if everything.encode(one[0], out_type=str) == [one[0]]]
        model += _pieces(kept)
    return Tokenizer(model, old.normalises)


def _pieces(added: Sequence[tuple[str, float]]) -> bytes:
    return b"".join(_piece(text, score, _NORMAL) for text, score in added)


def extended_pair(
    old: TokenizerPair, new: TokenizerPair | None, tags: Sequence[str], *, bpe: bool, shared: bool
) -> TokenizerPair:
    """Both tokenizers of a model with the pieces of two others, and with tags on the source side.

    Args:
        new: trained on the new text, joint as the old ones are; None: only tags are added.
        shared: the ids of both sides are the same, as their vectors are. So both get the tags.
    """
    new_src, new_tgt = (None, None) if new is None else (new.src, new.tgt)
    src = extended(old.src, new_src, tags, bpe=bpe)
    if old.joint:
        return TokenizerPair(src, Tokenizer(src.model))
    return TokenizerPair(src, extended(old.tgt, new_tgt, tags if shared else (), bpe=bpe))


def added_pieces(old: Tokenizer, final: Tokenizer) -> list[str]:
    """The pieces that ``final`` has more than ``old``, tags included, in the order of their ids."""
    return final.pieces(range(old.vocab_size, final.vocab_size))
