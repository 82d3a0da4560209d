"""Uploaded texts, tables, JSON lines and translation memories, and the same files with the translations.

The readers of datasets read a file, so what comes back is a dataset of pairs. A translation goes where the file has a
place for it and the place is blank; a file without such a place gets one. What a file has besides stays as it is.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias
from xml.sax.saxutils import escape, quoteattr

from seq2seq.data.formats.compression import DAMAGE, damaged, decompressed
from seq2seq.data.formats.file_kinds import HEAD
from seq2seq.data.formats.jsonl import names_in, objects_of, text_of
from seq2seq.data.formats.lines import decode_line, read_stream
from seq2seq.data.formats.rows import units_of
from seq2seq.data.formats.tables import parse_csv, tsv_rows
from seq2seq.data.formats.tmx import Memory
from seq2seq.data.formats.xml_text import checked, decoded, encoding_of
from seq2seq.decode.files import cell
from seq2seq.errors import DataError
from seq2seq.languages import short_code
from seq2seq.serve.sides import Languages, Sides

ENDINGS = (".txt", ".tsv", ".csv", ".jsonl", ".tmx")

_NAME = "the file"  # in messages
_MEMBER = re.compile(r'[\s,{]*("(?:[^"\\]|\\.)*")\s*:\s*')  # of a JSON object, up to its value

Rows: TypeAlias = list[tuple[int, list[str]]]


class Gap(NamedTuple):
    """The place of a translation."""

    text: str  # to translate
    fill: Callable[[str], str]  # from the translation to what stands in the file


@dataclass(frozen=True)
class Document:
    """A file in parts that stay and places of translations."""

    parts: list[str | Gap]
    source: str | None  # the language of the texts, if the file says it
    mark: bytes = b""  # what the file starts with
    encoding: str = "utf-8"

    @property
    def texts(self) -> list[str]:
        """What to translate; a text can have line breaks, none is blank."""
        return [part.text for part in self.parts if isinstance(part, Gap)]

    def filled(self, translations: Iterable[str]) -> bytes:
        """The file with the translations of all texts."""
        given = iter(translations)
        whole = "".join(part.fill(next(given)) if isinstance(part, Gap) else part for part in self.parts)
        return self.mark + whole.encode(self.encoding, "xmlcharrefreplace")


class Limits(NamedTuple):
    """What a file may have."""

    bytes: int  # unpacked
    texts: int  # to translate


class _Parts(list[str | Gap]):
    """The parts of a file; raises DataError for one place of a translation too many."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits, self._num_texts = limits, 0

    def add_gap(self, text: str, fill: Callable[[str], str]) -> None:
        self._num_texts += 1
        if self._num_texts > self.limits.texts:
            raise DataError(f"{_NAME} has more than {self.limits.texts:,} texts to translate; send it in parts")
        self.append(Gap(text, fill))


def unpacked(content: bytes, limit: int) -> bytes:
    """A file, which gzip may have compressed; raises DataError if it is damaged, or has more bytes than ``limit``."""
    try:
        data: bytes = decompressed(io.BytesIO(content), _NAME, gzip_only=True)[1].read(limit + 1)
    except DAMAGE as error:
        raise damaged(_NAME, error) from None
    if len(data) > limit:
        raise DataError(f"{_NAME} has more than {limit:,} bytes (unpacked); send it in parts")
    return data


def read_document(content: bytes, ending: str, sources: Sequence[str], target: str, limits: Limits) -> Document:
    """Read a file, which can be compressed with gzip.

    Args:
        ending: one of :data:`ENDINGS`, which decides the format.
        sources: the languages that the texts may have.
        target: the language of the translations.

    Raises:
        DataError: the file is too large, is damaged or malformed, or no part of it has a name that fits ``sources``.
    """
    data = unpacked(content, limits.bytes)
    if ending == ".tmx":
        return _memory(data, sources, target, limits)
    lines = list(read_stream(io.BytesIO(data), _NAME))
    end = "\r\n" if re.match(rb"[^\n]*\r\n", data) else "\n"
    languages = Languages(sources, target)
    parts = _Parts(limits)
    sides = None
    if ending == ".txt":
        _lines(lines, data, parts)
    elif ending == ".jsonl":
        sides = _json_lines(lines, languages, parts, end)
    elif ending == ".tsv":
        sides = _table(list(tsv_rows(lines, _NAME)), languages, parts, _Tsv("\t", end))
    else:
        delimiter = _delimiter(lines, languages)
        sides = _table(list(parse_csv(lines, _NAME, delimiter)), languages, parts, _Csv(delimiter, end))
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    return Document(parts, sides.language if sides else None, mark)


