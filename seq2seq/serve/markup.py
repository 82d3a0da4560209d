"""HTML: the texts between its tags are translated, and everything else stays as it is, byte by byte."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape, unescape
from html.parser import HTMLParser
from typing import NamedTuple

_NOT_TEXT = frozenset(("script", "style", "code", "pre", "textarea", "svg", "math"))
_WITHOUT_END = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)


class Piece(NamedTuple):
    """A part of an HTML text; ``text`` is what to translate, None if it stays as it is."""

    raw: str
    text: str | None


class _Splitter(HTMLParser):
    """Notes where each tag, text and comment starts, and whether it is to be translated."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.starts: list[tuple[int, bool]] = []  # offset, whether it is text to translate
        self._untranslated: list[str] = []  # open elements, from the first one whose text stays
        self._lines = [0]
        for line in html.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)
        self.feed(html)
        self.close()

    def _note(self, is_text: bool = False) -> None:
        line, column = self.getpos()
        self.starts.append((self._lines[line - 1] + column, is_text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note()
        stays = tag in _NOT_TEXT or ("translate", "no") in attrs
        if tag not in _WITHOUT_END and (stays or self._untranslated):
            self._untranslated.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note()

    def handle_endtag(self, tag: str) -> None:
        self._note()
        if tag in self._untranslated:
            while self._untranslated.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        self._note(not self._untranslated)

    def handle_comment(self, data: str) -> None:
        self._note()

    def handle_decl(self, decl: str) -> None:
        self._note()

    def handle_pi(self, data: str) -> None:
        self._note()

    def unknown_decl(self, data: str) -> None:
        self._note()


def split_html(html: str) -> list[Piece]:
    """The pieces of an HTML text, or of a part of one; together their ``raw`` texts are ``html``."""
    starts = _Splitter(html).starts
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, False))
    ends = [*(start for start, _ in starts[1:]), len(html)]
    pieces = []
    for (start, is_text), end in zip(starts, ends, strict=True):
        raw = html[start:end]
        text = " ".join(unescape(raw).split()) if is_text else ""  # a line break is a space in HTML
        pieces.append(Piece(raw, text if any(map(str.isalpha, text)) else None))
    return pieces


def join_html(pieces: Iterable[Piece], translations: Iterable[str]) -> str:
    """The HTML text with the translation of every piece that has a text; they are escaped, so none becomes a tag."""
    translated, whole = iter(translations), []
    for raw, text in pieces:
        if text is None:
            whole.append(raw)
            continue
        before, after = raw[: len(raw) - len(raw.lstrip())], raw[len(raw.rstrip()) :]
        whole.append(before + escape(next(translated), quote=False) + after)
    return "".join(whole)
