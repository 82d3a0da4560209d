"""Figures of matplotlib: how they are made and saved, and fonts for their text."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq.errors import UserError
from seq2seq.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Axes", "Figure", "choose_fonts", "new_figure", "save_png"]

_FIRST = "DejaVu Sans"  # comes with matplotlib
_BOXES = "Last Resort"  # comes with matplotlib, too, and has a box for every character
_PREFERRED = ("Noto Sans CJK", "Source Han Sans", "Noto Sans", "PingFang", "Microsoft YaHei", "WenQuanYi")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches; raises UserError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("matplotlib is not installed; install it: pip install matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file; raises the errors of :func:`seq2seq.files.written_whole`."""
    content = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # see choose_fonts
        figure.savefig(content, format="png", dpi=120)
    write_bytes(path, content.getvalue())


def choose_fonts(texts: Iterable[str]) -> list[str]:
    """Names of fonts that have together the characters of ``texts``; matplotlib takes the first that has a character.

    Characters other than letters, such as emoji, may be missing: they are drawn as boxes.

    Raises:
        UserError: no font of this machine has some of the letters.
    """
    from matplotlib.font_manager import findSystemFonts, fontManager

    missing = {ord(character) for text in texts for character in text} - _characters(fontManager.findfont(_FIRST))
    fonts = [_FIRST]
    if not missing:
        return fonts
    # matplotlib keeps a list of fonts in a file; fonts that were installed later are not in it.
    known = {entry.fname for entry in fontManager.ttflist}
    for path in findSystemFonts():
        if path not in known:
            fontManager.addfont(path)
    installed = [(entry.name, entry.fname) for entry in fontManager.ttflist if not entry.name.startswith(_BOXES)]
    for name, path in _candidates(installed):
        if found := missing & _characters(path):
            fonts.append(name)
            missing -= found
        if not missing:
            break
    if letters := "".join(chr(code) for code in sorted(missing) if chr(code).isalpha())[:20]:
        raise UserError(
            f"no font on this machine has the letters {letters}; install one that has them, such as Noto Sans CJK for "
            "Chinese, Japanese and Korean (Debian and Ubuntu: apt install fonts-noto-cjk)"
        )
    return fonts


def _candidates(fonts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """One name for each file of ``fonts`` (name, path), the preferred ones first, and light or bold ones last."""

    def rank(font: tuple[str, str]) -> tuple[int, int, str]:
        preferred = [number for number, name in enumerate(_PREFERRED) if font[0].startswith(name)]
        return (preferred or [len(_PREFERRED)])[0], "Regular" not in font[1], font[0]

    by_path: dict[str, str] = {}
    for name, path in fonts:
        by_path.setdefault(path, name)
    return sorted(((name, path) for path, name in by_path.items()), key=rank)


def _characters(path: str) -> set[int]:
    """The code points that a font file has."""
    from matplotlib.ft2font import FT2Font

    return set(FT2Font(path).get_charmap())
