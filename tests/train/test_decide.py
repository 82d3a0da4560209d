"""Promise: what a run chooses is chosen once; the same command continues with it, however fast the machine is."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from seq2seq.config import DecodeConfig, load_config, load_saved_config
from seq2seq.errors import ConfigError
from seq2seq.train import decide as module
from seq2seq.train.decide import decide
from seq2seq.train.distributed import Processes
from seq2seq.train.recipe import Pace
from seq2seq.train.resume import Earlier, earlier_starts, record_beginning
from tests.toy import TOY_DATA, metrics, train, weights, write_text_files

CPU = Processes(0, 1, torch.device("cpu"))
NEW = Earlier(None, None)
OPEN = (
    TOY_DATA
    + """\
model: {{encoder_layers: 1, decoder_layers: 1, d_model: 16, num_heads: 2, d_ff: 32}}
train: {{device: cpu, threads: 1}}
decode: {{beam_size: 2, max_length_offset: 3, max_length_ratio: 1}}
"""
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_files(tmp_path_factory.mktemp("text"))


@pytest.fixture(autouse=True)
def no_matmul_peak() -> Any:
    """It takes most of the time of a toy run."""
    with mock.patch.object(module, "matmul_peak", return_value=1e10):
        yield


def config_of(text: Path, run: Path, *overrides: str) -> Any:
    path = text / f"{run.name}.yaml"
    path.write_text(OPEN.format(run=run, text=text))
    return load_config(path, overrides)


def test_every_key_gets_a_value_and_a_reason(text: Path, tmp_path: Path) -> None:
    """Nothing after the set-up has to decide anything, and what is stated stays."""
    config = config_of(text, tmp_path / "run", "train.max_minutes=0.1", "optim.lr=0.0123", "tokenizer.vocab_size=330")
    decided = decide(config, CPU, NEW, show_progress=False)
    shape = {f"model.{key}" for key in ("norm_position", "num_kv_heads", "tie_embeddings")}  # follow
    rarely = {"train.first_validation"}  # only where validations take long
    assert {choice.key for choice in decided.choices} | rarely == set(config.open_choices()) - shape
    assert (decided.config.optim.lr, decided.config.tokenizer.vocab_size, decided.config.model.d_ff) == (
        0.0123,
        330,
        32,
    )
    assert {"model.preset", "train.max_steps", "optim.warmup_steps"} <= {choice.key for choice in decided.choices}
    assert "optim.lr" not in {choice.key for choice in decided.choices}
    assert all(choice.reason for choice in decided.choices)
    shown = str(decided).splitlines()
    assert shown[1 : len(decided.choices) + 1] == [f"  {choice}" for choice in decided.choices]
    assert shown[-1].startswith("too little text: with 60 pairs")


def test_a_continued_run_keeps_its_choices(text: Path, tmp_path: Path) -> None:
    """Contract 2: with a bound in minutes, too, a run that was stopped and continued ends with the same bits, even if
    the machine has become slower; and so does one that states what the first had chosen."""
    bound = ("train.max_minutes=50", "tokenizer.vocab_size=330")
    with mock.patch.object(module, "measure_pace", return_value=Pace(100.0, 50.0)):  # no load reaches the bound
        straight = config_of(text, tmp_path / "straight", *bound)
        train(straight)
        steps = metrics(tmp_path / "straight")[-1]["step"]
        assert steps > 6
        stopped = config_of(text, tmp_path / "stopped", *bound)
        train(stopped, stop_after=steps // 2)
    with mock.patch.object(module, "measure_pace", side_effect=AssertionError("once is enough")):
        train(stopped)
        assert metrics(tmp_path / "stopped") == metrics(tmp_path / "straight")
        assert weights(tmp_path / "stopped") == weights(tmp_path / "straight")
        stated = load_saved_config(tmp_path / "straight/config.yaml")
        train(stated.model_copy(update={"run_dir": tmp_path / "stated"}))
    assert weights(tmp_path / "stated") == weights(tmp_path / "straight")


def test_a_start_without_a_checkpoint_is_remembered(text: Path, tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint takes the same steps when it is started again; one whose
    settings have changed since chooses anew."""
    config = config_of(text, tmp_path / "run", "train.max_minutes=0.1", "tokenizer.vocab_size=330")
    with mock.patch.object(module, "measure_pace", return_value=Pace(0.1, 0.1)) as measured:
        first = decide(config, CPU, NEW, show_progress=False)
        record_beginning(first.config, first.data.fingerprint)
        again = decide(config, CPU, earlier_starts(tmp_path / "run", print), show_progress=False)
        assert (again.config, again.choices) == (first.config, ())
        assert "the run has begun, and keeps the settings in" in again.head
        assert measured.call_count == 1
        other = config_of(text, tmp_path / "run", "train.max_minutes=0.2", "tokenizer.vocab_size=330")
        assert (
            decide(other, CPU, earlier_starts(tmp_path / "run", print), show_progress=False).config.train.max_steps
            > first.config.train.max_steps
        )
        assert measured.call_count == 2


def test_what_is_stated_may_contradict_a_choice(text: Path, tmp_path: Path) -> None:
    """Guards against a traceback in the middle of the set-up."""
    config = config_of(
        text, tmp_path / "run", "train.max_minutes=0.1", "optim.warmup_steps=100000", "tokenizer.vocab_size=330"
    )
    with pytest.raises(ConfigError, match=r"optim.warmup_steps: must be below train.max_steps"):
        decide(config, CPU, NEW, show_progress=False)


