"""The rules for cleaning: which of them leaves a sentence pair out, as far as the pair alone decides.

Pairs that repeat others or are in the validation or test text are found by :mod:`seq2seq.data.cleaning`, which knows
all pairs.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from html.entities import html5
from importlib.metadata import version
from typing import Any, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import Cause, CleanConfig
from seq2seq.data.inspection import joined_keys, line_keys
from seq2seq.errors import DataError
from seq2seq.languages import UNSPACED_SCRIPTS, WORD_END, script_in, script_of_letter, short_code

Check: TypeAlias = Callable[[str, str], bool]  # of a pair: whether a rule leaves it out

VERSION = 1  # raise it when a rule leaves out other pairs than before

CAUSES: tuple[Cause, ...] = get_args(Cause)
CODE_OF: dict[Cause, int] = {cause: code for code, cause in enumerate(CAUSES, start=1)}  # 0: the pair is clean

_FEW_LETTERS = 4  # fewer show no script: many languages use foreign abbreviations
_FEW_TO_IDENTIFY = 20  # letters; of fewer, a language cannot be told

# An attribute has a value: "a <b and c> d" is no tag.
TAG = re.compile(
    r"</?[A-Za-z][\w:.-]*(?:\s+[\w:.-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+))*\s*/?>|<!--|<!\[CDATA\[|<!DOCTYPE\b"
    r"|<\?xml\b"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|([A-Za-z][A-Za-z0-9]{1,31}));")

# {name}, {0}, {}, {{name}}, ${name}, %s, %1$d, %(name)s, __NAME__; no format has a space, as in "100% de".
PLACEHOLDER = re.compile(
    r"\$?\{\{?[ ]?[A-Za-z0-9_.:-]{0,64}[ ]?\}?\}"
    r"|(?<![\w%])%(?:\d{1,2}\$|\([\w.]{1,64}\))?[-+0#]{0,4}\d{0,4}(?:\.\d{1,4})?[sdifgxXcu@](?![^\W\d_])"
    r"|(?<!\w)__[A-Za-z0-9]\w{0,64}?__(?!\w)"
)

# Addresses end before letters of other scripts, because Chinese has no space after them.
URL = re.compile(r"(?:https?://|(?<![\w.])www\.)[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", re.IGNORECASE | re.ASCII)
# The start is bounded, or a long line of dots would take a time that grows with its square.
EMAIL = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_AFTER_URL = "/.,;:!?'()[]*"  # the end of the sentence, not of the address

# Separators of thousands: marks in "1,234,567", "1.234", "12,34,567" (India) and "1'234"; and spaces in "1 234".
_MARKED = re.compile(r"(?<!\d)\d{1,3}(?:[,.'’٬，](?:\d{2}[,.'’٬，])*\d{3})+(?!\d)")
_SPACED = re.compile(r"(?<!\d)\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?!\d)")
_NUMBER = re.compile(r"\d+")
_NO_DIGIT = re.compile(r"\D+")


@dataclass(frozen=True)
class Rules:
    """The rules for the pairs of one dataset, with what they need to know of it. A pickle of it is small."""

    clean: CleanConfig
    scripts: tuple[str | None, str | None] = (None, None)  # of source and target, as in seq2seq.languages
    languages: tuple[str, str] | None = None  # as the identifier calls them; None if clean.language is off
    min_score: float | None = None


class PairKeys(NamedTuple):
    """What pairs are compared by: hashes without case, spaces and punctuation; 0 for a pair with a blank side."""

    pairs: NDArray[np.uint64]  # [pairs] of source and target together
    sources: NDArray[np.uint64]  # [pairs]
    identical: NDArray[np.bool_]  # [pairs] whether both sides have the same one


def pair_keys(src: Sequence[str], tgt: Sequence[str]) -> PairKeys:
    """The keys of pairs."""
    filled = np.fromiter((bool(s.strip() and t.strip()) for s, t in zip(src, tgt, strict=True)), bool, len(src))
    sources, targets = line_keys(src), line_keys(tgt)
    return PairKeys(joined_keys(sources, targets) * filled, sources * filled, (sources == targets) & filled)


def first_causes(
    src: Sequence[str], tgt: Sequence[str], scores: Sequence[float | None], keys: PairKeys, rules: Rules
) -> NDArray[np.uint8]:
    """[pairs] the code of the first cause that applies, except overlap and repeats.

    A pair with a blank side can only be too short: blank sides are counted where the corpus is built.
    """
    checks = list(_checks(rules))
    codes = np.zeros(len(src), np.uint8)
    for pair, (source, target) in enumerate(zip(map(str.strip, src), map(str.strip, tgt), strict=True)):
        if source and target:
            codes[pair] = next((code for code, applies in checks if applies(source, target)), 0)
        elif rules.clean.min_characters is not None:
            codes[pair] = CODE_OF["min_characters"]
    if rules.min_score is not None:
        low = np.array([score is not None and score < rules.min_score for score in scores], bool)
        codes[low & (codes == 0)] = CODE_OF["score"]
    if rules.clean.identical:
        codes[keys.identical] = CODE_OF["identical"]
    return codes


def _checks(rules: Rules) -> Iterator[tuple[int, Check]]:
    """The rules that are on and can be checked with a pair alone, in order, each with the code of its cause."""
    clean = rules.clean
    if (least := clean.min_characters) is not None:
        yield CODE_OF["min_characters"], lambda src, tgt: min(len(src), len(tgt)) < least
    if (most := clean.max_characters) is not None:
        yield CODE_OF["max_characters"], lambda src, tgt: max(len(src), len(tgt)) > most
    if (longest := clean.longest_word) is not None:
        yield CODE_OF["longest_word"], _on_a_side(partial(has_longer_word, limit=longest))
    if (share := clean.min_letters) is not None:
        yield CODE_OF["min_letters"], _on_a_side(partial(has_few_letters, share=share))
    if clean.script:
        source, target = rules.scripts
        yield CODE_OF["script"], lambda src, tgt: is_foreign(src, source) or is_foreign(tgt, target)
    if clean.markup:
        yield CODE_OF["markup"], _on_a_side(has_markup)
    if clean.numbers:
        yield CODE_OF["numbers"], have_other_numbers
    if clean.urls:
        yield CODE_OF["urls"], lambda src, tgt: addresses(src) != addresses(tgt)
    if rules.languages is not None:
        first, second = rules.languages
        yield CODE_OF["language"], lambda src, tgt: is_other_language(src, first) or is_other_language(tgt, second)


def _on_a_side(check: Callable[[str], bool]) -> Check:
    return lambda src, tgt: check(src) or check(tgt)


def has_longer_word(text: str, limit: int) -> bool:
    """Whether more than ``limit`` characters stand in a row without a space, and without a letter of a script that
    has no spaces."""
    if len(text) <= limit:
        return False
    for word in WORD_END.split(text):
        run = 0
        for character in word if len(word) > limit else "":
            run = 0 if script_of_letter(character) in UNSPACED_SCRIPTS else run + 1
            if run > limit:
                return True
    return False


def has_few_letters(text: str, share: float) -> bool:
    """Whether a smaller share of the characters that are no spaces are letters or marks."""
    if sum(map(str.isalpha, text)) >= share * len(text):
        return False  # without a look at spaces and marks, which takes four times as long
    kinds = "".join(map(_kind, text))
    return kinds.count("L") + kinds.count("M") < share * (len(kinds) - kinds.count("Z"))


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    """The first letter of the character's category in Unicode; Z for white space of all kinds."""
    return "Z" if character.isspace() else unicodedata.category(character)[0]


