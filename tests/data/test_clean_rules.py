"""Promise: every rule leaves out the pairs that it names, and keeps those that only look like them."""

import time
from collections.abc import Callable

import pytest

from seq2seq.config import CleanConfig
from seq2seq.data.clean_rules import (
    CAUSES,
    CODE_OF,
    Rules,
    first_causes,
    known_language,
    pair_keys,
    script_of_most,
)
from seq2seq.errors import DataError

LATIN = ("latin", "latin")
CHINESE = ("latin", "han")
URL = "https://example.org/a?b=1"


def cause(pair: tuple[str, str], rules: Rules, score: float | None = None) -> str | None:
    src, tgt = [pair[0]], [pair[1]]
    (code,) = first_causes(src, tgt, [score], pair_keys(src, tgt), rules).tolist()
    return CAUSES[code - 1] if code else None


# For each rule: its keys, the scripts, pairs that must go, and near misses that must stay.
TABLE: dict[str, tuple[dict[str, object], tuple[str | None, str | None], list[tuple[str, str]], list[tuple[str, str]]]]
TABLE = {
    "identical": (
        {"identical": True},
        LATIN,
        [("Hello!", "Hello!"), ("Hello, World.", "hello world"), ("...", "..."), ("ÜBER", "über")],
        [("Hello", "Hallo"), ("a 1", "a 2"), ("...", "!!!"), ("", ""), (" ", "\t"), ("की", "कि")],
    ),
    "min_characters": (
        {"min_characters": 3},
        LATIN,
        [("ab", "abc"), ("abc", "  a  "), ("", "abc"), ("我们", "we are")],
        [("abc", "abc"), ("我们俩", "we two")],
    ),
    "max_characters": (
        {"max_characters": 5},
        LATIN,
        [("abcdef", "a"), ("a", "ab cd ef")],
        [("abcde", "a"), ("  abcde  ", "a"), ("", "a")],
    ),
    "longest_word": (
        {"longest_word": 10},
        CHINESE,
        [("abcdefghijk", "x"), ("one abcdefghijk two", "x"), ("x", "看abcdefghijk看"), ("a\u00adbcdefghijkl", "x")],
        [
            ("abcdefghij klmnopqrst", "x"),
            ("x", "我们都喜欢在公园里散步，因为天气很好，大家都很高兴"),
            ("x", "ภาษาไทยไม่มีช่องว่างระหว่างคำ"),
            ("x", "ひらがなとカタカナと漢字で書きます"),
            ("x", "看abcdefg，看hijklmn"),
            ("abcdef\u200bghijkl", "ሰላም፡ለዓለም፡ሰላም፡ለዓለም"),
        ],
    ),
    "min_letters": (
        {"min_letters": 0.5},
        LATIN,
        [("12:30 - 14:00", "from 12 to 2"), ("good", "+++ ok +++"), ("| a | b |", "words here"), ("*****", "stars")],
        [("It is now 7:30.", "Es ist jetzt 7:30."), ("हिन्दी", "में"), ("a-b", "a b"), ("我们。", "We."), ("", "")],
    ),
    "script": (
        {"script": True},
        CHINESE,
        [
            ("我们都喜欢", "我们都喜欢"),
            ("Hello there", "Hello there"),
            ("Привет, мир", "你好，世界"),
            ("Hello", "こんにちは"),
        ],
        [
            ("I like 老子 and 孔子.", "我喜欢老子"),
            ("NATO", "NATO北约组织"),
            ("Hello", "OK"),
            ("12:30", "12:30"),
            ("café", "你好，世界"),
        ],
    ),
    "markup": (
        {"markup": True},
        LATIN,
        [
            ("<b>bold</b>", "fett"),
            ("line<br/>break", "Zeile"),
            ("a", '<a href="x">b</a>'),
            ("R&amp;D", "F&E"),
            ("a&nbsp;b", "a b"),
            ("&#8217;", "'"),
            ("&#x2019;", "'"),
            ("<!-- note -->", "x"),
            ("<ns:tag-name>", "x"),
            ("&eacute;t&eacute;", "été"),
            ("<p class='x' id=y>", "x"),
        ],
        [
            ("a < b and c > d", "a < b und c > d"),
            ("a <b and c> d", "x"),
            ("I <3 you", "x"),
            ("AT&T; R&D", "x"),
            ("this &that; is", "x"),
            ("<john@example.org>", "x"),
            ("-> <- <=> << >>", "x"),
        ],
    ),
    "numbers": (
        {"numbers": True},
        LATIN,
        [
            ("5 men", "6 Männer"),
            ("5 men", "Männer"),
            ("men", "3 Männer"),
            ("in 1995", "1959"),
            ("2 and 2", "2"),
            ("3.5", "3.6"),
            ("1,234", "12,34"),
            ("10 20", "30 10"),
        ],
        [
            ("5 men", "5 Männer"),
            ("1,234,567 x", "1.234.567 x"),
            ("1,234", "1 234"),
            ("1\u202f234", "1234"),
            ("1'234", "1,234"),
            ("12,34,567", "1234567"),
            ("3.5", "3,5"),
            ("from 1 to 2", "2 ab 1"),
            ("at 05:30", "5:30"),
            ("١٢٣", "123"),
            ("１２", "12"),
            ("in 2010 300 men", "300 Mann 2010"),
            ("on page 12 300 men", "300 Mann auf Seite 12"),
            ("10, 20, 300", "10,20,300"),
            ("0.125", ".125"),
            ("x²", "x"),
            ("no", "keine"),
        ],
    ),
    "urls": (
        {"urls": True},
        CHINESE,
        [
            (f"See {URL}.", "见网页。"),
            (f"See {URL}", "见 https://example.org/b"),
            ("www.a.org", "www.b.org"),
            ("Mail a@b.org", "a@c.org"),
            ("Mail me", "x@b.org"),
        ],
        [
            (f"See {URL}.", f"请看{URL}，谢谢"),
            (f"({URL})", URL),
            ("www.a.org", "http://www.a.org/"),
            ("HTTP://A.org", "http://a.org"),
            ("a@b.org and c@d.org", "c@d.org, a@b.org"),
            ("5 @ 3", "x"),
            ("and/or www", "x"),
        ],
    ),
}
PLANTED = [(rule, pair, True) for rule, (_, _, gone, _) in TABLE.items() for pair in gone]
PLANTED += [(rule, pair, False) for rule, (_, _, _, kept) in TABLE.items() for pair in kept]


