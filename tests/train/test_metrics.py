"""The metrics files: what a continued run keeps of them, and the picture."""

import json
import os
from pathlib import Path

import pytest

from seq2seq.train.metrics import METRICS, TIMING, MetricsLog, read_metrics


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_records_are_kept_up_to_the_last_step(tmp_path: Path) -> None:
    """A run that goes on after step 2 drops what came later, and keeps the rest byte by byte: every digit."""
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.add(METRICS, step, {"loss": step / 3, "nll": 1e-30 / 7})
        log.add(TIMING, step, {"seconds": 0.1})
    log.add(METRICS, 2, {"valid_loss": 0.1})
    log.close()
    kept = lines(tmp_path / "metrics.jsonl")
    MetricsLog(tmp_path, 2).close()
    assert lines(tmp_path / "metrics.jsonl") == [kept[0], kept[1], kept[3]]
    assert len(lines(tmp_path / "timing.jsonl")) == 2
    MetricsLog(tmp_path, 0).close()
    assert lines(tmp_path / "metrics.jsonl") == []


def test_what_a_crash_left_is_dropped(tmp_path: Path) -> None:
    """A half-written last line, a block of NUL bytes and what is no record do not stop a run nor stay in its file."""
    whole = json.dumps({"step": 1, "loss": 0.5})
    text = f'{whole}\n\x00\x00\x00\n[1]\n{{"loss": 2}}\n{{"step": 1, "lo'
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}]
    log = MetricsLog(tmp_path, 5)
    log.add(METRICS, 6, {"loss": 0.25})
    log.close()
    assert lines(tmp_path / "metrics.jsonl") == [whole, '{"step": 6, "loss": 0.25}']


def test_a_loss_that_is_no_number_is_kept_visible(tmp_path: Path) -> None:
    """NaN in the log stays NaN when a run goes on, instead of vanishing or stopping it."""
    log = MetricsLog(tmp_path, 0)
    log.add(METRICS, 1, {"loss": float("nan"), "grad_norm": float("inf")})
    log.close()
    before = lines(tmp_path / "metrics.jsonl")
    MetricsLog(tmp_path, 1).close()
    assert lines(tmp_path / "metrics.jsonl") == before == ['{"step": 1, "loss": NaN, "grad_norm": Infinity}']


def test_flushed_records_survive_a_kill(tmp_path: Path) -> None:
    """What was flushed with a checkpoint is in the file although nothing closed it."""
    log = MetricsLog(tmp_path, 0)
    log.add(METRICS, 1, {"loss": 1.0})
    log.flush()
    assert len(lines(tmp_path / "metrics.jsonl")) == 1
    log.close()


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    """Curves in TensorBoard: every number of every step; after a start from step 2 what came later is gone."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for last_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        log = MetricsLog(tmp_path, last_step)
        for step in steps:
            log.add(METRICS, step, {"loss": step + last_step / 4, "reason": "text"})
        log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_no_file_open(tmp_path: Path) -> None:
    """One error, not a further one from each file that Python closes at its end."""
    log = MetricsLog(tmp_path, 0)
    log.add(METRICS, 1, {"loss": 1.0})
    log.add(TIMING, 1, {"seconds": 1.0})
    opened = [
        int(link.name) for link in Path("/proc/self/fd").iterdir() if tmp_path in Path(os.path.realpath(link)).parents
    ]
    assert len(opened) >= 2
    full = os.open("/dev/full", os.O_WRONLY)
    for number in opened:
        os.dup2(full, number)
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        log.close()
    assert not any(Path(f"/proc/self/fd/{number}").exists() for number in opened)


def test_a_damaged_line_is_left_out(tmp_path):
    """Guards against a traceback for bytes that are no text, or JSON nested beyond Python's recursion limit."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "\xff"}\n' + b"[" * 100_000 + b'\n{"step": 3}\n')
    assert [record["step"] for record in read_metrics(path)] == [1, 3]
