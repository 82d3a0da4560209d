"""Promise: `doctor --list` writes every line and pair with a finding once, with its place, and never half a file."""

import errno
import os
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from seq2seq.data.formats import pairs as formats
from seq2seq.data.prepare import prepare_data
from seq2seq.doctor.listing import write_list
from seq2seq.doctor.run import inspect
from seq2seq.doctor.text import judge_characters, judge_text
from seq2seq.doctor.tokens import judge_tokens
from tests.toy import toy_config, write_config, write_lines, write_text_files

Found = list[tuple[str, str, str]]  # finding, place, other place


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with toy text, from beside which commands run."""
    monkeypatch.chdir(tmp_path)
    return write_text_files(tmp_path / "text")


def clean(count: int, name: str) -> tuple[list[str], list[str]]:
    """Pairs without findings."""
    src = [f"Sentence {i} of the {name} text, which is in order" for i in range(1, count + 1)]
    return src, [f"Предложение {i} текста {name}, с которым всё хорошо" for i in range(1, count + 1)]


def cells(path: Path) -> list[list[str]]:
    head, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert head == ["finding", "place", "other place", "source", "target"]
    return rows


def found(path: Path) -> Found:
    return [(finding, place, other) for finding, place, other, _, _ in cells(path)]


def test_every_kind_is_listed_once(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against findings that the report counts and the list lacks, or has twice or at another place."""
    src, tgt = clean(60, "train")
    whole, other_accent = "e" * 60, "caf" + "e\u0301"
    for number, line in {
        3: "",
        6: "A letter that is lost \ufffd in this line",
        8: "A <b>bold</b> word in this line",
        9: "The wom@@ an has many more books",
        10: "The woman has many books .",
        13: whole * 5,
        15: "λέξη αριθμός πρόταση κειμένου",
        16: "A tab\there in this line",
        18: f"The {other_accent} is closed in this line",
    }.items():
        src[number - 1] = line
    for number, line in {
        5: "Слово\x07 и ещё немного слов",
        7: "Ã©tÃ© и ещё немного слов в этой строке",
        17: "Мягкий пере\u00adнос в строке",
    }.items():
        tgt[number - 1] = line
    tgt[10] = src[10]
    src[11], tgt[11] = src[1], tgt[1]
    src[13], tgt[13] = tgt[13], src[13]
    tgt += ["", "Лишняя строка\u2028без пары"]
    write_lines(text / "train.xx", src)
    write_lines(text / "train.yy", tgt)
    (text / "train.yy").write_bytes((text / "train.yy").read_bytes().replace("Предложение 4 ".encode(), b"\xd0 4 "))
    valid = clean(6, "valid")
    valid[0][1], valid[1][1] = src[19], tgt[19]
    valid[0][2] = src[20].upper()
    write_lines(text / "valid.xx", valid[0])
    write_lines(text / "valid.yy", valid[1])

    config = str(write_config(text, text.parent / "run"))
    main(["doctor", config])
    before = capsys.readouterr().out
    assert main(["doctor", config, "--list", "bad.tsv"]) == 2
    after, last = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    assert after + "\n" == before
    x, y = "text/train.xx:{}".format, "text/train.yy:{}".format
    expected = [
        ("blank", x(3), y(3)),
        ("invalid UTF-8", y(4), x(4)),
        ("control character", y(5), x(5)),
        ("lost character", x(6), y(6)),
        ("double encoding", y(7), x(7)),
        ("HTML", x(8), y(8)),
        ("subword mark", x(9), y(9)),
        ("tokenised", x(10), y(10)),
        ("target equal to source", x(11), y(11)),
        ("repeated pair", x(12), x(2)),
        ("unlike lengths", x(13), y(13)),
        ("swapped sides", x(14), y(14)),
        ("foreign script", x(15), y(15)),
        ("other white space", x(16), y(16)),
        ("invisible character", y(17), x(17)),
        ("decomposed", x(18), y(18)),
        ("blank", y(61), ""),
        ("control character", y(62), ""),
        ("in train", "text/valid.xx:2", x(20)),
        ("source in train", "text/valid.xx:3", x(21)),
    ]
    assert found(Path("bad.tsv")) == expected
    for finding, phrase in {"blank": "blank lines", "in train": "pairs of train", "HTML": "HTML"}.items():
        number = Counter(name for name, *_ in expected)[finding]
        assert f" {phrase}: {number} (" in before
        assert re.search(rf"^bad\.tsv: 20 rows: .*\b{number} {finding}(,|$)", last)
    texts = {(finding, place): texts for finding, place, _, *texts in cells(Path("bad.tsv"))}
    assert texts["invalid UTF-8", y(4)] == [src[3], "\\xd0 4 текста train, с которым всё хорошо"]
    assert texts["other white space", x(16)][0] == "A tab here in this line"
    assert texts["control character", y(62)] == ["", "Лишняя строка без пары"]


