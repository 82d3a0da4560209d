"""Parts of a file, translated alone and merged: the bytes of one process, or one line about what is wrong."""

import gzip
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from seq2seq.decode import windows
from seq2seq.decode.shards import parse_shard
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from seq2seq.files import sealed_json
from tests.toy import sentences, write_lines

COUNT = 3
LINES = 30


@pytest.fixture(scope="module", autouse=True)
def _small_windows() -> Iterator[None]:
    """Eight windows in thirty lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW_LINES", 4)
        yield


def write_text(folder: Path) -> None:
    """Ordinary lines, a blank one, one too long, one that is not UTF-8."""
    lines = [src.encode() for src, _ in sentences(LINES, seed=8)]
    lines[5:8] = b"", b"ren " * 40, b"ka\xff"
    (folder / "in").write_bytes(b"\n".join(lines))
    (folder / "in.gz").write_bytes(gzip.compress(b"\n".join(lines)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the text, to work in."""
    write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def parts(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the text and its translation in parts, to be copied."""
    folder = tmp_path_factory.mktemp("parts")
    write_text(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        all_parts(model)
    return folder


def translate(model: Path, *options: str, source: str = "in", target: str = "out") -> int:
    arguments = ["translate", str(model), "--input", source, "--output", target, "--device", "cpu", *options]
    return main(arguments)


def all_parts(model: Path, *options: str, source: str = "in", target: str = "out", count: int = COUNT) -> None:
    for number in range(1, count + 1):
        assert translate(model, *options, "--shard", f"{number}/{count}", source=source, target=target) == 0


@pytest.mark.parametrize(
    ("options", "source", "target"),
    [
        ((), "in", "out"),
        (("--resume",), "in.gz", "out.gz"),
        (("--format", "tsv", "--n-best", "2", "--scores", "--flags"), "in.gz", "out.tsv"),
        (("--sample", "--n-best", "2"), "in", "out"),
        (("--prefix", "begin", "--glossary", "terms.csv"), "in", "out"),
        (("--invalid-bytes", "blank"), "in", "out"),
    ],
)
def test_parts_make_the_whole(options: tuple[str, ...], source: str, target: str, model: Path, place: Path) -> None:
    """Guards against lines lost, doubled or in another order, line numbers and random numbers of a part, prefixes of
    other lines, and a compressed text whose lines nobody counted."""
    write_lines(place / "begin", ["dor" if number % 3 == 0 else "" for number in range(LINES)])
    (place / "terms.csv").write_text("kato,gu\n", encoding="utf-8")
    assert translate(model, *options, source=source, target=f"whole-{target}") == 0
    all_parts(model, *options, source=source, target=target)
    assert not (place / target).exists()
    assert main(["merge", target]) == 0
    assert (place / target).read_bytes() == (place / f"whole-{target}").read_bytes()
    records = [json.loads((place / f"{target}.shard-{n}-of-{COUNT}.json").read_text()) for n in range(1, COUNT + 1)]
    assert [(record["first"], record["last"]) for record in records] == [(1, 8), (9, 20), (21, 30)]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("data", [b"", b"kato\n"])
def test_more_parts_than_lines(
    data: bytes, ending: str, model: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against an empty part that is refused, or adds bytes."""
    (place / "in").write_bytes(data)
    assert translate(model, target=f"whole{ending}") == 0
    all_parts(model, target=f"out{ending}")
    assert "this part has no lines" in capsys.readouterr().err
    assert main(["merge", f"out{ending}"]) == 0
    assert (place / f"out{ending}").read_bytes() == (place / f"whole{ending}").read_bytes()


def test_a_part_is_resumed(
    model: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a part that is continued at a line of the whole file, or with another source; the record of a
    part that was complete when its process was killed is written after all."""
    assert translate(model, target="whole") == 0
    whole = Translator._translate_window

    def terminated(translator: Translator, lines: list[str], first: int, *rest: object) -> object:
        if first == 16:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(translator, lines, first, *rest)

    second = "--resume", "--shard", f"2/{COUNT}"
    monkeypatch.setattr(Translator, "_translate_window", terminated)
    assert translate(model, *second) == 143
    assert "the first 16 lines are saved" in capsys.readouterr().err
    assert not (place / "out.shard-2-of-3.json").exists()
    monkeypatch.setattr(Translator, "_translate_window", whole)
    text = (place / "in").read_bytes()
    (place / "in").write_bytes(text + b"\nkato")
    assert translate(model, *second) == 2
    assert "source was" in capsys.readouterr().err
    (place / "in").write_bytes(text)
    all_parts(model, "--resume")
    (place / "out.shard-2-of-3.json").unlink()
    assert translate(model, *second) == 0
    assert "nothing is left to do" in capsys.readouterr().err
    assert main(["merge", "out"]) == 0
    assert (place / "out").read_bytes() == (place / "whole").read_bytes()


def _missing(place: Path) -> None:
    (place / "out.shard-2-of-3").unlink()


def _missing_at_the_end(place: Path) -> None:
    for ending in ("", ".json"):
        (place / f"out.shard-3-of-3{ending}").unlink()


def _without_record(place: Path) -> None:
    (place / "out.shard-2-of-3.json").unlink()


def _truncated(place: Path) -> None:
    path = place / "out.shard-2-of-3"
    path.write_bytes(path.read_bytes()[:-3])


def _longer(place: Path) -> None:
    with (place / "out.shard-2-of-3").open("ab") as file:
        file.write(b"dor\n")


def _changed(place: Path) -> None:
    path = place / "out.shard-2-of-3"
    data = path.read_bytes()
    path.write_bytes((b"e" if data[:1] == b"d" else b"d") + data[1:])


def _doubled(place: Path) -> None:
    for ending in ("", ".json"):
        shutil.copy(place / f"out.shard-1-of-3{ending}", place / f"out.shard-2-of-3{ending}")


def _edited(place: Path) -> None:
    path = place / "out.shard-2-of-3.json"
    path.write_text(path.read_text().replace('"first": 9', '"first": 1'))


def _another_kind(place: Path) -> None:
    (place / "out.shard-2-of-3.json").write_text("[]\n")


def _renumbered(place: Path) -> None:
    path = place / "out.shard-2-of-3.json"
    path.write_bytes(sealed_json({**json.loads(path.read_bytes()), "first": 10}) + b"\n")


def _fewer_rows(place: Path) -> None:
    path = place / "out.shard-2-of-3.json"
    path.write_bytes(sealed_json({**json.loads(path.read_bytes()), "rows": 11}) + b"\n")


def _another_division(place: Path) -> None:
    shutil.copy(place / "out.shard-1-of-3", place / "out.shard-1-of-8")


@pytest.mark.parametrize(
    ("harm", "name", "message"),
    [
        (_missing, "out.shard-2-of-3", "is missing"),
        (_missing_at_the_end, "out.shard-3-of-3", "is missing"),
        (_without_record, "out.shard-2-of-3.json", "is missing"),
        (_truncated, "out.shard-2-of-3", "is truncated"),
        (_longer, "out.shard-2-of-3", "is too long"),
        (_changed, "out.shard-2-of-3", "its checksum differs"),
        (_doubled, "out.shard-2-of-3", "is part 1 of 3 under another name"),
        (_edited, "out.shard-2-of-3.json", "damaged"),
        (_another_kind, "out.shard-2-of-3.json", "damaged, or not a record"),
        (_renumbered, "out.shard-2-of-3", "begins with line 10, but line 9 is next"),
        (_fewer_rows, "out.shard-2-of-3", "has 12 lines for 12"),
        (_another_division, "out.shard-1-of-8", "which have the same lines"),
    ],
)
def test_what_is_wrong_is_named(
    harm: Callable[[Path], None],
    name: str,
    message: str,
    parts: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Guards against a whole made of parts of which one is missing, doubled, truncated or damaged."""
    shutil.copytree(parts, place, dirs_exist_ok=True)
    (place / "out").write_bytes(b"earlier\n")
    harm(place)
    before = sorted(os.listdir(place))
    capsys.readouterr()
    assert main(["merge", "out"]) == 2
    error = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert error.startswith(f"seq2seq merge: error: {name}: ")
    assert message in error
    assert (place / "out").read_bytes() == b"earlier\n"
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize("other", [("--beam-size", "3"), ("--format", "tsv"), ("source",)])
@pytest.mark.parametrize("foreign", [1, 3])
def test_a_foreign_part_is_named(
    foreign: int, other: tuple[str, ...], model: Path, parts: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a part of other options or another text, whichever it is: the one that differs is named."""
    shutil.copytree(parts, place, dirs_exist_ok=True)
    if other == ("source",):
        (place / "in").write_bytes((place / "in").read_bytes().replace(b"ren", b"sol"))
        other = ()
    assert translate(model, *other, "--shard", f"{foreign}/{COUNT}") == 0
    capsys.readouterr()
    assert main(["merge", "out"]) == 2
    error = capsys.readouterr().err
    assert f"out.shard-{foreign}-of-3: is of another run: " in error
    assert ("source has other text" if not other else other[1]) in error


def test_nothing_to_merge(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against an empty file out of nothing, and a traceback for a folder that is not there."""
    for name in ("out", "nowhere/out"):
        assert main(["merge", name]) == 2
        assert "nothing to merge" in capsys.readouterr().err


def test_a_part_needs_files(model: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a part of a pipe, which nobody else can read, and one of --text."""
    for options in (["--input", "in"], ["--output", "out"], ["--text", "kato", "--output", "out"]):
        assert main(["translate", str(model), *options, "--shard", "1/3"]) == 2
        assert "--shard: give --" in capsys.readouterr().err
    assert sorted(os.listdir(place)) == ["in", "in.gz"]


def slurm(number: object, least: object = None, count: object = None, most: object = None) -> dict[str, str]:
    names = {"ID": number, "MIN": least, "COUNT": count, "MAX": most}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in names.items() if value is not None}


KUBERNETES = {"JOB_COMPLETION_INDEX": "2"}


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("3/8", {}, (3, 8)),
        ("1/1", slurm(5), (1, 1)),  # what is given counts, whatever is set
        ("auto/8", slurm(3), (3, 8)),
        ("auto/8", slurm(3, 3, 1, 3), (3, 8)),  # one task of the array, started again
        ("auto/8", KUBERNETES, (3, 8)),
        ("auto", slurm(1, 1, 8, 8), (1, 8)),
        ("auto", slurm(0, 0, 8, 7), (1, 8)),
        ("auto", slurm(7, 0, 8, 7), (8, 8)),
    ],
)
def test_the_number_of_a_part(text: str, environment: dict[str, str], expected: tuple[int, int]) -> None:
    """Guards against two processes with one part: numbers count from 1, those of Kubernetes from 0."""
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("3", {}, "give 3/8"),
        ("3/8/1", {}, "give 3/8"),
        ("-1/8", {}, "give 3/8"),
        ("0/8", {}, "parts are 1 to 8"),
        ("9/8", {}, "parts are 1 to 8"),
        ("1/0", {}, "does not exist"),
        ("auto", {}, "neither"),
        ("auto/8", {**slurm(1), **KUBERNETES}, "both"),
        ("auto", KUBERNETES, "give auto/N"),
        ("auto/2", KUBERNETES, "JOB_COMPLETION_INDEX: part 3 of 2"),
        ("auto/8", slurm(0), "--array=1-8"),
        ("auto/8", slurm("x"), "is 'x', not a number"),
        ("auto", slurm(3), "SLURM_ARRAY_TASK_MIN is not set"),
        ("auto", slurm(4, 0, 3, 4), "has gaps"),
    ],
)
def test_a_wrong_part_is_refused(text: str, environment: dict[str, str], message: str) -> None:
    """Guards against a part taken from a variable that says something else."""
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse_shard(text, environment)


def test_random_parts_of_random_texts(model: Path, place: Path) -> None:
    """Guards against cuts at the wrong place, for any number of lines and parts, also where windows end early."""
    rng = random.Random(5)
    for _ in range(3):
        count = rng.randrange(1, 7)
        lines = rng.choices([src for src, _ in sentences(20, seed=3)], k=rng.randrange(1, 40))
        write_lines(place / "in", lines)
        assert translate(model, "--beam-size", "1", "--format", "tsv", target="whole") == 0
        for old in place.glob("out*"):
            old.unlink()
        all_parts(model, "--beam-size", "1", "--format", "tsv", count=count)
        assert main(["merge", "out"]) == 0
        assert (place / "out").read_bytes() == (place / "whole").read_bytes()
