"""A dry run finds the heaviest work of a run, leaves no trace, and finds the largest step that fits into memory."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.prepare import prepare_data
from seq2seq.errors import OutOfMemoryError, UserError
from seq2seq.train import setup, step_size
from seq2seq.train.distributed import Processes
from seq2seq.train.dry_run import DryRun, dry_run, heaviest_lines, heaviest_steps
from seq2seq.train.step_size import fitting_step, largest_that_fits
from tests.toy import toy_config, write_text_files

CPU = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_files(tmp_path_factory.mktemp("text"))


@pytest.fixture(autouse=True)
def no_matmul_peak() -> Iterator[None]:
    """It takes most of the time of a toy run."""
    with mock.patch.object(setup, "matmul_peak", return_value=1e12):
        yield


def measured(peak: int, room: int | None = 1000) -> DryRun:
    return DryRun(peak, room, 0.9, "", num_steps=1, step_seconds=1, validation_seconds=1, bleu=0, checkpoint_seconds=1)


def test_no_step_of_any_epoch_is_heavier() -> None:
    """A run died of memory hours later: a later epoch had a heavier step than those of the dry run."""
    rng = np.random.default_rng(3)
    src, tgt = rng.geometric(0.1, (2, 5000))
    budgets = step_budgets(src, tgt, 2000)
    steps = heaviest_steps(src, tgt, plan_epoch(src, tgt, budgets, 1, 0), budgets)
    for side in (src, tgt):  # the longest of all together
        longest = np.sort(side)
        assert any(len(step) > 2 and np.array_equal(np.sort(side[step]), longest[-len(step) :]) for step in steps)

    def cells(step: np.ndarray) -> int:  # of a grid that pads to the longest sentence, as attention on the CPU does
        return int(len(step) * max(src[step].max(), tgt[step].max()) ** 2)

    for epoch in range(6):
        plan = plan_epoch(src, tgt, budgets, 1, epoch)
        for measure in (lambda step: src[step].sum(), lambda step: tgt[step].sum(), len, cells):
            heaviest = max(measure(step) for step in steps)
            assert max(measure(plan.step(i)) for i in range(plan.num_steps)) <= 1.05 * heaviest
    assert all((src[step].sum() <= budgets[0] and tgt[step].sum() <= budgets[1]) or len(step) == 1 for step in steps)


def test_the_longest_and_the_shortest_lines_are_searched() -> None:
    """The most scores of the vocabulary are in a batch of the shortest lines, not of the longest."""
    lengths = np.array([4, 0, 9, 1, 30, 2, 8, 5, 5, 5, 5, 20, 1, 1])
    assert lengths[heaviest_lines(lengths, 40)].tolist() == [30, 20, 9, 8, 5, 5, 5, 5, 4, 2, 1, 1, 1]
    assert lengths[heaviest_lines(lengths, 4)].tolist() == [30, 2, 1, 1, 1]
    assert heaviest_lines(np.array([0, 0]), 4).size == 0


@pytest.mark.parametrize(
    ("peak", "expected", "tries"),
    [
        (lambda tokens: 700, 20_000, [20_000]),
        (lambda tokens: 901, 0, [20_000, 1024]),
        (lambda tokens: 100 + tokens // 16, 12_800, [20_000, 1024, 2500, 12_800]),
        (lambda tokens: 100 + tokens // 16 if tokens < 12_000 else None, 9600, [20_000, 1024, 2500, 12_800, 9600]),
        (lambda tokens: 800 if tokens < 1500 else None, 1406, [20_000, 1024, 2500, 1875, 1406]),
    ],
    ids=["all", "nothing", "line", "broken-line", "little"],
)
def test_the_largest_step_that_fits(peak: Callable[[int], int | None], expected: int, tries: list[int]) -> None:
    """Guards against a step that no dry run has tried, or that leaves no memory free."""
    asked = []

    def measure(tokens: int) -> DryRun | None:
        asked.append(tokens)
        return None if peak(tokens) is None else measured(peak(tokens))

    assert largest_that_fits(20_000, measure) == expected
    assert asked == tries


def test_unknown_memory_fits_unless_it_runs_out() -> None:
    """If the system does not report memory, auto must still find a step that does not run out of it."""
    assert largest_that_fits(8000, lambda tokens: measured(1, room=None) if tokens <= 3000 else None) == 2277


def test_all_processes_take_the_least(text: Path, tmp_path: Path) -> None:
    """Ranks with other numbers would deal other batches; one that cannot even start must not leave the rest waiting."""

    class Two(Processes):
        def all_gather(self, value: int) -> list[int]:
            return [value, self.rank]

    config = toy_config(text, tmp_path / "run").all_stated()
    with mock.patch.object(step_size, "dry_run", return_value=measured(1)):
        assert fitting_step(config, 1024, Two(700, 2, CPU.device)) == 700
        with pytest.raises(OutOfMemoryError, match="a step of 1,024 tokens, a validation and a search do not fit"):
            fitting_step(config, 1024, Two(0, 2, CPU.device))


def test_the_system_may_kill_the_dry_run_but_not_the_run(text: Path, tmp_path: Path) -> None:
    """Guards against a run that ends because its dry run was killed for lack of memory."""
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    config = toy_config(text, tmp_path / "run")
    with mock.patch.object(sys, "executable", str(killed)), pytest.raises(OutOfMemoryError, match="system killed"):
        dry_run(config, CPU)


def test_a_gpu_for_one_process_alone_is_named(text: Path, tmp_path: Path) -> None:
    """Guards against a traceback on clusters whose GPUs accept one process: the dry run is a second one."""
    busy = tmp_path / "busy"
    busy.write_text("#!/bin/sh\necho 'CUDA error: CUDA-capable device(s) is/are busy or unavailable' >&2\nexit 1\n")
    busy.chmod(0o755)
    config = toy_config(text, tmp_path / "run")
    with (
        mock.patch.object(sys, "executable", str(busy)),
        pytest.raises(UserError, match=r"train\.batch_tokens") as found,
    ):
        dry_run(config, CPU)
    assert "Exclusive_Process" in str(found.value)
    assert "\n" not in str(found.value)


def test_the_guard_is_tried(text: Path, tmp_path: Path) -> None:
    """Guards against a dry run that ends with an error because it has no start to compare with."""
    guard = f"data.guard={{src: {text}/train.xx, tgt: {text}/train.yy}}"
    config = toy_config(text, tmp_path / "run", guard, "train.max_forgetting=0").all_stated()
    prepare_data(config, show_progress=False)
    assert dry_run(config, CPU).validation_seconds > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_peak_is_the_devices(text: Path, tmp_path: Path) -> None:
    """Main memory says nothing of what fits on a GPU."""
    config = toy_config(text, tmp_path / "run", "train.device=cuda")
    prepare_data(config, show_progress=False)
    found = dry_run(config, Processes(0, 1, torch.device("cuda", 0)))
    total = torch.cuda.get_device_properties(0).total_memory
    assert found.fits
    assert found.room is not None
    assert 0 < found.peak < found.room <= total
