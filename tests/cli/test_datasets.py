"""Promise: text in any format trains what two plain files with the same pairs train, and is reported by its place."""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import pytest

from seq2seq.cli.main import main
from seq2seq.config import CsvFiles, load_config
from seq2seq.doctor import machine
from seq2seq.doctor.report import Section
from tests.toy import sentences, weights, write_lines


@pytest.fixture(autouse=True)
def no_picture() -> Iterator[None]:
    """It takes as long as the run, and other tests look at it."""
    with mock.patch("seq2seq.report.curves.draw_curves"):
        yield


def without_dry_run() -> AbstractContextManager[object]:
    """It takes long, and the text does not depend on it."""
    return mock.patch.object(machine, "judge_machine", return_value=Section("Dry run", []))


def plain_text(folder: Path) -> list[str]:
    """The training pairs of the toy config in three plain files for each side; overrides that name them."""
    pairs = sentences(60, seed=0)
    for number in range(3):
        part = pairs[20 * number :][:20]
        write_lines(folder / f"part{number}.xx", [src for src, _ in part])
        write_lines(folder / f"part{number}.yy", [tgt for _, tgt in part])
    return [f"data.train={{src: {folder}/part*.xx, tgt: {folder}/part*.yy}}"]


def mixed_text(folder: Path) -> list[str]:
    """The same pairs in three files of different kinds."""
    pairs = sentences(60, seed=0)
    folder.mkdir()
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows([("target", "source"), *((tgt, src) for src, tgt in pairs[:20])])
    units = [
        f'<tu><tuv xml:lang="yy"><seg>{tgt}</seg></tuv><tuv xml:lang="xx"><seg>{src}</seg></tuv></tu>'
        for src, tgt in pairs[20:40]
    ]
    (folder / "b.tmx").write_text(f'<tmx version="1.4"><body>{"".join(units)}</body></tmx>', encoding="utf-16")
    objects = [json.dumps({"pair": {"xx": src, "yy": tgt}}) for src, tgt in pairs[40:]]
    (folder / "c.jsonl").write_text("\n".join(objects), encoding="utf-8")
    train = (
        "[{csv: mixed/a.csv, src: source, tgt: target, delimiter: ';'}, "
        "{tmx: mixed/b.tmx, src_lang: xx, tgt_lang: yy}, {jsonl: mixed/c.jsonl, src: pair.xx, tgt: pair.yy}]"
    )
    return [f"data.train={train}", "data.src_lang=xx", "data.tgt_lang=yy"]


