"""The train command: who may train, how it ends, what it leaves."""

import fcntl
import signal
import sys
from pathlib import Path
from unittest import mock

import pytest

from seq2seq.cli.main import main
from seq2seq.config import load_config
from seq2seq.errors import EXIT_STOPPED, UserError
from seq2seq.signals import Ended
from seq2seq.train import setup, trainer
from seq2seq.train.checkpoint import Progress
from seq2seq.train.distributed import Processes
from seq2seq.train.metrics import MetricsLog
from seq2seq.train.trainer import Summary
from tests.toy import write_lines


def test_under_torchrun_one_process_tells_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against the same message from each of eight processes; all of them fail."""
    codes = []
    for rank in ("0", "1", "2"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        codes.append(main(["train", str(tmp_path / "missing.yaml")]))
    assert codes == [2, 2, 2]
    assert capsys.readouterr().err.count("missing.yaml") == 1


def test_a_second_process_on_a_run_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two that write one run folder would ruin it; the refused one touches nothing."""
    (place / "run").mkdir()
    (place / "run/.lock").write_text("process 7 on example\n")
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=BlockingIOError))
    assert main(["train", "toy.yaml"]) == 2
    assert "run: process 7 on example works on it; wait until" in capsys.readouterr().err
    assert [path.name for path in (place / "run").iterdir()] == [".lock"]


def test_a_metrics_file_on_a_full_disk(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log may fill the disk as well as a checkpoint does; the same kind of message."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with mock.patch.object(MetricsLog, "_reopen", staticmethod(lambda *_: open("/dev/full", "a", encoding="utf-8"))):
        assert main(["train", "toy.yaml", "train.max_steps=2"]) == 2
    assert "space" in capsys.readouterr().err


def test_verify_resume_respects_the_lock(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a check that works, and deletes, in a folder in which another process runs."""
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=BlockingIOError))
    assert main(["train", "toy.yaml", "--verify-resume"]) == 2
    assert "works on it; wait until" in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C: exit code 130, and how to go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train_step", interrupt)
    assert main(["train", "toy.yaml"]) == 130
    assert "the same command continues from the last checkpoint, if there is one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "environment", "lines"),
    [
        (signal.SIGTERM, {}, 1),
        (signal.SIGTERM, {"TORCHELASTIC_RUN_ID": "1", "LOCAL_RANK": "0"}, 0),
        (signal.SIGINT, {"TORCHELASTIC_RUN_ID": "1", "LOCAL_RANK": "0"}, 1),
        (signal.SIGINT, {"TORCHELASTIC_RUN_ID": "1", "LOCAL_RANK": "1"}, 0),
    ],
)
def test_one_process_reports_a_signal(
    number: int,
    environment: dict[str, str],
    lines: int,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Guards against a line from every process that torchrun ends, around the one message of the one that failed."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with mock.patch("seq2seq.cli.train.run", side_effect=Ended(number)):
        assert main(["train", "toy.yaml"]) == 128 + number
    assert capsys.readouterr().err.count("seq2seq train: ") == lines


def test_a_signal_does_not_hide_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torchrun ends the other processes as soon as one is dead, perhaps before they have said what they know of it."""

    def run(_: object) -> None:
        try:
            raise UserError("another process has ended")
        finally:
            raise Ended(signal.SIGTERM)

    with mock.patch("seq2seq.cli.train.run", run):
        assert main(["train", "toy.yaml"]) == 2
    assert capsys.readouterr().err == "seq2seq train: error: another process has ended\n"


@pytest.mark.parametrize(("several", "expected"), [(0, True), (1, True), (3, False)])
def test_a_run_finds_whether_to_split_sentences(several: int, expected: bool, place: Path) -> None:
    """A model knows whether its training text held lines of several sentences; of 60 here 1 is few, and 3 are not.
    The saved config says so, the command line can say otherwise."""
    text = (place / "text/train.xx").read_text(encoding="utf-8").splitlines()
    write_lines(place / "text/train.xx", ["Ka. To." if i < several else line for i, line in enumerate(text)])
    assert main(["train", "toy.yaml", "train.max_steps=1", "data.cache_dir=cache"]) == 0
    assert load_config(place / "run/best/config.yaml").decode.split_sentences is expected
    write_lines(place / "two", ["Kato. Miren."])
    outputs = []
    for option in ((), ("--split-sentences", "true"), ("--split-sentences", "false")):
        arguments = ["--input", "two", "--output", "out", "--max-length-offset", "1", "--max-length-ratio", "0.2"]
        assert main(["translate", "run", *arguments, *option]) == 0
        outputs.append((place / "out").read_bytes())
    assert outputs[0] == outputs[1 if expected else 2]


def test_a_finished_run_leaves_its_picture(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without matplotlib the run ends well and one line says why there is no picture; the same command draws it later,
    and leaves the card as it is. A run that was stopped gets none."""
    pytest.importorskip("matplotlib")
    command = ["train", "toy.yaml", "data.test.src=text/test.xx", "data.test.tgt=text/test.yy"]
    whole_run = trainer.train
    with mock.patch.object(trainer, "train", lambda run, **_: whole_run(run, stop_after=2)):
        assert main(command) == EXIT_STOPPED
    assert "saved after step 2; the same command continues from there" in capsys.readouterr().out
    assert not (place / "run/curves.png").exists()
    with mock.patch.dict(sys.modules, {"matplotlib.figure": None}):
        assert main(command) == 0
    streams = capsys.readouterr()
    assert (
        "\ncurves.png was not drawn: matplotlib is not installed; install it: pip install matplotlib\n" in streams.err
    )
    assert streams.out.startswith("done: ")
    assert not (place / "run/curves.png").exists()
    assert f"\ncard of the test set, for a browser: {place / 'run/card/card.html'}\n" in streams.out
    card = {path.name: path.read_bytes() for path in (place / "run/card").iterdir()}
    assert main(command) == 0
    assert {path.name: path.read_bytes() for path in (place / "run/card").iterdir()} == card != {}
    assert (place / "run/curves.png").read_bytes().startswith(b"\x89PNG")


def test_one_process_draws_the_picture(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against processes that write the same file at the same time, and a picture of metrics of nobody."""
    monkeypatch.setattr(Processes, "is_main", False)
    monkeypatch.setattr(setup, "set_up", mock.MagicMock())
    monkeypatch.setattr(trainer, "train", lambda *_, **__: Summary(Progress(), "done", False, None))
    with mock.patch("seq2seq.report.curves.draw_curves") as draw:
        assert main(["train", "toy.yaml"]) == 0
    draw.assert_not_called()
