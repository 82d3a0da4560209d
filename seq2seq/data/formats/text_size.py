"""How much text there is: what must be known to choose a vocabulary and a model before anything is tokenised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from seq2seq.data.formats.pairs import SentencePair
from seq2seq.languages import UNSPACED_SCRIPTS, script_in

_TO_FIND_SCRIPT = 2_000  # lines
_ALL_OF, _ONE_OF = 100_000, 10  # alphabet and words are counted in the first pairs, and in one of ten after them
_MANY_WORDS = 50_000  # more are not counted
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class SideSize:
    """One side of the pairs that have text on both sides."""

    num_characters: int
    script: str | None  # as in seq2seq.languages; None without letters
    alphabet: Counter[str]  # how often each character occurs, in a sample of a large text
    num_words: int | None  # different ones, in a sample, up to 50,000; None in scripts without spaces

    def characters_to_cover(self, coverage: float) -> set[str]:
        """The most frequent characters, which make this share of the text."""
        chosen, missing = set(), coverage * self.alphabet.total()
        for character, count in self.alphabet.most_common():
            if missing <= 0:
                break
            missing -= count
            chosen.add(character)
        return chosen


@dataclass(frozen=True)
class TextSize:
    """The size of parallel text."""

    num_pairs: int
    src: SideSize
    tgt: SideSize


def measure_text(pairs: Iterable[SentencePair]) -> TextSize:
    """Count the pairs with text on both sides, their characters and different words."""
    number, characters = 0, [0, 0]
    first: tuple[list[str], list[str]] = ([], [])
    alphabets: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    words: tuple[set[str], set[str]] = (set(), set())
    for pair in pairs:
        if not (pair.src.strip() and pair.tgt.strip()):
            continue
        for side, text in enumerate((pair.src, pair.tgt)):
            characters[side] += len(text)
            if number < _ALL_OF or number % _ONE_OF == 0:
                alphabets[side].update(text)
                if len(words[side]) < _MANY_WORDS:
                    words[side].update(_WORD.findall(text))
            if number < _TO_FIND_SCRIPT:
                first[side].append(text)
        number += 1
    sides = []
    for side in (0, 1):
        script = script_in(first[side])
        num_words = None if script in UNSPACED_SCRIPTS else len(words[side])
        sides.append(SideSize(characters[side], script, alphabets[side], num_words))
    return TextSize(number, *sides)
