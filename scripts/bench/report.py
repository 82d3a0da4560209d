"""What a benchmark says: one table, one JSON file, one picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """One number as the rounds gave it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median, lowest and highest of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, unit: float = 1.0, digits: int = 0) -> str:
        """``median (low-high)`` in multiples of ``unit``; the median alone where one round was run."""
        median, low, high = (f"{value / unit:,.{digits}f}" for value in (self.median, self.low, self.high))
        return median if low == high else f"{median} ({low}–{high})"


@dataclass(frozen=True)
class Bar:
    """One bar of the picture."""

    name: str
    value: Spread
    ours: bool


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest entry, the first to the left and the others to the right; Markdown."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *padded[1:]])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Everything that was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def draw_bars(path: Path, title: str, label: str, bars: Sequence[Bar]) -> bool:
    """A horizontal bar for each program with the range over rounds; False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 1.4 + 0.45 * len(bars)), layout="constrained")
    axes = figure.subplots()
    names = [bar.name for bar in bars]
    medians = [bar.value.median for bar in bars]
    ranges = [[bar.value.median - bar.value.low for bar in bars], [bar.value.high - bar.value.median for bar in bars]]
    colors = ["#1f4e99" if bar.ours else "#b9c7dd" for bar in bars]
    axes.barh(names, medians, xerr=ranges, color=colors, error_kw={"ecolor": "#444444", "capsize": 3, "lw": 1})
    for row, bar in enumerate(bars):
        axes.text(bar.value.high, row, f"  {bar.value.median:,.0f}", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set(title=title, xlabel=label, xlim=(0, 1.15 * max(bar.value.high for bar in bars)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return True
