"""scripts/compare.py compares like with like, trains nothing twice, and its numbers are those of the runs."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seq2seq.config import load_config
from seq2seq.data.formats.lines import read_text
from seq2seq.evaluate import score
from seq2seq.model_folder import load_model_folder
from tests import toy

sys.path.insert(0, str(toy.ROOT / "data"))
sys.path.insert(0, str(toy.ROOT / "scripts"))

import compare
import generate
from comparison import measure, report, training

_DATA = toy.ROOT / "data"
MINUTES = "5"


def write_config(folder: Path, name: str, *, test: str = "test") -> Path:
    """A config of a toy model that has a test set; the text is in ``folder/text``."""
    path = toy.write_config(folder / "text", folder / name)
    files = f"  test: {{src: {folder}/text/{test}.xx, tgt: {folder}/text/{test}.yy}}\n"
    path.write_text(path.read_text().replace("  max_length", files + "  max_length"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configs ``one`` and ``two`` and, in ``out``, their finished runs; not to be changed."""
    folder = tmp_path_factory.mktemp("comparison")
    toy.write_text_files(folder / "text")
    for name in ("one", "two"):
        path = write_config(folder, name)
        if name == "two":
            path.write_text(path.read_text().replace("d_ff: 32", "d_ff: 48"), encoding="utf-8")
        run_dir = folder / "out" / "runs" / name
        toy.train(load_config(path, [f"run_dir={run_dir}", f"train.max_minutes={MINUTES}"]))
    return folder


@pytest.fixture
def folder(made: Path) -> Path:
    """``made`` with no results in it yet."""
    for name in ("jobs", "logs", "compare.json", "compare.md", "compare.png"):
        path = made / "out" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return made


def run(folder: Path, *arguments: str, names: tuple[str, ...] = ("one", "two")) -> int:
    configs = [str(folder / f"{name}.yaml") for name in names]
    return compare.main([*configs, "--out", str(folder / "out"), "--minutes", MINUTES, *arguments])


def in_this_process(job: str, spec: Any, *_: object) -> dict[str, Any]:
    """What a job of translating does, without the seconds that a new process takes to import PyTorch."""
    from bench import decoding

    return {**decoding.run(spec, *job.split(":")[1:]), "disturbed": ""}


def no_training(*_: object, **options: object) -> None:
    pytest.fail("a finished run was trained again")


def test_finished_runs_are_compared_and_not_trained_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers of table and JSON are those of the runs' own records; a second start takes them as they are."""
    monkeypatch.setattr(training.subprocess, "Popen", no_training)
    monkeypatch.setattr(measure, "run_job", in_this_process)
    monkeypatch.setattr(training.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 2, "", "curves: no"))
    assert run(folder) == 0
    out = capsys.readouterr().out
    records = json.loads((folder / "out/compare.json").read_text())["records"]
    assert [record["model"] for record in records] == ["one", "two"]
    for record in records:
        run_dir = folder / "out/runs" / record["model"]
        scores = json.loads((run_dir / "test.json").read_text())
        steps = toy.metrics(run_dir)
        seconds = [json.loads(line).get("seconds", 0.0) for line in (run_dir / "timing.jsonl").read_text().splitlines()]
        assert {key: record[key] for key in ("bleu", "chrf", "bleu_signature", "chrf_signature")} == {
            key: scores[key] for key in ("bleu", "chrf", "bleu_signature", "chrf_signature")
        }
        tokens = sum(step.get("tokens", 0) for step in steps)
        assert record["training"]["tokens_per_second"] == pytest.approx(tokens / sum(seconds))
        assert record["training"]["steps"] == 12
        model = load_model_folder(run_dir).model
        assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
        row = f"{record['parameters']:,} | {12:>5} | {record['training']['tokens_per_second']:>15,.0f} |"
        assert row in out
    assert records[0]["parameters"] != records[1]["parameters"]
    assert (folder / "out/compare.png").stat().st_size > 10_000
    assert (folder / "out/compare.md").read_text() in out
    assert "curves.png was not drawn: curves: no" in out
    monkeypatch.setattr(measure, "run_job", no_training)
    assert run(folder) == 0
    again = json.loads((folder / "out/compare.json").read_text())["records"]
    assert again == records


class Process:
    """A training that ends at once, or that runs until it is terminated."""

    def __init__(self, *, returncode: int | None = 0) -> None:
        self.returncode, self.terminated = returncode, 0

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.terminated += 1

    def wait(self) -> None:
        assert self.terminated
        self.returncode = 75


