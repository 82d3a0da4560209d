"""HTML: its sentences are translated, and everything else stays as it is, byte by byte.

A sentence is the text between two elements that are blocks. The tags inside it (links, bold words) are no
part of its text; :mod:`seq2seq.decode.placing` puts them into its translation. :func:`split_html` can also end a text
at every tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape, unescape
from html.parser import HTMLParser
from itertools import chain
from typing import NamedTuple

from seq2seq.decode.placing import Bare, Element, Fragment, mates, take_out

_NOT_TEXT = frozenset(("script", "style", "code", "pre", "textarea", "svg", "math"))
_WITHOUT_END = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)
_INLINE = frozenset(
    (
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i"),
        *("img", "input", "ins", "kbd", "mark", "math", "q", "s", "samp", "script", "small", "span", "strike"),
        *("strong", "style", "sub", "sup", "svg", "time", "tt", "u", "var", "wbr"),
    )
)
_BEGUN = re.compile(r"<[a-zA-Z/!?]")  # a tag or a comment
_TAGS = 200  # in a sentence; with more, each one ends it


class Piece(NamedTuple):
    """A part of an HTML text; ``text`` is what to translate, None if it stays as it is."""

    raw: str
    text: str | None
    elements: tuple[Element, ...] = ()  # what stands in the text; parents come first


class _Splitter(HTMLParser):
    """Notes where each tag, text and comment starts, and what it is."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.starts: list[tuple[int, str, str]] = []  # offset, kind and name
        self._untranslated: list[str] = []  # open elements, from the first one whose text stays
        self._lines = [0]
        for line in html.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)
        self.feed(html)
        if _BEGUN.match(self.rawdata):  # it has no end, so it goes on to the end of the text, as in browsers
            self._note("inside" if self._untranslated else "break")
        else:
            self.close()

    def _note(self, kind: str, name: str = "") -> None:
        line, column = self.getpos()
        self.starts.append((self._lines[line - 1] + column, kind, name))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = (value.split() for name, value in attrs if name == "class" and value)
        stays = tag in _NOT_TEXT or ("translate", "no") in attrs or any("notranslate" in some for some in classes)
        if self._untranslated:
            self._note("inside")
        elif tag not in _INLINE:
            self._note("break")
        elif tag in _WITHOUT_END:
            self._note("point")
        else:
            self._note("untranslated" if stays else "open", tag)
        if tag not in _WITHOUT_END and (stays or self._untranslated):
            self._untranslated.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note("inside" if self._untranslated else "point" if tag in _INLINE else "break")

    def handle_endtag(self, tag: str) -> None:
        if not self._untranslated:
            self._note("close" if tag in _INLINE else "break", tag)
            return
        if tag in self._untranslated:
            while self._untranslated.pop() != tag:
                pass
        self._note("inside" if self._untranslated else "end")

    def handle_data(self, data: str) -> None:
        self._note("inside" if self._untranslated else "text")

    def handle_comment(self, data: str) -> None:
        self._note("inside" if self._untranslated else "point")

    def handle_decl(self, decl: str) -> None:
        self._note("inside" if self._untranslated else "break")

    def handle_pi(self, data: str) -> None:
        self._note("inside" if self._untranslated else "break")

    def unknown_decl(self, data: str) -> None:
        self._note("inside" if self._untranslated else "break")


def split_html(html: str, at_all_tags: bool = False) -> list[Piece]:
    """The pieces of an HTML text, or of a part of one; together their ``raw`` texts are ``html``."""
    pieces: list[Piece] = []
    for sentence in _between_breaks(_parts(html)):
        # A tag whose other one is outside ends the sentence. If the rest has such tags again, all of its tags do.
        for some in _between_breaks(_unpaired_as_breaks(sentence)):
            few = sum(part.kind != "text" for part in some) <= _TAGS
            well = few and not at_all_tags and not _unpaired(some)
            pieces += _pieces(some) if well else _pieces_at_all_tags(some)
    return pieces


def join_html(pieces: Iterable[Piece], translations: Iterable[str]) -> str:
    """The HTML text with the translation of every piece that has a text, which is HTML."""
    translated, whole = iter(translations), []
    for raw, text, _ in pieces:
        whole.append(raw if text is None else next(translated))
    return "".join(whole)


def escaped(text: str) -> str:
    """A text as HTML, so that no part of it becomes a tag."""
    return escape(text, quote=False)


