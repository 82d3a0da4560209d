"""Tables, pictures and JSON files of the benchmarks."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.machine import describe
from seq2seq.files import write_text

_OURS, _OTHERS = "#1f4e99", "#b9c7dd"


class Spread(NamedTuple):
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
        median, low, high = (f"{value / unit:,.{digits}f}" for value in self)
        return median if low == high else f"{median} ({low}–{high})"


Bar = tuple[str, Spread, bool]  # of the picture: its name, its length, and whether it is ours
Line = tuple[str, Sequence[tuple[float, float]], bool]  # of the picture: its name, its points, and whether it is ours


def save_report(options: Namespace, found: dict[str, Any]) -> Path:
    """Write what a benchmark found as JSON, with the command, the machine and the versions; returns where."""
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": describe(options.device),
        "options": vars(options),
        **found,
    }
    path = _report_path(options)
    write_text(path, json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n")
    return path


def saved_report(options: Namespace) -> dict[str, Any]:
    """What :func:`save_report` wrote earlier; nothing if there is no such file."""
    path = _report_path(options)
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return report


def _report_path(options: Namespace) -> Path:
    out: Path = options.out
    return out / f"{options.report}.json"


def failure(runs: Sequence[dict[str, Any]]) -> str:
    """A cell that says why one of the runs failed; '' where none did."""
    return next((f"failed: {run['error'][:80]}" for run in runs if "error" in run), "")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest entry, the first to the left and the others to the right; Markdown."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *padded[1:]])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def draw_bars(path: Path, title: str, label: str, bars: Sequence[Bar]) -> None:
    """A horizontal bar for each program with the range over rounds."""
    if not bars or (figure := _figure(9, 1.4 + 0.45 * len(bars))) is None:
        return
    axes = figure.subplots()
    names, spreads, ours = zip(*bars, strict=True)
    ranges = [[median - low for median, low, _ in spreads], [high - median for median, _, high in spreads]]
    colors = [_OURS if own else _OTHERS for own in ours]
    error = {"ecolor": "#444444", "capsize": 3, "lw": 1}
    drawn = axes.barh(names, [spread.median for spread in spreads], xerr=ranges, color=colors, error_kw=error)
    axes.bar_label(drawn, fmt=" {:,.0f}", fontsize=9)
    axes.invert_yaxis()
    axes.set(title=title, xlabel=label, xlim=(0, 1.15 * max(spread.high for spread in spreads)), axisbelow=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def draw_lines(path: Path, title: str, labels: tuple[str, str], lines: Sequence[Line]) -> None:
    """A line for each program over the labels' x, with a mark at each point."""
    if not any(points for _, points, _ in lines) or (figure := _figure(9, 5)) is None:
        return
    axes = figure.subplots()
    for number, (name, points, ours) in enumerate(lines, 1):
        if points:
            axes.plot(*zip(*points, strict=True), "o-", label=name, color=_OURS if ours else f"C{number}")
    highest = max(y for _, points, _ in lines for _, y in points)
    axes.set(title=title, xlabel=labels[0], ylabel=labels[1], ylim=(0, 1.1 * highest or None))
    axes.set_xticks(sorted({x for _, points, _ in lines for x, _ in points}))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()
    _save(figure, path)


def draw_losses(path: Path, title: str, curves: Sequence[tuple[str, Sequence[float]]]) -> None:
    """The losses of runs step by step, and how far they are from those of the first."""
    if (figure := _figure(9, 7)) is None:
        return
    both = losses, differences = figure.subplots(2, 1, sharex=True)
    (first_name, first), *others = curves
    steps = range(1, len(first) + 1)
    losses.plot(steps, first, label=first_name, linewidth=0.9)
    for number, (name, values) in enumerate(others, 1):
        line = {"color": f"C{number}", "linewidth": 0.9}
        losses.plot(steps, values, "--", label=name, **line)
        apart = [abs(a - b) for a, b in zip(values, first, strict=True)]
        differences.plot(steps, apart, label=f"{name} − {first_name}", **line)
    losses.set(title=title, ylabel="loss per target token (nats)")
    differences.set(xlabel="step", ylabel="absolute difference", yscale="log")
    differences.xaxis.get_major_locator().set_params(integer=True)
    for axes in both:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend()
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    """None where matplotlib is missing, which is printed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: pip install matplotlib")
        return None
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