def is_foreign(text: str, script: str | None) -> bool:
    """Whether most letters are of another script. Fewer than four letters show none; kana comes with Chinese
    characters."""
    if script is None:
        return False
    scripts = [found for found in map(script_of_letter, text) if found]
    own = scripts.count(script) + (scripts.count("han") if script == "kana" else 0)
    return len(scripts) >= _FEW_LETTERS and 2 * own < len(scripts)


def script_of_most(lines: Iterable[str]) -> str | None:
    """The script of most lines; a line counts if most of its letters are of one script. None if no line counts."""
    found: Counter[str] = Counter()
    for line in lines:
        script = script_in([line])
        if script is not None and sum(map(str.isalpha, line)) >= _FEW_LETTERS and not is_foreign(line, script):
            found[script] += 1
    return found.most_common(1)[0][0] if found else None


def has_markup(text: str) -> bool:
    """Whether a text has tags or entities of HTML or XML."""
    if "<" in text and TAG.search(text):
        return True
    return "&" in text and any(not found[1] or f"{found[1]};" in html5 for found in _ENTITY.finditer(text))


def marks(text: str) -> list[str]:
    """The tags of HTML or XML and the placeholders of programs in a text, in their order."""
    return [found[0] for found in _found_marks(text)]


def without_marks(text: str) -> str:
    """A text with a space for each of its :func:`marks`, :func:`addresses` and entities."""
    for found in reversed(list(_found_marks(text))):
        text = f"{text[: found.start()]} {text[found.end() :]}"
    if "&" in text:
        text = _ENTITY.sub(" ", text)
    if "://" in text or "www." in text.lower():
        text = URL.sub(" ", text)
    return EMAIL.sub(" ", text) if "@" in text else text


