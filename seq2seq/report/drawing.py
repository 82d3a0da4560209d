"""Drawings in SVG for pages: lines over steps, with values to read where the mouse is, and the reliability picture.

Colours come from the classes of style.css and page.html, so they follow the reader's choice of dark or light.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from seq2seq.report.blocks import Picture
from seq2seq.report.page import Markup, element, joined

COLORS = ("first", "second", "third", "fourth")  # classes of the template

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 400.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 8.0, 18.0, 20.0  # margins
_MOST_DOTS = 40
_COLUMNS = 150  # to which many points are reduced


@dataclass(frozen=True)
class Line:
    """A line through points (x, y), in the order of x. ``steps``: a value of every step, smoothed, with its range."""

    name: str
    color: str
    points: Points
    steps: bool = False


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float  # in the picture, of low
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        low, high, value = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, most: int) -> list[float]:
        """Round values."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            if len(powers) > 1:
                return [10.0**power for power in powers[:: -(-len(powers) // most)]]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(step * factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def draw_lines(title: str, lines: Sequence[Line], *, zero: bool = False, log: bool = False) -> Picture | None:
    """Lines over steps; None if there is nothing to draw.

    Args:
        zero: the axis of the values starts at 0.
        log: the axis of the values is logarithmic; values of 0 and less are left out.
    """
    lines = [_finite(line, log) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    shown = [_reduced(line.points) if line.steps else [(x, y, y, y) for x, y in line.points] for line in lines]
    lows = [low for columns in shown for _, _, low, _ in columns]
    highs = [high for columns in shown for _, _, _, high in columns]
    xs = [x for line in lines for x, _ in line.points]
    x_axis = _Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, _LEFT, _WIDTH - _RIGHT)
    low, high = (0.0 if zero and min(lows) >= 0 else min(lows)), max(highs)
    if log:
        low, high = low / 1.1, high * 1.1
    else:
        room = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
        low, high = (low if zero and low == 0 else low - room), high + room
    y_axis = _Axis(low, high, _HEIGHT - _BOTTOM, _TOP, log)
    drawn = [_line(line, columns, x_axis, y_axis) for line, columns in zip(lines, shown, strict=True)]
    svg = _svg(title, _grid(x_axis, y_axis), *drawn, _readings(lines, shown, x_axis))
    return Picture(svg, title, tuple((line.color, line.name) for line in lines) if len(lines) > 1 else ())


def _finite(line: Line, log: bool) -> Line:
    good = [(x, y) for x, y in line.points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)]
    return Line(line.name, line.color, sorted(good), line.steps)


def _reduced(points: Points) -> list[tuple[float, float, float, float]]:
    """At most so many columns as can be seen: x, mean, lowest and highest."""
    size = max(1, -(-len(points) // _COLUMNS))
    columns = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [y for _, y in part]
        columns.append((part[-1][0], sum(values) / len(values), min(values), max(values)))
    return columns


def _line(line: Line, columns: list[tuple[float, float, float, float]], x_axis: _Axis, y_axis: _Axis) -> Markup:
    places = [(x_axis.place(x), *map(y_axis.place, values)) for x, *values in columns]
    path = _path((x, y) for x, y, _, _ in places)
    parts = [element("polyline", points=path, class_=f"line {line.color}")]
    if line.steps:
        outline = [(x, low) for x, _, low, _ in places] + [(x, high) for x, _, _, high in reversed(places)]
        parts.insert(0, element("polygon", points=_path(outline), class_=f"band {line.color}"))
    if len(places) <= _MOST_DOTS or (not line.steps and len(places) == 1):
        parts += [element("circle", cx=round(x, 1), cy=round(y, 1), r=2.5, class_=line.color) for x, y, *_ in places]
    return element("g", *parts)


def _path(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _grid(x_axis: _Axis, y_axis: _Axis) -> Markup:
    parts = []
    left, right, bottom = x_axis.start, x_axis.end, y_axis.start
    for value in y_axis.ticks(5):
        y = round(y_axis.place(value), 1)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", show_number(value), x=left - 5, y=y + 4, text_anchor="end"))
    for value in x_axis.ticks(4):
        x = round(x_axis.place(value), 1)
        parts.append(element("line", x1=x, x2=x, y1=bottom, y2=y_axis.end, class_="grid"))
        parts.append(element("text", show_number(value), x=x, y=bottom + 14, text_anchor="middle"))
    return joined(*parts)


def show_number(value: float) -> str:
    """A number with few digits."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e7):
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _readings(lines: Sequence[Line], shown: Sequence[list[tuple[float, float, float, float]]], x_axis: _Axis) -> Markup:
    """Strips over the picture: the one under the mouse shows the values there."""
    xs = sorted({x for columns in shown for x, *_ in columns})
    if len(xs) > 2 * _COLUMNS:
        xs = xs[:: -(-len(xs) // (2 * _COLUMNS))]
    places = [x_axis.place(x) for x in xs]
    edges = [x_axis.start, *((a + b) / 2 for a, b in pairwise(places)), x_axis.end]
    nearest = [_Nearest(columns) for columns in shown]
    strips = []
    for x, place, (left, right) in zip(xs, places, pairwise(edges), strict=True):
        values = [f"{line.name} {show_number(find(x))}" for line, find in zip(lines, nearest, strict=True)]
        label = f"step {x:,.0f}: {', '.join(values)}"
        strips.append(
            element(
                "g",
                element("rect", x=round(left, 1), y=0.0, width=round(max(0.5, right - left), 1), height=_HEIGHT),
                element("line", x1=round(place, 1), x2=round(place, 1), y1=_TOP, y2=_HEIGHT - _BOTTOM),
                element("text", label, x=_LEFT, y=11.0),
                class_="read",
            )
        )
    return joined(*strips)


class _Nearest:
    """The value of a line that is nearest to an x; asked in the order of x."""

    def __init__(self, columns: list[tuple[float, float, float, float]]) -> None:
        self._columns = columns
        self._at = 0

    def __call__(self, x: float) -> float:
        columns = self._columns
        while self._at + 1 < len(columns) and abs(columns[self._at + 1][0] - x) <= abs(columns[self._at][0] - x):
            self._at += 1
        return columns[self._at][1]


def _svg(title: str, *content: Markup, height: float = _HEIGHT) -> Markup:
    box = f"0 0 {_WIDTH:g} {height:g}"
    return element("svg", *content, viewBox=box, role="img", aria_label=title)


@dataclass(frozen=True)
class Bin:
    """One point of a reliability picture; all from 0 to 1, but for the number of lines."""

    low: float
    high: float
    lines: int
    predicted: float
    observed: float


def draw_reliability(title: str, bins: Sequence[Bin], x_name: str, y_name: str) -> Picture:
    """Predicted against observed share, with the diagonal of a perfect prediction, and the sizes of the bins."""
    height = 330.0
    x_axis, y_axis = _Axis(0, 1, _LEFT, _WIDTH - _RIGHT), _Axis(0, 1, height - 36, _TOP)
    most = max([one.lines for one in bins if one.lines] or [1])
    parts = [_grid(x_axis, y_axis)]
    for one in bins:
        low, high = x_axis.place(_within(one.low)), x_axis.place(_within(one.high))
        size = 0.3 * (y_axis.start - y_axis.end) * one.lines / most
        box = {"x": low + 1, "y": y_axis.start - size, "width": max(0.5, high - low - 2), "height": size}
        parts.append(element("rect", class_="size", **{key: round(value, 1) for key, value in box.items()}))
    ends = {"x1": x_axis.start, "y1": y_axis.start, "x2": x_axis.end, "y2": y_axis.end}
    parts.append(element("line", class_="diagonal", **ends))
    filled = [one for one in bins if one.lines]
    places = [(x_axis.place(_within(one.predicted)), y_axis.place(_within(one.observed))) for one in filled]
    parts.append(element("polyline", points=_path(places), class_="line first"))
    for one, (x, y) in zip(filled, places, strict=True):
        words = f"{x_name} {one.predicted:.0%}, {y_name} {one.observed:.0%}, lines {one.lines:,}"
        radius = round(3 + 5 * math.sqrt(one.lines / most), 1)
        parts.append(
            element("circle", element("title", words), cx=round(x, 1), cy=round(y, 1), r=radius, class_="first")
        )
    middle = (x_axis.start + x_axis.end) / 2
    parts.append(element("text", x_name, x=middle, y=height - 6, text_anchor="middle"))
    parts.append(element("text", y_name, x=_LEFT - 34, y=11.0))
    return Picture(_svg(title, *parts, height=height), title)


def _within(value: float) -> float:
    return min(1.0, max(0.0, value))