def _lines(lines: list[bytes], data: bytes, parts: _Parts) -> None:
    """Add the lines of a text; each keeps its own end."""
    whole = io.BytesIO(data.removeprefix(codecs.BOM_UTF8))
    for number, (line, raw) in enumerate(zip(lines, whole, strict=True), start=1):
        text = decode_line(line, _NAME, number)
        if text.strip():
            parts.add_gap(text, str)
        else:
            parts.append(text)
        parts.append(raw[len(line) :].decode())


@dataclass(frozen=True)
class _Csv:
    """How rows are written."""

    delimiter: str
    end: str

    def row(self, cells: Sequence[str]) -> str:
        whole = io.StringIO()
        csv.writer(whole, delimiter=self.delimiter, lineterminator="\r\n").writerow(cells)  # quotes CR and LF in cells
        return whole.getvalue().removesuffix("\r\n") + self.end

    def filled(self, cells: Sequence[str], number: int, translation: str) -> str:
        """A row whose cell ``number`` holds the translation; it gets blank cells up to there."""
        before = [*cells[:number], *[""] * (number - len(cells))]
        return self.row([*before, translation, *cells[number + 1 :]])


class _Tsv(_Csv):
    """The same without quotes."""

    def row(self, cells: Sequence[str]) -> str:
        return self.delimiter.join(cells) + self.end

    def filled(self, cells: Sequence[str], number: int, translation: str) -> str:
        return super().filled(cells, number, cell(translation))


def _table(rows: Rows, languages: Languages, parts: _Parts, form: _Csv) -> Sides | None:
    """Add the rows of a table; the target is the column of this name, or a new last one.

    A single column needs no name: if the first row has none, it is text.
    """
    number, first = rows[0] if rows else (1, [])
    names = [name.strip() for name in first]
    sides = languages.sides(names, f"{_NAME}:{number}", "column")
    if sides is None and any(len(cells) > 1 for _, cells in rows):
        raise languages.missing(f"{_NAME}:{number}", "column")
    width, source, target = 1, 0, 1
    if sides is not None:
        new = sides.target not in names
        list(units_of(iter(rows[:1]), f"{_NAME}:", sides.source, sides.source if new else sides.target))
        width, source = len(names), names.index(sides.source)
        target = width if new else names.index(sides.target)
        parts.append(form.row([*first, sides.target] if new else first))
        rows = rows[1:]
    missing = sum(max(0, target - len(cells)) for _, cells in rows if cells)
    if missing > parts.limits.bytes:
        raise DataError(f"{_NAME}: its rows lack {missing:,} cells that the first row has; complete them")
    for number, cells in rows:
        if len(cells) <= source:  # the reader refuses it, unless it is an empty line
            list(units_of(iter([(number, cells)]), f"{_NAME}:", source, source))
        if any(more.strip() for more in cells[width:]):
            problem = f"has {len(cells)} cells, but the first row has {width}"
            raise DataError(f"{_NAME}:{number}: {problem}; a cell with {form.delimiter!r} in it needs quotes (CSV)")
        there = cells[target] if target < len(cells) else ""
        if not cells or there.strip():
            parts.append(form.row(cells))
        elif not cells[source].strip():
            parts.append(form.filled(cells, target, there))
        else:
            parts.add_gap(cells[source], partial(form.filled, cells, target))
    return sides


def _delimiter(lines: list[bytes], languages: Languages) -> str:
    """The delimiter that gives the first row a name of the source; Excel writes ``;`` in many countries."""
    for delimiter in ",;\t|":
        try:
            number, cells = next(parse_csv(lines, _NAME, delimiter), (1, []))
        except DataError:
            continue
        if languages.sides([name.strip() for name in cells], f"{_NAME}:{number}", "column"):
            return delimiter
    return ","


