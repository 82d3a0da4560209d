"""Pictures of runs: the curves of one, and those of several together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seq2seq.errors import UserError
from seq2seq.report.figure import new_figure, save_png
from seq2seq.train.metrics import METRICS, TIMING, read_metrics

if TYPE_CHECKING:
    from seq2seq.report.figure import Axes, Figure

_CURVES = "curves.png"
_BLUE, _PALE, _RED, _ORANGE = "#1f4e99", "#b9c7dd", "#c0392b", "#e59866"
# One run each: the colours of Okabe and Ito, which colour-blind people can tell apart, with a dark red for their
# yellow, which is hard to see on white; and a marker and a dash, for those who see none of them.
_STYLES = [
    {"color": color, "marker": marker, "linestyle": line}
    for color, marker, line in zip(
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#882255"),
        "os^DvPX*",
        ("-", "-", "-", "-", "--", "--", "--", "--"),
        strict=True,
    )
]
_CLOCKS = ("step", "minutes", "million target tokens")  # what runs are compared by

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class _Metrics:
    """The records of a run that can be drawn."""

    training: Records  # steps, without the bad and the skipped ones
    validation: Records
    guard: Records  # the validations that also have the scores of data.guard
    clocks: dict[str, dict[int, float]]  # name of an axis: its value after each step; none if it was not recorded


def draw_curves(run_dir: Path, picture: Path | None = None) -> Path:
    """Draw loss, validation scores, learning rate and gradient norm of a run, which may be in progress.

    Args:
        picture: the PNG file; default: ``curves.png`` of the run.

    Returns:
        The path of the picture.

    Raises:
        UserError: there are no metrics, the picture cannot be written, or matplotlib is not installed.
    """
    metrics = _read(run_dir)
    training, validation = metrics.training, metrics.validation
    figure = new_figure(11, 7)
    loss, scores, rate, norm = figure.subplots(2, 2).flat
    _draw_loss(loss, metrics)
    for name, label, color in (("bleu", "BLEU", _RED), ("chrf", "chrF", _ORANGE)):
        scores.plot(*_points(validation, f"valid_{name}"), "o-", ms=3, color=color, label=label)
        if metrics.guard:
            scores.plot(*_points(metrics.guard, f"guard_{name}"), "s--", ms=3, color=color, label=f"{label}, guard")
    scores.set(title="Validation scores", xlabel="step")
    scores.legend()
    rate.plot(*_points(training, "lr"), color=_BLUE)
    rate.set(title="Learning rate", xlabel="step")
    norm.plot(*_points(training, "grad_norm"), color=_BLUE, linewidth=0.6)
    norm.set(title="Gradient norm before clipping", xlabel="step", yscale="log")
    figure.suptitle(str(run_dir))
    return _save(figure, picture or run_dir / _CURVES)


def draw_together(run_dirs: Sequence[Path], picture: Path) -> Path:
    """Draw training loss, validation loss and validation BLEU of several runs into one PNG file.

    One row against the steps; one against the minutes, validations included, and one against the target tokens, if a
    run has recorded them. Runs may be in progress.

    Returns:
        The path of the picture.

    Raises:
        UserError: a run has no metrics or is given twice, there are too many runs to tell apart, the picture cannot be
            written, or matplotlib is not installed.
    """
    if len(run_dirs) > len(_STYLES):
        raise UserError(f"{len(run_dirs)} runs cannot be told apart in one picture; give at most {len(_STYLES)}")
    runs = dict(zip(_short_names(run_dirs), map(_read, run_dirs), strict=True))
    clocks = [name for name in _CLOCKS if any(name in metrics.clocks for metrics in runs.values())]
    figure = new_figure(15, 1 + 3.6 * len(clocks))
    grid = figure.subplots(len(clocks), 3, sharex="row", sharey="col", squeeze=False)
    for clock, row in zip(clocks, grid, strict=True):
        for (name, metrics), style in zip(runs.items(), _STYLES, strict=False):
            if clock in metrics.clocks:
                _draw_run(row, metrics, clock, {**style, "label": name})
        for axes in row:
            axes.set(xlabel=clock)
            axes.xaxis.set_major_formatter("{x:,.10g}")
    for axes, title in zip(grid[0], ("Training loss (smoothed)", "Validation loss", "Validation BLEU"), strict=True):
        axes.set(title=title)
    starts = [losses[len(losses) // 10 :] for losses in (_smoothed(metrics.training)[1] for metrics in runs.values())]
    highest = max((loss for losses in starts for loss in losses if loss < math.inf), default=None)
    for axes in grid[:, 0]:  # the first steps, far above all others, would press the curves together
        axes.set(ylabel="nats per target token", ylim=(None, highest and 1.05 * highest))
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    figure.legend(handles=[lines[name] for name in runs], loc="outside upper center", ncols=min(4, len(runs)))
    return _save(figure, picture)


def _draw_run(row: Sequence[Axes], metrics: _Metrics, clock: str, style: dict[str, Any]) -> None:
    """Draw a run into the three pictures of a row."""
    times = metrics.clocks[clock]

    def draw(axes: Axes, points: tuple[list[int], list[float]], **changes: Any) -> None:
        steps, values = points
        xs: Any = np.interp(steps, list(times), list(times.values())) if steps else []
        axes.plot(xs, values, **{**style, **changes}, markersize=4, linewidth=1.2)

    # Dashes and many markers would hide the losses of the steps behind each other.
    draw(row[0], _smoothed(metrics.training), linestyle="-", markevery=slice(-1, None))
    for axes, name in zip(row[1:], ("valid_loss", "valid_bleu"), strict=True):
        draw(axes, _points(metrics.validation, name), markevery=max(1, len(metrics.validation) // 20))


def _read(run_dir: Path) -> _Metrics:
    """The records of a run's files. Raises UserError if there are none."""
    records = read_metrics(run_dir / METRICS)
    if not records:
        raise UserError(f"{run_dir / METRICS}: no metrics to draw; give the folder of a run")
    steps = _with_numbers(records, "loss", "nll", "lr", "grad_norm")
    steps_taken: dict[int, float] = {record["step"]: record["step"] for record in records}
    minutes = _summed(read_metrics(run_dir / TIMING), ("seconds", "validation_seconds"), 60)
    clocks = zip(_CLOCKS, (steps_taken, minutes, _summed(records, ("tokens",), 1e6)), strict=True)
    return _Metrics(
        training=[record for record in steps if not {"bad", "skipped"} & record.keys()],
        validation=_with_numbers(records, "valid_loss", "valid_bleu", "valid_chrf"),
        guard=_with_numbers(records, "guard_loss", "guard_bleu", "guard_chrf"),
        clocks={name: {0: 0.0, **values} for name, values in clocks if values},
    )


