"""Promise: --verify-resume says "exact" where a run continues exactly, and finds what differs where it does not."""

import os
from pathlib import Path
from unittest import mock

import pytest
import torch

from seq2seq.errors import UserError
from seq2seq.train import verify
from seq2seq.train.distributed import Processes
from seq2seq.train.optim import Optimizer
from seq2seq.train.verify import verify_resume
from tests.toy import toy_config, write_text_files

ALONE = Processes(0, 1, torch.device("cpu"))


def test_an_exact_run_is_said_to_be(tmp_path: Path) -> None:
    """With all that a run carries along; a run that is under way in the folder is not touched."""
    options = ("train.ema_decay=0.9", "tokenizer.sampling=0.2", "train.validate_every=1", "optim.schedule=linear")
    config = toy_config(write_text_files(tmp_path), tmp_path / "run", *options)
    assert verify_resume(config, ALONE).startswith("exact: after 10 steps a run that was stopped after step 5")
    assert not list(config.run_dir.iterdir())


def test_a_run_that_chooses_few_steps_is_stopped_within_them(tmp_path: Path) -> None:
    """It said "exact: after 10 steps" of two runs that had both ended after the fifth, without a stop."""
    bounds = ("train.max_steps=auto", "train.max_epochs=1")
    config = toy_config(write_text_files(tmp_path), tmp_path / "run", *bounds)
    assert verify_resume(config, ALONE).startswith("exact: after 4 steps a run that was stopped after step 2")


def test_what_a_continued_run_loses_is_named(tmp_path: Path) -> None:
    """The check can fail: here the optimizer starts anew."""
    config = toy_config(write_text_files(tmp_path), tmp_path / "run")
    with (
        mock.patch.object(Optimizer, "load_tensors"),
        pytest.raises(UserError, match=r"not exact.*tensors of the optimizer"),
    ):
        verify_resume(config, ALONE)
    assert not list(config.run_dir.iterdir())


def test_on_cuda_kernels_are_deterministic_during_the_check(tmp_path: Path) -> None:
    """The check could only fail there: gradients of embeddings are sums in no fixed order. It says what it shows."""
    config = toy_config(write_text_files(tmp_path), tmp_path / "run")
    seen = []

    def compare(*_: object) -> list[str]:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return []

    with mock.patch.object(verify, "_compare", compare), mock.patch.dict(os.environ):
        found = verify_resume(config, Processes(0, 1, torch.device("cuda", 0)))
    assert seen == [(True, ":4096:8")]
    assert not torch.are_deterministic_algorithms_enabled()
    assert "may differ by rounding" in found


def test_too_few_steps_are_refused(tmp_path: Path) -> None:
    """Instead of an empty comparison that is always equal."""
    config = toy_config(write_text_files(tmp_path), tmp_path / "run", "train.max_steps=2")
    with pytest.raises(UserError, match=r"train\.max_steps"):
        verify_resume(config, ALONE)
