"""The page of a run: three architectures, a run in progress, a damaged one, and one from a stranger."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.cli.main import main
from seq2seq.report.drawing import Line, draw_lines
from seq2seq.report.run_page import write_run_page
from seq2seq.train.metrics import read_metrics
from tests.report.cards import NASTY, full_card
from tests.report.reading import open_page, visible
from tests.toy import ROOT, toy_config, train, write_text_files

WIDTHS = [1200, 400]
SHAPES = {
    "transformer": (),
    "recurrent": ("model={architecture: recurrent, encoder_layers: 1, decoder_layers: 1, d_model: 16, dropout: 0}",),
    "convolutional": (
        "model={architecture: convolutional, encoder_layers: 1, decoder_layers: 1, d_model: 16, dropout: 0}",
    ),
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each architecture."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    text = write_text_files(folder / "text")
    clean = "data.clean={min_characters: 8, overlap: false}"
    for name, shape in SHAPES.items():
        tested = f"data.test={{src: {text}/test.xx, tgt: {text}/test.yy}}"
        train(toy_config(text, folder / name, *shape, clean, tested))
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A run to damage."""
    shutil.copytree(runs / "transformer", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_page_of_a_run(browser: Any, runs: Path, tmp_path: Path, name: str, width: int) -> None:
    """Each part is there, with the numbers of the run's files."""
    shutil.copytree(runs / name, tmp_path / "run")
    (tmp_path / "run/card").mkdir()
    (tmp_path / "run/card/card.json").write_text(full_card().model_dump_json(), encoding="utf-8")
    write_run_page(tmp_path / "run", tmp_path / "page.html")
    open_page(browser, tmp_path / "page.html", width, dark=width == 400)
    sections = [one.get_attribute("id") for one in browser.find_elements("css selector", "section")]
    assert sections == ["curves", "scores", "samples", "card", "text", "settings", "machine"]
    said = visible(browser)
    test = json.loads((tmp_path / "run/test.json").read_text(encoding="utf-8"))
    assert f"Test BLEU {test['bleu']:.2f}: hardly anything is translated." in said
    assert test["bleu_signature"] in said
    for record in read_metrics(tmp_path / "run/metrics.jsonl"):
        if "valid_ppl" in record:
            assert f"{record['valid_ppl']:.2f}" in said
    assert len(browser.find_elements("css selector", "#curves svg")) == 5
    samples = read_metrics(tmp_path / "run/samples.jsonl")
    assert len(samples) == 3 * 3  # validations after steps 5, 10 and 12
    assert len(browser.find_elements("css selector", "#samples .texts")) == 3
    assert all(sample["source"] in said for sample in samples)
    assert name in said
    assert "12 of at most 12" in said
    start = read_metrics(tmp_path / "run/starts.jsonl")[0]
    assert start["device"] in said
    assert f"torch {start['versions']['torch']}" in said
    assert "optim.lr" in said
    assert "Cleaning (data.clean) left" in said
    browser.find_element("css selector", "#text summary").click()
    assert "min_characters: " in visible(browser)


def test_a_value_can_be_read_off_a_curve(browser: Any, runs: Path, tmp_path: Path) -> None:
    """The mouse over a curve shows the values there; no script is needed."""
    write_run_page(runs / "transformer", tmp_path / "page.html")
    open_page(browser, tmp_path / "page.html", 1200)
    strips = browser.find_elements("css selector", "#curves svg:first-of-type .read")
    assert [one for one in strips if one.text.strip()] == []
    actions = pytest.importorskip("selenium.webdriver").ActionChains(browser)
    actions.move_to_element(browser.find_elements("css selector", "#curves svg .read rect")[4]).perform()
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#curves .read text')]"
        ".filter(e => getComputedStyle(e).display != 'none').map(e => e.textContent)"
    )
    records = read_metrics(runs / "transformer/metrics.jsonl")
    nll = next(record["nll"] for record in records if record["step"] == 5)
    valid = next(record["valid_loss"] for record in records if record["step"] == 5 and "valid_loss" in record)
    assert shown == [f"step 5: training {nll:.4g}, validation {valid:.4g}"]


