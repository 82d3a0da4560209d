"""Flags, parts, words and examples of a translated test set."""

from collections import Counter

import pytest

from seq2seq.evaluate.by_line import ByLine
from seq2seq.evaluate.scores import score
from seq2seq.evaluate.slices import Translated, find_examples, find_rates, find_recalls, find_slices

SOURCES = [
    "Was Tom in Boston in 1999?",
    "We saw Tom at the hotel.",
    "The the man sleeps.",
    "",
    "Nobody sleeps here, not even the man with the dog and the cat.",
]
REFERENCES = [
    "War Tom 1999 in Boston?",
    "Wir sahen Tom im Hotel.",
    "Der Mann schläft.",
    "",
    "Niemand schläft hier, nicht einmal der Mann mit dem Hund und der Katze.",
]
TRANSLATIONS = [
    "War Tom 1998 in Boston?",
    "Wir sahen im Hotel.",
    "der der der der der der der",
    "",
    "",
]


def test_rates_beside_the_references() -> None:
    """Guards against rates of lines without source, and flags of another column."""
    rates = {rate.flag: rate for rate in find_rates(Translated(SOURCES, TRANSLATIONS, [REFERENCES], ("en", "de")))}
    assert {flag: rate.lines for flag, rate in rates.items() if rate.lines} == {"empty": 1, "looping": 1, "numbers": 1}
    assert rates["empty"].share == pytest.approx(1 / 5)
    assert not any(rate.reference_lines for rate in rates.values())
    assert find_rates(Translated(None, TRANSLATIONS, [REFERENCES])) == ()


def test_slices_are_scored_as_their_lines_alone_would_be() -> None:
    """Guards against counts of other lines: the same as sacreBLEU on these lines."""
    texts = Translated(SOURCES, TRANSLATIONS, [REFERENCES])
    scores = ByLine(TRANSLATIONS, [REFERENCES], "13a")
    words = Counter({"tom": 9, "was": 9, "in": 9, "we": 9, "saw": 9, "at": 9, "the": 9, "hotel": 2, "man": 9})
    found = {(one.kind, one.name): one for one in find_slices(texts, scores, words)}
    lines = {
        ("words in the source", "1 to 5"): [2],
        ("words in the source", "6 to 10"): [0, 1],
        ("words in the source", "11 to 20"): [4],
        ("numbers in the source", "with"): [0],
        ("numbers in the source", "without"): [1, 2, 4],
        ("names in the source", "with"): [0, 1],
        ("names in the source", "without"): [2, 4],
        ("end of the source", "question mark"): [0],
        ("end of the source", "full stop"): [1, 2, 4],
        ("rarest word of the source in the training text", "never"): [0, 2, 4],
        ("rarest word of the source in the training text", "1 to 5 times"): [1],
    }
    assert {key: one.lines for key, one in found.items()} == {key: len(one) for key, one in lines.items()}
    for key, of_part in lines.items():
        alone = score([TRANSLATIONS[line] for line in of_part], [REFERENCES[line] for line in of_part], "13a")
        assert (found[key].bleu, found[key].chrf) == pytest.approx((alone.bleu, alone.chrf))
    kinds = {kind for kind, _ in found}
    assert {one.kind for one in find_slices(texts, scores, None)} == kinds - {
        "rarest word of the source in the training text"
    }
    assert find_slices(Translated(None, TRANSLATIONS, [REFERENCES]), scores, words) == ()


def test_names_are_no_first_words() -> None:
    """Guards against "Was", which begins sentences in English and in German."""
    names = Translated(SOURCES, TRANSLATIONS, [REFERENCES]).names
    assert names == [{"Tom", "Boston"}, {"Tom"}, set(), set(), set()]
    assert Translated(["Was it?"], ["x"], [["Was denn?"]]).names == [set()]
    assert Translated(["So Was it, was."], ["x"], [["Was denn?"]]).names == [set()]


def test_recall_counts_each_word_once() -> None:
    """Guards against words of other lines, and against words that are counted as often as a loop has them."""
    texts = Translated(SOURCES, TRANSLATIONS, [REFERENCES])
    found = {
        one.kind: (one.found, one.words) for one in find_recalls(texts, Counter({"der": 50, "mann": 5, "hotel": 1}))
    }
    assert found["numbers"] == (0, 1)
    assert found["names"] == (2, 3)
    assert found["words that are there more often"] == (1, 3)
    assert found["words that are there 1 to 5 times"] == (1, 3)
    assert set(find_recalls(texts, None)[0].model_dump()) == {"kind", "words", "found"}
    assert [one.kind for one in find_recalls(texts, None)] == ["numbers", "names"]


def test_the_worst_lines_are_first_and_blank_references_are_none() -> None:
    """Guards against lines counted from 0, and blank lines as the worst of all."""
    texts = Translated(SOURCES, TRANSLATIONS, [REFERENCES])
    found = {
        one.kind: [example.line for example in one.examples]
        for one in find_examples(texts, ByLine(TRANSLATIONS, [REFERENCES], "13a"))
    }
    assert found == {"lowest chrF": [5, 3, 2, 1], "empty": [5], "looping": [3], "numbers": [1]}
    (lowest,) = find_examples(Translated(None, TRANSLATIONS, [REFERENCES]), ByLine(TRANSLATIONS, [REFERENCES], "13a"))
    assert lowest.examples[0].source == ""


def test_what_the_reference_does_as_well_is_no_example() -> None:
    """Guards against "Viertel vor acht" for 7:45 as an example of a wrong number."""
    sources, references = ["It is 7:45.", "It is 9."], ["Es ist Viertel vor acht.", "Es ist 9."]
    translations = ["Es ist kurz vor acht.", "Es ist 6."]
    found = find_examples(
        Translated(sources, translations, [references], ("en", "de")), ByLine(translations, [references], "13a")
    )
    assert {kind.kind: [one.line for one in kind.examples] for kind in found}["numbers"] == [2]
