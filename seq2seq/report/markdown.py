"""Pages as Markdown, with tables, for viewers of text files. Pictures are left out; their numbers stand in tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from seq2seq.report.blocks import Block, Cell, Code, Folded, Number, Page, Table, Texts, Words
from seq2seq.report.differences import differing

_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~$!])")
_LINKS = re.compile(r"://|@|(?<=www)\.", re.IGNORECASE)  # what viewers find addresses by
_BREAKS = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")


def page_markdown(page: Page) -> str:
    """The whole file."""
    parts = [f"# {_escaped(page.title)}", *_blocks(page.top)]
    for section in page.sections:
        parts += [f"## {_escaped(section.title)}", *_blocks(section.blocks)]
    return "\n\n".join([*parts, "---", _escaped(page.foot)]) + "\n"


def _escaped(text: str) -> str:
    """Text that no viewer takes for Markdown or HTML, in one line."""
    text = _BREAKS.sub(" ", text.encode("utf-8", "replace").decode())
    text = _SPECIAL.sub(r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINKS.sub(lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", text)


def _code(text: str) -> str:
    """Code in one line; a bar would end a cell, and a backtick the code."""
    return text and f"`{_BREAKS.sub(' ', text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _fenced(text: str) -> str:
    """Code in lines of their own; the fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{text.encode('utf-8', 'replace').decode()}\n{fence}"


def _blocks(blocks: tuple[Block, ...]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Words):
            sign = {"warning": "**Warning:** ", "lead": "**"}.get(block.kind, "")
            yield f"{sign}{_escaped(block.text)}{'**' * (block.kind == 'lead')}"
        elif isinstance(block, Table):
            yield _table(block)
        elif isinstance(block, Texts):
            yield _texts(block)
        elif isinstance(block, Code):
            yield _fenced(block.text)
        elif isinstance(block, Folded):
            yield f"### {_escaped(block.summary)}"
            yield from _blocks(block.blocks)


def _table(table: Table) -> str:
    lines = [_row(map(_escaped, table.head)), _row("---:" if number else "---" for number in table.numeric())]
    for name, group in table.groups:
        if name:
            lines.append(_row([f"**{_escaped(name)}**", *[""] * (len(table.head) - 1)]))
        lines += [_row(map(_cell, row)) for row in group]
    caption = [_escaped(table.caption), ""] if table.caption else []
    return "\n".join(caption + lines)


def _row(cells: Iterator[str] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Code):
        return _code(cell.text)
    if isinstance(cell, Number):
        return _escaped(cell.text)
    return f"{cell:,}" if isinstance(cell, int) else _escaped(cell)


def _texts(block: Texts) -> str:
    """A list of the texts; words in which the last two differ are bold."""
    plain = [[(text, False)] for _, text, _ in block.texts]
    if block.compare:
        plain[-2:] = differing(block.texts[-2][1], block.texts[-1][1])
    lines = [_escaped(block.title), ""] if block.title else []
    for (name, _, _), pieces in zip(block.texts, plain, strict=True):
        text = "".join(_bold(part) if differs else _escaped(part) for part, differs in pieces)
        lines.append(f"- {name}: {text or '(empty)'}")
    return "\n".join(lines)


def _bold(text: str) -> str:
    """Words in bold, without punctuation around them, beside which viewers do not take stars for bold."""
    found = re.search(r"[^\W_](.*[^\W_])?", text, re.DOTALL)
    if found is None:
        return _escaped(text)
    return f"{_escaped(text[: found.start()])}**{_escaped(found[0])}**{_escaped(text[found.end() :])}"
