"""The command line: every mistake gets one message that says where and what to do, and leaves nothing half-made."""

import errno
import fcntl
import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch

from seq2seq import __version__, cli
from seq2seq.cli import main
from seq2seq.config_file import load_config
from tests.toy import (
    command,
    environment,
    run_command,
    toy_config,
    toy_model,
    train,
    write_config,
    write_lines,
)

COMMANDS = ("train", "doctor", "evaluate", "translate", "average", "curves", "config")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text, a trained run, and a run of another architecture; to be copied."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    toy_model(folder)
    train(toy_config(folder / "text", folder / "wide", "model.d_model=32", "train.max_steps=2"))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to make mistakes in, with text/, model/, wide/ and toy.yaml (which trains into run/)."""
    for name in ("text", "model", "wide"):
        shutil.copytree(made / name, tmp_path / name, ignore=shutil.ignore_patterns("cache", "tensorboard"))
    write_config(tmp_path / "text", tmp_path / "run").rename(tmp_path / "toy.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nothing(place: Path) -> None:
    """No preparation."""


def write(name: str, data: bytes) -> Callable[[Path], None]:
    """Put these bytes into a file."""

    def prepare(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)

    return prepare


def cut(name: str, count: int) -> Callable[[Path], None]:
    """Cut bytes off the end of a file."""
    return lambda place: write(name, (place / name).read_bytes()[:-count])(place)


def flip(name: str) -> Callable[[Path], None]:
    """Change one bit of a file's last bytes."""

    def prepare(place: Path) -> None:
        data = bytearray((place / name).read_bytes())
        data[-5] ^= 1
        (place / name).write_bytes(data)

    return prepare


def xz(name: str) -> Callable[[Path], None]:
    """Compress a file, under its name."""
    return lambda place: write(name, lzma.compress((place / name).read_bytes()))(place)


def config_with(line: str) -> Callable[[Path], None]:
    """Append a line to the config."""
    return lambda place: write("toy.yaml", (place / "toy.yaml").read_bytes() + line.encode() + b"\n")(place)


def other_tokenizer(place: Path) -> None:
    """The model gets a tokenizer that it was not trained with."""
    from seq2seq.data.tokenizer import TokenizerSpec, train_tokenizer

    model, _ = train_tokenizer([f"other words {i}" for i in range(40)], TokenizerSpec("unigram", 330))
    model.save(place / "model/best/tokenizer.model")


def gzipped_and_cut(place: Path) -> None:
    """A training file as gzip, without its end."""
    data = gzip.compress((place / "text/train.xx").read_bytes())
    (place / "text/train.xx").write_bytes(data[:-30])


class Mistake(NamedTuple):
    """A command, how it is prepared, what its message must tell, and what must not exist afterwards."""

    command: str
    told: tuple[str, ...]
    prepare: Callable[[Path], Any] = nothing
    absent: tuple[str, ...] = ("run",)


