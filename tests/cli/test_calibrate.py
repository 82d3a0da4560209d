"""The calibrate command, the end of a run, and what translate shows of a calibration."""

import json
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from seq2seq.decode import calibration
from seq2seq.decode.translator import Translator
from seq2seq.evaluate.card import Card
from seq2seq.model_folder import CONFIDENCE, load_model_folder, save_model_folder
from seq2seq.train import calibrate
from tests.toy import sentences, toy_config, train, write_lines

CALIBRATE = "calibrate model --src new.xx --ref new.yy --device cpu"
TRANSLATE = "translate model --device cpu --input in.xx --flags"


@pytest.fixture
def files(place: Path) -> Path:
    """Text whose references are the model's own translations for about half of the lines, and two blank lines."""
    pairs = sentences(130, seed=9)
    src = [source for source, _ in pairs]
    own = Translator.load("model", device="cpu").translate(src)
    ref = [mine if mine and len(source) % 2 else other for (source, other), mine in zip(pairs, own, strict=True)]
    write_lines(place / "new.xx", [*src, "", "ka"])
    write_lines(place / "new.yy", [*ref, "dor", ""])
    write_lines(place / "in.xx", [*src[:4], "", "\tka to"])
    write_lines(place / "blank", ["", ""])
    return place


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.split("\n")[:-1]]


