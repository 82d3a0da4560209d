"""The evaluate command: which BLEU tokenizer it takes."""

from pathlib import Path
from unittest import mock

import pytest

from seq2seq.cli.main import main
from tests.toy import write_lines


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
        assert main(["evaluate", "--hyp", name, "--ref", name, *options]) == 0
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
