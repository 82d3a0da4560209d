"""Promise: the speed and the time left that a run reports are possible."""

import time

import numpy as np
import pytest
import torch

from seq2seq.config import TrainConfig
from seq2seq.data.loader import Step
from seq2seq.device import matmul_peak
from seq2seq.model.flops import FlopsPerToken
from seq2seq.train.checkpoint import Progress
from seq2seq.train.distributed import Processes
from seq2seq.train.reporter import Reporter, Speedometer, StepRecord


def test_no_step_is_faster_than_the_machine() -> None:
    """Guards against 239 percent of the peak, which was measured while other programs used the cores."""
    work = Step([], num_labels=100, num_src=100, pairs=np.zeros(1, int))
    step = StepRecord(1, 1, 0.1, work, numbers=torch.ones(4))
    speedometer = Speedometer(FlopsPerToken(1, 1), peak=100.0)
    shares = [speedometer.add([step], seconds)["share_of_peak"] for seconds in (4.0, 1.0, 4.0)]
    assert shares == [0.5, 1.0, 0.25]
    assert "(33% of matmul peak)" in str(speedometer)


def test_the_peak_is_that_of_the_machine_not_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a peak in wall time: a product that waits for a busy core seems to be slow."""
    monkeypatch.setattr(torch, "mm", lambda *_: time.sleep(0.02))
    assert matmul_peak(torch.device("cpu"), torch.float32) > 5 * 2 * 2048**3 / 0.02


@pytest.mark.parametrize(
    ("bounds", "progress", "total"),
    [
        ({"max_steps": 900, "patience": None}, {"step": 100}, 900),
        ({"max_steps": 900, "max_epochs": 8, "patience": None}, {"step": 100}, 400),  # of 50 steps
        ({"max_steps": 900, "max_minutes": 1, "patience": None}, {"step": 100, "seconds": 30.0}, 200),
        ({"max_steps": 900, "patience": 3}, {"step": 250, "validations_since_best": 1}, 400),  # two validations more
        ({"max_steps": 300, "patience": 3}, {"step": 250, "validations_since_best": 1}, 300),
    ],
)
def test_the_bar_ends_at_the_first_bound(
    bounds: dict[str, float], progress: dict[str, float], total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a bar that promises hours, for a run that patience ends in minutes."""
    bars = []

    class Bar:
        def __init__(self, **options: object) -> None:
            self.total: int | None = None
            bars.append(self)

    monkeypatch.setattr("seq2seq.train.reporter.tqdm", Bar)
    reporter = Reporter(Processes(0, 1, torch.device("cpu")), None, 0, Speedometer(FlopsPerToken(1, 1), 1.0))
    train = TrainConfig.model_validate({"validate_every": 100, **bounds})
    reporter.expect(train, 50, Progress(**progress))  # type: ignore[arg-type]
    assert bars[0].total == total


def test_a_pause_takes_nothing_from_the_training_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a time left of seconds instead of minutes: the bar is drawn now and then, and the steps since it
    was last drawn are no pause."""
    reporter = Reporter(Processes(0, 1, torch.device("cpu")), None, 0, Speedometer(FlopsPerToken(1, 1), 1.0))
    bar = reporter._bar
    bar.start_t -= 30  # began 30 seconds ago and was never drawn since
    bar.last_print_t -= 30
    reporter._last_read -= 10  # the last step ended 10 seconds ago
    reporter.restart_clock()
    assert bar.format_dict["elapsed"] == pytest.approx(20, abs=1)
    assert time.time() - bar.last_print_t == pytest.approx(20, abs=1)
    reporter.close()
