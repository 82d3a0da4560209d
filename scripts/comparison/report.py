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
_DISTANCES = ("long-distance", "rest")
_DARK, _PALE = "#1f4e99", "#b9c7dd"


def text(records: Sequence[Record], minutes: float) -> str:
    """Tables, and what to know about their numbers; Markdown."""
    lengths = [band_name(band) for band in BANDS]
    parts = {
        "BLEU by the number of words of the source sentence:": lengths,
        "BLEU of sentences in which words that belong together stand far apart, and of the rest:": _DISTANCES,
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
    try:
        figure = new_figure(13, 3.2 + 0.9 * len(records))
    except UserError as error:
        return print(f"{path.name} was not drawn: {error}")
    overall, lengths, distances, speeds = figure.subplots(2, 2).flat
    names = [record["model"] for record in records]
    _draw_bars(overall, names, {"BLEU": [record["bleu"] for record in records]}, "{:.1f}")
    overall.set(title="BLEU of the test set", xlim=(0, 110))
    _draw_lengths(lengths, records)
    parts = {name: [record["parts"][name]["bleu"] or 0.0 for record in records] for name in _DISTANCES}
    _draw_bars(distances, names, parts, "{:.1f}")
    distances.set(title="BLEU of long-distance sentences, and of the rest", xlim=(0, 110))
    kinds = ("training", "translating")
    speed = {kind: [record[kind]["tokens_per_second"] for record in records] for kind in kinds}
    _draw_bars(speeds, names, speed, "{:,.0f}")
    speeds.set(title="Target tokens per second", xlim=(0, 1.15 * max(map(max, speed.values()))))
    for axes in (overall, lengths, distances, speeds):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    save_png(figure, path)


def _draw_bars(axes: Axes, names: Sequence[str], series: Mapping[str, Sequence[float]], number: str) -> None:
    """A horizontal bar for each model and each of one or two series, with its number at its end."""
    height = 0.8 / len(series)
    for place, (label, values) in enumerate(series.items()):
        at = [row + (place - (len(series) - 1) / 2) * height for row in range(len(names))]
        bars = axes.barh(at, values, height, label=label, color=(_DARK, _PALE)[place])
        axes.bar_label(bars, labels=[number.format(value) for value in values], padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    if len(series) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)


def _draw_lengths(axes: Axes, records: Sequence[Record]) -> None:
    """BLEU by the length of the source, a line for each model."""
    names = [band_name(band) for band in BANDS]
    for number, record in enumerate(records):
        points = [(name, record["parts"][name]["bleu"]) for name in names]
        drawn = [(name, bleu) for name, bleu in points if bleu is not None]
        style = "o-" if number < 10 else "s--"  # matplotlib has ten colours
        axes.plot(*zip(*drawn, strict=True), style, ms=4, label=record["model"])
    axes.set(title="BLEU by the length of the source sentence", ylim=(0, 102))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
