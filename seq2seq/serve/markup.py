"""HTML: its sentences are translated, and everything else stays as it is, byte by byte.

A sentence is the text between two elements that are blocks. The tags inside it (links, bold words) are no
part of its text; :mod:`seq2seq.serve.inline` puts them into its translation. :func:`split_html` can also end a text at
every tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape, unescape
from html.parser import HTMLParser
from itertools import chain
from typing import NamedTuple

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
_DEPTH = 50  # of elements in a sentence; deeper ones end it
_TAGS = 200  # in a sentence; with more, each one ends it


class Inline(NamedTuple):
    """An element inside a sentence, or something without a text, such as an image or a comment."""

    opening: str
    closing: str
    start: int  # the part of the sentence inside it; characters
    end: int
    parent: int  # the element around it, by its number; -1: none
    spaces: tuple[bool, bool]  # whether there is white space before and after something without a text


class Piece(NamedTuple):
    """A part of an HTML text; ``text`` is what to translate, None if it stays as it is."""

    raw: str
    text: str | None
    elements: tuple[Inline, ...] = ()  # parents come first


class _Part(NamedTuple):
    """A tag, a text, a comment."""

    raw: str
    kind: str  # text, open, close, point (without a text of its own), break (between sentences)
    name: str = ""


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
        self.close()

    def _note(self, kind: str, name: str = "") -> None:
        line, column = self.getpos()
        self.starts.append((self._lines[line - 1] + column, kind, name))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        stays = tag in _NOT_TEXT or ("translate", "no") in attrs
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


def _parts(html: str) -> list[_Part]:
    """Tags, texts and comments; an element whose text stays is one part."""
    starts = _Splitter(html).starts
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, "break", ""))
    ends = [*(start for start, _, _ in starts[1:]), len(html)]
    parts: list[_Part] = []
    since, within = 0, False  # an element whose text stays and which is not complete, inside a sentence
    for (start, kind, name), end in zip(starts, ends, strict=True):
        if kind == "untranslated":
            since, within = start, True
        elif within and kind == "end":
            parts.append(_Part(html[since:end], "point"))
            within = False
        elif not within:
            parts.append(_Part(html[start:end], "break" if kind in ("inside", "end") else kind, name))
    return [*parts, _Part(html[since:], "break")] if within else parts


def _between_breaks(parts: Sequence[_Part]) -> list[list[_Part]]:
    """The parts of each sentence, and each part between two sentences."""
    found: list[list[_Part]] = []
    before = "break"
    for part in parts:
        if "break" in (before, part.kind):
            found.append([])
        found[-1].append(part)
        before = part.kind
    return found


def _unpaired(parts: Sequence[_Part]) -> set[int]:
    """The numbers of the tags that have no other one in a sentence, or are too deep in it."""
    unpaired, stack, names = set(), [], Counter[str]()
    for number, part in enumerate(parts):
        if part.kind == "open":
            stack.append(number)
            names[part.name] += 1
            if len(stack) > _DEPTH:
                unpaired.add(number)
        elif part.kind == "close":
            while names[part.name]:
                names[parts[stack[-1]].name] -= 1
                opened = stack.pop()
                if parts[opened].name == part.name:
                    if opened in unpaired:
                        unpaired.add(number)
                    break
                unpaired.add(opened)
            else:
                unpaired.add(number)
    return unpaired.union(stack)


def _unpaired_as_breaks(parts: Sequence[_Part]) -> list[_Part]:
    unpaired = _unpaired(parts)
    return [part._replace(kind="break") if number in unpaired else part for number, part in enumerate(parts)]


def _pieces_at_all_tags(parts: Sequence[_Part]) -> list[Piece]:
    of_parts = (_pieces([part]) if part.kind == "text" else [Piece(part.raw, None)] for part in parts)
    return list(chain.from_iterable(of_parts))


def _pieces(parts: Sequence[_Part]) -> list[Piece]:
    """The pieces of a sentence whose tags are paired: what is before it, itself, what is after it."""
    first, last = 0, len(parts)
    mates = _mates(parts)
    while first < last:
        part, end = parts[first], parts[last - 1]
        if part.kind != "text" and (mates.get(first) == last - 1 and part.kind == "open"):
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


def _mates(parts: Sequence[_Part]) -> dict[int, int]:
    """The number of the closing tag for that of each opening one."""
    stack, mates = [], {}
    for number, part in enumerate(parts):
        if part.kind == "open":
            stack.append(number)
        elif part.kind == "close":
            mates[stack.pop()] = number
    return mates


def _sentence(parts: Sequence[_Part]) -> tuple[str, tuple[Inline, ...]]:
    """The text of a sentence, and the elements in it; one without a text is one thing with all that is in it."""
    mates, space_after = _mates(parts), _space_after(parts)
    text, space = "", False  # whether white space was left out, which is a space before the next word
    elements: list[Inline] = []
    stack: list[int] = []
    empty_until = -1
    for number, (raw, kind, _) in enumerate(parts):
        if number <= empty_until:
            continue
        if kind == "text":
            words = unescape(raw)
            if words.strip():
                text += " " * (bool(text) and (space or words[0].isspace())) + " ".join(words.split())
            space = bool(words) and words[-1].isspace() if words.strip() else space or bool(words)
        elif kind == "close":
            opened = stack.pop()
            elements[opened] = elements[opened]._replace(closing=raw, end=len(text))
        else:
            end, parent = mates.get(number, number), stack[-1] if stack else -1
            inside = "".join(unescape(part.raw) for part in parts[number:end] if part.kind == "text")
            if not inside.strip() or _is_note(parts, number, end, inside):
                raw, empty_until = "".join(part.raw for part in parts[number : end + 1]), end
            else:
                stack.append(len(elements))
            spaces = (space or not text, space_after[end])
            elements.append(Inline(raw, "", len(text), len(text), parent, spaces))
    return text, tuple(
        one._replace(start=one.start + 1) if one.start < one.end and text[one.start] == " " else one for one in elements
    )


def _is_note(parts: Sequence[_Part], number: int, end: int, inside: str) -> bool:
    """Whether an element is the number of a footnote; H<sub>2</sub>O has none."""
    after = next((unescape(part.raw) for part in parts[end + 1 :] if part.kind == "text"), "")
    return parts[number].name == "sup" and not any(map(str.isalpha, inside)) and not after[:1].isalnum()


def _space_after(parts: Sequence[_Part]) -> list[bool]:
    """Whether the next text after each part begins with white space; True at the end."""
    found = [True]
    for part in reversed(parts):
        begins = unescape(part.raw)[:1].isspace() if part.kind == "text" else found[-1]
        found.append(begins)
    return found[-2::-1]
