"""Tables and pictures of the benchmarks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def draw_bars(path: Path, title: str, label: str, bars: Sequence[Bar]) -> None:
    """A horizontal bar for each program with the range over rounds."""
    figure = _figure(9, 1.4 + 0.45 * len(bars))
    if figure is None or not bars:
        return
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
    _save(figure, path)


def draw_losses(path: Path, title: str, curves: Sequence[tuple[str, Sequence[float]]]) -> None:
    """The losses of runs step by step, and how far they are from those of the first."""
    figure = _figure(9, 7)
    if figure is None:
        return
    losses, differences = figure.subplots(2, 1, sharex=True)
    (first_name, first), *_ = curves
    for number, (name, values) in enumerate(curves):
        line = {"color": f"C{number}", "linewidth": 0.9}
        steps = range(1, len(values) + 1)
        losses.plot(steps, values, ("--" if number else "-"), label=name, **line)
        if number:
            apart = [abs(a - b) for a, b in zip(values, first, strict=True)]
            differences.plot(steps, apart, label=f"{name} − {first_name}", **line)
    losses.set(title=title, ylabel="loss per target token (nats)")
    differences.set(xlabel="step", ylabel="absolute difference", yscale="log")
    differences.xaxis.get_major_locator().set_params(integer=True)
    for axes in (losses, differences):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend()
    _save(figure, path)


def _figure(width: float, height: float) -> Figure | None:
    """None where matplotlib is missing, which is printed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: pip install matplotlib")
        return None
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