def _found_marks(text: str) -> Iterator[re.Match[str]]:
    found = list(TAG.finditer(text)) if "<" in text else []
    if "{" in text or "%" in text or "__" in text:
        found += PLACEHOLDER.finditer(text)
    end = 0
    for one in sorted(found, key=lambda one: one.start()):
        if one.start() >= end:  # else a part of a tag: <a href="{link}">
            yield one
            end = one.end()


def have_other_numbers(src: str, tgt: str) -> bool:
    """Whether the numbers of two texts differ.

    A comma or a space between digits may separate thousands or two numbers, so each text is read in several ways; the
    numbers are the same if they are in one of them.
    """
    if not (_NUMBER.search(src) or _NUMBER.search(tgt)):
        return False
    return not _numbers(src) & _numbers(tgt)


def _numbers(text: str) -> set[tuple[str, ...]]:
    """The sorted numbers of a text, read without separators of thousands, with marks, and with marks and spaces."""
    marked = _MARKED.sub(_joined, text)
    return {tuple(sorted(map(_plain, _NUMBER.findall(each)))) for each in (text, marked, _SPACED.sub(_joined, marked))}


def _joined(found: re.Match[str]) -> str:
    return _NO_DIGIT.sub("", found[0])


def _plain(number: str) -> str:
    """A number in ASCII digits, without zeros at its start."""
    digits = number if number.isascii() else "".join(str(unicodedata.decimal(digit)) for digit in number)
    return digits.lstrip("0") or "0"


def addresses(text: str) -> list[str]:
    """The web and e-mail addresses in a text, sorted, without what may be left out of an address."""
    found = []
    if "://" in text or "www." in text.lower():
        found = [address.lower().removeprefix("http://").removeprefix("https://") for address in URL.findall(text)]
    if "@" in text:
        found += [address.lower() for address in EMAIL.findall(text)]
    return sorted(address.removeprefix("www.").rstrip(_AFTER_URL) for address in found)


def is_other_language(text: str, language: str) -> bool:
    """Whether a text with enough letters is surely in another language; ``language`` as :func:`known_language` has
    it."""
    if sum(map(str.isalpha, text)) < _FEW_TO_IDENTIFY:
        return False
    found = _identifier().detect_details(text)
    return bool(found.reliable and found.language != language)


def likely_languages(text: str) -> dict[str, float]:
    """The languages that a text may be in, most likely first, with scores up to 1; none if it has too few letters.

    Raises:
        DataError: the package is missing.
    """
    return dict(_identifier().detect_details(text).scores)


def known_language(language: str | None, key: str) -> str:
    """The code that the identifier has for a language.

    Raises:
        DataError: the package is missing, the language is not stated (by ``key``), or the identifier lacks it.
    """
    identifier = _identifier()
    if language is None:
        raise DataError(f"data.clean.language: the language of a side is not known; set {key}, for example {key}: de")
    short = short_code(language)
    code: str = dict(zip(identifier.LANGUAGES_ISO2T, identifier.LANGUAGES, strict=True)).get(short, short)
    if code not in identifier.LANGUAGES:
        raise DataError(
            f"data.clean.language: {language!r} is none of the languages that can be told "
            f"({', '.join(identifier.LANGUAGES)}); set it to false, or correct {key}"
        )
    return code


def identifier_version() -> str:
    """The version of the program that tells languages; raises DataError if it is missing."""
    _identifier()
    return version("eldc")


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        import eldc
    except ImportError:
        problem = "telling languages needs the package eldc; pip install eldc"
        raise DataError(f"data.clean.language: {problem}") from None
    eldc.init()
    return eldc
