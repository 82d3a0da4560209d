"""Files through ``seq2seq translate``: as many lines out as in, whatever they hold."""

import gzip
import os
import random
from pathlib import Path

import pytest
import torch

from seq2seq.cli import main
from seq2seq.decode.translator import Translator
from tests.toy import run_command, sentences, toy_model, write_lines

OPTIONS = ("--beam-size", "1", "--max-length-ratio", "0", "--max-length-offset", "4", "--device", "cpu")
BOM = b"\xef\xbb\xbf"
BLANK = [b"", b" ", b"   \t ", b"\r", b"\r\r", "\u3000".encode(), b"\xc2\xa0"]
NASTY = [
    b"\x00",
    b"ka\x00to",
    "ka\u2028to".encode(),
    "ka\u2029to\u0085mi".encode(),
    b"ka\rto\rmi",
    b"kato\r",
    BOM,
    BOM + b"kato",
    b"\xff\xfe",
    b"ka\xc3",
    b"\xed\xa0\x80 to",
    b"\xf8\x88\x80\x80\x80",
    b"ka" * 3000,
    "👩‍👩‍👧‍👦😀🏴󠁧󠁢󠁳󠁣󠁴󠁿".encode(),
    bytes(range(1, 10)) + bytes(range(11, 32)) + b"\x7f",
    b"\x0b\x0c\x1c\x1d\x1e",
    "שלום \u202e\u2066مرحبا\u2069".encode(),
    "\u2581ka\u2581\u2581to".encode(),
    b"<s> </s> <unk> <pad> <0x0A>",
    b"\x1f\x8b not gzip",
    b"e" + "\u0301".encode() * 50,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return toy_model(tmp_path_factory.mktemp("files")) / "best"


def nasty_lines(count: int) -> list[bytes]:
    """Lines without LF: ordinary ones, every nasty and blank one, byte noise; the first with a byte order mark."""
    rng = random.Random(4)
    ordinary = [src.encode() for src, _ in sentences(50, seed=8)]
    lines = [BOM + b"kato miren", *NASTY, *BLANK]
    while len(lines) < count:
        kind = rng.random()
        if kind < 0.75:
            lines.append(rng.choice(ordinary))
        elif kind < 0.85:
            lines.append(rng.choice(BLANK))
        elif kind < 0.87:
            lines.append(rng.choice([line for line in NASTY if len(line) < 100]))
        else:
            noise = bytes(rng.randrange(256) for _ in range(rng.randrange(12)))
            lines.append(noise.replace(b"\n", b"") or b"ka")
    return lines


def output_lines(data: bytes) -> list[str]:
    """Lines by LF alone; every one ended."""
    assert data == b"" or data.endswith(b"\n")
    return data.decode("utf-8").split("\n")[:-1]


def test_ten_thousand_nasty_lines(model: Path, tmp_path: Path) -> None:
    """Contract 1: exactly as many lines out as in, blank where blank, each the translation of its own line; invalid
    bytes and cut lines are told with their numbers."""
    lines = nasty_lines(10_000)
    data = b"\n".join(lines)  # the last line has no LF
    (tmp_path / "in").write_bytes(data)
    done = run_command("translate", model, "--input", tmp_path / "in", "--output", tmp_path / "out", *OPTIONS)
    assert done.returncode == 0, done.stderr.decode()
    outputs = output_lines((tmp_path / "out").read_bytes())
    assert len(outputs) == 10_000
    for number, (line, output) in enumerate(zip(lines, outputs, strict=True), start=1):
        assert "\r" not in output
        if not line.decode("utf-8", "replace").strip(" \r"):
            assert output == "", (number, line, output)
    translator = Translator.load(model, device="cpu")
    decode = translator.config.decode.model_copy(
        update={"beam_size": 1, "max_length_ratio": 0.0, "max_length_offset": 4}
    )
    sample = [*range(40), *random.Random(1).sample(range(40, 10_000), 60), 9_999]
    for i in sample:
        if len(lines[i]) < 1000:
            line = lines[i].removeprefix(BOM if i == 0 else b"").removesuffix(b"\r").decode("utf-8", "replace")
            assert outputs[i] == translator.translate([line], decode)[0], (i + 1, lines[i])
    told = done.stderr.decode()
    invalid = 1 + next(i for i, line in enumerate(lines) if line == b"\xff\xfe")
    assert f"in:{invalid}: not valid UTF-8 (byte 0xff)" in told
    assert "more lines with such remarks" in told


def test_gzip_and_standard_streams_say_the_same(model: Path, tmp_path: Path) -> None:
    """Plain or gzip, file or pipe: the same lines; the last one needs no ending."""
    lines = nasty_lines(60)
    data = b"\n".join(lines)
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "in.gz").write_bytes(gzip.compress(data))
    for name in ("in", "in.gz"):
        arguments = [
            "translate",
            str(model),
            "--input",
            str(tmp_path / name),
            "--output",
            str(tmp_path / f"{name}.out"),
        ]
        assert main([*arguments, *OPTIONS]) == 0
    expected = (tmp_path / "in.out").read_bytes()
    assert len(output_lines(expected)) == 60
    assert (tmp_path / "in.gz.out").read_bytes() == expected
    for stdin in (data, gzip.compress(data)):
        done = run_command("translate", model, *OPTIONS, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout == expected


@pytest.mark.parametrize(
    ("data", "count"), [(b"", 0), (b"\n", 1), (b"\n\n", 2), (BOM, 0), (BOM + b"\n", 1), (b"ka", 1)]
)
def test_few_lines(data: bytes, count: int, model: Path, tmp_path: Path) -> None:
    """The line count of empty and nearly empty files."""
    (tmp_path / "in").write_bytes(data)
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*arguments, *OPTIONS]) == 0
    assert len(output_lines((tmp_path / "out").read_bytes())) == count