def test_what_is_missing_is_trained_for_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model gets the same minutes and a run folder of its own; one that fails does not end the others."""
    toy.write_text_files(tmp_path / "text")
    names = ("ends", "fails", "ends-too")
    contestants = training.plan([write_config(tmp_path, name) for name in names], tmp_path / "out", 7)
    commands = []

    def popen(command: list[str], **options: Any) -> Process:
        commands.append(command)
        stem = Path(command[4]).stem
        if stem == "fails":
            options["stdout"].write(b"training: 3%\rseq2seq train: error: it is broken\n")
            return Process(returncode=2)
        run_dir = tmp_path / "out/runs" / stem
        run_dir.mkdir(parents=True)
        (run_dir / "test.json").write_text("{}")
        return Process()

    monkeypatch.setattr(training.subprocess, "Popen", popen)
    trained, failed = training.train_all(contestants, 7)
    assert [contestant.name for contestant in trained] == ["ends", "ends-too"]
    assert failed == [f"fails: training failed: seq2seq train: error: it is broken ({tmp_path / 'out/logs/fails.log'})"]
    assert [command[2:4] for command in commands] == [["seq2seq", "train"]] * 3
    for command, name in zip(commands, names, strict=True):
        config = load_config(Path(command[4]), command[5:])
        assert (config.run_dir, config.train.max_minutes) == (tmp_path / "out/runs" / name, 7)


def test_a_stop_lets_the_training_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C reaches the training once, so that it saves and can be continued; it is waited for."""
    toy.write_text_files(tmp_path / "text")
    process, path = Process(returncode=None), write_config(tmp_path, "one")

    def popen(*_: object, **options: Any) -> Process:
        assert options["start_new_session"]  # or the terminal's Ctrl-C would reach it, too
        return process

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training.subprocess, "Popen", popen)
    monkeypatch.setattr(training.time, "sleep", interrupt)
    assert compare.main([str(path), "--out", str(tmp_path / "out")]) == 130
    assert process.terminated == 1
    assert "the same command continues" in capsys.readouterr().err


def _unknown_key(folder: Path) -> None:
    with (folder / "two.yaml").open("a") as file:
        file.write("batch_size: 3\n")


def _other_text(folder: Path) -> None:
    write_config(folder, "two", test="valid")


def _no_test(folder: Path) -> None:
    toy.write_config(folder / "text", folder / "two")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_unknown_key, "two.yaml:18: batch_size: unknown key"),
        (_other_text, "one.yaml and {folder}/two.yaml have different test sets"),
        (_no_test, "two.yaml: data.test is missing"),
        (lambda folder: (folder / "two.yaml").unlink(), "two.yaml: cannot be read"),
        (lambda folder: (folder / "text/test.yy").unlink(), "test.yy"),
    ],
)
def test_mistakes_come_before_the_first_training(
    spoil: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One clear line, not after half an hour; scores of two test sets are never in one table."""
    monkeypatch.setattr(training.subprocess, "Popen", no_training)
    toy.write_text_files(tmp_path / "text")
    for name in ("one", "two"):
        write_config(tmp_path, name)
    spoil(tmp_path)
    assert run(tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare: error: ")
    assert message.format(folder=tmp_path) in line


def test_two_configs_of_one_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both would train in one run folder."""
    assert run(folder, names=("one", "one")) == 2
    assert "have the same name" in capsys.readouterr().err


def test_a_finished_run_of_other_settings_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a table in which one model had more time, or is not the one of its config."""
    assert run(folder, "--minutes", "6") == 2
    assert "train.max_minutes: 5.0 -> 6.0" in capsys.readouterr().err


def test_a_damaged_run_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read gives one line, not a traceback."""
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    (out / "runs/two/test.json").write_text("{")
    assert run(folder, "--out", str(out)) == 2
    assert f"{out / 'runs/two/test.json'}: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "band"), [(1, 0), (6, 0), (7, 1), (9, 1), (10, 2), (14, 2), (15, 3), (200, 3), (0, None)]
)
def test_bands_of_length(words: int, band: int | None) -> None:
    """Both ends of a band belong to it, and no sentence is in two bands."""
    found = measure.by_length(["x " * words])
    assert [number for number, lines in enumerate(found.values()) if lines] == ([] if band is None else [band])
    assert list(found) == ["1-6 words", "7-9 words", "10-14 words", "15 words or more"]


def test_bands_suit_the_embedded_corpus() -> None:
    """A BLEU of a few sentences says little; all sentences are in a band."""
    sizes = [len(lines) for lines in measure.by_length(read_text(_DATA / "test.en")).values()]
    assert sum(sizes) == 1000
    assert min(sizes) > 100


