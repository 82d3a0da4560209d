"""Promise: strings leave a sentence whole, and come back once each, beside the translation of their neighbour."""

import re
from collections.abc import Callable
from itertools import pairwise
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.decode.placing import Bare, Looked, put_in
from seq2seq.decode.protect import not_kept, without_strings

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
    found = without_strings(text, KINDS)
    assert found.text == bare
    raw = [raw for one in found.elements for raw in (one.opening, one.closing) if raw]
    assert sorted(raw) == sorted(strings)
    assert without_strings(text, ["numbers"]).text == text


def spans(text: str) -> list[tuple[int, int]]:
    """Words and punctuation, each with the space before it."""
    return [match.span() for match in re.finditer(r"\s*(\w+|[^\w\s])", text)]


def words_of(bare: Bare) -> list[tuple[int, int]]:
    inside = {at for one in bare.elements for at in (one.start, one.end)}
    places = sorted({at for span in spans(bare.text) for at in span} | inside | {0})
    return [(a + (bare.text[a] == " "), b) for a, b in pairwise(places) if bare.text[a:b].strip()]


def placed(bare: Bare, translation: str, order: list[int], written: Callable[[str], str] = str) -> str:
    """The translation with what was in its source; ``order``: the source word that each of its words looks at most."""
    weights = np.full((len(spans(translation)), len(words_of(bare))), 0.1)
    weights[np.arange(len(order)), order] = 1.0
    return put_in(Looked(bare.text, words_of(bare), translation, spans(translation), weights), bare.elements, written)


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
        ("I <b>saw</b> a <i>car</i>", "ich habe auto gesehen", [0, 0, 3, 1], "", "ich habe <i>auto</i> <b>gesehen</b>"),
        ("{x}, I see him", "ihn sehe ich", [3, 2, 1], "", "{x} ihn sehe ich"),
        ("I see</b> him</i>", "ihn sehe ich", [2, 1, 0], "", "ihn sehe</b> ich</i>"),
        ("</b>I see <i>him", "ihn sehe ich", [2, 1, 0], "", "</b><i>ihn sehe ich"),
        ("I</b> see <i>him", "ihn sehe ich", [2, 1, 0], "", "ihn sehe ich</b> <i>"),
        ("in {x}, {y} is", "in , ist", [0, 1, 2], "", "in {x}, {y} ist"),
        ("one {x}{y} two", "zwei eins", [1, 0], "", "{x}{y} zwei eins"),
        ("<b>{x} one</b> two", "eins zwei", [0, 1], "", "<b>{x} eins</b> zwei"),
        ("<b>one <i>two</b> six</i>", "eins zwei sex", [0, 1, 2], "", "<b>eins <i>zwei</b> sex</i>"),
    ],
)
def test_strings_come_back(source: str, words: str, order: list[int], ends: str, expected: str) -> None:
    """Guards against strings beside another word, without their spaces, with a space before the full stop, and tags
    that close before they open."""
    assert placed(without_strings(source, KINDS), words + ends, order) == expected


@given(st.permutations(range(5)), st.permutations(["<b>", "</b>", "{x}", "a@b.org", "www.c.org/d"]), st.data())
def test_all_are_kept_and_tags_in_order(order: list[int], strings: list[str], data: st.DataObject) -> None:
    """Guards against strings that are lost, doubled or broken by another, wherever the model looked."""
    words = ["a1", "bb", "cc", "dd", "ee"]
    source = " ".join(x for word, one in zip(words, strings, strict=True) for x in (one, word))
    if data.draw(st.booleans()):
        source = source.replace("> ", ">").replace(" </", "</")
    text = placed(without_strings(source, KINDS), "AA BB CC DD EE", list(order))
    assert not not_kept(source, text, KINDS[:-1])
    tags = [one for one in strings if one.endswith("b>")]
    assert text.index(tags[0]) < text.index(tags[1])


def test_a_string_at_the_end_stays_there() -> None:
    """Guards against a string that jumps to the front where attention is 0 everywhere, as a window can leave it."""
    bare = without_strings("see him {x}", KINDS)
    looked = Looked(bare.text, words_of(bare), "ihn sehe", spans("ihn sehe"), np.zeros((2, 2)))
    assert put_in(looked, bare.elements) == "ihn sehe {x}"


def test_a_single_word_takes_no_small_words_with_it() -> None:
    """Guards against a link around a preposition, which looks at the word behind it."""
    bare = without_strings("I go to <b>school</b> now", KINDS)
    weights = np.array([[9, 0, 0, 0, 0], [0, 0, 1, 1.2, 0], [0, 0, 0, 9, 0]], float)
    looked = Looked(bare.text, words_of(bare), "ich zur schule", spans("ich zur schule"), weights)
    assert put_in(looked, bare.elements) == "ich zur <b>schule</b>"


def test_words_that_look_at_the_full_stop_are_in_their_tags() -> None:
    """Guards against tags around nothing, because most of what a word looks at is the full stop."""
    bare = without_strings("I <b>see him</b>.", KINDS)
    weights = np.array([[0, 0, 1, 9], [0, 1, 0, 9], [1, 0, 0, 9], [0, 1, 1, 8]], float)
    looked = Looked(bare.text, words_of(bare), "ihn sehe ich.", spans("ihn sehe ich."), weights)
    assert put_in(looked, bare.elements) == "<b>ihn sehe</b> ich."


def test_a_line_of_tags_takes_little_time() -> None:
    """Guards against work that grows with the square of the tags, and against a stack that overflows."""
    for source in ("<b>x</b> " * 1000, "<b>" * 1000 + "x" + "</b>" * 1000, "</b>x<b>" * 1000):
        started = process_time()
        bare = without_strings(source, KINDS)
        translation = "AA " * 50
        looked = Looked(bare.text, words_of(bare), translation, spans(translation), np.ones((50, len(words_of(bare)))))
        assert not not_kept(source, put_in(looked, bare.elements), KINDS)
        assert process_time() - started < 3
