"""Glossaries: the terms of a source that have a translation of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from seq2seq.data.formats.lines import printable, read_lines
from seq2seq.data.formats.tables import csv_rows
from seq2seq.data.normalise import normalise
from seq2seq.decode.speller import is_boundary
from seq2seq.errors import DataError
from seq2seq.files import fingerprint

_HEADERS = (("source", "target"), ("src", "tgt"), ("source term", "target term"))


@dataclass(frozen=True)
class Entry:
    """A source term and its translation."""

    source: str
    target: str
    place: str  # for messages


class Glossary:
    """Terms to look for in source lines.

    A source term is found as whole words, and in the longest form that the glossary has: with "York" and "New York",
    "New York" is one term. A term without capital letters is found in any case, another one only as it is written.
    White space and Unicode forms that the tokenizer of a source reads as the same are the same here, too.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Raises DataError for a blank term, and for a source term with two translations."""
        self.entries: list[Entry] = []
        self._exact: dict[str, Entry] = {}
        self._folded: dict[str, Entry] = {}
        for entry in entries:
            source, target = (_cleaned(text) for text in (normalise(entry.source), entry.target))
            if not source or not target:
                raise DataError(
                    f"{entry.place}: the {'target' if source else 'source'} term is blank; complete the row"
                )
            terms = self._folded if _folded(source) == source else self._exact
            entry = Entry(source, target, entry.place)
            known = terms.setdefault(source, entry)
            if known.target != target:
                raise DataError(
                    f"{entry.place}: {source!r} has another translation in {known.place}; a term has only one"
                )
            if known is entry:
                self.entries.append(entry)
        self._lengths = sorted({len(entry.source) for entry in self.entries}, reverse=True)

    @classmethod
    def read(cls, path: Path, languages: tuple[str | None, str | None] = (None, None)) -> Glossary:
        """Read a CSV file (UTF-8; RFC 4180) of two columns, source term and target term.

        The first row may be a header: source,target or src,tgt, or the two ``languages``, which are language codes. The
        cells may be separated by semicolons or tabs; the first row decides.

        Raises:
            DataError: the file cannot be read, or a row is not two terms.
        """
        first = next(read_lines(path), b"").decode("utf-8", "replace")
        delimiter = next((mark for mark in ",;\t" if mark in first), ",")
        if delimiter not in first:
            shown = f"'{printable(first, 60)}'"
            raise DataError(f"{path}:1: a glossary has rows of two cells, source term,target term, not {shown}")
        return cls(_entries(path, delimiter, languages))

    @classmethod
    def of(cls, pairs: Mapping[str, str]) -> Glossary:
        """The glossary of a program: the translation of every source term."""
        return cls(Entry(source, target, f"glossary[{source!r}]") for source, target in pairs.items())

    @property
    def fingerprint(self) -> str:
        """Hex fingerprint of all terms."""
        return fingerprint(terms=[[entry.source, entry.target] for entry in self.entries])

    def find(self, text: str) -> list[Entry]:
        """The entries for a source line, in the order of the text; each once."""
        text = _cleaned(normalise(text))
        folded = _folded(text)
        found: dict[str, Entry] = {}
        at = 0
        while at < len(text):
            entry = self._longest(text, folded, at) if is_boundary(text, at) else None
            if entry is not None:
                found.setdefault(entry.target, entry)
            at += len(entry.source) if entry else 1
        return list(found.values())

    def _longest(self, text: str, folded: str, at: int) -> Entry | None:
        """The entry for the longest term that begins here."""
        for length in self._lengths:
            end = at + length
            if end <= len(text) and is_boundary(text, end):
                entry = self._exact.get(text[at:end]) or self._folded.get(folded[at:end])
                if entry is not None:
                    return entry
        return None


def has_term(text: str, term: str) -> bool:
    """Whether a text has a term as whole words."""
    at = text.find(term)
    while at >= 0:
        if is_boundary(text, at) and is_boundary(text, at + len(term)):
            return True
        at = text.find(term, at + 1)
    return False


def _entries(path: Path, delimiter: str, languages: tuple[str | None, str | None]) -> Iterator[Entry]:
    for number, row in csv_rows(path, delimiter):
        cells = [_cleaned(cell) for cell in row]
        if not cells or (number == 1 and tuple(cell.lower() for cell in cells) in (*_HEADERS, languages)):
            continue
        if len(cells) != 2:
            raise DataError(
                f"{path}:{number}: has {len(cells)} cell{'s' * (len(cells) > 1)}; a row of a glossary has two, source "
                f"term{delimiter}target term (a term with {delimiter!r} needs quotes)"
            )
        source, target = cells
        yield Entry(source, target, f"{path}:{number}")


def _cleaned(text: str) -> str:
    return " ".join(text.split())


def _folded(text: str) -> str:
    """The text in lower case, character by character, so that its length stays the same."""
    return "".join(lower if len(lower := character.lower()) == 1 else character for character in text)
