"""Sentence ends: certain ones are found in many scripts, doubtful ones are left alone."""

import time

import pytest

from seq2seq.decode.sentences import share_of_several, split_sentences


@pytest.mark.parametrize(
    "parts",
    [
        ["She left Beijing.", "Tom is happy.", "We invited Anna."],
        ["Really?", "Yes!", "“Good.”", "He left (at last).", "It rained."],
        ["He was born in 1990.", "¿Y tú?", "Él también."],
        ["Он ушёл.", "Мы остались."],
        [
            "你走了。",
            "我在这里！",
            "他呢？",
            "“好。”",
            "他说",
        ],
        ["यह आया।", "वह गया।"],
        ["هل جاء؟", "نعم جاء."],
    ],
    ids=["English", "quotes", "Spanish", "Russian", "Chinese", "Hindi", "Arabic"],
)
def test_sentences_are_found(parts: list[str]) -> None:
    """Guards against sentences that a model of single ones loses; white space between them is not part of them."""
    unspaced = "。" in parts[0]
    for space in ("",) if unspaced else (" ", "  \u00a0"):
        assert split_sentences(space.join(parts)) == parts
    assert split_sentences(parts[0]) == parts[:1]


@pytest.mark.parametrize(
    "line",
    [
        "Mr. Smith met Dr. Jones and Prof. Miller on Mt. Everest.",
        "J. R. R. Tolkien lived in the U.S. Army camp, e.g. Fort X, i.e. There.",
        "It costs 3.5 million.Or not, see no. 7 and fig. B.",
        "Well... I do not know… Perhaps.",
        '"Go!" Tom said.',
        "He came at 5 p.m. on Monday. then he left.",
        "Am 3. Oktober. 20 Leute",
        "Visit www.example.com.",
        "  ",
        "",
        ". . . ! ?",
        "你好。",
    ],
)
def test_what_may_be_no_end_is_left_alone(line: str) -> None:
    """Guards against a name, an abbreviation or a number that a cut tears from its sentence."""
    assert split_sentences(line) == [line]


def test_ordinals_are_a_matter_of_language() -> None:
    """\"Am 3. Oktober\" is one sentence, \"He is 25. She is 30.\" are two; a line's own number is never cut off."""
    line = "He is 25. She is 30."
    assert split_sentences(line, "en") == ["He is 25.", "She is 30."]
    for language in (None, "de", "de-AT", "cs_CZ"):
        assert split_sentences(line, language) == [line]
    assert split_sentences("1. First", "en") == ["1. First"]


@pytest.mark.parametrize("text", ["." * 300_000, ". " * 150_000, "a. " * 100_000, "。" * 300_000, "A. B" * 100_000])
def test_a_line_without_end_takes_no_time(text: str) -> None:
    """Guards against work that grows with the square of a line's length."""
    started = time.monotonic()
    split_sentences(text)
    assert time.monotonic() - started < 10


def test_the_share_of_several() -> None:
    """The share counts lines, not sentences."""
    assert share_of_several(["A cat. A dog. A bird.", "A cow.", "", "One"], "en") == 0.25
    assert share_of_several([], None) == 0
