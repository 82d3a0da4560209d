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

from collections.abc import Iterable, Sequence
from dataclasses import replace

import sentencepiece

from seq2seq.data.piece_model import CONTROL, NORMAL, UNUSED, USER_DEFINED, Piece, PieceModel
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair

_ORDINARY = (NORMAL, USER_DEFINED)  # what text is cut into, bytes excluded
# A protocol buffer, of normalizer_spec alone: no add_dummy_prefix, no remove_extra_whitespaces. Behind another one, its
# values replace those of the other one.
_NO_SPACE_BEFORE_TEXT = b"\x1a\x04\x18\x00\x20\x00"


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


def extended(old: Tokenizer, new: Tokenizer | None, tags: Iterable[str], *, bpe: bool) -> Tokenizer:
    """The old tokenizer with the pieces of the new one, of the same kind, and with these tags, where it lacks them."""
    model = PieceModel.parse(old.model)
    new_tags = [Piece(f"<{tag}>", 0.0, CONTROL) for tag in tags if tag not in old.tags]
    model = replace(model, pieces=(*model.pieces, *new_tags))
    if new is not None:
        known = {piece.text: piece.score for piece in model.pieces if piece.kind in _ORDINARY}
        added = [piece for piece in PieceModel.parse(new.model).pieces if piece.kind in _ORDINARY]
        added = sorted((piece for piece in added if piece.text not in known), key=lambda piece: -piece.score)
        if bpe:
            last = min(known.values(), default=0.0)
            added = [replace(piece, score=last - rank) for rank, piece in enumerate(added, start=1)]
        everything = _within_words(_joined(model, added).serialise())
        kept = [piece for piece in added if everything.encode(piece.text, out_type=str) == [piece.text]]
        model = _joined(model, kept)
    return Tokenizer(model.serialise(), old.normalises)


def _joined(model: PieceModel, added: Sequence[Piece]) -> PieceModel:
    """The model with more pieces: an unused piece with the text of one takes its place, the others are appended."""
    waiting = {piece.text: piece for piece in added}
    pieces = [waiting.pop(piece.text, piece) if piece.kind == UNUSED else piece for piece in model.pieces]
    return replace(model, pieces=(*pieces, *waiting.values()))


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