def test_long_distance_sentences() -> None:
    """Sentences with any of the phenomena, each of them once, and all others; counted as the generator counts them."""
    src, ref = read_text(_DATA / "test.en"), read_text(_DATA / "test.zh")
    parts = measure.by_phenomenon(src, ref)
    assert sorted(parts["long-distance"] + parts["rest"]) == list(range(1000))
    assert len(parts["rest"]) > 300
    pairs: Any = [SimpleNamespace(en=en, zh=zh) for en, zh in zip(src, ref, strict=True)]
    counted = generate.phenomena(pairs)
    for name in measure.LONG_DISTANCE:
        assert len(parts[name]) == counted[name] > 5
        assert set(parts[name]) <= set(parts["long-distance"])


def test_a_phenomenon_is_on_both_sides() -> None:
    """``that`` is no relative clause without 的; text of other languages has none."""
    sentences = [
        ("The boy who bought the book is tall.", "买了书的男孩很高。", True),
        ("If it rains, we will sleep at home.", "如果下雨，我们就会在家睡觉。", True),
        ("I know that he works.", "我知道他工作。", False),
        ("He closed the door.", "他把那扇门关上了。", False),
        ("Because it rains, we sleep.", "Weil es regnet, schlafen wir.", False),
    ]
    src, ref, expected = zip(*sentences, strict=True)
    found = measure.by_phenomenon(src, ref)["long-distance"]
    assert [number in found for number in range(len(sentences))] == list(expected)


def test_bleu_of_parts(folder: Path) -> None:
    """The BLEU of a part is sacreBLEU's of its lines; a part without lines has none."""
    test = measure.TestSet(["a", "b", "c"], ["我 们", "他们很高", "她来了"], "zh", {"some": [1, 2], "none": []})
    hypotheses = ["x", "他们很高兴", "她来了"]
    assert measure.bleu_of(hypotheses, test, [1, 2]) == {
        "lines": 2,
        "bleu": score(hypotheses[1:], [test.ref[1:]], "zh").bleu,
    }
    assert measure.bleu_of(hypotheses, test, []) == {"lines": 0, "bleu": None}


def test_time_left() -> None:
    """At first by the minutes that were asked for, then by what the models have taken."""
    assert training.seconds_left([], 0, 7, 3) == 7 * training.seconds_left([], 0, 1, 3) > 7 * 180
    assert training.seconds_left([100, 200], 50, 2, 3) == 100 + 150
    assert training.seconds_left([100], 130, 1, 3) == 0
    assert [training.in_words(seconds) for seconds in (700, 70, 20)] == [
        "about 12 minutes",
        "about a minute",
        "seconds",
    ]


def _record(name: str, bleu: float | None) -> dict[str, Any]:
    speed = {"steps": 12_345, "tokens_per_second": 12_345.6, "disturbed": ""}
    names = [*map(measure.band_name, measure.BANDS), *report.DISTANCES, *measure.LONG_DISTANCE]
    parts = {part: {"lines": 1000 if bleu else 0, "bleu": bleu} for part in names}
    scores = {"bleu": 98.76, "chrf": 97.65, "bleu_signature": "b", "chrf_signature": "c"}
    return {"model": name, "parameters": 1_234_567, "training": speed, "translating": speed, "parts": parts, **scores}


@pytest.mark.parametrize("bleu", [100.0, None])
def test_the_tables_fit_a_terminal(bleu: float | None, tmp_path: Path) -> None:
    """Rows of more than 100 columns would be broken; parts without sentences are shown, and drawn, as nothing."""
    lessons = sorted((toy.ROOT / "configs/lessons").glob("*.yaml"))
    records = [_record(path.stem, bleu) for path in lessons]
    lines = report.text(records, 3.5).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("| without-cross-attention") for line in lines)
    report.draw(tmp_path / "picture.png", records)
    assert (tmp_path / "picture.png").is_file()


def test_doubts_are_printed() -> None:
    """Guards against scores of two kinds side by side, and against a speed that another program has lowered."""
    one, other = _record("one", 50.0), _record("two", 50.0)
    other |= {"bleu_signature": "another", "translating": {"tokens_per_second": 1.0, "disturbed": "by something"}}
    shown = report.text([one, other], 3.5)
    assert "BLEU: b\nBLEU: another\nBLEU was computed in different ways, so it cannot be compared." in shown
    assert "two: translating was disturbed: by something" in shown


def test_options() -> None:
    """Without arguments: the seven models for half an hour; runs of other times are in other folders."""
    options = compare.make_options([])
    assert [path.is_file() for path in options.configs] == [True] * 7
    assert 20 < options.minutes * 7 < 30
    quick = compare.make_options(["--quick"])
    assert quick.minutes == pytest.approx(options.minutes / 5)
    assert quick.out != options.out


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "many"])
def test_wrong_minutes(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a training that never ends, or that ends before it begins."""
    with pytest.raises(SystemExit):
        compare.make_options(["--minutes", minutes])
    assert "--minutes" in capsys.readouterr().err
