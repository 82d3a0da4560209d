"""Texts as pieces of the target vocabulary, for constraints on a search."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable
from functools import cached_property, lru_cache

import numpy as np

from seq2seq.data.symbols import EOS_ID, UNK_ID
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.decode.constraints import Beginning, PieceTable
from seq2seq.decode.terms import DIGIT, WORD, Spelling, Term, spelling
from seq2seq.languages import UNSPACED_SCRIPTS, script_of_letter

_SPACE = "\u2581"  # in a piece
_LAST = "\U0010ffff"  # sorts behind any text
_KEPT_TERMS = 1 << 16


@lru_cache(maxsize=1 << 16)
def in_word(character: str) -> bool:
    """Whether a character makes one word with another such one beside it: letters, marks and digits, and ``_``.

    Letters of scripts that are written without spaces do not; between them a word may end anywhere.
    """
    kind = unicodedata.category(character)[0]
    return character == "_" or kind in "NM" or (kind == "L" and script_of_letter(character) not in UNSPACED_SCRIPTS)


def is_boundary(text: str, at: int) -> bool:
    """Whether a word can begin or end before the character ``at``."""
    return not 0 < at < len(text) or not (in_word(text[at - 1]) and in_word(text[at]))


class Speller:
    """What the pieces of a target tokenizer can spell."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._spellings: dict[tuple[str, bool, bool | None, bool], tuple[Spelling, ...]] = {}

    def banned(self, texts: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """The pieces of texts as words of their own and inside words. What cannot be written needs no ban."""
        both = [ids for text in texts for ids in self._both(text) if UNK_ID not in ids]
        return tuple(dict.fromkeys(tuple(ids) for ids in both if ids))

    def term(
        self,
        text: str,
        count: int = 1,
        *,
        exact: bool = False,
        number: bool = False,
        starts_word: bool | None = None,
        ends_word: bool = False,
    ) -> Term | None:
        """A text that a translation must have ``count`` times, as whole words; None if no pieces spell it.

        Args:
            exact: not more often.
            number: other digits must not stand beside it; letters may.
            starts_word: whether there is a space before it, if that can be said; None: either.
            ends_word: no word continues it, whatever its last character is.
        """
        key = text, number, starts_word, ends_word
        if key not in self._spellings:
            if len(self._spellings) >= _KEPT_TERMS:
                self._spellings.clear()
            self._spellings[key] = self._spell(*key)
        spellings = self._spellings[key]
        return Term(spellings, count, exact) if spellings else None

    def beginning(self, text: str) -> Beginning | None:
        """The pieces of a text that a translation begins with; None if they do not spell it.

        Its last word may continue, unless white space follows it.
        """
        (ids,) = self._tokenizer.encode([text])
        if not self._spells(ids, " ".join(text.split())):
            return None
        pieces = self._tokenizer.pieces(ids)
        if text[-1].isspace():
            return Beginning((*ids, EOS_ID), (*[(0, 0)] * len(ids), self._beginning_with(_SPACE)))
        word = max((i for i, piece in enumerate(pieces) if piece.startswith(_SPACE)), default=0)
        rest = ["".join(pieces[i:]) for i in range(word, len(pieces))]
        return Beginning(tuple(ids), (*[(0, 0)] * word, *map(self._beginning_with, rest)))

    @cached_property
    def table(self) -> PieceTable:
        """What constraints know of the text of pieces."""
        size = self._tokenizer.vocab_size
        ranks, starts, ends = np.full(size, -1), np.zeros(size, np.int64), np.zeros(size, np.int64)
        for rank, (_, i) in enumerate(self._sorted):
            ranks[i] = rank
        for text, i in self._sorted:
            starts[i], ends[i] = _kinds(text[:1]), _kinds(text[-1:])
        for i, value in self._tokenizer.byte_values().items():  # part of a character: nobody knows of which kind
            starts[i] = ends[i] = _kinds(chr(value)) if value < 128 else WORD
        return PieceTable(ranks, starts, ends)

    @cached_property
    def _sorted(self) -> list[tuple[str, int]]:
        """The pieces that are text, by their text, and their ids."""
        others = {*range(EOS_ID + 1), *self._tokenizer.byte_values(), *self._tokenizer.tags.values()}
        pieces = self._tokenizer.pieces(range(self._tokenizer.vocab_size))
        return sorted((text, i) for i, text in enumerate(pieces) if i not in others)

    def _beginning_with(self, text: str) -> tuple[int, int]:
        """The ranks of the pieces that begin with a text."""
        return bisect_left(self._sorted, (text, -1)), bisect_left(self._sorted, (text + _LAST, -1))

    def _both(self, text: str) -> list[list[int]]:
        return [*self._tokenizer.encode([text]), *self._tokenizer.encode_inside([text])]

    def _spells(self, ids: list[int], text: str) -> bool:
        return bool(ids) and UNK_ID not in ids and self._tokenizer.decode_batch([ids]) == [text]

    def _spell(self, text: str, number: bool, starts_word: bool | None, ends_word: bool) -> tuple[Spelling, ...]:
        """The spellings of a term. Inside a word, only what begins with no letter may follow any piece."""
        kinds = [DIGIT if number else WORD if in_word(character) else 0 for character in (text[0], text[-1])]
        after = kinds[1] or WORD * ends_word
        found: dict[bool, Spelling] = {}
        for ids in self._both(text):
            if self._spells(ids, text):
                starts = self._tokenizer.pieces(ids)[0].startswith(_SPACE)
                found.setdefault(starts, spelling(ids, 0 if starts else kinds[0], after, self.table))
        if starts_word in found and (starts_word or not kinds[0]):
            found = {bool(starts_word): found[bool(starts_word)]}
        return tuple(found.values())


def _kinds(character: str) -> int:
    """The bits of a character."""
    return WORD * in_word(character) | DIGIT * character.isdigit() if character else 0
