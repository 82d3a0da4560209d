"""The contents of a SentencePiece model file: its pieces, to read and to change.

The file is a protocol buffer (``sentencepiece_model.proto``), whose wire format is so small that it needs no package.
Only pieces and the special ids are interpreted; everything else is kept as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # ModelProto.SentencePiece.Type
BPE = 2  # TrainerSpec.ModelType
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_TEXT, _SCORE, _KIND = 1, 2, 3  # fields of ModelProto.SentencePiece
_CHARSMAP, _LEADING_SPACE = 2, 3  # fields of NormalizerSpec: precompiled_charsmap, add_dummy_prefix
_MODEL_TYPE, _VOCAB_SIZE = 3, 4  # fields of TrainerSpec
_LISTED = (30, 31)  # fields of TrainerSpec that list control symbols and user-defined symbols
# Fields of TrainerSpec: the id and the name of unk, bos, eos and pad.
_SPECIALS = {40: UNK_ID, 41: BOS_ID, 42: EOS_ID, 43: PAD_ID}
_NAMES = {45: "<unk>", 46: "<s>", 47: "</s>", 48: "<pad>"}
_VARINT, _BYTES, _FIXED32 = 0, 2, 5  # wire types


@dataclass(frozen=True)
class Piece:
    """A piece, its score, and how SentencePiece uses it: one of the constants above."""

    text: str
    score: float = 0.0
    kind: int = NORMAL


# The first pieces of every vocabulary of ours.
SPECIAL_PIECES = (
    *(Piece("<pad>", 0.0, CONTROL), Piece("<unk>", 0.0, UNKNOWN)),
    *(Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL)),
)


@dataclass(frozen=True)
class PieceModel:
    """A SentencePiece model file."""

    pieces: tuple[Piece, ...]
    others: tuple[tuple[int, bytes], ...]  # the other fields of the file, in their order

    @classmethod
    def parse(cls, content: bytes) -> PieceModel:
        """Raises DataError if the bytes are no SentencePiece model."""
        pieces, others = [], []
        try:
            for number, value in _fields(content):
                if not isinstance(value, bytes):
                    raise ValueError(f"field {number} has another type")
                if number == _PIECE:
                    pieces.append(_parse_piece(value))
                else:
                    others.append((number, value))
        except (ValueError, IndexError, struct.error) as error:
            raise DataError(f"not a SentencePiece model ({error})") from None
        if not pieces:
            raise DataError("not a SentencePiece model (it has no pieces)")
        return cls(tuple(pieces), tuple(others))

    def serialise(self) -> bytes:
        """The bytes of the file."""
        parts = []
        for piece in self.pieces:
            body = _field(_TEXT, piece.text.encode()) + _field(_SCORE, piece.score)
            parts.append(_field(_PIECE, body + (_field(_KIND, piece.kind) if piece.kind != NORMAL else b"")))
        parts += [_field(number, value) for number, value in self.others]
        return b"".join(parts)

    @property
    def is_bpe(self) -> bool:
        """Whether the pieces are merged by their scores; otherwise the model is a unigram model, in practice."""
        return dict(self._inner(_TRAINER)).get(_MODEL_TYPE) == BPE

    @property
    def normaliser(self) -> bytes:
        """The compiled rules that change text before it is cut into pieces; empty if there are none."""
        rules = dict(self._inner(_NORMALIZER)).get(_CHARSMAP, b"")
        return rules if isinstance(rules, bytes) else b""

    def with_normaliser(self, rules: bytes) -> PieceModel:
        """A copy with other compiled rules; without any, the bytes are those that SentencePiece writes."""
        kept = [(number, value) for number, value in self._inner(_NORMALIZER) if number != _CHARSMAP]
        return self._with_inner(_NORMALIZER, sorted([*kept, (_CHARSMAP, rules)], key=lambda field: field[0]))

    def without_leading_space(self) -> PieceModel:
        """A copy that puts no space before a text, so that its first word is cut like the rest of a longer one."""
        kept = [(number, value) for number, value in self._inner(_NORMALIZER) if number != _LEADING_SPACE]
        return self._with_inner(_NORMALIZER, sorted([*kept, (_LEADING_SPACE, 0)], key=lambda field: field[0]))

    def with_pieces(self, pieces: Sequence[Piece]) -> PieceModel:
        """A copy with ``SPECIAL_PIECES`` and these: their ids are PAD_ID, UNK_ID, BOS_ID and EOS_ID, then 4, 5, ..."""
        dropped = {_VOCAB_SIZE, *_LISTED, *_SPECIALS, *_NAMES}
        spec: list[tuple[int, bytes | int | float]] = [x for x in self._inner(_TRAINER) if x[0] not in dropped]
        spec += [(_VOCAB_SIZE, len(SPECIAL_PIECES) + len(pieces)), *_SPECIALS.items()]
        spec += [(number, name.encode()) for number, name in _NAMES.items()]
        return replace(self._with_inner(_TRAINER, spec), pieces=(*SPECIAL_PIECES, *pieces))

    def _inner(self, message: int) -> list[tuple[int, bytes | int | float]]:
        """The fields of an inner message; none if the file lacks it."""
        try:
            return [field for number, value in self.others if number == message for field in _fields(value)]
        except (ValueError, IndexError, struct.error) as error:
            raise DataError(f"not a SentencePiece model ({error})") from None

    def _with_inner(self, message: int, fields: Sequence[tuple[int, bytes | int | float]]) -> PieceModel:
        content = b"".join(_field(*field) for field in fields)
        others = dict(self.others) | {message: content}
        return replace(self, others=tuple(sorted(others.items())))


def _parse_piece(content: bytes) -> Piece:
    fields = dict(_fields(content))
    text, score, kind = fields.get(_TEXT, b""), fields.get(_SCORE, 0.0), fields.get(_KIND, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, float) or not isinstance(kind, int):
        raise ValueError("a piece has another type")
    return Piece(text.decode(), score, kind)


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """Number and value of every field of a message. Fixed numbers of 64 bits are not used in these files."""
    at = 0
    while at < len(content):
        key, at = _read_varint(content, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _read_varint(content, at)
            yield number, value
        elif wire == _BYTES:
            size, at = _read_varint(content, at)
            if at + size > len(content):
                raise ValueError("it ends too early")
            yield number, content[at : at + size]
            at += size
        elif wire == _FIXED32:
            yield number, struct.unpack_from("<f", content, at)[0]
            at += 4
        else:
            raise ValueError(f"wire type {wire}")


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _field(number: int, value: bytes | int | float) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    return _varint(number << 3 | _FIXED32) + struct.pack("<f", value)
