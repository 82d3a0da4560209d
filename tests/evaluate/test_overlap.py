"""Overlap of test lines with training text: exact, near, and nothing else."""

import random
from itertools import product

import pytest

from seq2seq.evaluate.overlap import FEWEST_OF_LONG, MOST_DIFFERENT, Matches, TestLines, edit_distance

_LETTERS = (["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"], ["a", "e", "i", "o", "u"])


def lexicon(count: int) -> list[str]:
    """Made-up words of two to four syllables."""
    rng = random.Random(0)
    syllables = list(map("".join, product(*_LETTERS)))
    return ["".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(count)]


def sentences(count: int, seed: int, words: list[str]) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(4, 20))) for _ in range(count)]


def edited(text: str, rng: random.Random, words: list[str]) -> str:
    """The text with one word changed, added or removed, and other case and punctuation."""
    parts = text.split()
    place = rng.randrange(len(parts))
    parts[place : place + rng.randint(0, 1)] = rng.choice([[], [rng.choice(words)]])
    return f"«{', '.join(parts).upper()}»!"


def test_planted_lines_are_found_and_no_others() -> None:
    """Guards against near lines that are missed (any place of the change), and against lines that share a few words."""
    words, rng = lexicon(300), random.Random(1)
    training, other = sentences(3000, 1, words), sentences(100, 2, words)
    exact = [f"{text.capitalize()}." for text in training[:50]]
    near = [edited(text, rng, words) for text in training[50:150]]
    near = [text if edit_distance(text.split(), training[50 + n].split()) else other[0] for n, text in enumerate(near)]
    found = TestLines([*exact, *near, *other], [[""] * 250], training[:500]).find(training, training)
    lengths = [len(text.split()) for text in near]
    assert found.sources >= set(range(50))
    assert min(lengths) < FEWEST_OF_LONG < max(lengths)
    assert found.near is not None
    wanted = {50 + number for number, length in enumerate(lengths) if length >= 3}
    assert set(found.near) - found.sources == wanted - found.sources
    assert {line for line in found.sources if line >= 150} == set()


def test_what_counts_as_near() -> None:
    """At most a quarter of the words, in short and in long lines, also in scripts without spaces."""
    for test, training, is_near in (
        ("ka to mi ren", "ka to mi sol", True),  # 1 of 4
        ("ka to mi", "ka to mi sol", True),
        ("ka to mi", "ka to sol", False),  # 1 of 3
        ("ka to mi ren sol vu pa lin", "KA, to -- gu ren sol vu pa hex?", True),  # 2 of 8
        ("ka to mi ren sol vu pa lin", "ka to gu ren sol vu no hex", False),  # 3 of 8
        ("ka to mi ren", "ka to mi ren sol vu pa lin", False),  # a part of another
        ("我們有充足的時間做功課。", "我們有很多的時間做功課", True),  # 2 of 11
        ("我們有充足的時間。", "你沒有的時候", False),
        ("", "", False),
        ("ka", "to", False),
    ):
        near = TestLines([test], [["x"]], [training]).find(["a b c", training], ["", ""]).near
        assert (near or {}).keys() == ({0} if is_near else set()), test


def test_exact_is_said_of_each_side() -> None:
    """Guards against a pair that counts because its sides are there in two different pairs, and blank lines."""
    lines = TestLines(["ka to", "mi", "ren", ""], [["dor fe", "gu", "hex", ""], ["", "zwe", "", ""]], [])
    found = lines.find(["Ka, TO!", "mi", "x", ""], ["Dor fe.", "hex", "zwe", ""])
    assert found.pairs == {0}
    assert found.sources == {0, 1}
    assert found.references == {0, 1, 2}


def test_the_nearest_of_several_chunks_is_kept() -> None:
    lines = TestLines(["ka to mi ren sol vu pa lin"], [["x"]], [])
    chunks = [["ka to gu ren sol vu pa hex"], ["ka to mi ren sol vu pa hex"], ["no to mi ren sol vu pa hex"]]
    found = Matches()
    for chunk in chunks:
        found |= lines.find(chunk, [""])
    assert found.near is not None
    assert (found.near[0].text, found.near[0].different) == (chunks[1][0], 1 / 8)
    assert found.near[0].different <= MOST_DIFFERENT


@pytest.mark.parametrize(
    ("one", "two", "distance"), [("", "", 0), ("a b", "", 2), ("a b c", "a c", 1), ("a b", "b a", 2)]
)
def test_edit_distance(one: str, two: str, distance: int) -> None:
    assert edit_distance(one.split(), two.split()) == edit_distance(two.split(), one.split()) == distance


def test_a_blank_reference_makes_no_pair() -> None:
    """Guards against a blank side that is found beside the same source: blank lines are all the same."""
    found = TestLines(["We saw him.", ""], [["", "Wir."]], []).find(["We saw him.", ""], ["", "Wir."])
    assert (found.pairs, found.sources, found.references) == (frozenset(), {0}, {1})
