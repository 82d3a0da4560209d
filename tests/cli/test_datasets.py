"""Promise: text in any format trains what two plain files with the same pairs train, and is reported by its place."""

import csv
import json
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from tests.toy import sentences, weights, write_lines


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
    main(["doctor", "toy.yaml", *overrides])
    report = capsys.readouterr().out
    assert "a.csv:22: two lines <b>" in report
    assert "a.csv:24: <i>" in report
    assert "b.tmx: unit 1: <b>" in report
