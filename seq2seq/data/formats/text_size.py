"""How much text there is: what must be known to choose a vocabulary and a model before anything is tokenised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from seq2seq.data.formats.pairs import SentencePair
from seq2seq.languages import script_in

_TO_FIND_SCRIPT = 2_000  # lines
_ALL_OF, _ONE_OF = 100_000, 10  # the alphabet is counted in the first pairs, and in one of ten after them


@dataclass(frozen=True)
class SideSize:
    """One side of the pairs that have text on both sides."""

    num_characters: int
    script: str | None  # as in seq2seq.languages; None without letters
    alphabet: Counter[str]  # how often each character occurs, in a sample of a large text

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
    """Count the pairs with text on both sides, and their characters."""
    number, characters = 0, [0, 0]
    first: tuple[list[str], list[str]] = ([], [])
    alphabets: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for pair in pairs:
        if not (pair.src.strip() and pair.tgt.strip()):
            continue
        for side, text in enumerate((pair.src, pair.tgt)):
            characters[side] += len(text)
            if number < _ALL_OF or number % _ONE_OF == 0:
                alphabets[side].update(text)
            if number < _TO_FIND_SCRIPT:
                first[side].append(text)
        number += 1
    src, tgt = (SideSize(characters[side], script_in(first[side]), alphabets[side]) for side in (0, 1))
    return TextSize(number, src, tgt)
