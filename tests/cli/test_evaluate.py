"""The evaluate command: systems, test sets, and which BLEU tokenizer it takes."""

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest

from seq2seq.cli.main import main
from seq2seq.evaluate import fingerprint_lines
from tests.toy import write_lines

MODEL = "evaluate model --src text/test.xx --ref text/test.yy --device cpu"


def test_a_language_picks_the_tokenizer(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ending of the reference, or --tgt-lang, decides how BLEU cuts; the text itself before both, with a note;
    and --tokenize before all."""
    write_lines(place / "ref.zh_CN", ["猫坐在垫子上。"])
    write_lines(place / "ref", ["猫坐在垫子上。"])
    for name, options, tokenizer, note in (
        ("ref.zh_CN", [], "zh", ""),
        ("ref", ["--tgt-lang", "cmn"], "zh", ""),
        ("ref", [], "zh", "note: the target language is unknown, and the references are in Chinese script"),
        ("ref.zh_CN", ["--tgt-lang", "de"], "zh", "note: the target language is de, but the references are in Chinese"),
        ("ref", ["--tokenize", "char"], "char", ""),
        ("ref", ["--tokenize", "13a"], "13a", "note: the references have no spaces between words"),
    ):
        assert main(["evaluate", "--hyp", name, "--ref", name, "--quick", *options]) == 0
        printed = capsys.readouterr()
        assert f"tok:{tokenizer}" in printed.out
        assert (note in printed.err) if note else ("note" not in printed.err)


def test_a_tokenizer_that_cannot_be_had(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a traceback where a download fails, and against translating for an hour before it."""
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", str(place / "toy.yaml"))  # no folder
    command_line = "evaluate model --src text/test.xx --ref text/test.yy --save-hyp out --tokenize spm"
    with mock.patch("seq2seq.decode.translator.Translator.load", side_effect=AssertionError):
        assert main(command_line.split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "BLEU tokenizer 'spm' cannot be used here: " in error
    assert "sacreBLEU downloads its model" in error


@pytest.mark.parametrize(
    "options",
    [
        "--hyp a --ref b --save a",
        "--hyp a --ref b --save b",
        "--hyp a --ref b --save-hyp ./b",
        "--hyp a --ref b --save linked",
        "--hyp a --ref b --save new --save-hyp new",
        "--hyp a --ref a --against b --save b",
        '--hyp a --test {"src":"b","tgt":"b"} --save b',
    ],
)
def test_no_input_is_overwritten(options: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against scores written over the translations or the reference that they were computed from."""
    for name in "ab":
        write_lines(place / name, ["ka to"])
    (place / "linked").symlink_to("b")
    assert main(["evaluate", *options.split()]) == 2
    assert "would overwrite a file that is used here" in capsys.readouterr().err
    assert [(place / name).read_text() for name in "ab"] == ["ka to\n"] * 2
    assert not (place / "new").exists()


def test_several_systems(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Models and files beside each other: each with its scores, what it is, and a sentence; BLEU is the first line."""
    assert main([*MODEL.split(), "--against", "wide", "text/test.yy", "--length-penalty", "0.5", "--save", "all"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    record = json.loads((place / "all").read_text(encoding="utf-8"))
    assert [line.split("|")[0] for line in lines[:4]] == ["BLEU", "chrF2", "chrF2++", "TER"]
    assert lines[0] == f"BLEU|{record['bleu_signature']} = {record['bleu']:.2f} {record['bleu_details']}"
    assert lines[5] == "A: model model/best (step 100), beam 2, length penalty 0.5"
    assert lines[6].startswith("B: model wide/best (step 2), beam 2, length penalty 0.5")
    assert lines[7:9] == ["C: translations text/test.yy", "src text/test.xx, ref text/test.yy, 5 lines"]
    wide, perfect = record["against"]
    assert (record["model"], wide["model"], perfect["hyp"]["file"]) == ("model", "wide", "text/test.yy")
    assert record["decode"]["length_penalty"] == wide["decode"]["length_penalty"] == 0.5
    assert "decode" not in perfect
    assert perfect["bleu"] == pytest.approx(100)
    assert perfect["metrics"]["BLEU"]["difference"] == pytest.approx(100 - record["bleu"])
    assert set(record["metrics"]) == {"BLEU", "chrF2", "chrF2++", "TER"}
    assert {"bs:1000", "seed:12345"} <= set(record["metrics"]["TER"]["signature"].split("|"))
    assert lines[-2:] == [wide["verdict"], perfect["verdict"]]
    assert record["refs"] == [{"file": "text/test.yy", "blake2b": perfect["hyp"]["blake2b"]}]
    assert max(map(len, lines[9:])) <= 100
    assert "note" not in printed.err


def test_a_file_first_and_a_model_against_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same translations, once made here and once from a file: guards against systems in another order."""
    assert main([*MODEL.split(), "--quick", "--save-hyp", "hyp"]) == 0
    alone = capsys.readouterr().out.splitlines()
    assert not any("[" in line for line in alone)
    command = "evaluate --hyp hyp --src text/test.xx --ref text/test.yy --against model --quick"
    assert main(command.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == alone[:4]
    assert lines[-1] == "B has the same translations as A."


def test_models_that_decode_otherwise_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against the settings of two configs taken for a difference of the models."""
    shutil.copytree(place / "model", place / "other")
    config = place / "other/best/config.yaml"
    config.write_text(config.read_text().replace("beam_size: 2", "beam_size: 3"))
    assert main([*MODEL.split(), "--against", "other", "--quick"]) == 0
    note = "note: B decodes otherwise than A: beam_size 3, not 2; an option sets it for all"
    assert note in capsys.readouterr().err.splitlines()
    assert main([*MODEL.split(), "--against", "other", "--quick", "--beam-size", "3"]) == 0
    assert "otherwise" not in capsys.readouterr().err


def test_a_test_set_of_any_format(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dataset as in a config gives the scores of the same text in two files; --ref adds references to it."""
    sides = [(place / f"text/test.{side}").read_text().splitlines() for side in ("xx", "yy")]
    write_lines(place / "test.tsv", ["\t".join(pair) for pair in zip(*sides, strict=True)])
    objects = [dict(zip("st", pair, strict=True)) for pair in zip(*sides, strict=True)]
    write_lines(place / "test.jsonl", [json.dumps(one) for one in objects])
    assert main([*MODEL.split(), "--quick", "--json", "--save-hyp", "hyp"]) == 0
    expected = json.loads(capsys.readouterr().out)
    for dataset in ("{tsv: test.tsv, src: 0, tgt: 1}", "{jsonl: test.jsonl, src: s, tgt: t}"):
        for system in (["model", "--device", "cpu"], ["--hyp", "hyp"]):
            assert main(["evaluate", *system, "--test", dataset, "--quick", "--json"]) == 0
            record = json.loads(capsys.readouterr().out)
            for key in ("bleu", "bleu_signature", "chrf", "metrics"):
                assert record[key] == expected[key]
            assert record["refs"][0]["blake2b"] == fingerprint_lines(sides[1])
            assert dataset[1:].split(":")[0] in record["test"]
            assert ("src" in record) == ("model" in record)
    assert main(["evaluate", "--hyp", "hyp", "--test", dataset, "--ref", "hyp", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "BLEU|nrefs:2|" in printed
    assert "test set test.jsonl, ref hyp, 5 lines" in printed


def test_too_little_memory_for_the_resamples(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a process that the system kills after an hour of translating."""
    write_lines(place / "many", ["ka"] * 6000)
    with mock.patch("seq2seq.memory.memory_room", return_value=1 << 20):
        assert main(["evaluate", "--hyp", "text/test.yy", "--ref", "many"]) == 2
        assert "intervals and tests for 6,000 lines need 1.20 GB of memory" in capsys.readouterr().err
        assert main(["evaluate", "--hyp", "text/test.yy", "--ref", "many", "--quick"]) == 2
        assert "text/test.yy has 5 lines, but the references have 6000 lines" in capsys.readouterr().err


def test_blank_references_are_found_before_the_work(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against an hour of translating before the message."""
    write_lines(place / "blank", [""] * 5)
    with mock.patch("seq2seq.decode.translator.Translator.load", side_effect=AssertionError):
        assert main(["evaluate", "model", "--src", "text/test.xx", "--ref", "text/test.yy", "--ref", "blank"]) == 2
    assert "reference 2 is empty: all of its 5 lines are blank" in capsys.readouterr().err
