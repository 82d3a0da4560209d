"""The package as a notebook sees it: train, load, translate, score; no process ends, and no signal stays handled."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

import seq2seq
from seq2seq.errors import ConfigError
from seq2seq.train import setup, trainer
from tests.toy import environment, metrics, weights, write_config, write_text_files

SOURCES = ["kato miren", "", "solvu"]
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_files(tmp_path_factory.mktemp("api") / "text")


@pytest.fixture
def config(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A toy config whose run is ``run``, beside it. No peak is measured and no picture drawn, which takes long."""
    monkeypatch.setattr(setup, "matmul_peak", mock.Mock(return_value=1e12))
    monkeypatch.setattr("seq2seq.report.curves.draw_curves", mock.Mock())
    before = [signal.getsignal(number) for number in HANDLED]
    yield write_config(text, tmp_path / "run")
    assert [signal.getsignal(number) for number in HANDLED] == before


def test_the_package_shows_what_it_has() -> None:
    """Guards against a completion that offers helpers instead of the API, and names that nothing is behind."""
    names = dir(seq2seq)
    assert {"Translator", "Translation", "DecodeConfig", "Scores", "UserError", "train", "score"} <= set(names)
    assert all(hasattr(seq2seq, name) for name in names)
    with pytest.raises(AttributeError, match="module 'seq2seq' has no attribute 'trian'"):
        seq2seq.trian  # type: ignore[attr-defined]  # noqa: B018


def test_train_is_a_function_and_a_package() -> None:
    """Guards against ``'module' object is not callable``: Python sets the attribute to the subpackage when anything of
    it is imported, before or after."""
    program = (
        "{}import seq2seq\nfrom seq2seq import train as first\n"
        "import seq2seq.train.stopping as stopping\nfrom seq2seq import train\n"
        "assert callable(first) and callable(train) and callable(seq2seq.train)\n"
        "assert train.stopping is stopping and 'same call' in train.__call__.__doc__\n"
    )
    for before in ("", "import seq2seq.train.stopping\n", "from seq2seq.train import stopping\n"):
        subprocess.run([sys.executable, "-c", program.format(before)], env=environment(), check=True)


def test_a_notebook(config: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From text to a score, each line with what the one before gave."""
    test = [f"data.test.src={text}/test.xx", f"data.test.tgt={text}/test.yy"]
    run = seq2seq.train(config, test)
    assert run == config.with_suffix("")
    assert "done: train.max_steps (12) reached; 12 steps" in capsys.readouterr().out
    assert {"best", "last", "metrics.jsonl", "test.json"} <= {path.name for path in run.iterdir()}
    translator = seq2seq.Translator.load(run, device="cpu")
    assert translator.translate(SOURCES[0]) == translator.translate(SOURCES)[0]
    src, ref = ((text / f"test.{side}").read_text(encoding="utf-8").splitlines() for side in ("xx", "yy"))
    scores = seq2seq.score(translator.translate(src), ref, target_language="yy")
    assert scores.bleu_signature in repr(scores)
    assert scores.chrf == json.loads((run / "test.json").read_text(encoding="utf-8"))["chrf"]


def test_it_trains_what_the_command_trains(config: Path, text: Path) -> None:
    """One implementation: with the same settings the same bits, also after a stop in the middle and a second call."""
    run = seq2seq.train(str(config), ["train.max_steps=8"])
    whole = trainer.train

    def stopped(*arguments: object, **options: object) -> trainer.Summary:
        return whole(*arguments, **options, stop_after=5)

    other = [f"run_dir={run.with_name('other')}", "train.max_steps=8"]
    with mock.patch.object(trainer, "train", stopped), pytest.raises(KeyboardInterrupt) as caught:
        seq2seq.train(config, other)
    assert str(caught.value) == "stopped by a signal; saved after step 5; the same call continues from there"
    again = seq2seq.train(config, other)
    assert weights(again) == weights(run)
    assert metrics(again) == metrics(run)


def interrupting(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Has Ctrl-C come in these steps of a run."""
    step_of = trainer.train_step

    def step(run: setup.Run, step: object) -> None:
        step_of(run, step)
        if run.progress.step in steps:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "train_step", step)


def test_an_interrupt_stops_and_saves(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does on the command line; but a notebook goes on living, with the cells below not run."""
    interrupting(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt, match="saved after step 4; the same call continues"):
        seq2seq.train(config)
    assert seq2seq.Translator.load(config.with_suffix("")).metadata["step"] == "4"
    seq2seq.train(config)
    assert [record["step"] for record in metrics(config.with_suffix("")) if "lr" in record] == list(range(1, 13))


def test_a_second_interrupt_does_not_end_the_process(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a kernel that is gone with all its variables because somebody pressed stop twice."""

    def impatient(run: setup.Run) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it was saved first")

    interrupting(monkeypatch, 4)
    monkeypatch.setattr(trainer, "save_run", impatient)
    told = "stopped at once; the same call continues from the last checkpoint, if there is one"
    with pytest.raises(KeyboardInterrupt, match=f"^{told}$"):
        seq2seq.train(config, ["train.save_every=100"])


def test_mistakes_are_errors_of_the_user(config: Path, text: Path) -> None:
    """The lines of the command line as an exception; no SystemExit, which would end a notebook's cell silently."""
    for overrides, expected in (
        (["optim.lrr=1"], "command line: optim.lrr: unknown key; did you mean lr?"),
        ([f"data.train.src={text}/gone"], f"data.train.src: no such file: {text}/gone"),
    ):
        with pytest.raises(ConfigError) as caught:
            seq2seq.train(config, overrides)
        assert str(caught.value) == expected
    with pytest.raises(seq2seq.UserError, match=r"nowhere\.yaml: cannot be read"):
        seq2seq.train("nowhere.yaml")
    for wrong in ("optim.lr=1", [3], {"optim.lr": 1}.items()):
        with pytest.raises(TypeError, match="overrides must be a list of strings, such as"):
            seq2seq.train(config, wrong)  # type: ignore[arg-type]


def test_a_full_disk_is_one_line(config: Path) -> None:
    """The log may fill the disk; the command line has a line for it, and so has an exception."""
    full = OSError(28, "No space left on device")
    with mock.patch("seq2seq.train.metrics.MetricsLog.add", side_effect=full):
        with pytest.raises(seq2seq.UserError, match=r"^no space left on the disk; free some space"):
            seq2seq.train(config)


def test_it_trains_in_another_thread(config: Path) -> None:
    """Python handles signals in the main thread alone; a service that trains in the background needs none."""
    found: list[Path] = []
    thread = threading.Thread(target=lambda: found.append(seq2seq.train(config, ["train.max_steps=2"])))
    thread.start()
    thread.join()
    assert found == [config.with_suffix("")]


def test_the_number_of_threads_is_the_runs_own(config: Path) -> None:
    """Guards against a notebook that translates on one core for ever because one config says train.threads: 1."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        seq2seq.train(config, ["train.max_steps=2", "train.threads=1"])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