def test_on_a_gpu_the_step_is_what_fits(text: Path, tmp_path: Path) -> None:
    """On CUDA dry runs find the step; on a CPU none is made."""
    on_cuda = Processes(0, 1, torch.device("cuda", 0))
    config = config_of(
        text,
        tmp_path / "run",
        "train.max_steps=5",
        "train.save_every=5",
        "train.precision=fp32",
        "tokenizer.vocab_size=330",
    )
    with mock.patch.object(module, "fitting_step", return_value=777) as tried:
        assert decide(config, CPU, NEW, show_progress=False).config.train.batch_tokens == 1024
        assert tried.call_count == 0
        assert decide(config, on_cuda, NEW, show_progress=False).config.train.batch_tokens == 777
        assert tried.call_args.args[0].open_choices() == []


def test_all_processes_take_the_pace_of_the_slowest(text: Path, tmp_path: Path) -> None:
    """Ranks with other numbers of steps would wait for each other for ever."""
    from seq2seq.train.pace import measure_pace

    class Two(Processes):
        def all_gather(self, value: Any) -> list[Any]:
            return [value, (1000.0, 500.0)]

    config = config_of(text, tmp_path / "run", "train.max_steps=5", "tokenizer.vocab_size=330")
    decided = decide(config, CPU, NEW, show_progress=False)
    assert measure_pace(decided.config, decided.data, Two(0, 1, CPU.device)) == Pace(1000.0, 500.0)
    own = measure_pace(decided.config, decided.data, CPU)
    assert 0 < own.step < 5
    assert 0 < own.validation < 20


def test_a_search_that_is_fast_is_timed_with_all_lines() -> None:
    """Guards against a run that ends early: a few lines alone take more time each than many together."""
    from seq2seq.train import pace

    searched: list[int] = []

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def translate(self, lines: list[str], decode: object) -> None:
            searched.append(len(lines))
            self.now += 0.4 + 0.001 * len(lines)

    clock, src = Clock(), ["a line"] * 1_000
    with mock.patch.object(pace, "time", clock):
        assert pace._search_seconds(clock, DecodeConfig(), src, "cpu") == pytest.approx(1.4)  # type: ignore[arg-type]
        assert searched == [32, 128, 512, 1_000]
        searched.clear()
        pace._search_seconds(clock, DecodeConfig(), src[:40], "cuda")  # type: ignore[arg-type]
        assert searched == [32, 32, 40, 40]
        searched.clear()
        slow = pace._search_seconds(clock, DecodeConfig(), src * 10, "cpu")  # type: ignore[arg-type]
        assert slow == pytest.approx((0.4 + 2.048) * 10_000 / 2_048)
        assert searched == [32, 128, 512, 2_048]


def test_a_damaged_checkpoint_does_not_decide(text: Path, tmp_path: Path) -> None:
    """Contract 6: one wrong digit in the newest checkpoint made its choices differ from those of the one before it,
    which is used in its place; the run was refused."""
    bound = ("train.max_minutes=50", "tokenizer.vocab_size=330", "train.save_every=2")
    with mock.patch.object(module, "measure_pace", return_value=Pace(100.0, 50.0)):
        config = config_of(text, tmp_path / "run", *bound)
        train(config, stop_after=5)
        newest = sorted((tmp_path / "run/checkpoints").glob("step-*"))[-1]
        good = newest.read_bytes()
        place = good.index(b"max_steps") + len(b'max_steps\\\\\\":')
        assert good[place : place + 2] == b"26", good[place - 20 : place + 9]
        newest.write_bytes(good[:place] + b"27" + good[place + 2 :])
        assert train(config).progress.step == 26


def test_a_changed_bound_is_explained(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against "done" after no step at all, for somebody who gives a run of 5 minutes another 15."""
    with mock.patch.object(module, "measure_pace", return_value=Pace(100.0, 50.0)):  # no load reaches the bound
        train(config_of(text, tmp_path / "run", "train.max_minutes=50", "tokenizer.vocab_size=330"))
        capsys.readouterr()
        train(config_of(text, tmp_path / "run", "train.max_minutes=20000", "tokenizer.vocab_size=330"))
    said = capsys.readouterr().err
    assert "train.max_minutes is 20000.0 now and was 50.0 before; the run keeps the 26 steps" in said


def test_stated_epochs_are_all_trained(text: Path, tmp_path: Path) -> None:
    """Words that are cut in other ways have more tokens, so an epoch has more steps: the last of 12 was the ninth."""
    overrides = ("train.max_epochs=12", "tokenizer.sampling=0.5", "tokenizer.vocab_size=330", "train.batch_tokens=100")
    summary = train(config_of(text, tmp_path / "run", *overrides, "train.save_every=100", "tokenizer.joint=true"))
    assert summary.progress.epoch + (summary.progress.step_in_epoch > 0) == 12


def test_the_pace_is_that_of_the_chosen_optimizer(text: Path, tmp_path: Path) -> None:
    """Muon takes a fifth more time than AdamW; measured with the wrong one, the run did not end in its time."""
    with mock.patch.object(module, "measure_pace", return_value=Pace(0.1, 0.05)) as measured:
        decide(config_of(text, tmp_path / "run", "train.max_minutes=0.1"), CPU, NEW, show_progress=False)
    assert measured.call_args.args[0].optim.name == "muon"
