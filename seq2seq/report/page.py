"""Pages as one HTML file: no script, no other file, no network.

All text is escaped where it becomes markup, and the page forbids scripts, so text of strangers stays text.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from seq2seq.report.blocks import Block, Cell, Code, Folded, Number, Page, Picture, Section, Table, Texts, Words
from seq2seq.report.differences import differing

_STYLE = "style.css"
# Control characters have no place in a page; these pictures of them have.
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


class Markup(str):
    """Text that is HTML, so it is not escaped again."""

    __slots__ = ()


_EMPTY = Markup("<small>(empty)</small>")
_Content: TypeAlias = "str | Markup | None"


def element(name: str, *content: _Content, **attributes: str | float | None) -> Markup:
    """An HTML or SVG element. Content that is no Markup is escaped; None is left out.

    Args:
        attributes: ``class_`` stands for class, and ``stroke_width`` for stroke-width; None leaves one out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(f"{value:g}" if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{joined(*content)}</{name}>")


def joined(*content: _Content) -> Markup:
    """Markup and escaped text, one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else _escaped(part) for part in content if part is not None))


def _escaped(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode().translate(_VISIBLE))


def fill_template(name: str, **values: str) -> str:
    """The template of this folder with the shared style, and these values (markup) in their places."""
    folder = Path(__file__).parent
    text = (folder / name).read_text(encoding="utf-8")
    text = text.replace("{{style}}", (folder / _STYLE).read_text(encoding="utf-8").rstrip())
    head, *parts = text.split("{{")  # in one pass, as a value may have such places in its text
    return head + "".join(values[key] + rest for key, rest in (part.split("}}", 1) for part in parts))


def page_html(page: Page) -> str:
    """The whole file."""
    links = [element("a", section.title, href=f"#{section.name}") for section in page.sections]
    body = [
        element("h1", element("bdi", page.title)),
        *map(_block, page.top),
        element("nav", *links, aria_label="Sections"),
        *map(_section, page.sections),
        element("footer", element("p", page.foot, dir="auto")),
    ]
    return fill_template("page.html", title=_escaped(page.title), body="\n".join(body))


def _section(section: Section) -> Markup:
    return element("section", element("h2", section.title), *map(_block, section.blocks), id=section.name)


def _block(block: Block) -> Markup:
    if isinstance(block, Words):
        return element("p", block.text, class_=None if block.kind == "plain" else block.kind, dir="auto")
    if isinstance(block, Table):
        return element("div", _table(block), class_="wide")
    if isinstance(block, Texts):
        return _texts(block)
    if isinstance(block, Code):
        return element("pre", block.text, dir="auto")
    if isinstance(block, Folded):
        return element("details", element("summary", block.summary), *map(_block, block.blocks))
    return element("div", *map(_figure, block), class_="figures")


def _figure(picture: Picture) -> Markup:
    legend = [joined(element("i", class_=kind), name) for kind, name in picture.legend]
    return element(
        "figure",
        element("figcaption", picture.title),
        element("div", *legend, class_="legend") if legend else None,
        Markup(picture.svg),
    )


def _table(table: Table) -> Markup:
    numeric = table.numeric()
    head = [
        element("th", name, scope="col", class_="number" if of_numbers else None)
        for name, of_numbers in zip(table.head, numeric, strict=True)
    ]
    return element(
        "table",
        element("caption", table.caption) if table.caption else None,
        element("thead", element("tr", *head)) if any(table.head) else None,
        *(element("tbody", *_rows(numeric, *group)) for group in table.groups),
    )


def _rows(numeric: list[bool], name: str, group: tuple[tuple[Cell, ...], ...]) -> Iterator[Markup]:
    if name:
        yield element("tr", element("th", name, scope="rowgroup", colspan=len(numeric), dir="auto"))
    for first, *others in group:
        heading = element("th", _cell(first), scope="row", dir="auto")
        yield element("tr", heading, *(_data(*pair) for pair in zip(others, numeric[1:], strict=True)))


def _data(cell: Cell, of_numbers: bool) -> Markup:
    """``of_numbers``: whether the column has numbers alone."""
    if isinstance(cell, Number) and cell.share is not None:
        mark = None if cell.mark is None else element("i", style=f"--whole:{_share(cell.mark):.4f}")
        bar = element("i", mark, style=f"--share:{_share(cell.share):.4f}")
        return element("td", element("span", cell.text, bar), class_="number bar")
    return element("td", _cell(cell), **({"class_": "number"} if of_numbers else {"dir": "auto"}))


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _cell(cell: Cell) -> Markup:
    if isinstance(cell, Code):
        return element("code", cell.text)
    if isinstance(cell, Number):
        return joined(cell.text)
    return joined(f"{cell:,}" if isinstance(cell, int) else cell)


def _texts(block: Texts) -> Markup:
    plain = [[(text, False)] for _, text, _ in block.texts]
    kinds: list[str | None] = [None] * len(plain)
    if block.compare:
        plain[-2:] = differing(block.texts[-2][1], block.texts[-1][1])
        kinds[-1] = "missing"
    parts = []
    for (name, text, language), pieces, kind in zip(block.texts, plain, kinds, strict=True):
        if not text:
            pieces = [(_EMPTY, False)]
        marked = [element("mark", part, class_=kind) if differs else joined(part) for part, differs in pieces]
        parts += [element("dt", name), element("dd", *marked, dir="auto", lang=language)]
    title = element("p", block.title, dir="auto") if block.title else None
    return element("div", title, element("dl", *parts), class_="texts")