def test_mixed_formats_train_what_plain_files_train(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against text, order, tokenizer or batches that depend on the format."""
    assert main(["train", "toy.yaml", *plain_text(place)]) == 0
    assert main(["train", "toy.yaml", "run_dir=other", *mixed_text(place / "mixed")]) == 0
    assert weights(place / "other") == weights(place / "run")
    assert capsys.readouterr().out.count("60 of 60 pairs kept") == 1  # the second run finds the corpus of the first


def test_a_run_continues_when_its_text_moves_to_another_format(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pairs are what a run must keep, not their files; with other pairs it is refused."""
    assert main(["train", "toy.yaml", "train.max_steps=6", *plain_text(place)]) == 0
    assert main(["train", "toy.yaml", *mixed_text(place / "mixed")]) == 0
    assert "continuing after step 6" in "".join(capsys.readouterr())
    assert main(["train", "toy.yaml", "data.train={tmx: mixed/b.tmx, src_lang: xx, tgt_lang: yy}"]) == 2
    assert "its text has changed since the run was started" in capsys.readouterr().err


def test_doctor_reports_the_place_in_its_format(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a line number where people count rows or units."""
    overrides = mixed_text(place / "mixed")
    table = place / "mixed/a.csv"
    table.write_text(table.read_text(encoding="utf-8") + '"two\nlines <b>";x\n<i>;y\n', encoding="utf-8")
    memory = place / "mixed/b.tmx"
    units = memory.read_text(encoding="utf-16").replace("<tu>", "<tu><tuv xml:lang='xx'><seg>&lt;b></seg></tuv>", 1)
    memory.write_text(units, encoding="utf-16")
    with without_dry_run():
        main(["doctor", "toy.yaml", *overrides])
    report = capsys.readouterr().out
    assert "a.csv:22: two lines <b>" in report
    assert "a.csv:24: <i>" in report
    assert "b.tmx: unit 1: <b>" in report


UNIT = '<tu><tuv xml:lang="en-US"><seg>a</seg></tuv><tuv xml:lang="fr"><seg>b</seg></tuv></tu>'
TMX = f'<tmx version="1.4"><body>{UNIT}</body></tmx>'
FILES = {
    "t.tsv": "a\tb\nc\td\n",
    "short.tsv": "a\tb\nc\n",
    "named.csv": "English,German\na,b\n",
    "semi.csv": "English;German\na;b\n",
    "latin.csv": "English,German\na,sch\u00f6n\n".encode("latin-1"),
    "quote.csv": 'English,German\na,"b\n',
    "key.jsonl": '{"en": "a", "de": "b"}\n{"en": "c"}\n',
    "array.jsonl": '[{"en": "a", "de": "b"}]',
    "number.jsonl": '{"en": 1, "de": "b"}\n',
    "m.tmx": TMX,
    "amp.tmx": TMX.replace(">a<", ">R&D<"),
    "cut.tmx": TMX[:60],
    "xliff.tmx": "<xliff/>",
    "broken.zip": b"PK\x03\x04junk",
    "no.parquet": b"no",
    "no.xlsx": b"no",
    "objects.en": '{"en": "a"}\n',
    "wide.en": "a\nb\n".encode("utf-16"),
    "lines.de": "b\n",
}
MISTAKES = {
    "{tsv: t.tsv, src: English, tgt: German}": "t.tsv:1: there is no column 'English'; choose one of the",
    "{tsv: short.tsv, src: 0, tgt: 1}": "short.tsv:2: has 1 cell, but column 1",
    "{tsv: t.tsv, src: -1, tgt: 1}": "data.train.src: must be text or a whole number >= 0, not -1",
    "{tsv: part-*.tsv, src: 0, tgt: 1}": "data.train.tsv: no such file:",
    "{tvs: t.tsv, src: 0, tgt: 1}": "data.train.tsv: missing; tables with tabs",
    "{csv: semi.csv, src: English, tgt: German}": "semi.csv:1: the first row has one cell, 'English;German',",
    "{csv: latin.csv, src: English, tgt: German}": "latin.csv:2: not valid UTF-8",
    "{csv: quote.csv, src: English, tgt: German}": "quote.csv:2: a quote opens a cell in this row and is never closed",
    "{csv: named.csv, src: English, tgt: English}": "data.train.tgt: must be another column than src, 'English'",
    "{csv: named.csv, src: English, tgt: German, delimiter: ';;'}": "data.train.delimiter: must be one character",
    "{csv: named.csv, tsv: t.tsv, src: 0, tgt: 1}": "data.train: has the keys tsv and csv,",
    "{jsonl: key.jsonl, src: en, tgt: de}": "key.jsonl:2: there is no key 'de'; choose one of the keys 'en'",
    "{jsonl: array.jsonl, src: en, tgt: de}": "array.jsonl:1: the file is JSON, not JSON lines; convert it first: jq",
    "{jsonl: number.jsonl, src: en, tgt: de}": "number.jsonl:1: the value of 'en' is a number, not a string",
    "{tmx: m.tmx, src_lang: en, tgt_lang: de}": "m.tmx: no unit in de; its languages: en-US (1), fr (1); set tgt_lang",
    "{tmx: m.tmx, src_lang: en, tgt_lang: en}": "data.train.tgt_lang: must be another language than src_lang, 'en'",
    "{tmx: m.tmx, src_lang: en}": "data.train.tgt_lang: missing; target language",
    "{tmx: amp.tmx, src_lang: en, tgt_lang: fr}": 'amp.tmx:1: unit 1: an ampersand "&" stands alone',
    "{tmx: cut.tmx, src_lang: en, tgt_lang: fr}": "cut.tmx:1: unit 1: the file ends before </tmx>",
    "{tmx: xliff.tmx, src_lang: en, tgt_lang: fr}": "xliff.tmx:1: is XLIFF (<xliff>), not TMX",
    "{moses: broken.zip, src_lang: en, tgt_lang: fr}": "broken.zip: cannot read further",
    "{parquet: no.parquet, src: en, tgt: fr}": "no.parquet: is not a Parquet file",
    "{xlsx: no.xlsx, src: en, tgt: fr}": "no.xlsx: is not an .xlsx file",
    "{src: m.tmx, tgt: lines.de}": "m.tmx: is a TMX file, not plain lines; write {tmx: FILE, src_lang:",
    "{src: objects.en, tgt: lines.de}": "objects.en: is JSON, not plain lines; write {jsonl: FILE, src: KEY, tgt: KEY}",
    "{src: named.csv, tgt: named.csv}": "data.train.src: named.csv is a table by its name; write {csv: FILE,",
    "{src: wide.en, tgt: lines.de}": "wide.en: is UTF-16, not UTF-8; convert it first: iconv",
    "[{tsv: t.tsv, src: 0, tgt: 1}, {tsv: gone.tsv, src: 0, tgt: 1}]": "data.train.1.tsv: no such file:",
    "[]": "data.train: must be a dataset or a list of datasets, not []",
}


@pytest.mark.parametrize("train", MISTAKES)
def test_a_mistake_has_its_place(train: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a traceback, a message without place or remedy, and a run that begins on text that is none."""
    for name, content in FILES.items():
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["train", "toy.yaml", f"data.train={train}"]) == 2
    message = capsys.readouterr().err.split(": error: ")[1]
    assert MISTAKES[train] in message
    assert len(message.splitlines()) <= 2  # one for each key that is wrong
    assert not (place / "run/checkpoints").exists()
    assert not list(place.rglob("corpus*"))


def test_validation_pairs_are_held_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole run with data.valid: 6, which continues; guards against text that is validated with and trained on."""
    assert main(["train", "toy.yaml", "data.valid=6", "train.max_steps=6"]) == 0
    out = capsys.readouterr().out
    assert "valid: 6 pairs taken out of train; 0 other pairs with their sources are in neither" in out
    assert "train: 54 of 54 pairs kept" in out
    assert "valid: 6 of 6 pairs kept" in out
    assert main(["train", "toy.yaml", "data.valid=6"]) == 0
    assert "continuing after step 6" in "".join(capsys.readouterr())
    assert main(["train", "toy.yaml", "data.valid=5"]) == 2
    assert "its text has changed" in capsys.readouterr().err
    with without_dry_run():
        assert main(["doctor", "toy.yaml", "data.valid=10%", "run_dir=other", "data.max_ratio=90"]) in (0, 2)
    report = capsys.readouterr().out
    assert "Text of train: 60 pairs" in report
    assert not re.search(r"\(\d+ and \d+ tokens\)", report)  # as of a pair that is left out for its length


def test_an_override_of_a_column_is_no_path(place: Path) -> None:
    """Guards against src of a table that is taken for src of plain files, and becomes a path of the current folder."""
    table = "data.train={csv: a.csv, src: source, tgt: target}"
    (dataset,) = load_config(place / "toy.yaml", [table, "data.train.src=English", "data.train.csv=b.csv"]).data.train
    assert dataset == CsvFiles(csv=place / "b.csv", src="English", tgt="target")


def test_a_printed_config_shows_the_files_first(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against files that people look for behind six keys that they never set."""
    assert main(["config", "toy.yaml", "data.train={tsv: a.tsv, src: 0, tgt: 1, weight: 2}"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"tsv:\s+- \S+a.tsv\s+src: 0\s+tgt: 1\s+name: null", shown)
