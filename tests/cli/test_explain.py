"""The explain command: a page and a picture of one translation."""

from pathlib import Path

import pytest

from seq2seq.cli.main import main

SENTENCE = "hex gudor"


def test_a_page_and_a_picture(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against options that do not arrive, and a page of another translation than translate's."""
    (place / "one").write_text(f"{SENTENCE}\n")
    for beam in ("1", "2"):
        assert main(f"translate model --input one --beam-size {beam}".split()) == 0
        expected = capsys.readouterr().out
        options = f"--beam-size {beam} --output page.html --png picture.png --length-penalty 0.5".split()
        assert main(["explain", "model", SENTENCE, "--reference", "jino nono", *options]) == 0
        assert capsys.readouterr().out == expected
        page = (place / "page.html").read_text(encoding="utf-8")
        assert f'"beam_size":{beam}' in page
        assert '"length_penalty":0.5' in page
        assert '"text":"jino nono"' in page
    assert (place / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --output FILE.html for the page, or --png FILE.png for the alignment alone"),
        (["--output", "page.html", "--beam-size", "0"], "--beam-size: must be"),
        (["--output", "text"], "text: cannot be written: it is a folder"),
        (["--output", "page.html", "--png", "page.html"], "--output and --png: both are page.html"),
        (["--output", "page.html", "--reference", " "], "the reference is blank"),
        (["another", "--output", "page.html"], "give one MODEL and the sentence in quotes, not 2 models"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Guards against tracebacks, and against a page that is left half-written."""
    assert main(["explain", "model", SENTENCE, *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("seq2seq explain: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(place.glob("**/page.html*"))