def _parts(html: str) -> list[Fragment]:
    """Tags, texts and comments; an element whose text stays is one part."""
    starts = _Splitter(html).starts
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, "break", ""))
    ends = [*(start for start, _, _ in starts[1:]), len(html)]
    parts: list[Fragment] = []
    since, within = 0, False  # an element whose text stays and which is not complete, inside a sentence
    for (start, kind, name), end in zip(starts, ends, strict=True):
        if kind == "untranslated":
            since, within = start, True
        elif within and kind == "end":
            parts.append(Fragment(html[since:end], "point"))
            within = False
        elif not within:
            parts.append(Fragment(html[start:end], "break" if kind in ("inside", "end") else kind, name))
    return [*parts, Fragment(html[since:], "break")] if within else parts


def _between_breaks(parts: Sequence[Fragment]) -> list[list[Fragment]]:
    """The parts of each sentence, and each part between two sentences."""
    found: list[list[Fragment]] = []
    before = "break"
    for part in parts:
        if "break" in (before, part.kind):
            found.append([])
        found[-1].append(part)
        before = part.kind
    return found


def _unpaired(parts: Sequence[Fragment]) -> set[int]:
    """The numbers of the tags that have no other one in a sentence, or are too deep in it."""
    pairs = mates(parts)
    tags = {number for number, part in enumerate(parts) if part.kind in ("open", "close")}
    return tags - pairs.keys() - set(pairs.values())


def _unpaired_as_breaks(parts: Sequence[Fragment]) -> list[Fragment]:
    unpaired = _unpaired(parts)
    return [part._replace(kind="break") if number in unpaired else part for number, part in enumerate(parts)]


def _pieces_at_all_tags(parts: Sequence[Fragment]) -> list[Piece]:
    of_parts = (_pieces([part]) if part.kind == "text" else [Piece(part.raw, None)] for part in parts)
    return list(chain.from_iterable(of_parts))


def _pieces(parts: Sequence[Fragment]) -> list[Piece]:
    """The pieces of a sentence whose tags are paired: what is before it, itself, what is after it."""
    first, last = 0, len(parts)
    pairs = mates(parts)
    while first < last:
        part, end = parts[first], parts[last - 1]
        if part.kind != "text" and pairs.get(first) == last - 1:
            first, last = first + 1, last - 1
        elif part.kind in ("point", "break") or (part.kind == "text" and not unescape(part.raw).strip()):
            first += 1
        elif end.kind in ("point", "break") or (end.kind == "text" and not unescape(end.raw).strip()):
            last -= 1
        else:
            break
    before, inside, after = (
        "".join(part.raw for part in some) for some in (parts[:first], parts[first:last], parts[last:])
    )
    text, elements = _sentence(parts[first:last])
    if not any(map(str.isalpha, text)):
        return [Piece(before + inside + after, None)]
    spaces = [inside[: len(inside) - len(inside.lstrip())], inside[len(inside.rstrip()) :]]
    core = inside[len(spaces[0]) : len(inside) - len(spaces[1])]
    whole = [Piece(before + spaces[0], None), Piece(core, text, elements), Piece(spaces[1] + after, None)]
    return [piece for piece in whole if piece.raw]


def _is_note(parts: Sequence[Fragment], number: int, end: int) -> bool:
    """Whether an element is the number of a footnote; H<sub>2</sub>O has none."""
    inside = "".join(part.text for part in parts[number:end])
    after = next((part.text for part in parts[end + 1 :] if part.text), "")
    return parts[number].name == "sup" and not any(map(str.isalpha, inside)) and not after[:1].isalnum()


def _sentence(parts: Sequence[Fragment]) -> Bare:
    """The text of a sentence, and the elements in it; a footnote's number is one without words."""
    texts = (re.sub(r"\s+", " ", unescape(part.raw)) if part.kind == "text" else "" for part in parts)
    parts = [part._replace(text=text) for part, text in zip(parts, texts, strict=True)]
    pairs, found, number = mates(parts), list[Fragment](), 0
    while number < len(parts):
        end = pairs.get(number, number)
        if number in pairs and _is_note(parts, number, end):
            found.append(Fragment("".join(part.raw for part in parts[number : end + 1]), "point"))
        else:
            end = number
            found.append(parts[number])
        number = end + 1
    return take_out(found)
