"""The picture of a run."""

import json
from pathlib import Path

import pytest

from seq2seq.errors import UserError
from seq2seq.report.curves import draw_curves
from seq2seq.train.metrics import METRICS, MetricsLog


@pytest.mark.parametrize("validations", [0, 1])
def test_the_picture(tmp_path: Path, validations: int) -> None:
    """Curves can be drawn in the middle of a run, before its first validation as well."""
    pytest.importorskip("matplotlib")
    log = MetricsLog(tmp_path, 0)
    for step in range(1, 4):
        log.add(METRICS, step, {"epoch": 1, "loss": 2.0, "nll": 1.0, "grad_norm": 0.5, "lr": 0.1, "tokens": 9})
    for _ in range(validations):
        log.add(METRICS, 3, {"valid_loss": 1.0, "valid_ppl": 3.0, "valid_bleu": 5.0, "valid_chrf": 9.0})
    log.close()
    assert draw_curves(tmp_path) == tmp_path / "curves.png"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_damaged_records_are_not_drawn(tmp_path: Path) -> None:
    """A traceback at the end of a long run for a bit that flipped in its log: in a name, a number, a letter."""
    pytest.importorskip("matplotlib")
    record = {"step": 1, "loss": 2.0, "nll": 1.0, "grad_norm": 0.5, "lr": 0.1}
    texts = [json.dumps({**record, "nll": "1"}), json.dumps(record).replace("nll", "oll"), json.dumps(record)]
    (tmp_path / "metrics.jsonl").write_bytes("".join(f"{text}\n" for text in texts).encode() + b'{"step": \xff}\n')
    assert draw_curves(tmp_path).exists()


def test_nothing_to_draw(tmp_path: Path) -> None:
    """An empty or wrong folder is told with the file that is missing."""
    with pytest.raises(UserError, match=r"metrics\.jsonl: no metrics to draw"):
        draw_curves(tmp_path)
