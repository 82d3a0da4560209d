"""Promise: strings leave a sentence whole, and come back once each, beside the translation of their neighbour."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.decode.placing import put_in, take_out
from seq2seq.decode.protect import not_kept

KINDS = ("tags", "placeholders", "urls", "emails", "numbers")


@pytest.mark.parametrize(
    ("text", "bare", "strings"),
    [
        ("Press <b>OK</b>.", "Press OK.", ["<b>", "</b>"]),
        ("I saw {name} here.", "I saw here.", ["{name}"]),
        ("See <a href='x'>www.a.org</a>, or 12", "See, or 12", ["<a href='x'>www.a.org</a>"]),
        ("Hello<br/>world", "Hello world", ["<br/>"]),
        ("<i>Go (<b>now</b>)!</i>", "Go (now)!", ["<i>", "<b>", "</b>", "</i>"]),
        ("a (%s)  b", "a ()  b", ["%s"]),
        ("<b> {x} </b>", "", ["<b> {x} </b>"]),
        ("x  7", "x  7", []),
    ],
)
def test_strings_are_taken_out(text: str, bare: str, strings: list[str]) -> None:
    """Guards against words that grow together, spaces that stay before punctuation, and numbers that are lost."""
    found = take_out(text, KINDS)
    assert found.text == bare
    assert [one.text for one in found.strings] == strings
    assert take_out(text, ["numbers"]).text == text


def placed(source: str, words: str, order: list[int], ends: str = "") -> str:
    """The strings of a source among the words of a translation; ``order``: the source word each one looks at."""

    def tokens(text: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s]", text)

    bare, target = take_out(source, KINDS), words.split()
    translation = " ".join(target) + ends
    cuts = [len(" ".join(target[:n])) for n in range(len(target) + 1)] + [len(translation)] * bool(ends)
    num_words = len(tokens(bare.text))
    alignment = np.full((len(cuts) - 1, num_words), 0.1)
    alignment[np.arange(len(order)), order] = 1.0
    columns = [len(tokens(bare.text[: one.at])) for one in bare.strings]
    return put_in(translation, cuts, alignment, bare, columns)


@pytest.mark.parametrize(
    ("source", "words", "order", "ends", "expected"),
    [
        ("I have <b>seen</b> him", "ich habe ihn gesehen", [0, 1, 3, 2], "", "ich habe ihn <b>gesehen</b>"),
        ("<b>I</b> see him", "ihn sehe ich", [2, 1, 0], "", "ihn sehe <b>ich</b>"),
        ("<b>I see him</b>", "ihn sehe ich", [2, 1, 0], "", "<b>ihn sehe ich</b>"),
        ("I see a <b>red</b> car", "ich sehe rotes auto", [0, 1, 4, 4], "", "ich sehe <b>rotes</b> auto"),
        ("I <b>see</b> a <b>car</b>", "ich", [0], "", "<b>ich</b> <b></b>"),
        ("I see him {x}", "ihn sehe ich", [2, 1, 0], "", "ihn sehe ich {x}"),
        ("I see him {x}.", "ihn sehe ich", [2, 1, 0], ".", "ihn {x} sehe ich."),
        ("I see {x}, him", "ich sehe ihn", [0, 1, 2], "", "ich sehe {x} ihn"),
        ("Hi<br/>you", "hallo du", [0, 1], "", "hallo<br/>du"),
        ("one www.a.org/ two", "eins zwei", [0, 1], "", "eins www.a.org/ zwei"),
        ("one (www.a.org/) two", "eins zwei", [0, 3], "", "eins www.a.org/ zwei"),
    ],
)
def test_strings_come_back(source: str, words: str, order: list[int], ends: str, expected: str) -> None:
    """Guards against strings beside another word, without their spaces, with a space before the full stop, and tags
    that close before they open."""
    assert placed(source, words, order, ends) == expected


@given(st.permutations(range(5)), st.permutations(["<b>", "</b>", "{x}", "a@b.org", "www.c.org/d"]), st.data())
def test_all_are_kept_and_tags_in_order(order: list[int], strings: list[str], data: st.DataObject) -> None:
    """Guards against strings that are lost, doubled or broken by another, wherever the model looked."""
    words = ["a1", "bb", "cc", "dd", "ee"]
    source = " ".join(x for word, one in zip(words, strings, strict=True) for x in (one, word))
    if data.draw(st.booleans()):
        source = source.replace("> ", ">").replace(" </", "</")
    text = placed(source, "AA BB CC DD EE", list(order))
    assert not not_kept(source, text, KINDS[:-1])
    tags = [one for one in strings if one.endswith("b>")]
    assert text.index(tags[0]) < text.index(tags[1])


def test_a_string_at_the_end_stays_there() -> None:
    """Guards against a string that jumps to the front where attention is 0 everywhere, as a window can leave it."""
    bare = take_out("see him {x}", KINDS)
    assert put_in("ihn sehe", [0, 3, 8], np.zeros((2, 2)), bare, [2]) == "ihn sehe {x}"