def test_what_the_run_chose_has_its_reason(runs: Path, run: Path, tmp_path: Path) -> None:
    """A reader asked why the vocabulary has this size; a reason for another value does not count."""
    choices = [
        {"key": "tokenizer.vocab_size", "value": 330, "reason": "usual for 60 pairs"},
        {"key": "optim.lr", "value": 7.5, "reason": "of an earlier start"},
    ]
    (run / "starts.jsonl").write_text(json.dumps({"step": 0, "choices": choices}) + "\n", encoding="utf-8")
    write_run_page(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "usual for 60 pairs" in page
    assert "of an earlier start" not in page


DAMAGES = {
    "metrics.jsonl": '{"step": 1, "nll": 1' + "0" * 400 + '}\n\x00\x00\n{"step": 1' + "0" * 30 + ', "nll": 1}\n'
    '{"step": 3, "nll": "x", "valid_loss": {}, "valid_bleu": NaN}\n{"step": 4, "bad": ["<b>"], "valid_bleu": true}\n',
    "timing.jsonl": '{"step": 2, "seconds": null, "tokens_per_second": Infinity}\n[]\n',
    "samples.jsonl": '{"step": 2, "source": 3}\n'
    '{"step": 2, "source": "\\ud800", "translation": "", "reference": "r"}\n',
    "bad_lines.jsonl": '{"step": 2, "src": ["<script>"], "loss": NaN}\n{"step": 2}\n',
    "starts.jsonl": '{"step": 0, "versions": 3, "choices": [1, {"key": []}]}\n{"step": 0, "choices": {}}\n',
    "test.json": '{"bleu": "high", "num_lines": []}',
    "card/card.json": '{"format": 2}',
    "config.yaml": "model: [",
    "best/model.safetensors": "x",
}


@pytest.mark.parametrize("name", [*DAMAGES, "all"])
def test_a_damaged_run_has_a_page(browser: Any, run: Path, tmp_path: Path, name: str) -> None:
    """A report of a run that went wrong is wanted most; one damaged file must not cost all others."""
    (run / "card").mkdir()
    for file, content in DAMAGES.items():
        if name in (file, "all"):
            (run / file).write_text(content, encoding="utf-8")
    write_run_page(run, tmp_path / "page.html")
    open_page(browser, tmp_path / "page.html", 400)
    assert not browser.find_elements("css selector", "script")
    warned = [one.text for one in browser.find_elements("css selector", ".warning")]
    if name in ("metrics.jsonl", "card/card.json", "config.yaml", "best/model.safetensors", "all"):
        assert any(name in ("all", "best/model.safetensors") or name in text for text in warned)
    else:
        assert warned == [] or name == "timing.jsonl"


def test_a_run_of_a_stranger(browser: Any, run: Path, tmp_path: Path) -> None:
    """Text in every file of a run is text in the page."""
    for number, text in enumerate(NASTY):
        sample = {"source": text, "translation": f"a {text}", "reference": f"b {text}"}
        with (run / "samples.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": number, **sample}) + "\n")
        with (run / "bad_lines.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": number, "src": text, "tgt": text, "loss": 1.0}) + "\n")
        with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": 12 + number, "bad": text}) + "\n")
        with (run / "starts.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": number, "device": text, "versions": {text: text}}) + "\n")
    (run / "card").mkdir()
    (run / "card/card.json").write_text(full_card(NASTY[1]).model_dump_json(), encoding="utf-8")
    write_run_page(run, tmp_path / "page.html")
    open_page(browser, tmp_path / "page.html", 1200)
    assert browser.title != "owned"
    script = "return document.querySelectorAll('script, img, iframe, object, [onload], [onerror]').length"
    assert browser.execute_script(script) == 0
    assert NASTY[0] in visible(browser)


