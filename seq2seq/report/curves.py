"""A picture of a run: loss, validation scores, learning rate and gradient norm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq.errors import UserError
from seq2seq.report.figure import new_figure, save_png
from seq2seq.train.metrics import METRICS, read_metrics

if TYPE_CHECKING:
    from seq2seq.report.figure import Axes

_CURVES = "curves.png"
_BLUE, _PALE, _RED, _ORANGE = "#1f4e99", "#b9c7dd", "#c0392b", "#e59866"

Records = list[dict[str, Any]]


def draw_curves(run_dir: Path) -> Path:
    """Draw the metrics of a run into its ``curves.png``; returns the path. The run may be in progress.

    Raises:
        UserError: there are no metrics, matplotlib is not installed, or the folder cannot be written.
    """
    records = read_metrics(run_dir / METRICS)
    if not records:
        raise UserError(f"{run_dir / METRICS}: no metrics to draw")
    figure = new_figure(11, 7)
    steps = _with_numbers(records, "loss", "nll", "lr", "grad_norm")
    training = [record for record in steps if not {"bad", "skipped"} & record.keys()]
    validation = _with_numbers(records, "valid_loss", "valid_bleu", "valid_chrf")
    loss, scores, rate, norm = figure.subplots(2, 2).flat
    _draw_loss(loss, training, validation)
    for name, label, color in (("valid_bleu", "BLEU", _RED), ("valid_chrf", "chrF", _ORANGE)):
        scores.plot(*_points(validation, name), "o-", ms=3, color=color, label=label)
    scores.set(title="Validation scores", xlabel="step")
    scores.legend()
    rate.plot(*_points(training, "lr"), color=_BLUE)
    rate.set(title="Learning rate", xlabel="step")
    norm.plot(*_points(training, "grad_norm"), color=_BLUE, linewidth=0.6)
    norm.set(title="Gradient norm before clipping", xlabel="step", yscale="log")
    for axes in (loss, scores, rate, norm):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(str(run_dir))
    save_png(figure, run_dir / _CURVES)
    return run_dir / _CURVES


def _draw_loss(axes: Axes, training: Records, validation: Records) -> None:
    """The loss of each step, its moving average, and the loss of each validation."""
    steps, losses = _points(training, "nll")
    axes.plot(steps, losses, color=_PALE, linewidth=0.6)
    window = max(1, len(losses) // 100)
    smooth = [sum(losses[i : i + window]) / window for i in range(len(losses) - window + 1)]
    axes.plot(steps[window - 1 :], smooth, color=_BLUE, label=f"training (mean of {window} steps)")
    axes.plot(*_points(validation, "valid_loss"), "o-", color=_RED, ms=3, label="validation")
    axes.set(title="Cross-entropy per target token (nats)", xlabel="step", ylim=(0, None))
    axes.legend()


def _points(records: Records, name: str) -> tuple[list[int], list[float]]:
    return [record["step"] for record in records], [record[name] for record in records]


def _with_numbers(records: Records, *names: str) -> Records:
    """The records that have a number in each of these fields; a damaged record may not."""
    return [record for record in records if all(isinstance(record.get(name), (int, float)) for name in names)]
