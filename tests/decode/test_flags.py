"""Promise: what is visibly wrong with a translation is flagged, and hardly anything else.

Faults are planted into true pairs: the embedded corpus in both directions, and made-up sentences of English and German.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from seq2seq.decode.confidence import features
from seq2seq.decode.flags import FLAGS, Flag, find_flags, length_ratio
from seq2seq.decode.review import Review
from seq2seq.decode.translation import Translation

DATA = Path(__file__).resolve().parents[2] / "data"
GERMAN = [
    ("The old house stands at the end of the street.", "Das alte Haus steht am Ende der Straße."),
    ("My sister has bought a new bicycle.", "Meine Schwester hat ein neues Fahrrad gekauft."),
    ("We are going to the lake tomorrow morning.", "Wir fahren morgen früh an den See."),
    ("Nobody knows why the train is late again.", "Niemand weiß, warum der Zug wieder Verspätung hat."),
    ("Can you tell me where the station is?", "Können Sie mir sagen, wo der Bahnhof ist?"),
    ("He forgot his umbrella in the restaurant.", "Er hat seinen Regenschirm im Restaurant vergessen."),
]
MARKS = (
    "{name}",
    "{0}",
    "%s",
    "%1$d",
    "${user}",
    "<b>",
    "https://example.org/a?b=1",
    "info@example.org",
    "<x id='2'/>",
)


class Case(NamedTuple):
    source: str
    translation: str
    languages: tuple[str, str]
    planted: Flag | None
    implied: frozenset[str] = frozenset()  # flags that are right as well


def true_pairs() -> list[tuple[str, str, tuple[str, str]]]:
    english, chinese = ((DATA / f"test.{code}").read_text(encoding="utf-8").splitlines() for code in ("en", "zh"))
    pairs = list(zip(english, chinese, strict=True))[:300]
    return [
        *((src, tgt, ("en", "zh")) for src, tgt in pairs),
        *((tgt, src, ("zh", "en")) for src, tgt in pairs),
        *((src, tgt, ("en", "de")) for src, tgt in GERMAN * 20),
    ]


def cases() -> Iterator[Case]:
    """Every pair once without a fault, and with one of each kind."""
    rng = random.Random(4)
    pairs = true_pairs()
    for src, tgt, languages in pairs:
        yield Case(src, tgt, languages, None)
        number, mark = str(rng.randint(2, 9_999)), rng.choice(MARKS)
        yield Case(f"{number}: {src} {mark}", f"{number}: {tgt} {mark}", languages, None)
        yield Case(src, rng.choice(["", " ", "\u3000"]), languages, "empty")
        start = rng.randrange(max(1, len(tgt) // 2))
        part = tgt[start : start + rng.randint(4, 12)]
        yield Case(src, tgt[:start] + part * rng.randint(4, 9), languages, "looping", frozenset({"long"}))
        copy = rng.choice([src, src.lower(), src.rstrip(".!?。！？"), f" {src}"])
        yield Case(src, copy, languages, "copied", frozenset({"script"}))
        yield Case(src, tgt[: max(1, len(tgt) // 4)], languages, "short")
        others = [other for _, other, same in rng.sample(pairs, 40) if same == languages]
        yield Case(src, tgt + " ".join(others)[: max(30, 2 * len(tgt))], languages, "long", frozenset({"looping"}))
        foreign = "ru" if languages[1] != "zh" else "en"
        wrong = {"ru": "Все люди рождаются свободными и равными.", "en": src[::-1]}[foreign]
        yield Case(src, wrong, languages, "script", frozenset({"short", "long"}))
        changed = rng.choice([str(int(number) + 1), f"{number}0", ""])
        yield Case(f"{number}: {src}", f"{changed}: {tgt}", languages, "numbers")
        digits = frozenset({"numbers"})  # half of a tag may leave its number in the text
        yield Case(f"{src} {mark}", f"{tgt} {rng.choice(['', mark[:-1]])}", languages, "tags", digits)


def test_planted_faults_are_found_and_the_rest_is_left_alone() -> None:
    """Guards against flags that miss what they are for, and against flags on good lines, which nobody would read."""
    counts = dict.fromkeys(FLAGS, 0), dict.fromkeys(FLAGS, 0), dict.fromkeys(FLAGS, 0)  # planted, found, false
    planted, found, false = counts
    for case in cases():
        flags = find_flags(case.source, case.translation, case.languages)
        if case.planted:
            planted[case.planted] += 1
            found[case.planted] += case.planted in flags
        for flag in flags:
            false[flag] += flag != case.planted and flag not in case.implied
    for flag in FLAGS:
        recall, precision = found[flag] / planted[flag], found[flag] / max(1, found[flag] + false[flag])
        print(f"{flag}: precision {precision:.3f}, recall {recall:.3f} of {planted[flag]}")
        assert recall >= {"short": 0.9, "long": 0.98}.get(flag, 0.99), flag
        assert precision >= 0.97, flag


@pytest.mark.parametrize(
    ("source", "translation", "languages"),
    [
        ("It costs 1,234.50 euros.", "Es kostet 1.234,50 Euro.", ("en", "de")),
        ("100% de rabais", "100% Rabatt", ("fr", "de")),
        ("Berlin.", "Berlin", ("en", "de")),
        ("遇毒，位不当也。", "遇毒，位不当也。", ("lzh", "zh")),
        ("ha ha ha ha ha ha ha, he said", "ha ha ha ha ha ha ha, sagte er", ("en", "de")),
        ("See https://example.org/a.", "见 https://example.org/a。", ("en", "zh")),
        ("Hi {name}!", "{name}，你好！", ("en", "zh")),
        ("Q&amp;A &#39;", "Q&A '", ("en", "de")),
        ("", "anything", ("en", "de")),
        ("Zur Sonne.", "К солнцу.", ("de", "xx")),
    ],
)
def test_good_lines_have_no_flag(source: str, translation: str, languages: tuple[str, str]) -> None:
    """Guards against false alarms on other ways to write, on names, and where nothing is known of the language."""
    assert find_flags(source, translation, languages) == ()


def test_flags_in_detail() -> None:
    """Guards against flags that hide each other, and a translation at its length limit that looks complete."""
    assert find_flags("Hallo Welt", " ", ("de", "en")) == ("empty",)
    assert find_flags("Hello big world", "Hallo große Welt", cut=True) == ("long",)
    assert find_flags("Add 3 {x}", "der Mann der Mann der Mann der Mann ", ("en", "de")) == (
        *("looping", "long", "numbers", "tags"),
    )
    assert find_flags("<b>a</b> and {0} {0}", "<b>und</b> {0} hier", ("en", "de")) == ("tags",)
    assert length_ratio("我们走了。", "We have left.") == pytest.approx(1, abs=0.2)
    assert length_ratio("", "") == 1


def test_features_are_of_the_whole_translation() -> None:
    """Guards against a mean that leaves out a part."""
    found = features("ka to", Translation("dor fe", -2.0, -3.0, num_tokens=4, lowest=-1.5))
    assert (found.per_token, found.lowest) == (-0.75, -1.5)
    assert found.length_ratio == pytest.approx(16 / 15)


def test_a_review_has_the_worst_lines_first_in_little_memory() -> None:
    """Guards against a list of the first lines, of unflagged before flagged ones, or of all lines."""
    rng = random.Random(2)
    log_probs = [rng.uniform(-9, 0) for _ in range(500)]
    review = Review(7)
    for line, log_prob in enumerate(log_probs, start=1):
        flags = ("long",) if line % 100 == 0 else ()
        review.add(line, "a", Translation("b", 0, 2 * log_prob, num_tokens=2), flags, None)
    review.add(501, " ", Translation("", 0.0, 0.0), (), None)
    found = [int(text.split(":")[1]) for text in review.lines("in.txt")]
    flagged = sorted((100, 200, 300, 400, 500), key=lambda line: log_probs[line - 1])
    rest = sorted((n for n in range(1, 501) if n % 100), key=lambda line: log_probs[line - 1])
    assert found == [*flagged, *rest[:2]]
    assert len(review._heap) == 7
    assert next(review.lines("x")).endswith(f"long; {log_probs[flagged[0] - 1]:.2f} per token: a -> b")
