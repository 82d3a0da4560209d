"""Which column of a table, or which key of a record, holds the texts to translate, and which the translations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from seq2seq.errors import DataError
from seq2seq.languages import english_name, short_code

_PARTNERS = {"source": "target", "src": "tgt", "text": "translation"}  # names that are no languages
_CODE = re.compile(r"[a-z]{2,3}(-([a-z]{2}|[a-z]{4}|[0-9]{3}))*")
_MOST = 100  # names; rows that have fewer cells are made as long as the first one


class Sides(NamedTuple):
    """Names of columns or keys; the target may be missing in the file."""

    source: str
    target: str
    language: str | None  # of the source, if its name says it


@dataclass(frozen=True)
class Languages:
    """What the sides of a file may be named after."""

    sources: Sequence[str]
    target: str

    def sides(self, names: Sequence[str], place: str, what: str) -> Sides | None:
        """Which of some names is the source and which the target; None without a source.

        A language is a code, an English name, or a code with a region, after the last dot of a name; such names come
        before words. ``place`` and ``what`` (column or key) are for the error if there are too many names.
        """
        if len(names) > _MOST:
            raise DataError(f"{place}: has {len(names):,} {what}s; the limit is {_MOST}")
        source = _best(names, self.sources, list(_PARTNERS))
        if source is None:
            return None
        language = next((code for code in self.sources if _rank(source, [code], []) is not None), None)
        stem, dot, last = source.rpartition(".")
        if language is None:
            new = _PARTNERS[source.lower()]
        else:
            named = last.lower() == english_name(language).lower()
            new = stem + dot + (english_name(self.target) if named else self.target)
        others = [name for name in names if name != source]
        return Sides(source, _best(others, [self.target], list(_PARTNERS.values())) or new, language)

    def missing(self, place: str, what: str) -> DataError:
        """The error to raise if no column or key has the name of a source."""
        known = dict.fromkeys([*self.sources, *map(english_name, self.sources), *_PARTNERS])
        wanted = " or ".join([", ".join(map(repr, [*known][:-1])), repr([*known][-1])])
        return DataError(f"{place}: no {what} is named {wanted}; give the {what} to translate such a name")


def _best(names: Sequence[str], languages: Sequence[str], words: Sequence[str]) -> str | None:
    ranks = [(rank, number) for number, name in enumerate(names) if (rank := _rank(name, languages, words)) is not None]
    return names[min(ranks)[1]] if ranks else None


def _rank(name: str, languages: Sequence[str], words: Sequence[str]) -> int | None:
    plain = name.lower().replace("_", "-")
    last = plain.rpartition(".")[2]
    for code in languages:
        if last == code.lower().replace("_", "-"):
            return 0
        if last == english_name(code).lower():
            return 1
        if _CODE.fullmatch(last) and short_code(last) == short_code(code):
            return 2
    return 3 if plain in words else None
