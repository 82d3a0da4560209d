"""The card of evaluate and of a finished run."""

import json
import os
import shutil
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from seq2seq.evaluate.card import Card
from seq2seq.evaluate.make_card import CARD
from tests.toy import write_lines

TEST = "--src text/test.xx --ref text/test.yy"
FILES = {"card.json", "card.md", "card.html"}


def read_card(folder: Path) -> Card:
    assert {path.name for path in folder.iterdir()} == FILES
    return Card.model_validate_json((folder / CARD).read_bytes())


def test_card_of_a_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that the run knows: guards against a card of other settings, scores or text than those printed."""
    assert main(f"evaluate model {TEST} --card new/card --beam-size 3 --device cpu --json".split()) == 0
    record = json.loads(capsys.readouterr().out)
    card = read_card(place / "new/card")
    assert (card.scores[0].name, card.scores[0].score) == ("BLEU", record["bleu"])
    assert card.scores[0].interval == tuple(record["metrics"]["BLEU"]["interval"])
    assert (card.test.src_blake2b, card.test.lines) == (record["src"]["blake2b"], 5)
    assert card.system.decode == record["decode"]
    assert card.system.decode["beam_size"] == 3
    assert card.system.languages == ("xx", "yy")
    assert card.system.step == 100
    assert card.system.seconds is not None
    assert "config" not in card.system.metadata
    assert card.overlap is not None
    assert (card.overlap.training_pairs, card.data[0].pairs) == (60, 60)
    assert card.notes == ()


def test_pairs_that_cleaning_left_out_are_no_training_text(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against overlap with pairs that the model never saw, as those of the test set are left out by default."""
    train, test = [(place / f"text/{name}.xx").read_text().splitlines() for name in ("train", "test")]
    targets = [(place / f"text/{name}.yy").read_text().splitlines() for name in ("train", "test")]
    write_lines(place / "text/train.xx", train + test)
    write_lines(place / "text/train.yy", [*targets[0], *targets[1]])
    shutil.rmtree(place / "text/cache", ignore_errors=True)
    changes = ["data.clean.overlap=true", "data.test={src: text/test.xx, tgt: text/test.yy}"]
    assert main(["train", "toy.yaml", *changes]) == 0
    printed = capsys.readouterr()
    assert "card" not in printed.err
    card = read_card(place / "run/card")
    scores = json.loads((place / "run/test.json").read_text())
    assert (card.scores[0].score, card.system.seconds) == (scores["bleu"], scores["seconds"])
    assert scores["device"]
    assert card.overlap is not None
    (left_out,) = card.left_out.items()
    assert left_out[0] == "overlap"
    assert left_out[1] >= len(test)
    assert (card.overlap.exact_pairs, card.overlap.training_pairs) == (0, len(train) + len(test) - left_out[1])
    assert card.system.name == str(place / "run/best")
    assert main(f"evaluate run {TEST} --card again --device cpu".split()) == 0
    again = read_card(place / "again")
    assert (again.overlap, again.left_out, again.slices) == (card.overlap, card.left_out, card.slices)
    shutil.rmtree(place / "text/cache")
    assert main(f"evaluate run {TEST} --card third --device cpu".split()) == 0
    third = read_card(place / "third")
    assert third.overlap is not None
    assert third.overlap.exact_pairs == len(test)
    assert "pairs that cleaning left out count as training text" in third.notes[0]


