"""Every mistake gets one message that says where it is and what to do, and leaves nothing half-made."""

import gzip
import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from seq2seq.cli.main import main

COMMANDS = ("train", "doctor", "evaluate", "translate", "average", "curves", "config")


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
    from seq2seq.data.tokenizer import TokenizerConfig, train_tokenizer

    model, _ = train_tokenizer([f"other words {i}" for i in range(40)], TokenizerConfig(kind="unigram", vocab_size=330))
    (place / "model/best/tokenizer.model").write_bytes(model.model)


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
        "train toy.yaml", ("toy.yaml:17:", "sede: unknown key; did you mean seed?"), config_with("sede: 3")
    ),
    "wrong type": Mistake("train toy.yaml", ("seed: must be a whole number", "'x'"), config_with("seed: x")),
    "unknown override": Mistake("train toy.yaml optim.lrr=1", ("command line: optim.lrr", "did you mean lr?")),
    "bad override value": Mistake("train toy.yaml optim.lr=fast", ("command line: optim.lr: must be a number > 0",)),
    "override without value": Mistake("train toy.yaml seed", ("command line: seed", "section.key=value")),
    "n_best over beam": Mistake("train toy.yaml decode.n_best=9", ("decode.n_best: must be at most beam_size (2)",)),
    "a limit without a guard": Mistake(
        "train toy.yaml train.max_forgetting=1", ("train.max_forgetting: needs a text to measure it with",)
    ),
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
        "train toy.yaml", ("train.xx: is a PDF, not text",), write("text/train.xx", b"%PDF-1.7\n"), ("run/best",)
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
        ("no training pair has text on both sides", "check the training files"),
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
    "no reference": Mistake("evaluate --hyp text/test.yy", ("give the reference translations: --ref FILE, or --test",)),
    "source without a model": Mistake(
        "evaluate --hyp text/test.yy --src text/test.xx --ref text/test.yy", ("remove --src: no effect",)
    ),
    "source twice": Mistake(
        'evaluate model --src text/test.xx --test {"src":"a","tgt":"b"}', ("remove --src: --test has",)
    ),
    "test set that is no dataset": Mistake(
        "evaluate model --test memory.tmx", ("--test memory.tmx: write the dataset as in a config", "tsv: pairs.tsv")
    ),
    "test set with a missing key": Mistake(
        'evaluate model --test {"tmx":"memory.tmx","src_lang":"en"}', ("command line: test.tgt_lang: missing",)
    ),
    "test set with a key of training text": Mistake(
        'evaluate model --test {"src":"a","tgt":"b","weight":2.0}', ("test.weight: is for training text only",)
    ),
    "test set with a tag that the model does not know": Mistake(
        'evaluate model --test {"src":"text/test.xx","tgt":"text/test.yy","tag":"bt"}', ("there is no tag bt",)
    ),
    "test set with a file that is missing": Mistake(
        'evaluate --hyp text/test.yy --test {"src":"gone","tgt":"gone"}', ("gone: no such file",)
    ),
    "a system that is none": Mistake(
        "evaluate model --src text/test.xx --ref text/test.yy --against text",
        ("text: not a model folder: it has no model.safetensors",),
    ),
    "a system that is not there": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --against gone", ("gone: no such file",)
    ),
    "a model as translations": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --against model/best/model.safetensors",
        ("model/best/model.safetensors: is a model; give its folder, model/best",),
    ),
    "a model folder as translations": Mistake(
        "evaluate --hyp model --ref text/test.yy", ("--hyp model: is a folder; for a model: seq2seq evaluate model",)
    ),
    "translations as a model": Mistake(
        "evaluate text/test.yy --src text/test.xx --ref text/test.yy",
        ("text/test.yy: is a file; a model is a folder, and translations are given with --hyp",),
    ),
    "a model twice": Mistake(
        "evaluate model --src text/test.xx --ref text/test.yy --against wide model/best",
        ("model/best: the same system as model; give each system once",),
    ),
    "translations twice": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --against text/../text/test.yy",
        ("text/../text/test.yy: the same system as text/test.yy",),
    ),
    "a model without text": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --against model", ("model is a model: give the text", "--src")
    ),
    "translations of another text": Mistake(
        "evaluate model --src text/test.xx --ref text/test.yy --against text/valid.yy --save out",
        ("text/valid.yy has 6 lines, but the references have 5 lines",),
        absent=OUT,
    ),
    "too many systems": Mistake(
        f"evaluate --hyp text/test.yy --ref text/test.yy --against {' '.join(map(str, range(26)))}", ("at most 25",)
    ),
    "blank references": Mistake(
        "evaluate --hyp text/test.yy --ref a --save out",
        ("reference 1 is empty: all of its 5 lines are blank",),
        write("a", b"\n \n\n\n\n"),
        OUT,
    ),
    "damaged spBLEU model": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --tokenize a.model",
        ("BLEU tokenizer a.model: is no SentencePiece model, or a damaged one",),
        write("a.model", b"\x0a\x0bdamaged"),
    ),
    "no such ref": Mistake("evaluate --hyp text/test.yy --ref gone", ("gone: no such file",)),
    "scores into a folder": Mistake(
        "evaluate --hyp text/test.yy --ref text/test.yy --save text", ("--save text: is a folder",)
    ),
    # the others
    "average of unlike models": Mistake(
        "average model/best wide/best --output out",
        ("wide/best", "its architecture differs", "model.norm_position"),
        absent=OUT,
    ),
    "average with too few weights": Mistake(
        "average model/best model/last --weights 1 --output out", ("--weights: 1 numbers for 2 models",), absent=OUT
    ),
    "average of nothing": Mistake("average text --output out", ("text: not a model folder",), absent=OUT),
    "average into a file": Mistake("average model/best --output toy.yaml", ("toy.yaml",)),
    "curves of an empty folder": Mistake("curves text", ("text/metrics.jsonl: no metrics to draw",)),
    "curves of several, but no picture": Mistake("curves model wide", ("several runs: give --output FILE.png",)),
    "curves of a run twice": Mistake(
        "curves model wide ./model --output out.png", ("model: the same run is given 2 times",), absent=("out.png",)
    ),
    "curves of one run and of an empty folder": Mistake(
        "curves model text --output out.png", ("text/metrics.jsonl: no metrics to draw",), absent=("out.png",)
    ),
    "curves of too many": Mistake(
        f"curves {'model ' * 9} --output out.png", ("9 runs cannot be told apart", "at most 8"), absent=("out.png",)
    ),
    "curves that are no PNG": Mistake(
        "curves model --output out", ("--output out: the picture is a PNG file", "ends with .png"), absent=OUT
    ),
    "curves into a folder": Mistake(
        "curves model wide --output out.png",
        ("out.png: cannot be written",),
        lambda place: (place / "out.png").mkdir(),
        absent=("run",),
    ),
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


@pytest.mark.parametrize("what", [*COMMANDS, "nothing", "wrong choice"])
def test_wrong_arguments(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments that the parser refuses have the same exit code, and the usage."""
    arguments = {"nothing": [], "wrong choice": ["translate", "m", "--device", "tpu"]}.get(what, [what, "--wrong"])
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: seq2seq" in capsys.readouterr().err
