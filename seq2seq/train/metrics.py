"""What a run tells: metrics files, TensorBoard, and a picture of the curves.

``metrics.jsonl`` holds one line for every step and one for every validation, and nothing that depends on the machine's
speed, so an interrupted and continued run ends with the same file as an undisturbed one. Speed is in ``timing.jsonl``.
``bad_lines.jsonl`` appears with the first bad step and holds its sentence pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from seq2seq.errors import UserError
from seq2seq.storage import write_text

METRICS = "metrics.jsonl"
BAD_LINES = "bad_lines.jsonl"
TIMING = "timing.jsonl"
CURVES = "curves.png"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; a last line cut off by a crash is left out. No file gives no records."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a block that a crash of the machine left empty
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


class MetricsLog:
    """Appends to the metrics files of a run that continues after ``last_step``; what comes later in them goes."""

    def __init__(self, run_dir: Path, last_step: int) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics = self._reopen(run_dir / METRICS, last_step)
        self._timing = self._reopen(run_dir / TIMING, last_step)
        self._bad_lines = run_dir / BAD_LINES
        if self._bad_lines.exists():
            self._reopen(self._bad_lines, last_step).close()
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=last_step + 1)

    @staticmethod
    def _reopen(path: Path, last_step: int) -> TextIO:
        kept = [json.dumps(record) + "\n" for record in read_metrics(path) if record["step"] <= last_step]
        write_text(path, "".join(kept))
        return path.open("a", encoding="utf-8")

    def metrics(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Add a record of a step or a validation."""
        self._add(self._metrics, step, values)

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Add a record of speed."""
        self._add(self._timing, step, values)

    def bad_lines(self, step: int, lines: Iterable[Mapping[str, object]]) -> None:
        """Add the sentence pairs of a bad step, a record for each."""
        with self._bad_lines.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step, **line}, ensure_ascii=False) + "\n" for line in lines)

    def _add(self, file: TextIO, step: int, values: Mapping[str, float | int | str]) -> None:
        file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if not isinstance(value, str):
                    self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hand everything to the operating system, so that a killed process loses nothing of it."""
        self._metrics.flush()
        self._timing.flush()

    def close(self) -> None:
        """Close the files."""
        self._metrics.close()
        self._timing.close()
        if self._board is not None:
            self._board.close()


def draw_curves(run_dir: Path) -> Path:
    """Draw loss, validation scores, learning rate and gradient norm of a run into its ``curves.png``.

    Raises:
        UserError: there is nothing to draw, or matplotlib is not installed.
    """
    records = read_metrics(run_dir / METRICS)
    if not records:
        raise UserError(f"{run_dir / METRICS}: no metrics to draw; train first")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("drawing needs matplotlib: pip install 'seq2seq[plots]'") from None
    training = [record for record in records if "loss" in record and "bad" not in record]
    validation = [record for record in records if "valid_loss" in record]
    figure = Figure(figsize=(11, 7), layout="constrained")
    loss, scores, rate, norm = figure.subplots(2, 2).flat
    steps = [record["step"] for record in training]
    loss.plot(steps, [record["nll"] for record in training], color="#b9c7dd", linewidth=0.6)
    window = max(1, len(training) // 100)
    smooth = [sum(r["nll"] for r in training[i : i + window]) / window for i in range(len(training) - window + 1)]
    loss.plot(steps[window - 1 :], smooth, color="#1f4e99", label=f"training (mean of {window} steps)")
    at = [record["step"] for record in validation]
    loss.plot(at, [record["valid_loss"] for record in validation], "o-", color="#c0392b", ms=3, label="validation")
    loss.set(title="Cross-entropy per target token (nats)", xlabel="step", ylim=(0, None))
    loss.legend()
    for name, label, color in (("valid_bleu", "BLEU", "#c0392b"), ("valid_chrf", "chrF", "#e59866")):
        scores.plot(at, [record[name] for record in validation], "o-", ms=3, color=color, label=label)
    scores.set(title="Validation scores", xlabel="step")
    scores.legend()
    rate.plot(steps, [record["lr"] for record in training], color="#1f4e99")
    rate.set(title="Learning rate", xlabel="step")
    norm.plot(steps, [record["grad_norm"] for record in training], color="#1f4e99", linewidth=0.6)
    norm.set(title="Gradient norm before clipping", xlabel="step", yscale="log")
    for axes in (loss, scores, rate, norm):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(str(run_dir))
    figure.savefig(run_dir / CURVES, dpi=120)
    return run_dir / CURVES