OUT = ("out",)
TRANSLATE = "translate model --input text/test.xx --output out --device cpu"
MISTAKES = {
    # train: the config
    "no such config": Mistake("train nowhere.yaml", ("nowhere.yaml: cannot be read",)),
    "config is a folder": Mistake("train text", ("text: cannot be read: Is a directory",)),
    "not YAML": Mistake("train toy.yaml", ("toy.yaml:1: not valid YAML",), write("toy.yaml", b"{run_dir: a: b")),
    "empty config": Mistake("train toy.yaml", ("run_dir: missing", "data.train: missing"), write("toy.yaml", b"")),
    "misspelt key": Mistake(
        "train toy.yaml", ("toy.yaml:13:", "sede: unknown key; did you mean seed?"), config_with("sede: 3")
    ),
    "wrong type": Mistake("train toy.yaml", ("seed: must be a whole number", "'x'"), config_with("seed: x")),
    "unknown override": Mistake("train toy.yaml optim.lrr=1", ("command line: optim.lrr", "did you mean lr?")),
    "bad override value": Mistake("train toy.yaml optim.lr=fast", ("command line: optim.lr: must be a number > 0",)),
    "override without value": Mistake("train toy.yaml seed", ("command line: seed", "section.key=value")),
    "n_best over beam": Mistake("train toy.yaml decode.n_best=9", ("decode.n_best: must be at most beam_size (2)",)),
    # train: the text
    "missing text": Mistake(
        "train toy.yaml data.train.src=gone.xx",
        ("data.train.src: no such file", "gone.xx"),
        absent=("run/checkpoints",),
    ),
    "text is a pipe": Mistake(
        "train toy.yaml data.train.src=pipe",
        ("data.train.src: is no regular file", "write it to a file first"),
        lambda place: os.mkfifo(place / "pipe"),
    ),
    "text is no text": Mistake(
        "train toy.yaml", ("train.xx: is compressed with xz",), xz("text/train.xx"), ("run/best",)
    ),
    "text is a folder": Mistake("train toy.yaml data.valid.src=text", ("data.valid.src", "text")),
    "unequal lines": Mistake(
        "train toy.yaml",
        ("train.xx has 61 lines but", "train.yy has 60", "drift apart"),
        lambda place: (place / "text/train.xx").write_bytes((place / "text/train.xx").read_bytes() + b"more\n"),
        ("run/checkpoints", "run/best"),
    ),
    "unequal validation lines": Mistake(
        "train toy.yaml", ("valid.xx has 6 lines but", "valid.yy has 1"), write("text/valid.yy", b"x\n"), ("run/best",)
    ),
    "unequal test lines": Mistake(
        "train toy.yaml data.test.src=text/test.xx data.test.tgt=text/test.yy",
        ("test.xx has 5 lines but", "test.yy has 1"),
        write("text/test.yy", b"x\n"),
        ("run/best",),
    ),
    "empty text": Mistake(
        "train toy.yaml",
        ("empty or blank", "check the training files"),
        lambda place: [write(f"text/train.{side}", b"")(place) for side in ("xx", "yy")],
        ("run/checkpoints",),
    ),
    "empty validation text": Mistake(
        "train toy.yaml",
        ("valid",),
        lambda place: [write(f"text/valid.{side}", b"")(place) for side in ("xx", "yy")],
        ("run/checkpoints",),
    ),
    "empty test text": Mistake(
        "train toy.yaml train.max_steps=1 data.test.src=text/test.xx data.test.tgt=text/test.yy",
        ("data.test",),
        lambda place: [write(f"text/test.{side}", b"")(place) for side in ("xx", "yy")],
        ("run/best",),
    ),
    "vocabulary too small": Mistake(
        "train toy.yaml tokenizer.vocab_size=100",
        ("vocab_size 100 is too small", "raise vocab_size"),
        absent=("run/best",),
    ),
    "truncated gzip": Mistake("train toy.yaml", ("train.xx:", "damaged or cut short"), gzipped_and_cut, ("run/best",)),
    "invalid UTF-8": Mistake(
        "train toy.yaml",
        ("train.xx:2: not valid UTF-8 (byte 0xff", "convert the file"),
        lambda place: write("text/train.xx", b"a\n\xff\n" + b"a\n" * 58)(place),
        ("run/best",),
    ),
    "all pairs left out": Mistake(
        "train toy.yaml data.max_length=4",
        ("no pair is left", "60 too long"),
        lambda place: [write(f"text/train.{side}", b"ka to mi ren sol vu\n" * 60)(place) for side in ("xx", "yy")],
        ("run/best",),
    ),
    # train: the machine
    "run_dir is a file": Mistake("train toy.yaml run_dir=file", ("file",), write("file", b"x"), ("file/best",)),
    "run_dir below a file": Mistake("train toy.yaml run_dir=file/run", ("file",), write("file", b"x"), ("run",)),
    "cache_dir is a file": Mistake("train toy.yaml data.cache_dir=file", ("file",), write("file", b"x"), ("run/best",)),
    "train on CUDA without one": Mistake("train toy.yaml train.device=cuda", ("cuda", "use cpu or auto")),
    # translate
    "translate on CUDA without one": Mistake(TRANSLATE.replace("cpu", "cuda"), ("cuda", "use cpu or auto"), absent=OUT),
    "no such model": Mistake(TRANSLATE.replace("model", "modle"), ("modle: no such folder",), absent=OUT),
    "not a model": Mistake(TRANSLATE.replace("model", "text"), ("text: not a model folder",), absent=OUT),
    "damaged weights": Mistake(
        TRANSLATE, ("best/model.safetensors: damaged",), flip("model/best/model.safetensors"), OUT
    ),
    "cut weights": Mistake(
        TRANSLATE, ("best/model.safetensors: damaged",), cut("model/best/model.safetensors", 9), OUT
    ),
    "empty weights": Mistake(
        TRANSLATE, ("best/model.safetensors: damaged",), write("model/best/model.safetensors", b""), OUT
    ),
    "model without config": Mistake(
        TRANSLATE, ("config.yaml: cannot be read",), lambda place: (place / "model/best/config.yaml").unlink(), OUT
    ),
    "model without tokenizer": Mistake(
        TRANSLATE, ("no tokenizer.model",), lambda place: (place / "model/best/tokenizer.model").unlink(), OUT
    ),
    "damaged tokenizer": Mistake(TRANSLATE, ("best/tokenizer.model",), cut("model/best/tokenizer.model", 999), OUT),
    "another model's tokenizer": Mistake(TRANSLATE, ("best: the tokenizer is not the one",), other_tokenizer, OUT),
    "another model's config": Mistake(
        TRANSLATE,
        ("best/config.yaml: not the config that model.safetensors was trained with",),
        lambda place: shutil.copy(place / "wide/last/config.yaml", place / "model/best/config.yaml"),
        OUT,
    ),
    "no such input": Mistake(TRANSLATE.replace("test.xx", "tset.xx"), ("no such file: text/tset.xx",), absent=OUT),
    "input is a folder": Mistake(TRANSLATE.replace("text/test.xx", "text"), ("text",), absent=OUT),
    "input is no text": Mistake(
        TRANSLATE, ("text/test.xx: is compressed with xz, not text; unpack it first: xz -dc",), xz("text/test.xx"), OUT
    ),
    "resume of a named pipe": Mistake(
        f"{TRANSLATE.replace('text/test.xx', 'pipe')} --resume",
        ("--resume: give --input FILE",),
        lambda place: os.mkfifo(place / "pipe"),
        OUT,
    ),
    "output is a folder": Mistake(
        TRANSLATE.replace("output out", "output text"), ("text: cannot be written",), absent=OUT
    ),
    "output below a file": Mistake(
        TRANSLATE.replace("output out", "output toy.yaml/out"), ("toy.yaml/out: cannot be written",), absent=OUT
    ),
    "resume of a pipe": Mistake(
        "translate model --output out --device cpu --resume",
        ("--resume: give --input FILE",),
        absent=OUT,
    ),
    "resume onto the input": Mistake(
        f"{TRANSLATE.replace('output out', 'output text/test.xx')} --resume", ("--output is the same file as --input",)
    ),
    "no beam": Mistake(f"{TRANSLATE} --beam-size 0", ("--beam-size: must be a whole number > 0",), absent=OUT),
    "n-best over beam": Mistake(f"{TRANSLATE} --n-best 3", ("--n-best: must be at most beam_size (2)",), absent=OUT),
    "temperature without sampling": Mistake(f"{TRANSLATE} --temperature 2", ("--temperature", "--sample"), absent=OUT),
    "no threads": Mistake(f"{TRANSLATE} --threads 0", ("--threads: must be at least 1",), absent=OUT),
    # evaluate
    "neither model nor hyp": Mistake("evaluate --ref text/test.yy", ("give either MODEL with --src, or --hyp",)),
    "both model and hyp": Mistake(
        "evaluate model --src text/test.xx --hyp text/test.yy --ref text/test.yy", ("give either MODEL",)
    ),
    "model without src": Mistake("evaluate model --ref text/test.yy", ("give either MODEL with --src",)),
    "unequal hyp": Mistake(
        "evaluate --hyp text/valid.yy --ref text/test.yy --save out", ("6", "5", "lines"), absent=OUT
    ),
    "unequal ref": Mistake(
        "evaluate model --src text/test.xx --ref text/test.yy --ref text/valid.yy --save out",
        ("text/test.xx has 5 lines but text/valid.yy has 6",),
        absent=OUT,
    ),
    "translations are no text": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --save out", ("is compressed with xz",), xz("text/test.yy"), OUT
    ),
    "two from standard input": Mistake("evaluate --hyp - --ref -", ("only one of --hyp, --src and --ref can be -",)),
    "nothing to score": Mistake("evaluate --hyp a --ref a --save out", ("nothing to score",), write("a", b""), OUT),
    "unknown BLEU tokenizer": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --tokenize 14a", ("unknown BLEU tokenizer '14a'", "13a")
    ),
    "decoding of what is decoded": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --beam-size 4 --sample --device cpu --quantize int8",
        ("--beam-size, --quantize, --sample, --device: no effect with --hyp",),
    ),
    "no such ref": Mistake("evaluate --hyp text/test.yy --ref gone", ("gone: no such file",)),
    "scores into a folder": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --save text", ("text: cannot be written",)
    ),
    # the others
    "average of unlike models": Mistake(
        "average model/best wide/best --output out",
        ("wide/best", "another architecture", "model.norm_position"),
        absent=OUT,
    ),
    "average of nothing": Mistake("average text --output out", ("text: not a model folder",), absent=OUT),
    "average into a file": Mistake("average model/best --output toy.yaml", ("toy.yaml",)),
    "curves of an empty folder": Mistake("curves text", ("text/metrics.jsonl: no metrics to draw",)),
    "config and schema": Mistake("config toy.yaml --schema", ("give either a config file or --schema",)),
    "neither config nor schema": Mistake("config", ("give either a config file or --schema",)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_a_message(name: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 2; one message that names the place and the remedy; no traceback; nothing half-made, no leftovers."""
    mistake = MISTAKES[name]
    if "CUDA" in name and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    mistake.prepare(place)
    code = main(mistake.command.split())
    streams = capfd.readouterr()
    assert code == 2, streams.err
    assert streams.err.count(": error: ") == 1
    message = streams.err.split(": error: ")[1]
    assert "Traceback" not in streams.err
    for part in mistake.told:
        assert part in message
    for path in mistake.absent:
        assert not os.path.lexists(place / path)
    assert not list(place.rglob("*.tmp"))


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


@pytest.mark.parametrize("what", [*COMMANDS, "nothing", "wrong choice"])
def test_wrong_arguments(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments that the parser refuses have the same exit code, and the usage."""
    arguments = {"nothing": [], "wrong choice": ["translate", "m", "--device", "tpu"]}.get(what, [what, "--wrong"])
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: seq2seq" in capsys.readouterr().err


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
        done = subprocess.run(
            command(*arguments.split()), stdout=full, stderr=subprocess.PIPE, input=b"kato\n", env=environment()
        )
    assert done.returncode == 2, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"space" in done.stderr


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EFBIG])
def test_a_failing_device(number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A device that fails is no bug of ours: one message, no traceback. A file that is not there would be one."""
    monkeypatch.setattr(cli, "_config", mock.Mock(side_effect=OSError(number, os.strerror(number))))
    assert main(["config", "--schema"]) == 2
    assert capsys.readouterr().err.startswith("seq2seq config: error: ")
    monkeypatch.setattr(cli, "_config", mock.Mock(side_effect=FileNotFoundError))
    with pytest.raises(FileNotFoundError):
        main(["config", "--schema"])


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


def test_edited_decoding_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model folder's way to translate may be edited, or damaged: either way the translations are others."""
    config = place / "model/best/config.yaml"
    config.write_text(config.read_text().replace("beam_size: 2", "beam_size: 3"))
    assert main(TRANSLATE.split()) == 0
    assert "model: its config.yaml was edited after training: decode.beam_size: 2 -> 3" in capsys.readouterr().err


def test_a_metrics_file_on_a_full_disk(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log may fill the disk as well as a checkpoint does; the same kind of message."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    from unittest import mock

    from seq2seq.train.metrics import MetricsLog

    with mock.patch.object(MetricsLog, "_reopen", staticmethod(lambda *_: open("/dev/full", "a", encoding="utf-8"))):
        assert main(["train", "toy.yaml", "train.max_steps=2"]) == 2
    assert "space" in capsys.readouterr().err


def test_a_model_that_was_never_validated_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against translations and scores of the last model taken for those of the best."""
    shutil.copytree(place / "model/last", place / "run/last")
    arguments = "--input text/test.xx --output out --device cpu"
    evaluate = "evaluate run --src text/test.xx --ref text/test.yy --device cpu"
    for command_line in (f"translate run {arguments}", evaluate):
        assert main(command_line.split()) == 0
        assert "run: has no best model yet; using last, of step 200" in capsys.readouterr().err
    for name in ("run/last", "model"):
        assert main(f"translate {name} {arguments}".split()) == 0
        assert "best" not in capsys.readouterr().err


def test_a_home_folder_is_found_behind_an_equals_sign(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a folder named ~, where the shell leaves --output=~/x as it is."""
    monkeypatch.setenv("HOME", str(place / "home"))
    (place / "home").mkdir()
    shutil.copy(place / "text/test.xx", place / "home")
    assert main(["translate", "~/../model", "--input=~/test.xx", "--output=~/out", "--device=cpu"]) == 0
    assert main(["evaluate", "--hyp=~/out", "--ref=~/out", "--save=~/scores"]) == 0
    assert {path.name for path in (place / "home").iterdir()} == {"test.xx", "out", "scores"}


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
    from seq2seq.train.trainer import Trainer

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_step", interrupt)
    assert main(["train", "toy.yaml"]) == 130
    assert "the same command continues" in capsys.readouterr().err


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
        "translate": ("--input", "--output", "--n-best", "--sample", "--seed", "standard input"),
        "average": ("--output",),
        "curves": ("RUN", "run folder"),
        "config": ("--schema", "section.key=value"),
        "doctor": ("exit codes", "data.max_length=128"),
    }
    for part in expected[name]:
        assert part in text


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


def test_from_text_to_translations(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, evaluate, translate, average, curves: each takes what the one before left."""
    test = ["data.test.src=text/test.xx", "data.test.tgt=text/test.yy"]
    assert main(["train", "toy.yaml", *test]) == 0
    told = capsys.readouterr().out
    assert "done: train.max_steps (12) reached; 12 steps" in told
    assert "BLEU|nrefs:1" in told
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
    assert [line.split("|")[0] for line in printed.out.splitlines()] == ["BLEU", "chrF2"]
    assert f"= {record['bleu']:.2f} " in printed.out.splitlines()[0]
    assert printed.err == "hyp, ref text/test.yy, 5 lines\n"
    assert main(["evaluate", "run", *arguments, "--length-penalty", "0.6"]) == 0
    step = trained["model"]["step"]
    what = f"model run/best (step {step}), beam 2, length penalty 0.6, src text/test.xx, ref text/test.yy, 5 lines\n"
    assert capsys.readouterr().err == what
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


def test_a_language_picks_the_tokenizer(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ending of the reference, or --tgt-lang, decides how BLEU cuts; the text itself before both, with a note;
    and --tokenize before all."""
    write_lines(place / "ref.zh_CN", ["猫坐在垫子上。"])
    write_lines(place / "ref", ["猫坐在垫子上。"])
    for name, options, tokenizer, note in (
        ("ref.zh_CN", [], "zh", ""),
        ("ref", ["--tgt-lang", "cmn"], "zh", ""),
        ("ref", [], "zh", "note: the target language is unknown, and the references are in Chinese script"),
        ("ref.zh_CN", ["--tgt-lang", "de"], "zh", "note: the target language is de, but the references are in Chinese"),
        ("ref", ["--tokenize", "char"], "char", ""),
        ("ref", ["--tokenize", "13a"], "13a", "note: the references have no spaces between words"),
    ):
        assert main(["evaluate", "--hyp", name, "--ref", name, *options]) == 0
        printed = capsys.readouterr()
        assert f"tok:{tokenizer}" in printed.out
        assert (note in printed.err) if note else ("note" not in printed.err)


def test_a_tokenizer_that_cannot_be_had(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a traceback where a download fails, and against translating for an hour before it."""
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", str(place / "toy.yaml"))  # no folder
    command_line = "evaluate model --src text/test.xx --ref text/test.yy --save-hyp out --tokenize spm"
    with mock.patch("seq2seq.decode.translator.Translator.load", side_effect=AssertionError):
        assert main(command_line.split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "BLEU tokenizer 'spm' cannot be used here: " in error
    assert "sacreBLEU downloads its model" in error


def test_a_reader_that_has_enough(place: Path) -> None:
    """``seq2seq translate ... | head -1`` ends without a traceback."""
    write_lines(place / "many", ["kato miren"] * 9000)
    line = f"{' '.join(command('translate', 'model', '--input', 'many', '--beam-size', '1'))} | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment(), timeout=60)
    assert done.stdout.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, env=environment())
    assert done.returncode == 141  # as of any program that SIGPIPE ends; 1 would be a bug


def test_pipes_are_read(place: Path) -> None:
    """Guards against a pipe taken for a missing file, opened twice, or a gzip stream that loses its beginning."""
    expected = run_command("translate", place / "model", "--input", place / "text/test.xx").stdout
    assert expected.count(b"\n") == 5
    program, scores = " ".join(command()), "--ref <(cat text/test.yy) --tokenize 13a --json"
    lines = [
        f"{program} translate model --input <(gzip -c text/test.xx)",
        f"cat text/test.xx | {program} translate model --input /dev/stdin",
        f"{program} evaluate --hyp <(gzip -c text/test.yy) {scores}",
        f"gzip -c text/test.yy | {program} evaluate --hyp - {scores}",
        f"cat text/test.xx | {program} evaluate model --src - {scores}",
    ]
    for line in lines:
        done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment(), timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        if "translate" in line:
            assert done.stdout == expected
        else:
            assert b'"num_lines": 5' in done.stdout
            assert ("model" in line) or b'"bleu": 100.0' in done.stdout


def test_spellings_of_a_source_line_read_alike(place: Path) -> None:
    """Guards against spaces of other kinds, soft hyphens and zero-width characters that change a translation, and
    against a line of nothing else that is translated."""
    odd = "kato\u00a0miren\nkato\u2009miren\nkato\tmiren\nka\u00adto miren\u200b\n\u200b\u3000\ufeff\nkato miren\n"
    done = run_command("translate", "model", stdin=odd.encode())
    lines = done.stdout.decode().split("\n")
    assert lines == [lines[5]] * 4 + ["", lines[5], ""]
    assert lines[5]


def test_the_module_runs() -> None:
    """``python -m seq2seq`` is the command, and its exit code reaches the shell."""
    assert run_command("--version").stdout.decode().startswith("seq2seq ")
    assert run_command("config", "nowhere.yaml").returncode == 2


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


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_no_message_is_too_foreign_to_print(encoding: str, place: Path) -> None:
    """Guards against a UnicodeEncodeError in place of a message; translations are UTF-8 under any locale."""
    environment_ = {**environment(), "PYTHONIOENCODING": encoding}
    done = subprocess.run(command("translate", "模型…"), capture_output=True, env=environment_)
    assert done.returncode == 2
    assert b"\\u6a21\\u578b\\u2026: no such folder" in done.stderr
    write_lines(place / "模型.xx", ["ka"])
    done = subprocess.run(command("translate", "model", "--input", "模型.xx"), capture_output=True, env=environment_)
    assert done.returncode == 0
    assert done.stdout.decode("utf-8").endswith("\n")


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


def test_int8_that_would_be_slow_is_reported_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Guards against --quantize int8 that takes ten times as long as fp32, and against a record that says int8."""
    monkeypatch.setattr("seq2seq.decode.engine.is_int8_slow", lambda: True)
    Path("in").write_text("ka to\n", encoding="utf-8")
    assert main(["evaluate", "model", "--src", "in", "--ref", "in", "--quantize", "int8", "--json"]) == 0
    out, err = capfd.readouterr()
    assert err.startswith("seq2seq evaluate: int8 is slower than fp32 on this CPU")
    assert err.count("int8 is slower") == 1
    assert json.loads(out)["decode"]["quantize"] is None
