"""Promise: the speed that a run reports is possible."""

import time

import numpy as np
import pytest
import torch

from seq2seq.data.loader import Step
from seq2seq.device import matmul_peak
from seq2seq.model.flops import FlopsPerToken
from seq2seq.train.reporter import Speedometer, StepRecord


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