def test_cards_without_training_text(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stranger's model, text that is gone, and a file of translations: one note each, and the rest of the card."""
    shutil.copytree(place / "model/best", place / "stranger")
    assert main(f"evaluate stranger {TEST} --card a --quick --device cpu".split()) == 0
    assert "note: stranger: no folder of a run, so overlap" in capsys.readouterr().err
    config = place / "model/config.yaml"
    config.write_text(config.read_text().replace("train.xx", "gone.xx"))
    assert main(f"evaluate model/best {TEST} --card b --quick --device cpu".split()) == 0
    assert "note: the training text is not there" in capsys.readouterr().err
    assert main(f"evaluate --hyp text/test.yy {TEST} --card c --quick".split()) == 0
    assert "note" not in capsys.readouterr().err
    assert main(["evaluate", "--hyp", "text/test.yy", "--ref", "text/test.yy", "--card", "d", "--quick"]) == 0
    cards = [read_card(place / name) for name in "abcd"]
    assert [card.overlap for card in cards] == [None] * 4
    assert [len(card.notes) for card in cards] == [1, 1, 0, 0]
    assert [bool(card.rates) for card in cards] == [True, True, True, False]
    assert [card.system.is_model for card in cards] == [True, True, False, False]
    assert cards[2].system.languages == ("xx", "yy")


def test_mistakes_of_the_card(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, before the work, and nothing written."""
    write_lines(place / "blank", [""] * 5)
    write_lines(place / "three", ["ka"] * 3)
    (place / "locked").mkdir(mode=0o555)
    (place / "made/card.html").mkdir(parents=True)
    write_lines(place / "huge", ["9" * 400] * 5)
    write_lines(place / "sum", ["1e308"] * 5)
    given = {
        f"--hyp text/test.yy {TEST} --card toy.yaml": "--card toy.yaml: ",
        f"--hyp text/test.yy {TEST} --card toy.yaml/new": "is a file; choose the name of a folder",
        "--hyp text/test.yy --ref blank --card new": "reference 1 is empty",
        "--hyp three --ref text/test.yy --card new": "three has 3 lines, but the references have 5 lines",
        "--hyp text/test.yy --ref text/test.yy --src three --card new": "three has 3 lines but text/test.yy has 5",
        "--hyp card.md --ref text/test.yy --card .": "would overwrite a file that is used here",
        "--hyp text/test.yy --ref text/test.yy --card made": "--card made/card.html: is a folder, not a file",
        f"--hyp text/test.yy {TEST} --exchange .": "--exchange .: is a folder, not a file",
        f"--hyp text/test.yy {TEST} --learned X=huge --card new": "huge:1: is no score",
        f"--hyp text/test.yy {TEST} --learned X=sum --card new": "sum:1: is no score",
    }
    write_lines(place / "card.md", ["ka"] * 5)
    if os.geteuid():
        given[f"--hyp text/test.yy {TEST} --card locked/new"] = "cannot be written; choose another folder"
    for options, message in given.items():
        assert main(["evaluate", *options.split()]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert message in error
    assert not (place / "new").exists()


def test_a_run_is_finished_without_its_card(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a finished run that fails because of its card."""
    (place / "run").mkdir()
    (place / "run/card").write_text("a file")
    assert main(["train", "toy.yaml", "data.test={src: text/test.xx, tgt: text/test.yy}"]) == 0
    printed = capsys.readouterr()
    assert "the card of the test set was not written: " in printed.err
    assert "run/test.hyp.txt" in printed.out


def test_exchange_with_another_metric(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Out, through the other program, and in: guards against lines in another order; the card has the metric, too."""
    files = f"--hyp text/test.yy --against text/train.yy {TEST}".replace("train.yy", "other.yy")
    write_lines(place / "text/other.yy", ["dor"] * 5)
    assert main(f"evaluate {files} --exchange out.jsonl --quick".split()) == 0
    records = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert [record["system"] for record in records] == ["A"] * 5 + ["B"] * 5
    write_lines(place / "scores", [f"{0.9 if record['mt'] == record['ref'] else 0.1}" for record in records])
    capsys.readouterr()
    assert main(f"evaluate {files} --learned COMET=scores --card card".split()) == 0
    printed = capsys.readouterr().out
    assert "COMET" in printed
    assert "0.9000 [0.900, 0.900]" in printed
    scores = read_card(place / "card").scores
    assert [score.name for score in scores] == ["BLEU", "chrF2", "chrF2++", "TER", "COMET"]
    assert scores[-1].score == pytest.approx(0.9)
    for options, message in {
        "--learned COMET=scores --learned COMET=scores": "COMET is the name of another metric here",
        "--learned BLEU=scores": "BLEU is the name of another metric here",
        "--learned COMET=text/test.xx": "has 5 scores for 2 systems with 5 lines each",
        "--exchange text/test.xx": "would overwrite a file that is used here",
        "--learned COMET=scores --save scores": "would overwrite a file that is used here",
    }.items():
        assert main(["evaluate", *files.split(), *options.split()]) == 2
        assert message in capsys.readouterr().err
    assert main(["evaluate", "--hyp", "text/test.yy", "--ref", "text/test.yy", "--exchange", "out"]) == 2
    assert "give it with --src FILE" in capsys.readouterr().err
