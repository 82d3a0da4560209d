"""Promise: ``seq2seq clean`` writes the clean text and the rest, whole or not at all, and mistakes are one line."""

import json
import sys
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from seq2seq.config import TextFiles
from seq2seq.data import clean_output, clean_rules
from seq2seq.data.formats.pairs import fingerprint_text
from seq2seq.files import checksum_file

CONFIG = """\
run_dir: run
data:
  train:
  - {src: a.en, tgt: a.de}
  - {tsv: b.tsv, src: 0, tgt: 1}
  valid: {src: v.en, tgt: v.de}
  clean: {identical: true, numbers: true}
"""
FILES = {
    "a.en": "one\n5 two\nsame\tword\nseen!\n\n",
    "a.de": "eins\n6 zwei\nsame word\ngesehen\n\n",
    "b.tsv": "three\tdrei\nfour\tfour\n",
    "v.en": "Seen\n",
    "v.de": "gesehen.\n",
}


@pytest.fixture(autouse=True)
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config c.yaml and its text in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, content in {**FILES, "c.yaml": CONFIG}.items():
        Path(name).write_text(content, encoding="utf-8")


def test_the_folder_has_all_that_was_promised(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against pairs that are in neither file, columns that shift, and a manifest about other files."""
    assert main(["clean", "c.yaml", "--output", "out/clean"]) == 0
    out = Path("out/clean")
    counts = {"overlap": 1, "identical": 2, "numbers": 1}
    assert capsys.readouterr().out.splitlines() == [
        "train: 3 of 7 pairs are clean; left out: 1 in valid or test, 2 identical, 1 with other numbers",
        "written to out/clean",
    ]
    assert (out / "train.en").read_bytes() == b"one\n\nthree\n"
    assert (out / "train.de").read_bytes() == b"eins\n\ndrei\n"
    here = Path.cwd()
    assert (out / "left_out.tsv").read_text(encoding="utf-8").splitlines() == [
        f"numbers\t{here}/a.en:2\t5 two\t6 zwei",
        f"identical\t{here}/a.en:3\tsame word\tsame word",
        f"overlap\t{here}/a.en:4\tseen!\tgesehen",
        f"identical\t{here}/b.tsv:2\tfour\tfour",
    ]
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["pairs"], manifest["clean"], manifest["left_out"]) == (7, 3, counts)
    assert [rules["numbers"] for rules in manifest["rules"]] == [True, True]
    for name, made in manifest["output"].items():
        assert made == {"pairs": 4 if name == "left_out.tsv" else 3, "blake2b": checksum_file(out / name)}
    for part, names in {"train": ["a.en", "a.de", "b.tsv"], "valid": ["v.en", "v.de"]}.items():
        assert manifest["input"][part] == [
            {"file": f"{here}/{name}", "blake2b": checksum_file(Path(name))} for name in names
        ]
    assert sorted(path.name for path in out.parent.iterdir()) == ["clean"]


def test_the_written_text_is_clean() -> None:
    """Guards against a text that another run would clean again, or that is not what a run sees."""
    assert main(["clean", "c.yaml", "--output", "out"]) == 0
    again = ["data.train={src: out/train.en, tgt: out/train.de}"]
    assert main(["clean", "c.yaml", *again, "--output", "twice"]) == 0
    first, second = (TextFiles(src=f"{folder}/train.en", tgt=f"{folder}/train.de") for folder in ("out", "twice"))
    assert fingerprint_text(first) == fingerprint_text(second)
    assert Path("twice/left_out.tsv").read_bytes() == b""


def test_files_are_named_by_languages() -> None:
    """Guards against names that a shell or a file system does not take, and one name for both sides."""
    assert main(["clean", "c.yaml", "data.src_lang=zh_CN", "data.tgt_lang=a/b", "--output", "stated"]) == 0
    assert {path.name for path in Path("stated").glob("train.*")} == {"train.zh_CN", "train.a_b"}
    assert main(["clean", "c.yaml", "data.train={tsv: b.tsv, src: 0, tgt: 1}", "--output", "none"]) == 0
    assert {path.name for path in Path("none").glob("train.*")} == {"train.src", "train.tgt"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "a.en"], "a.en: exists already; choose another folder, or remove this one"),
        (["--output", "out", "data.train.0.tgt=v.de"], "a.en has 5 lines but "),
        (["--output", "out", "data.clean.identical=1"], "data.clean.identical: must be true or false, not 1"),
        (["--output", "out", "data.clean.identicall=true"], "unknown key; did you mean identical?"),
        (["--output", "out", "data.clean={min_characters: 3, max_characters: 2}"], "be at most max_characters (2)"),
        (["--output", "out", "data.clean.min_characters=9"], "none of the 7 pairs is left: 1 in valid or test, 2"),
        (["--output", "out", "data.valid.clean={identical: true}"], "data.valid.clean: is for training text only;"),
        (["--output", "out", "data.train.1.score=2"], "data.train.1.min_score: missing; state it with score, or"),
        (["--output", "out", "data.train.1={tsv: b.tsv, src: 0, tgt: 1, score: 1, min_score: 0}"],
         "b.tsv:1: the score is 'drei', not a number; correct it, or leave out score and min_score"),
        (["--output", "out", "data.train.0.clean={max_characters: 1}", "data.clean.min_characters=3"],
         "data.train.0.clean.min_characters: must be at most max_characters (1), not 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a traceback, a text that is replaced, and a folder with half a text."""
    assert main(["clean", "c.yaml", *arguments]) == 2
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")  # a bar has CRs
    assert len(lines) == 1
    assert message in lines[0]
    assert Path("a.en").read_text(encoding="utf-8") == FILES["a.en"]
    assert not list(Path().glob("*out*"))


def test_a_text_that_cannot_be_written_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against half a text that looks whole after a full disk."""

    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clean_output, "table_row", full)
    assert main(["clean", "c.yaml", "--output", "out"]) == 2
    assert "out: cannot be written: no space left on the device" in capsys.readouterr().err
    assert not list(Path().glob("*out*"))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a traceback where the extra langid is not installed."""
    clean_rules._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "eldc", None)
    assert main(["clean", "c.yaml", "data.clean.language=true", "--output", "out"]) == 2
    assert "data.clean.language: telling languages needs the package eldc; pip install eldc" in capsys.readouterr().err


def test_every_file_of_a_dataset_is_in_the_manifest() -> None:
    """Guards against patterns in place of files, and held-out pairs taken for a text."""
    Path("b2.tsv").write_text("x\ty\n", encoding="utf-8")
    assert main(["clean", "c.yaml", "data.train={tsv: b*.tsv, src: 0, tgt: 1}", "data.valid=1", "--output", "out"]) == 0
    (part,) = json.loads(Path("out/manifest.json").read_text(encoding="utf-8"))["input"].values()
    assert [Path(each["file"]).name for each in part] == ["b.tsv", "b2.tsv"]