def test_a_calibrated_model_shows_confidence(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a column for what is not calibrated: blank lines, and all but the best translation."""
    assert main(TRANSLATE.split()) == 0
    out, err = capsys.readouterr()
    plain = rows(out)
    assert "no confidence: the model has no calibration; `seq2seq calibrate model/best " in err
    assert main(CALIBRATE.split()) == 0
    assert capsys.readouterr().out.startswith("model/best/confidence.json: 130 lines, ")
    assert main(TRANSLATE.split()) == 0
    out, err = capsys.readouterr()
    found = rows(out)
    assert "confidence" not in err
    assert [[*row[:3], row[-1]] for row in found] == plain
    assert [bool(row[3]) for row in found] == [True, True, True, True, False, True]
    assert all(0.01 <= float(row[3]) <= 0.99 for row in found if row[3])
    assert main([*TRANSLATE.split(), "--n-best", "2", "--scores", "--beam-size", "2", "--review", "1"]) == 0
    out, err = capsys.readouterr()
    both = rows(out)
    assert [row[6] for row in both[:2]] == [found[0][3], ""]
    assert "; confidence 0." in err


def test_the_card_measures_the_confidence_on_its_test_set(files: Path) -> None:
    """Guards against a curve of other lines or references: here the text is that of the calibration."""
    test = "--src new.xx --ref new.yy --device cpu --quick"
    assert main(CALIBRATE.split()) == 0
    assert main(f"evaluate model {test} --card card --save-hyp hyp".split()) == 0
    found = Card.model_validate_json((files / "card/card.json").read_bytes()).confidence
    assert found is not None
    assert found.test is not None
    assert found.test.lines == found.calibration_lines == 130  # none with a blank side
    assert found.test.auc_per_token == found.auc_per_token
    share = sum(row.lines * row.acceptable for row in found.test.bins) / 130
    assert share == pytest.approx(sum(row.lines * row.acceptable for row in found.bins) / 130, abs=1e-4)
    write_lines(files / "one.xx", ["ka"])
    write_lines(files / "one.yy", ["dor"])
    assert (
        main(["evaluate", "model", "--src", "one.xx", "--ref", "one.yy", "--device", "cpu", "--quick", "--card", "one"])
        == 0
    )
    alone = Card.model_validate_json((files / "one/card.json").read_bytes()).confidence
    assert alone is not None
    assert alone.test is None  # one line has no order
    assert main(["evaluate", "--hyp", "hyp", "--src", "new.xx", "--ref", "new.yy", "--quick", "--card", "file"]) == 0
    assert Card.model_validate_json((files / "file/card.json").read_bytes()).confidence is None


def test_resume_knows_the_calibration(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a table whose second half has another column, or other probabilities."""
    write = [*TRANSLATE.split(), "--output", "out.tsv", "--resume"]
    for _ in range(2):
        assert main(write) == 0
    assert "already complete" in capsys.readouterr().err
    assert main(CALIBRATE.split()) == 0
    assert main(write) == 0
    assert "already complete" not in capsys.readouterr().err
    assert main(write) == 0
    assert "already complete" in capsys.readouterr().err


def test_the_file_belongs_to_the_weights(files: Path) -> None:
    """Guards against a calibration that stays when other weights come into the folder."""
    assert main(CALIBRATE.split()) == 0
    first = (files / "model/best" / CONFIDENCE).read_bytes()
    assert main(CALIBRATE.split()) == 0
    assert (files / "model/best" / CONFIDENCE).read_bytes() == first
    model = load_model_folder(files / "model")
    assert json.loads(first)["model"] == model.metadata["blake2b"]
    kept = {name: text for name, text in model.metadata.items() if name == "step"}
    save_model_folder(files / "model/best", dict(model.model.named_parameters()), model.config, model.tokenizers, kept)
    assert not (files / "model/best" / CONFIDENCE).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--ref in.xx", "new.xx has 132 lines but in.xx has 6"),
        ("--src in.xx --ref in.xx", "in.xx: too small: 5 pairs with text, 100 are needed"),
        ("--src blank --ref blank", "blank: too small: 0 pairs with text, 100 are needed"),
        ("--sample", "--sample: only translations of a beam search can be calibrated; remove it"),
    ],
)
def test_mistakes_in_one_line(files: Path, options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against half-written files, and probabilities without a ground."""
    assert main([*CALIBRATE.split(), *options.split()]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"seq2seq calibrate: error: {message}"
    assert not (files / "model/best" / CONFIDENCE).exists()


def test_a_large_text_is_cut_evenly(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against minutes of translation, and a choice from the beginning of the text alone."""
    translator = Translator.load("model", device="cpu")
    src, ref = ((files / f"new.{side}").read_text().split("\n")[:-1] for side in ("xx", "yy"))
    every = calibrate.calibrate(translator, src, ref, translator.config.decode)
    assert every.lines == 130
    monkeypatch.setattr(calibrate, "MOST_LINES", 120)
    monkeypatch.setattr(calibrate, "_LINES", 7)
    doubled = [[line for line in side for _ in range(12)] for side in (src[:120], ref[:120])]
    even = calibrate.calibrate(translator, *doubled, translator.config.decode)
    assert even == calibrate.calibrate(translator, src[:120], ref[:120], translator.config.decode)


def test_a_run_ends_with_a_calibration(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a run that ends with other bytes if it was stopped, and a copy of the model without it."""
    pairs = sentences(110, seed=10)
    for side, name in enumerate(("valid.xx", "valid.yy")):
        write_lines(place / "text" / name, [pair[side] for pair in pairs])
    few = (
        "train.max_steps=24",
        "train.validate_every=12",
        "train.metric=loss",
        "optim.lr=0.03",
        "model.norm_position=pre",
    )
    train(toy_config(place / "text", place / "poor", *few))
    assert "confidence is not calibrated: data.valid: 0 of 110 translations are acc" in capsys.readouterr().err
    assert not (place / "poor/best" / CONFIDENCE).exists()
    monkeypatch.setattr(calibration, "THRESHOLD", 6.0)  # what so small a model reaches in some lines
    train(toy_config(place / "text", place / "whole", *few))
    made = (place / "whole/best" / CONFIDENCE).read_bytes()
    assert json.loads(made)["lines"] == 110
    config = toy_config(place / "text", place / "parts", *few)
    train(config, stop_after=14)
    assert not (place / "parts/best" / CONFIDENCE).exists()
    train(config)
    assert (place / "parts/best" / CONFIDENCE).read_bytes() == made
    train(config)
    assert (place / "parts/best" / CONFIDENCE).read_bytes() == made
    assert main(["translate", "whole/best", "--device", "cpu", "--input", "text/test.xx", "--flags"]) == 0
    assert all(row[3] for row in rows(capsys.readouterr().out))