def _json_lines(lines: list[bytes], languages: Languages, parts: _Parts, end: str) -> Sides | None:
    """Add the objects of JSON lines, whose keys are those of the first one; an object with one key needs no names."""
    sides: Sides | None = None
    for number, line, tree in objects_of(lines, _NAME):
        place = f"{_NAME}:{number}"
        if sides is None:
            names = names_in(tree)
            sides = languages.sides(names, place, "key")
            if sides is None and len(names) == 1:
                sides = Sides(names[0], languages.target, None)
            if sides is None:
                raise languages.missing(place, "key")
        text = text_of(tree, sides.source, place)
        start, stop, before = _value(line, line.index("{"), tree, sides.target)
        there = "" if start == stop else text_of(tree, sides.target, place)
        if there.strip() or not (text.strip() or start == stop):
            parts.append(line + end)
        elif not text.strip():
            parts.append(f'{line[:start]}{before}""{line[stop:]}{end}')
        else:
            parts.append(line[:start] + before)
            parts.add_gap(text, partial(json.dumps, ensure_ascii=False))
            parts.append(line[stop:] + end)
    return sides


def _value(line: str, start: int, tree: dict[str, object], key: str) -> tuple[int, int, str]:
    """Where the value of a key starts and ends, or where it would stand, and what is then before it."""
    decoder = json.JSONDecoder(parse_int=float)
    first, _, rest = key.partition(".")
    inner = tree.get(first)
    before, stop = "", start + 1
    while member := _MEMBER.match(line, start):
        name = json.loads(member[1])
        stop = decoder.raw_decode(line, member.end())[1]
        if name == key:
            return member.end(), stop, ""
        if name == first and rest and isinstance(inner, dict) and key not in tree:
            return _value(line, member.end(), inner, rest)
        before, start = ", ", stop
    return stop, stop, f"{before}{json.dumps(key, ensure_ascii=False)}: "


def _memory(data: bytes, sources: Sequence[str], target: str, limits: Limits) -> Document:
    """The units of a translation memory; a unit without the target gets a variant."""
    problem = None
    candidates = [*dict.fromkeys([*sources, *map(short_code, sources)])]
    while candidates:
        source, texts = candidates.pop(0), list[str]()
        memory = Memory(source, target)
        units = list(memory.units_of(_kept(checked(decoded(iter([data])), mend=True), texts), _NAME))
        missing = memory.missing_languages("source")
        if missing is None:
            break
        problem = problem or missing
        candidates = [code for code in candidates if memory.has(code)]
    else:
        raise DataError(f"{_NAME}: {problem}")
    text = "".join(texts).encode()
    parts, done = _Parts(limits), 0
    for placed in units:
        if placed.unit.tgt.strip() or not placed.unit.src.strip():
            continue
        if placed.segment is not None:
            start, end = placed.segment
            end = text.index(b">", end) + 1 if text.startswith(b"</seg", end) else end
            before, after = "<seg>", "</seg>"
        else:
            start = end = placed.end - len(_space_before(text, placed.end))
            before = _space_before(text, placed.variant).decode() + f"<tuv xml:lang={quoteattr(target)}><seg>"
            after = "</seg></tuv>"
        parts.append(text[done:start].decode() + before)
        parts.add_gap(placed.unit.src, _xml)
        parts.append(after)
        done = end
    parts.append(text[done:].decode())
    encoding, size_of_mark = encoding_of(data[:HEAD])
    return Document(parts, source, data[:size_of_mark], encoding)


def _kept(texts: Iterable[str], kept: list[str]) -> Iterator[str]:
    for text in texts:
        kept.append(text)
        yield text


def _space_before(text: bytes, place: int) -> bytes:
    before = text[max(0, place - 200) : place]
    return before[len(before.rstrip(b" \t\r\n")) :]


def _xml(text: str) -> str:
    return "".join(checked([escape(text)], mend=True))