@pytest.mark.parametrize(("rule", "pair", "goes"), PLANTED)
def test_a_rule_hits_what_it_names(rule: str, pair: tuple[str, str], goes: bool) -> None:
    """Guards against planted pairs that stay (recall), and against near misses that go (precision)."""
    keys, scripts, _, _ = TABLE[rule]
    assert cause(pair, Rules(CleanConfig.model_validate({"overlap": False, **keys}), scripts)) == (
        rule if goes else None
    )


def test_a_score_may_be_too_low() -> None:
    """Guards against a pair with just enough that goes, and a pair without a score that is taken for a bad one."""
    rules = Rules(CleanConfig(), min_score=0.5)
    assert [cause(("a", "b"), rules, score) for score in (0.49, 0.5, None)] == ["score", None, None]


def test_nothing_goes_without_a_rule() -> None:
    """Guards against a rule that is on though nobody asked for it."""
    rules = Rules(CleanConfig(), CHINESE)
    assert all(cause(pair, rules) is None for _, pair, _ in PLANTED)


def test_the_first_cause_counts() -> None:
    """Guards against counts that depend on which rule is the fastest."""
    every = {name: keys[name] for name, (keys, *_) in TABLE.items()}
    for number in range(len(every)):
        rules = Rules(CleanConfig.model_validate(dict(list(every.items())[number:])), CHINESE)
        found = cause(("5 <b>+++ abcdefghijk www.a.org", "Ж ЖЖЖ ЖЖЖ"), rules, None)
        assert found is None or CODE_OF[found] > number  # type: ignore[index]
    assert cause(("<b> 5", "<b> 5"), Rules(CleanConfig(identical=True, markup=True), LATIN)) == "identical"
    assert cause(("<b> 5", "x"), Rules(CleanConfig(numbers=True, markup=True), LATIN)) == "markup"


