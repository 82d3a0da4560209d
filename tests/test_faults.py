"""Promise: a model that translates nothing is recognised by its output."""

import pytest

from seq2seq.faults import Faults, find_faults, loops


@pytest.mark.parametrize(
    "line",
    [
        "der Mann der Mann der Mann der Mann.",
        "Ich bin, ich bin, ich bin, ich bin, ",
        "狗狗狗狗狗狗狗狗狗狗狗狗",
        "." * 30,
        "a b " * 5,
    ],
)
def test_a_part_again_and_again_is_a_loop(line: str) -> None:
    """Guards against a run that says done over a model that repeats one word for ever."""
    assert loops(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Er geht nach Hause.",
        "hahaha",
        "very, very good",
        "......",
        "1000000000",
        "那扇窗户被那个男孩打破了。",
        "no, no, no!",
    ],
)
def test_usual_repetition_is_no_loop(line: str) -> None:
    """Guards against a warning about emphasis, ellipses and large numbers."""
    assert not loops(line)


def test_a_long_line_takes_no_time() -> None:
    """Guards against an expression that takes minutes for a line without a loop."""
    assert not loops("".join(chr(97 + (i * i + i // 7) % 26) for i in range(20_000)))


def test_faults_are_shares_of_the_lines_that_have_a_translation() -> None:
    """What the reference does as well is no fault, a blank source does not count, and a line counts once."""
    lines = [
        ("one", "", "eins"),  # empty
        ("two", " ", "zwei"),  # empty
        ("three", "drei drei drei drei drei", "drei"),  # a loop
        ("Four", "four", "vier"),  # a copy
        ("OK", "OK", "OK"),
        ("......................", "......................", "......................"),
        ("seven", "sieben", "sieben"),
        ("eight", "acht", "acht"),
        ("", "", "neun"),
        ("ten", "", ""),
    ]
    faults = find_faults(*(list(texts) for texts in zip(*lines, strict=True)))
    assert faults == Faults(empty=0.25, looping=0.125, copied=0.125)
    assert faults.total == 0.5
    assert str(faults) == "25% empty, 12% looping, 12% copies of the source"
    assert str(Faults(empty=0.005, copied=0.006)) == "1% copies of the source"
    assert find_faults([""], [""], [""]) == Faults()