def test_a_run_in_progress(browser: Any, run: Path, tmp_path: Path) -> None:
    """The first minutes: steps, but no validation and no model; before them, a config alone."""
    for name in ("best", "last", "checkpoints"):
        shutil.rmtree(run / name)
    for name in ("test.json", "samples.jsonl", "timing.jsonl"):
        (run / name).unlink()
    first = (run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[0]
    for content, said in ((f"{first}\n" + first[:20], "No validation yet."), ("", "has not made its first step")):
        (run / "metrics.jsonl").write_text(content, encoding="utf-8")
        write_run_page(run, tmp_path / "page.html")
        open_page(browser, tmp_path / "page.html", 400)
        assert said in visible(browser)
        assert not browser.find_elements("css selector", ".warning")


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path of the page is printed; a mistake is one line that says what to do, and writes nothing."""
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"
    assert (run / "report.html").is_file()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for arguments, expected in (
        ([str(tmp_path / "none")], "no such folder; give the folder of a run"),
        ([str(tmp_path / "empty")], "is no run folder"),
        ([str(tmp_path / "file")], "no such folder"),
        ([str(run), "--output", str(tmp_path / "page.png")], "give a name that ends with .html"),
        ([str(run), "--output", str(tmp_path / "file/page.html")], "file"),
    ):
        assert main(["report", *arguments]) == 2
        message = capsys.readouterr().err
        assert expected in message
        assert message.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run", "empty", "file"}


def test_a_continued_run_has_the_samples_of_one_that_was_not_stopped(runs: Path, tmp_path: Path) -> None:
    """Samples after the checkpoint were there twice, and letters outside ASCII were written in another way."""
    text = write_text_files(tmp_path / "text")
    for side in ("xx", "yy"):
        path = text / f"valid.{side}"
        path.write_text(path.read_text(encoding="utf-8").replace("a", "ä"), encoding="utf-8")
    train(toy_config(text, tmp_path / "whole"))
    train(toy_config(text, tmp_path / "stopped"), stop_after=7)
    stray = {"step": 9, "source": "s", "translation": "t", "reference": "r"}
    with (tmp_path / "stopped/samples.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(stray) + "\n")
    train(toy_config(text, tmp_path / "stopped"))
    whole = (tmp_path / "whole/samples.jsonl").read_bytes()
    assert "ä".encode() in whole
    assert (tmp_path / "stopped/samples.jsonl").read_bytes() == whole
    assert [start["step"] for start in read_metrics(tmp_path / "stopped/starts.jsonl")] == [0, 7]


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_every_field_is_documented(runs: Path, readme: str) -> None:
    """A field of the files that no one explains; the guard's and the datasets' are named after others."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    records = [record for run in SHAPES for path in (runs / run).glob("*.jsonl") for record in read_metrics(path)]
    names = {name for record in records for name in record}
    assert {"nll", "valid_chrf", "waited", "validation_seconds", "translation", "choices"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "points",
    [[(1, 5.0)], [(1, 0.0), (2, 0.0)], [(1, 1e-300), (2, 1e300)], [(1, -3.0), (2, float("nan")), (3, 1e-9)]],
)
@pytest.mark.parametrize("log", [False, True])
def test_strange_numbers_can_be_drawn(points: list[tuple[float, float]], log: bool) -> None:
    """One value, equal values and enormous ones divided by zero."""
    picture = draw_lines("title", [Line("name", "first", points)], zero=not log, log=log)
    assert picture is None or "nan" not in picture.svg.replace("name", "")
    assert (picture is None) == (log and all(not value > 0 for _, value in points))


def test_long_runs_have_small_pictures() -> None:
    """A page of a run with a hundred thousand steps had a hundred thousand points."""
    points = [(float(step), 1 / step) for step in range(1, 100_001)]
    picture = draw_lines("title", [Line("name", "first", points, steps=True)])
    assert picture is not None
    assert len(picture.svg) < 100_000