def test_other_formats_keep_their_places(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against places in a format's text in place of those that its users count, and against mixed-up files."""
    src, tgt = clean(6, "memory")
    src[3], tgt[1] = "", ""
    units = [
        f'<tu><tuv xml:lang="xx"><seg>{a}</seg></tuv><tuv xml:lang="yy"><seg>{b}</seg></tuv></tu>'
        for a, b in zip(src, tgt, strict=True)
    ]
    (text / "memory.tmx").write_text(f'<tmx version="1.4"><body>{"".join(units)}</body></tmx>', encoding="utf-8")
    rows = [f'"{a}",{b.replace(",", "")}' for a, b in zip(*clean(4, "sheet"), strict=True)]
    rows[1:3] = ['"Two lines\nin a cell of the sheet",', f"{src[0].replace(',', '')},{tgt[0].replace(',', '')}"]
    (text / "sheet.csv").write_text("\n".join(["a,b", *rows]) + "\n", encoding="utf-8")
    train = "data.train=[{tmx: text/memory.tmx, src_lang: xx, tgt_lang: yy}, {csv: text/sheet.csv, src: a, tgt: b}]"
    config = toy_config(text, text.parent / "run", train)
    parts = inspect(config)
    said = write_list(Path("bad.tsv"), parts, [*judge_text(parts), judge_characters(parts, True)])
    assert [row for row in found(Path("bad.tsv")) if "valid" not in row[1]] == [
        ("blank", "text/memory.tmx: unit 2", ""),
        ("blank", "text/memory.tmx: unit 4", ""),
        ("blank", "text/sheet.csv:3", ""),
        ("repeated pair", "text/sheet.csv:5", "text/memory.tmx: unit 1"),
    ]
    assert ["Two lines in a cell of the sheet", ""] in [row[3:] for row in cells(Path("bad.tsv"))]
    assert "3 blank" in said


def test_starts_of_drifts_are_listed(text: Path) -> None:
    """Guards against a list that names only the three drifts in the report, not all that doctor has found."""
    words = random.Random(1)
    lines = [
        "w" * words.randint(1, 9) + " word, " * words.randint(0, 9) + "1" * words.randint(0, 5) for _ in range(6000)
    ]
    removed = [900, 2100, 3300, 4500]
    write_lines(text / "train.xx", lines)
    write_lines(text / "train.yy", [line for i, line in enumerate(lines) if i not in removed])
    parts = inspect(toy_config(text, text.parent / "run"))
    write_list(Path("bad.tsv"), parts, list(judge_text(parts)))
    starts = [place for finding, place, _ in found(Path("bad.tsv")) if finding == "drift"]
    assert len(starts) == 4
    for place, line in zip(starts, removed, strict=True):
        assert abs(int(place.rpartition(":")[2]) - line) < 20


@pytest.mark.parametrize("held_out", [False, True])
def test_findings_about_tokens_are_listed(text: Path, held_out: bool) -> None:
    """Guards against lost pairs that are only counted, and against held-out pairs that are taken for lost ones."""
    src, tgt = ((text / f"train.{side}").read_text(encoding="utf-8").split("\n")[:-1] for side in ("xx", "yy"))
    long = "kato miren " * 12
    src[4], src[6], tgt[8], tgt[11] = long + "a", long + "b", "dor", "龘 dor"
    src[8] = "kato miren solvu pa lin ka"
    write_lines(text / "train.xx", src)
    write_lines(text / "train.yy", tgt)
    (text / "valid.xx").write_text(long + "\n" + (text / "valid.xx").read_text(encoding="utf-8"), encoding="utf-8")
    (text / "valid.yy").write_text("dor\n" + (text / "valid.yy").read_text(encoding="utf-8"), encoding="utf-8")
    options = ["tokenizer.character_coverage=0.99", "tokenizer.vocab_size=340", "data.max_ratio=2.5"]
    config = toy_config(text, text.parent / "run", *options, *(["data.valid=20"] if held_out else []))
    parts, data = inspect(config), prepare_data(config, show_progress=False)
    section = judge_tokens(config, data, parts)
    write_list(Path("bad.tsv"), parts, [section])
    counts = Counter(row[0] for row in found(Path("bad.tsv")))
    assert counts["too long"] == data.train.counts.too_long
    assert counts["too different lengths"] == data.train.counts.ratio
    listed = {(finding, int(place.rpartition(":")[2])) for finding, place, _ in found(Path("bad.tsv"))}
    if not held_out:
        assert {("too long", 5), ("too long", 7), ("too different lengths", 9), ("spelled as bytes", 12)} <= listed
        assert ("validation too long", "text/valid.xx:1", "text/valid.yy:1") in found(Path("bad.tsv"))
        return
    shown = " ".join(str(section).split())
    assert f"data.max_length (24 tokens): {counts['too long']} (" in shown
    # The long line that is held out is found by its source.
    out = [f"text/train.xx:{src.index(line) + 1}" for line in data.valid_text.src if line.startswith(long)]
    assert [row[1] for row in found(Path("bad.tsv")) if row[0] == "validation too long"] == out
    assert len(out) + counts["too long"] == 2


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("text", "is a folder; name a file in it"),
        ("none/bad.tsv", "there is no folder none; create it, or name a file in another folder"),
        ("pipe", "is no regular file; name a new file"),
        ("link", "would replace a file that is read here; name another file"),
        ("run.yaml", "would replace a file that is read here; name another file"),
    ],
)
def test_a_wrong_file_is_refused_at_once(
    text: Path, capsys: pytest.CaptureFixture[str], path: str, problem: str
) -> None:
    """Guards against a minute of work whose list cannot be written, and against a list in place of the text."""
    os.mkfifo("pipe")
    Path("link").symlink_to(text / "train.yy")
    before = (text / "train.yy").read_bytes()
    config = str(write_config(text, text.parent / "run"))
    assert main(["doctor", config, "--list", path]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"seq2seq doctor: error: --list {path}: {problem}\n"
    assert not captured.out
    assert (text / "train.yy").read_bytes() == before


def test_a_full_disk_leaves_the_old_list(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against half a list under the final name, leftovers, and a traceback."""
    write_lines(text / "valid.yy", ["fe"])  # so that nothing is trained
    config = str(write_config(text, text.parent / "run"))
    Path("bad.tsv").write_text("old", encoding="utf-8")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["doctor", config, "--list", "bad.tsv"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(
        "bad.tsv: cannot be written: no space left on the device; free some space and run the same command again"
    )
    assert Path("bad.tsv").read_text(encoding="utf-8") == "old"
    assert not list(text.parent.glob(".bad.tsv*"))


def test_a_link_stays_a_link(text: Path) -> None:
    """Guards against a list beside the file that the user's link leads to."""
    write_lines(text / "valid.yy", ["fe"])  # so that nothing is trained
    Path("bad.tsv").write_text("old", encoding="utf-8")
    Path("link").symlink_to("bad.tsv")
    main(["doctor", str(write_config(text, text.parent / "run")), "--list", "link"])
    assert Path("link").is_symlink()
    assert Path("bad.tsv").read_text(encoding="utf-8").startswith("finding\t")


def test_the_text_is_streamed(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a list that holds all its texts in memory, and against a pass over the text for each finding."""
    for side in ("xx", "yy"):
        write_lines(text / f"train.{side}", [f"<b>{i}</b> word" for i in range(300)])
    parts = inspect(toy_config(text, text.parent / "run"))
    sections = list(judge_text(parts))
    opened: list[str] = []
    read = formats.read_lines

    def long_lines(path: Path, *, plain: bool) -> Iterator[bytes]:
        opened.append(path.name)
        return (line + b" word" * 10_000 for line in read(path, plain=plain))

    monkeypatch.setattr(formats, "read_lines", long_lines)
    tracemalloc.start()
    said = write_list(Path("bad.tsv"), parts, sections)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "600 HTML" in said
    assert Path("bad.tsv").stat().st_size > 60_000_000
    assert peak < 6_000_000
    assert sorted(name for name in opened if name.startswith("train")) == ["train.xx", "train.yy"]