def test_blank_sides_are_not_for_cleaning() -> None:
    """Guards against pairs that the corpus counts as blank and cleaning as something else."""
    every = {"identical": True, "numbers": True, "urls": True, "min_letters": 1.0, "script": True}
    rules = Rules(CleanConfig.model_validate(every), CHINESE)
    assert cause(("", ""), rules) is cause(("5 www.a.org", " "), rules) is None


@pytest.mark.parametrize(
    ("lines", "script"),
    [
        (["Hello there", "Привет, мир", "Как дела"], "cyrillic"),
        (["我们都喜欢", "ひらがなと漢字です", "OK"], "han"),
        (["ひらがなと漢字です", "カタカナも", "我们都喜欢"], "kana"),
        (["ok", "12"], None),
        ([], None),
    ],
)
def test_an_unknown_language_has_the_script_of_most_lines(lines: list[str], script: str | None) -> None:
    """Guards against a script that one line decides, or short lines with foreign abbreviations."""
    assert script_of_most(lines) == script


ENGLISH, GERMAN = "A man rides a horse through the field.", "Ein Mann reitet auf einem Pferd durch das Feld."
CHINESE_TEXT = "我们都喜欢在公园里散步，因为天气很好，大家都很高兴"


@pytest.mark.parametrize(
    ("languages", "pair", "goes"),
    [
        (("en", "deu_Latn"), (ENGLISH, GERMAN), False),
        (("en", "de"), (ENGLISH, ENGLISH), True),
        (("English", "german"), (GERMAN, GERMAN), True),
        (("en", "de"), (ENGLISH, "OK, 12 x"), False),
        (("lzh", "en_US"), (CHINESE_TEXT, ENGLISH), False),
        (("zho_Hans", "ja"), (CHINESE_TEXT, CHINESE_TEXT), True),
    ],
)
def test_another_language_is_told(languages: tuple[str, str], pair: tuple[str, str], goes: bool) -> None:
    """Guards against codes in another form taken for another language, and short lines that no program can tell."""
    pytest.importorskip("eldc")
    src, tgt = (known_language(language, "data.src_lang") for language in languages)
    rules = Rules(CleanConfig(language=True), languages=(src, tgt))
    assert cause(pair, rules) == ("language" if goes else None)


@pytest.mark.parametrize(
    ("language", "message"),
    [
        (None, r"data\.clean\.language: the language of a side is not known; set data\.tgt_lang"),
        (
            "gd",
            r"data\.clean\.language: 'gd' is none of the languages that can be told \(am, ar, .*\); set it to false",
        ),
    ],
)
def test_a_language_must_be_known(language: str | None, message: str) -> None:
    """Guards against a rule that silently does nothing."""
    pytest.importorskip("eldc")
    with pytest.raises(DataError, match=message):
        known_language(language, "data.tgt_lang")


@pytest.mark.parametrize(
    "attack",
    [
        lambda n: "<a" + " " * n,
        lambda n: "<a b=" * n,
        lambda n: "&a" * n,
        lambda n: "1,23" * n,
        lambda n: "www." * n,
        lambda n: "a@" * n,
        lambda n: "a." * n + "@",
    ],
)
def test_long_lines_take_no_long_time(attack: Callable[[int], str]) -> None:
    """Guards against a pattern whose time grows with the square of the line, of which one line stops a run."""
    rules = Rules(CleanConfig(markup=True, numbers=True, urls=True), LATIN)
    line, start = attack(100_000), time.process_time()
    cause((line, "x"), rules)
    assert time.process_time() - start < 2
