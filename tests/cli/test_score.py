"""The score command, and the columns and lists of translate: what people read of log-probabilities and flags."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from seq2seq.config import TsvFiles
from seq2seq.data.formats.pairs import read_pairs
from seq2seq.decode.translator import Translator
from tests.toy import sentences, write_lines

SCORE = "score model --src in.xx --tgt in.yy --device cpu"
PAIRS = sentences(6, seed=8)


@pytest.fixture
def files(place: Path) -> Path:
    """Two files with a blank target, a blank source, a text that is too long, and characters that end no line."""
    src, tgt = ([pair[side] for pair in PAIRS] for side in (0, 1))
    write_lines(place / "in.xx", [*src, "ka to", "", "sol " * 90, "ka\u2028to\tmi"])
    write_lines(place / "in.yy", [*tgt, "", "dor", "dor", "dor\tfe"])
    return place


def test_all_formats_have_the_same_numbers(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against lines that are lost or shifted, columns in another order, and sums over what has no score."""
    expected = Translator.load("model", device="cpu").score(
        *((files / name).read_text().split("\n")[:-1] for name in ("in.xx", "in.yy"))
    )
    numbers = [
        ["nan" if x is None else f"{x:.4f}" for x in (one.log_prob, one.per_token, one.per_word)] for one in expected
    ]
    capsys.readouterr()
    assert main(SCORE.split()) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t") for line in out.splitlines()] == numbers
    assert "in.xx:8: not scored: the source is blank, but the target is not" in err
    assert "in.xx:9: not scored: the source has 90" in err
    scored = [one for one in expected if one.log_prob is not None]
    total, tokens = sum(one.log_prob or 0 for one in scored), sum(len(one.tokens) for one in scored)
    words = sum(one.num_words for one in scored)
    assert err.splitlines()[-1] == (
        f"model: 8 lines, log-probability {total:.4f}; {total / tokens:.4f} per token ({tokens} tokens), "
        f"{total / words:.4f} per word ({words} words)"
    )
    assert main([*SCORE.split(), "--format", "tsv", "--output", "out.tsv"]) == 0
    rows = [line.split("\t") for line in (files / "out.tsv").read_text().split("\n")[:-1]]
    assert [row[2:] for row in rows] == numbers
    assert rows[9][:2] == ["ka\u2028to mi", "dor fe"]
    assert main([*SCORE.split(), "--format", "jsonl", "--output", "out.jsonl.gz"]) == 0
    records = [json.loads(line) for line in gzip.decompress((files / "out.jsonl.gz").read_bytes()).split(b"\n")[:-1]]
    assert [record["line"] for record in records] == list(range(1, 11))
    for record, one in zip(records, expected, strict=True):
        (found,) = record["scores"]
        assert found["model"] == "model"
        assert found["log_prob"] == (None if one.log_prob is None else pytest.approx(one.log_prob, abs=1e-5))
        assert [piece for piece, _ in found["tokens"]] == [piece for piece, _ in one.tokens]
    assert records[7]["scores"][0]["per_token"] is None
    assert (records[9]["source"], records[9]["target"]) == ("ka\u2028to\tmi", "dor\tfe")