def test_n_best_format(model: Path, tmp_path: Path) -> None:
    """Number, score and text between tabs, N lines for each, best first; blank lines have theirs as well."""
    write_lines(tmp_path / "in", ["kato miren", "", "solvu"])
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--n-best", "3", "--beam-size", "4", "--device", "cpu"]) == 0
    rows = [line.split("\t", 2) for line in output_lines((tmp_path / "out").read_bytes())]
    assert [row[0] for row in rows] == ["1"] * 3 + ["2"] * 3 + ["3"] * 3
    for first in (0, 6):
        scores = [float(row[1]) for row in rows[first : first + 3]]
        assert scores == sorted(scores, reverse=True)
    assert {row[2] for row in rows[3:6]} == {""}


def test_a_failure_leaves_what_was_there(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half an output would be taken for a whole one: a damaged input leaves no file, or the earlier one as it was."""
    whole = gzip.compress("\n".join(src for src, _ in sentences(3000, seed=8)).encode())
    (tmp_path / "in.gz").write_bytes(whole[:-2000])
    arguments = ["translate", str(model), "--input", str(tmp_path / "in.gz"), "--output", str(tmp_path / "out")]
    assert main([*arguments, *OPTIONS]) == 2
    assert "damaged or cut short" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["in.gz"]
    (tmp_path / "out").write_bytes(b"earlier\n")
    assert main([*arguments, *OPTIONS]) == 2
    assert (tmp_path / "out").read_bytes() == b"earlier\n"


def test_the_output_may_be_the_input(model: Path, tmp_path: Path) -> None:
    """A file is replaced only when its translation is complete, so reading it is never disturbed."""
    write_lines(tmp_path / "text", ["kato miren", "solvu"])
    arguments = ["translate", str(model), "--input", str(tmp_path / "text"), "--output", str(tmp_path / "text")]
    assert main([*arguments, *OPTIONS]) == 0
    assert len(output_lines((tmp_path / "text").read_bytes())) == 2
