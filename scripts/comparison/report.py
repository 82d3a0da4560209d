"""The table, the JSON file and the picture of a comparison."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from bench.report import save_report, table

from comparison.measure import BANDS, LONG_DISTANCE, band_name
from seq2seq.errors import UserError
from seq2seq.files import write_text
from seq2seq.report.figure import new_figure, save_png

if TYPE_CHECKING:
    from seq2seq.report.figure import Axes

Record = Mapping[str, Any]  # of comparison.measure.measure
_NAME = "compare"
_SUMMARY = ("model", "parameters", "steps", "tok/s: training", "translating", "BLEU", "chrF")
DISTANCES = ("long-distance", "rest")
_DARK, _PALE = "#1f4e99", "#b9c7dd"
_COLOURS = 10  # of matplotlib
_ABOVE = 26  # points between bars and their title, with room for a legend


def text(records: Sequence[Record], minutes: float) -> str:
    """Tables, and what to know about their numbers; Markdown."""
    lengths = [band_name(band) for band in BANDS]
    parts = {
        "BLEU by the number of words of the source sentence:": lengths,
        "BLEU of sentences in which words that belong together stand far apart, and of the rest:": DISTANCES,
        "BLEU of these long-distance sentences by what is in them:": LONG_DISTANCE,
    }
    lines = [f"After {minutes:g} minutes of training each:", "", table(_SUMMARY, [*map(_summary, records)]), ""]
    for title, names in parts.items():
        lines += [title, "", table(("model", *names), _parts(records, names)), ""]
    lines.append("tok/s: pieces of the target text in a second; in training without the validations")
    return "\n".join([*lines, *_notes(records)])


def _notes(records: Sequence[Record]) -> list[str]:
    """Signatures, and what makes numbers doubtful."""
    notes = []
    for name in ("BLEU", "chrF"):
        signatures = dict.fromkeys(record[f"{name.lower()}_signature"] for record in records)
        notes += [f"{name}: {signature}" for signature in signatures]
        if len(signatures) > 1:
            notes.append(f"{name} was computed in different ways, so it cannot be compared.")
    for record in records:
        if disturbed := record["translating"]["disturbed"]:
            notes.append(f"{record['model']}: translating was disturbed: {disturbed}")
    return notes


def _summary(record: Record) -> list[str]:
    speeds = [f"{record[kind]['tokens_per_second']:,.0f}" for kind in ("training", "translating")]
    scores = [f"{record[key]:.2f}" for key in ("bleu", "chrf")]
    return [record["model"], f"{record['parameters']:,}", f"{record['training']['steps']:,}", *speeds, *scores]


def _parts(records: Sequence[Record], names: Sequence[str]) -> list[list[str]]:
    """BLEU of parts of the test set, a row for each model, and how many sentences each part has."""
    rows = [[record["model"], *(_bleu(record["parts"][name]["bleu"]) for name in names)] for record in records]
    return [*rows, ["(sentences)", *(str(records[0]["parts"][name]["lines"]) for name in names)]]


def _bleu(score: float | None) -> str:
    return "-" if score is None else f"{score:.1f}"


def save(options: Namespace, records: Sequence[Record]) -> str:
    """Write the tables and the numbers into ``options.out``; returns the tables."""
    shown = text(records, options.minutes)
    write_text(options.out / f"{_NAME}.md", shown + "\n")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    save_report(Namespace(**vars(options), device=device, report=_NAME), {"records": list(records)})
    return shown


def saved_records(out: Path) -> list[Record]:
    """The records that :func:`save` has written into this folder; none if there are none that can be read."""
    try:
        records: list[Record] = json.loads((out / f"{_NAME}.json").read_text(encoding="utf-8"))["records"]
    except (OSError, ValueError, KeyError):
        return []
    return records


def draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the models side by side; prints why if there can be no picture."""
    heights = (1.0 + 0.5 * len(records), 3.5)  # inches: bars for each model, and the lines of all of them
    try:
        figure = new_figure(14, 1.0 + sum(heights))
    except UserError as error:
        return print(f"{path.name} was not drawn: {error}")
    places: Any = [["overall", "distance", "speed"], ["length"] * 3]
    panels = figure.subplot_mosaic(places, height_ratios=heights, gridspec_kw={"hspace": 0.06, "wspace": 0.04})
    names = [record["model"] for record in records]
    _draw_bars(panels["overall"], {"BLEU": [record["bleu"] for record in records]}, "{:.1f}")
    panels["overall"].set_yticks(range(len(names)), names)
    panels["overall"].set_title("BLEU of the test set", pad=_ABOVE)
    parts = {name: [record["parts"][name]["bleu"] or 0.0 for record in records] for name in DISTANCES}
    _draw_bars(panels["distance"], parts, "{:.1f}")
    panels["distance"].set_title("BLEU by the kind of sentence", pad=_ABOVE)
    kinds = ("training", "translating")
    speed = {kind: [record[kind]["tokens_per_second"] for record in records] for kind in kinds}
    _draw_bars(panels["speed"], speed, "{:,.0f}")
    panels["speed"].set_title("Target tokens per second", pad=_ABOVE)
    _draw_lengths(panels["length"], records)
    for axes in panels.values():
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    save_png(figure, path)


def _draw_bars(axes: Axes, series: Mapping[str, Sequence[float]], number: str) -> None:
    """A horizontal bar for each model and each of one or two series, with its number at its end; the first on top."""
    height = 0.8 / len(series)
    for place, (label, values) in enumerate(series.items()):
        at = [row + (place - (len(series) - 1) / 2) * height for row in range(len(values))]
        bars = axes.barh(at, values, height, label=label, color=(_DARK, _PALE)[place])
        axes.bar_label(bars, labels=[number.format(value) for value in values], padding=3, fontsize=9)
    axes.set_yticks([])
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(1e-9, *map(max, series.values())))  # room for the numbers
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(axis="x", alpha=0.3)
    if len(series) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.99), ncols=2, frameon=False)


def _draw_lengths(axes: Axes, records: Sequence[Record]) -> None:
    """BLEU by the length of the source, a line for each model."""
    for number, record in enumerate(records):
        points = [(name, record["parts"][name]["bleu"]) for name in map(band_name, BANDS)]
        places = [name for name, bleu in points if bleu is not None]
        style = "o-" if number < _COLOURS else "s--"
        axes.plot(places, [bleu for _, bleu in points if bleu is not None], style, ms=5, label=record["model"])
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.set_title("BLEU by the length of the source sentence")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05), frameon=False)