def test_several_models_have_columns_of_their_own(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against an ensemble of models that people want to compare."""
    found = {}
    for models in ("model", "wide", "wide model"):
        assert main(SCORE.replace("model", models).split()) == 0
        out, err = capsys.readouterr()
        found[models] = [line.split("\t") for line in out.splitlines()]
        assert [line.split(":")[0] for line in err.splitlines() if "lines, log" in line] == models.split()
    both = [one + other for one, other in zip(found["wide"], found["model"], strict=True)]
    assert found["wide model"] == both
    assert found["wide"] != found["model"]
    assert "in.xx:8: wide: not scored" in err


def test_a_scored_table_is_a_dataset(files: Path) -> None:
    """What README says: pairs are left out by the score per token."""
    write_lines(files / "in.xx", [src for src, _ in PAIRS])
    write_lines(files / "in.yy", [tgt for _, tgt in PAIRS])
    assert main([*SCORE.split(), "--format", "tsv", "--output", "out.tsv"]) == 0
    dataset = TsvFiles(tsv="out.tsv", src=0, tgt=1, score=3, min_score=-6)
    assert [(pair.src, pair.tgt) for pair in read_pairs(dataset)] == PAIRS


def test_a_pipe_is_scored(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against an input that is read twice."""
    assert main(SCORE.split()) == 0
    expected = capsys.readouterr().out
    data = (files / "in.yy").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(SCORE.replace("in.yy", "-").split()) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--src short", "short has 1 lines but in.yy has 10; line n of both must be a pair"),
        ("--src empty --tgt empty", "empty and empty are empty; there is nothing to score"),
        ("--src nowhere", "--src: no such file: nowhere"),
        ("--tgt text", "--tgt: is a directory, not a text file: text"),
        ("--src - --tgt -", "only one of --src and --tgt can be -"),
        ("--tgt latin1", "latin1:2: not valid UTF-8"),
        ("--tag xx", "xx"),
        ("--output in.yy", "--output is the same file as --input"),
    ],
)
def test_mistakes_of_score_in_one_line(
    files: Path, change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against tracebacks, half-written output, and an error after hours of work."""
    (files / "empty").write_bytes(b"")
    (files / "short").write_bytes(b"ka\n")
    (files / "latin1").write_bytes(b"a\n\xe4\n" + b"a\n" * 8)
    before = (files / "in.yy").read_bytes()
    assert main([*SCORE.split(), "--output", "out", *change.split()]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(files.glob("*out*"))
    assert (files / "in.yy").read_bytes() == before


# ---------------------------------------------------------------------------------------------------------- translate

TRANSLATE = "translate model --input in.xx --device cpu"


def test_translations_have_columns_of_scores_and_flags(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against columns in another order, and lines that these options change."""
    assert main(TRANSLATE.split()) == 0
    plain = capsys.readouterr().out.split("\n")
    rows = {}
    for options in ("", "--scores", "--flags", "--scores --flags"):
        assert main([*TRANSLATE.split(), "--format", "tsv", *options.split()]) == 0
        rows[options] = [line.split("\t") for line in capsys.readouterr().out.split("\n")[:-1]]
    assert [row[1] for row in rows[""]] == plain[:-1]
    for options, width in (("--scores", 6), ("--flags", 4), ("--scores --flags", 7)):
        assert {len(row) for row in rows[options]} == {width}
        assert [row[:3] for row in rows[options]] == rows[""]
    for whole, scores, flags in zip(rows["--scores --flags"], rows["--scores"], rows["--flags"], strict=True):
        assert whole == [*scores, flags[3]]
        per_token, lowest, ratio = map(float, scores[3:])
        assert lowest <= per_token <= 0 < ratio
    assert rows["--flags"][7] == ["", "", "0.0000", ""]
    assert main([*TRANSLATE.split(), "--flags"]) == 0  # a table is what they need
    assert [line.split("\t") for line in capsys.readouterr().out.split("\n")[:-1]] == rows["--flags"]


def test_a_review_is_printed_beside_the_translation(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against lines of other numbers, and a translation that the list changes."""
    assert main(TRANSLATE.split()) == 0
    plain = capsys.readouterr().out
    assert main([*TRANSLATE.split(), "--review", "3"]) == 0
    out, err = capsys.readouterr()
    assert out == plain
    listed = [line for line in err.splitlines() if "per token: " in line]
    assert len(listed) == 3
    lines = (files / "in.xx").read_text().split("\n")
    for line in listed:
        name, number, rest = line.split(":", 2)
        assert name == "in.xx"
        source, translation = rest.split(" per token: ")[1].split(" -> ")
        assert lines[int(number) - 1].startswith(source.rstrip("…").encode().decode("unicode_escape"))
        assert out.split("\n")[int(number) - 1].startswith(translation.rstrip("…"))
    assert "the model does not say the script of its target language (yy); no line is flagged for its script" in err


def test_resume_knows_the_columns(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a table whose first half has other columns than the second."""
    write = [*TRANSLATE.split(), "--output", "out.tsv", "--resume"]
    assert main([*write, "--flags"]) == 0
    capsys.readouterr()
    assert main([*write, "--flags"]) == 0
    assert "already complete" in capsys.readouterr().err
    assert main([*write, "--scores", "--flags"]) == 0
    assert "already complete" not in capsys.readouterr().err
    assert {line.count("\t") for line in (files / "out.tsv").read_text().split("\n")[:-1]} == {6}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--review 0", "--review: must be at least 1, not 0"),
        ("--review -3", "--review: must be at least 1, not -3"),
        ("--flags --format text", "--scores and --flags are columns of --format tsv; remove --format text"),
    ],
)
def test_mistakes_of_flags_in_one_line(
    files: Path, options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against an option that is ignored."""
    assert main([*TRANSLATE.split(), "--output", "out", *options.split()]) == 2
    err = capsys.readouterr().err
    assert err == f"seq2seq translate: error: {message}\n"
    assert not (files / "out").exists()
