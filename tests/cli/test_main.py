"""Help, the standard streams, and exit codes; all commands in a row."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from seq2seq import __version__
from seq2seq.cli import config as config_command
from seq2seq.cli.main import main
from seq2seq.config import load_config
from seq2seq.train import decide
from seq2seq.train.recipe import Pace
from tests.toy import command, environment, run_command, start_command, write_lines

COMMANDS = ("train", "doctor", "evaluate", "translate", "merge", "average", "curves", "report", "config")


TRANSLATE = "translate model --input text/test.xx --output out --device cpu"


def full_disk(*_: object) -> None:
    """What the system says when no block is left."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("arguments", [TRANSLATE, "train toy.yaml", "average model/best --output out"])
def test_a_full_disk(
    arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk is told as such, and nothing that looks complete is left."""
    monkeypatch.setattr(os, "fsync", full_disk)
    assert main(arguments.split()) == 2
    message = capsys.readouterr().err
    assert "no space left" in message.lower()
    assert not (place / "out").is_file()
    assert not (place / "run/best/model.safetensors").exists()
    assert not (place / "out/model.safetensors").exists()
    assert not list(place.rglob("*.tmp"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["translate model --device cpu", "config toy.yaml"])
def test_full_standard_output(arguments: str, place: Path) -> None:
    """Output sent to a full disk is lost output: an exit code and a message instead of success or a traceback."""
    with Path("/dev/full").open("wb") as full:
        done = run_command(*arguments.split(), stdout=full, stdin=b"kato\n")
    assert done.returncode == 2, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"space" in done.stderr


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EFBIG])
def test_a_failing_device(number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A device that fails is no bug of ours: one message, no traceback. A file that is not there would be one."""
    monkeypatch.setattr(config_command, "run", mock.Mock(side_effect=OSError(number, os.strerror(number))))
    assert main(["config", "--schema"]) == 2
    assert capsys.readouterr().err.startswith("seq2seq config: error: ")
    monkeypatch.setattr(config_command, "run", mock.Mock(side_effect=FileNotFoundError))
    with pytest.raises(FileNotFoundError):
        main(["config", "--schema"])


def test_a_home_folder_is_found_behind_an_equals_sign(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a folder named ~, where the shell leaves --output=~/x as it is."""
    monkeypatch.setenv("HOME", str(place / "home"))
    (place / "home").mkdir()
    shutil.copy(place / "text/test.xx", place / "home")
    assert main(["translate", "~/../model", "--input=~/test.xx", "--output=~/out", "--device=cpu"]) == 0
    assert main(["evaluate", "--hyp=~/out", "--ref=~/out", "--save=~/scores"]) == 0
    assert {path.name for path in (place / "home").iterdir()} == {"test.xx", "out", "scores"}


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Help of every command explains each of its arguments; that of all of them shows a first run."""
    with pytest.raises(SystemExit) as exit_:
        main([*([name] if name else []), "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    expected = {
        None: ("seq2seq train my.yaml", "run_dir: runs/my", "exit codes", *COMMANDS),
        "train": ("torchrun", "optim.lr=0.002"),
        "evaluate": ("--src", "--hyp", "--ref", "--tokenize", "--beam-size", "signatures"),
        "translate": ("--input", "--output", "--n-best", "--sample", "--seed", "standard input", "--text", "--shard"),
        "merge": ("FILE.shard-1-of-8", "--output", "same model"),
        "average": ("--output",),
        "curves": ("RUN", "run folder", "--output FILE.png", "several"),
        "report": ("RUN", "run folder", "--output FILE"),
        "config": ("--schema", "section.key=value"),
        "doctor": ("exit codes", "section.key=value"),
    }
    for part in expected[name]:
        assert part in text


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_screen(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against explanations that scroll the options away; two commands have more options than lines."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*filter(None, [name]), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= (60 if name in ("evaluate", "translate") else 40)
    assert max(map(len, lines)) <= 80
    assert any(line.endswith(":") for line in lines[3:6]), "the arguments come first"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is the package's."""
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"seq2seq {__version__}\n"


def test_schema_and_resolved_config(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The schema is JSON; a resolved config with its overrides loads to the config it came from."""
    assert main(["config", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"].keys() >= {"run_dir", "data", "optim"}
    assert main(["config", "toy.yaml", "optim.lr=0.5"]) == 0
    (place / "resolved.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(place / "resolved.yaml") == load_config(place / "toy.yaml", ["optim.lr=0.5"])


def test_overrides_may_follow_an_option(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``config my.yaml --explain train.max_minutes=5`` was refused; what is no override still is."""
    assert main(["config", "toy.yaml", "run_dir=new", "--explain", "optim.lr=auto"]) == 0
    assert re.search(r"^ +optim\.lr +0\.003 ", capsys.readouterr().out, re.MULTILINE)
    for wrong in ("lr", "--lr=3"):
        with pytest.raises(SystemExit) as exit_:
            main(["config", "toy.yaml", "--explain", wrong])
        assert exit_.value.code == 2
        assert f"unrecognized arguments: {wrong}" in capsys.readouterr().err


def test_the_choice_is_explained_without_training(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each open key with its value and reason; the run folder gets the prepared data and no model."""
    assert main(["config", "toy.yaml", "run_dir=new", "optim.lr=auto", "train.max_steps=auto", "--explain"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ +optim\.lr +0\.003 +for adamw and models that are 16 wide$", shown, re.MULTILINE)
    assert "train.max_steps" in shown
    assert not [path for path in place.rglob("new/*") if path.name in ("best", "last", "checkpoints")]
    assert main(["config", "--explain"]) == 2
    assert "give either a config file or --schema" in capsys.readouterr().err


def test_a_run_that_has_begun_is_explained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What train would refuse was explained as if nothing were wrong."""
    assert main(["train", "toy.yaml", "train.max_steps=2", "optim.lr=auto"]) == 0
    capsys.readouterr()
    assert main(["config", "toy.yaml", "train.max_steps=2", "optim.lr=auto", "--explain"]) == 0
    shown = capsys.readouterr().out
    assert f"nothing to choose: the run has begun, and keeps the settings in {place / 'run/config.yaml'}" in shown
    told = []
    for name, option in (("config", ["--explain"]), ("train", [])):
        assert main([name, "toy.yaml", "train.max_steps=2", "optim.lr=0.5", *option]) == 2
        told.append(capsys.readouterr().err.partition("error: ")[2])
    assert told[0] == told[1]
    assert "/run: holds a run with other settings (optim.lr: 0.003 -> 0.5)" in told[0]


def test_a_run_that_a_bound_has_cut_ends_with_advice(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The end looked for the planned steps in the config as it was written, where they are auto, and said nothing."""
    settings = ["optim.schedule=auto", "train.max_steps=auto", "train.max_minutes=1e-6"]
    with mock.patch.object(decide, "measure_pace", return_value=Pace(step=1e-9, validation=1e-9)):
        assert main(["train", "toy.yaml", *settings]) == 0
    assert "train.max_minutes ended the run after 1 of " in capsys.readouterr().out


def test_from_text_to_translations(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, evaluate, translate, average, curves: each takes what the one before left."""
    test = ["data.test.src=text/test.xx", "data.test.tgt=text/test.yy"]
    assert main(["train", "toy.yaml", *test]) == 0
    told = capsys.readouterr().out
    assert "done: train.max_steps (12) reached; 12 steps" in told
    assert "BLEU|nrefs:1" in told
    assert "what would help most: more text; with 60 pairs a model learns words" in told
    arguments = ["--src", "text/test.xx", "--ref", "text/test.yy", "--device", "cpu"]
    assert main(["evaluate", "run", *arguments, "--json", "--save", "scores.json", "--save-hyp", "hyp"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((place / "scores.json").read_text(encoding="utf-8"))
    trained = json.loads((place / "run/test.json").read_text(encoding="utf-8"))
    for name in ("bleu", "chrf", "bleu_signature", "chrf_signature", "bleu_details", "num_lines"):
        assert record[name] == trained[name]
    assert (place / "hyp").read_bytes() == (place / "run/test.hyp.txt").read_bytes()
    assert main(["evaluate", "--hyp", "hyp", "--ref", "text/test.yy"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split("|")[0] for line in lines[:4]] == ["BLEU", "chrF2", "chrF2++", "TER"]
    assert f"= {record['bleu']:.2f} " in lines[0]
    assert lines[5:7] == ["A: translations hyp", "ref text/test.yy, 5 lines"]
    assert printed.err == ""
    assert main(["evaluate", "run", *arguments, "--length-penalty", "0.6"]) == 0
    step = trained["model"]["step"]
    assert f"A: model run/best (step {step}), beam 2, length penalty 0.6\n" in capsys.readouterr().out
    assert main(["translate", "run", "--input", "text/test.xx", "--output", "out", "--device", "cpu"]) == 0
    assert (place / "out").read_bytes() == (place / "hyp").read_bytes()
    assert main(["average", "run", "--output", "mean"]) == 0
    assert "the average of 4 models" in capsys.readouterr().out
    shutil.rmtree(place / "run/best")
    assert (
        main(["translate", "mean", "--input", "text/test.xx", "--output", "out", "--device", "cpu", "--beam-size", "1"])
        == 0
    )
    assert len((place / "out").read_text(encoding="utf-8").split("\n")) == 6
    pytest.importorskip("matplotlib")
    (place / "run/curves.png").unlink()
    assert main(["curves", "run"]) == 0
    assert capsys.readouterr().out == "run/curves.png\n"
    assert (place / "run/curves.png").stat().st_size > 1000
    (place / "run/curves.png").unlink()
    assert main(["curves", "run", "--output", "one.png"]) == 0
    assert main(["curves", "run", "model", "--output", "both.png"]) == 0
    assert capsys.readouterr().out == "one.png\nboth.png\n"
    assert not (place / "run/curves.png").exists()


def test_a_reader_that_has_enough(place: Path) -> None:
    """``seq2seq translate ... | head -1`` ends without a traceback."""
    write_lines(place / "many", ["kato miren"] * 9000)
    arguments = ("translate", "model", "--input", "many", "--beam-size", "1")
    with start_command(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        told = process.stderr.readall()
    assert b"Traceback" not in told
    assert b"Exception" not in told
    assert process.returncode == 141  # as of any program that SIGPIPE ends; 1 would be a bug


def test_the_module_runs() -> None:
    """``python -m seq2seq`` is the command, and its exit code reaches the shell."""
    run = partial(subprocess.run, capture_output=True, env=environment())
    assert run(command("--version")).stdout.decode().startswith("seq2seq ")
    assert run(command("config", "nowhere.yaml")).returncode == 2


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(closed: str, place: Path) -> None:
    """Guards against an end before any work where a service starts the command without standard error, and against
    messages in an output file that got the free number of a stream."""
    line = f"{' '.join(command(*TRANSLATE.split()))} {closed}"
    done = subprocess.run(["bash", "-c", line], env=environment(), stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    assert run_command(*TRANSLATE.replace("--output out", "--output again").split()).returncode == 0
    assert (place / "out").read_bytes() == (place / "again").read_bytes() != b""


def test_a_closed_standard_output_takes_no_translations(place: Path) -> None:
    """Guards against translations that nobody gets."""
    line = f"{' '.join(command('translate', 'model', '--input', 'text/test.xx'))} >&-"
    done = subprocess.run(["bash", "-c", line], env=environment(), stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"seq2seq translate: error: standard output is closed; redirect it, or give --output FILE\n"


def test_no_message_is_too_foreign_to_print(place: Path) -> None:
    """Guards against a UnicodeEncodeError in place of a message; translations are UTF-8 under any locale."""
    environment_ = {**environment(), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command("translate", "模型…"), capture_output=True, env=environment_)
    assert done.returncode == 2
    assert b"\\u6a21\\u578b\\u2026: no such folder" in done.stderr
    write_lines(place / "模型.xx", ["ka"])
    done = subprocess.run(command("translate", "model", "--input", "模型.xx"), capture_output=True, env=environment_)
    assert done.returncode == 0
    assert done.stdout.decode("utf-8").endswith("\n")


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has another OpenMP there")
@pytest.mark.parametrize(
    ("given", "spins"), [({}, "0"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000")]
)
def test_threads_that_wait_leave_the_cores_to_others(given: dict[str, str], spins: str, tmp_path: Path) -> None:
    """Guards against a setting that comes after PyTorch has loaded OpenMP, and against one that overrides the user's.
    Threads that spin made sentences translated one by one take seconds on busy cores, instead of tenths."""
    kept = {name: value for name, value in environment().items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        command("average", tmp_path / "nowhere", "--output", tmp_path / "out"),
        env={**kept, **given, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
