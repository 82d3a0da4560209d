"""A dry run finds the heaviest work of a run, leaves no trace, and gives train.batch_tokens: auto its number."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.prepare import prepare_data
from seq2seq.errors import OutOfMemoryError
from seq2seq.train import setup, step_size
from seq2seq.train.distributed import Processes
from seq2seq.train.dry_run import DryRun, dry_run, heaviest_lines, heaviest_steps
from seq2seq.train.step_size import largest_sensible, largest_that_fits, with_batch_tokens
from tests.toy import metrics, toy_config, train, weights, write_text_files

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
        (lambda tokens: 100 + tokens // 16 if tokens < 12_000 else None, 6400, [20_000, 1024, 2500, 12_800, 6400]),
        (lambda tokens: 800 if tokens < 2000 else None, 1250, [20_000, 1024, 2500, 1250]),
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
    assert largest_that_fits(8000, lambda tokens: measured(1, room=None) if tokens <= 3000 else None) == 2048
    assert largest_sensible(epoch_tokens=10**9, num_processes=4) == 100_000
    assert largest_sensible(epoch_tokens=500_000, num_processes=4) == 5_000
    assert largest_sensible(epoch_tokens=99, num_processes=1) == 1024


def test_auto_is_a_number_once_and_for_all(text: Path, tmp_path: Path) -> None:
    """Contract 2: a run with auto ends as one with its number stated, to the bit; the dry run leaves no
    file; and a continued run keeps the number, whatever memory there is then."""
    settings = ("train.max_steps=3", "model.dropout=0.3")
    for name in ("auto", "stated"):
        (tmp_path / name / "mine").mkdir(parents=True)
    train(toy_config(text, tmp_path / "auto", *settings, "train.batch_tokens=auto"))
    train(toy_config(text, tmp_path / "stated", *settings, "train.batch_tokens=1024"))
    assert metrics(tmp_path / "auto") == metrics(tmp_path / "stated")
    assert weights(tmp_path / "auto") == weights(tmp_path / "stated")
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("auto", "stated")]
    assert files[0] == files[1]
    assert "batch_tokens: 1024\n" in (tmp_path / "auto/config.yaml").read_text()
    again = toy_config(text, tmp_path / "auto", *settings, "train.batch_tokens=auto", "train.max_steps=4")
    with mock.patch.object(step_size, "dry_run", side_effect=AssertionError("once is enough")):
        assert train(again).progress.step == 4
    stated = toy_config(text, tmp_path / "stated", *settings, "train.batch_tokens=auto", "train.max_steps=4")
    (tmp_path / "stated/config.yaml").unlink()  # the checkpoint knows it, too
    with mock.patch.object(step_size, "dry_run", side_effect=AssertionError("once is enough")):
        train(stated)
    assert weights(tmp_path / "auto") == weights(tmp_path / "stated")


def test_a_start_without_checkpoint_is_remembered(text: Path, tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint must take the same steps when it is started again; one whose
    settings have changed since must not take a number that was measured for others."""
    config = toy_config(text, tmp_path / "run", "train.batch_tokens=auto", "train.max_steps=1")
    corpus = prepare_data(config, show_progress=False).train
    with mock.patch.object(step_size, "dry_run", return_value=measured(1)) as tried:
        settled = with_batch_tokens(config, corpus, CPU).replace("decode", split_sentences=True)  # as the set-up does
        (tmp_path / "run").mkdir()
        (tmp_path / "run/config.yaml").write_text(step_size.dump_config(settled).replace("tokens: 1024", "tokens: 999"))
        assert with_batch_tokens(config, corpus, CPU).train.step_tokens == 999
        assert tried.call_count == 1
        other = config.model_copy(update={"seed": 2})
        assert with_batch_tokens(other, corpus, CPU).train.step_tokens == 1024


def test_the_default_suits_the_device(text: Path, tmp_path: Path) -> None:
    """Guards against small steps that leave a GPU idle, and against a dry run on every CPU."""
    config = toy_config(text, tmp_path / "run", "train.batch_tokens=null")
    corpus = prepare_data(config, show_progress=False).train
    with mock.patch.object(step_size, "dry_run", return_value=measured(1)) as tried:
        assert with_batch_tokens(config, corpus, CPU).train.batch_tokens == 4096
        assert tried.call_count == 0
        on_cuda = Processes(0, 1, torch.device("cuda", 0))
        assert with_batch_tokens(config, corpus, on_cuda).train.batch_tokens == 1024
        assert tried.call_count == 1


def test_all_processes_take_the_least(text: Path, tmp_path: Path) -> None:
    """Ranks with other numbers would deal other batches; one that cannot even start must not leave the rest waiting."""

    class Two(Processes):
        def all_gather(self, value: int) -> list[int]:
            return [value, self.rank]

    config = toy_config(text, tmp_path / "run", "train.batch_tokens=auto")
    corpus = prepare_data(config, show_progress=False).train
    with mock.patch.object(step_size, "dry_run", return_value=measured(1)):
        assert with_batch_tokens(config, corpus, Two(700, 2, CPU.device)).train.step_tokens == 700
        with pytest.raises(OutOfMemoryError, match="a step of 1,024 tokens, a validation and a search do not fit"):
            with_batch_tokens(config, corpus, Two(0, 2, CPU.device))


def test_the_system_may_kill_the_dry_run_but_not_the_run(text: Path, tmp_path: Path) -> None:
    """Guards against a run that ends because its dry run was killed for lack of memory."""
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    config = toy_config(text, tmp_path / "run")
    with mock.patch.object(sys, "executable", str(killed)), pytest.raises(OutOfMemoryError, match="system killed"):
        dry_run(config, CPU)


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
