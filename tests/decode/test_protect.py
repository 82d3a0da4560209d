"""Promise: what is protected is found whole, and kept only if a translation has it exactly as often."""

import pytest

from seq2seq.config import Protected
from seq2seq.decode.protect import not_kept, protected

ALL: tuple[Protected, ...] = ("tags", "placeholders", "urls", "emails", "numbers")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<a href="x1">b</a> <br/> 3 < 4 > 2', ['<a href="x1">', "</a>", "<br/>", "3", "4", "2"]),
        ("{name} {{ x }} ${y} %s %1$d %(n)s __ID__ 100% sure", ["{name}", "{{ x }}", "${y}", "%s", "%1$d", "%(n)s"]),
        ("See https://a.org/b?c=1. (http://a.org/x_(y))", ["https://a.org/b?c=1", "http://a.org/x_(y)"]),
        ("Write to a.b@c.org, now!", ["a.b@c.org"]),
        ("1,234.5 at 10:30, in 1975.", ["1,234.5", "10:30", "1975"]),
        ("nothing here", []),
    ],
)
def test_protected_strings_are_found(text: str, expected: list[str]) -> None:
    """Guards against parts of an address that are protected as numbers of their own, and against punctuation of the
    sentence in an address."""
    found = [one.text for one in protected(text, ALL)]
    assert found[: len(expected)] == expected
    assert set(found[len(expected) :]) <= {"__ID__", "100"}


def test_only_what_is_asked_for_is_protected() -> None:
    """Guards against kinds that nobody chose."""
    assert [one.text for one in protected("<b> 7 {x}", ["numbers"])] == ["7"]


@pytest.mark.parametrize(
    ("source", "translation", "expected"),
    [
        ("2 and 2", "2 und 2", []),
        ("2 and 2", "2", ["2"]),
        ("3 dogs", "3 Hunde, 3", ["3"]),
        ("3 dogs", "13 Hunde", ["3"]),
        ("3.5 m", "3,5 m", ["3.5"]),
        ("<b>x</b>", "<b>y<b>", ["<b>", "</b>"]),
        ("see www.a.org", "siehe www.a.org.", []),
        ("see www.a.org", "siehe www.a.org/b", ["www.a.org"]),
    ],
)
def test_what_is_lost_is_named(source: str, translation: str, expected: list[str]) -> None:
    """Guards against a line that is said to be kept and is not: a number inside another, a string too often, a longer
    address."""
    assert not_kept(source, translation, ALL) == expected