def _summed(records: Records, names: tuple[str, ...], unit: float) -> dict[int, float]:
    """The sum of these fields up to each step, in a unit."""
    total = 0.0
    sums: dict[int, float] = {}
    for name in names:
        for record in _with_numbers(records, name):
            sums[record["step"]] = sums.get(record["step"], 0.0) + record[name]
    for step in sorted(sums):
        total += sums.pop(step)
        sums[step] = total / unit
    return sums


def _short_names(run_dirs: Sequence[Path]) -> list[str]:
    """The ends of the paths that tell the runs apart, as short as possible. Raises UserError if one is there twice."""
    whole = [path.resolve().parts for path in run_dirs]
    for path, number in zip(run_dirs, map(Counter(whole).__getitem__, whole), strict=True):
        if number > 1:
            raise UserError(f"{path}: the same run is given {number} times")
    names = []
    for parts in whole:
        length = 1
        while sum(other[-length:] == parts[-length:] for other in whole) > 1:
            length += 1
        names.append(str(Path(*parts[-length:])))
    return names


def _draw_loss(axes: Axes, metrics: _Metrics) -> None:
    """The loss of each step, its moving average, and the losses of each validation."""
    training = metrics.training
    axes.plot(*_points(training, "nll"), color=_PALE, linewidth=0.6)
    axes.plot(*_smoothed(training), color=_BLUE, label=f"training (mean of {_window(training)} steps)")
    axes.plot(*_points(metrics.validation, "valid_loss"), "o-", color=_RED, ms=3, label="validation")
    if metrics.guard:
        axes.plot(*_points(metrics.guard, "guard_loss"), "s--", color=_RED, ms=3, label="validation, guard")
    axes.set(title="Cross-entropy per target token (nats)", xlabel="step", ylim=(0, None))
    axes.legend()


def _window(training: Records) -> int:
    """The number of steps of a moving average."""
    return max(1, len(training) // 100)


def _smoothed(training: Records) -> tuple[list[int], list[float]]:
    """Steps, and the mean loss of the steps up to each."""
    steps, losses = _points(training, "nll")
    window = _window(training)
    return steps[window - 1 :], [sum(losses[i : i + window]) / window for i in range(len(losses) - window + 1)]


def _points(records: Records, name: str) -> tuple[list[int], list[float]]:
    return [record["step"] for record in records], [record[name] for record in records]


def _with_numbers(records: Records, *names: str) -> Records:
    """The records that have a number in each of these fields; a damaged record may not."""
    return [record for record in records if all(isinstance(record.get(name), (int, float)) for name in names)]


def _save(figure: Figure, path: Path) -> Path:
    """Write the picture when all of it is drawn."""
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path)
    return path
