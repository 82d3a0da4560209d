"""What pages are made of, as plain values: sections of sentences, tables, texts and pictures.

:mod:`seq2seq.report.page` makes HTML of them, and :mod:`seq2seq.report.markdown` Markdown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    kind: Literal["plain", "lead", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Number:
    """A cell with a number, as text; drawn as a bar if it is a ``share`` (0 to 1) of the width.

    ``mark``: where in the width another number is shown for comparison.
    """

    text: str
    share: float | None = None
    mark: float | None = None


@dataclass(frozen=True)
class Code:
    """Text that a machine reads, such as a signature: a cell, or lines of their own."""

    text: str


Cell: TypeAlias = str | int | Number | Code


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its heading. ``groups``: rows under a heading that stands over them."""

    head: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[Cell, ...], ...]], ...]
    caption: str = ""

    def numeric(self) -> list[bool]:
        """Which columns have numbers alone."""
        body = [row for _, group in self.groups for row in group]
        return [bool(body) and all(isinstance(row[i], int | Number) for row in body) for i in range(len(self.head))]


@dataclass(frozen=True)
class Texts:
    """Texts to compare. The words in which the last two differ are marked if ``compare`` is set."""

    title: str
    texts: tuple[tuple[str, str, str | None], ...]  # name, text, language code
    compare: bool = True


@dataclass(frozen=True)
class Picture:
    """A drawing in SVG, which is safe markup, with a title and a legend of (class of style.css, name)."""

    svg: str
    title: str
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when a reader asks for them."""

    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = Words | Table | Texts | Code | Folded | tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """A part of a page. ``name``: short, of ASCII letters, for links to it."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A page."""

    title: str
    top: tuple[Block, ...]
    sections: tuple[Section, ...]
    foot: str


def rows(head: tuple[str, ...], *lines: tuple[Cell, ...], caption: str = "") -> Table:
    """A table without groups."""
    return Table(head, (("", lines),), caption)
