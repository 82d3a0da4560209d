"""The words in which two texts differ."""

from __future__ import annotations

import unicodedata
from difflib import SequenceMatcher

from seq2seq.languages import UNSPACED_SCRIPTS, script_of_letter

_MOST = 400  # words: the time grows with the square


def differing(first: str, second: str) -> list[list[tuple[str, bool]]]:
    """Both texts, cut into parts that the other has at this place, and parts (True) that it has not.

    A letter of a script without spaces is a word by itself. Nothing is marked in very long texts.
    """
    words = [_words(first), _words(second)]
    if max(map(len, words)) > _MOST:
        return [[(first, False)], [(second, False)]]
    same: list[set[int]] = [set(), set()]
    kept = [[i for i, word in enumerate(side) if not word.isspace()] for side in words]
    matcher = SequenceMatcher(None, [words[0][i] for i in kept[0]], [words[1][i] for i in kept[1]], autojunk=False)
    for start, other, size in matcher.get_matching_blocks():
        same[0].update(kept[0][start : start + size])
        same[1].update(kept[1][other : other + size])
    return [_joined(side, equal) for side, equal in zip(words, same, strict=True)]


def _words(text: str) -> list[str]:
    """Words, punctuation marks and spaces; joined, they are the text."""
    words: list[str] = []
    last = ""
    for character in text:
        kind = _kind(character)
        if words and (kind == "mark" or (kind == last and kind in ("space", "word"))):
            words[-1] += character
        else:
            words.append(character)
            last = kind
    return words


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "M":
        return "mark"  # belongs to the letter before it
    if character.isspace():
        return "space"
    return "single" if category[0] in "PS" or script_of_letter(character) in UNSPACED_SCRIPTS else "word"


def _joined(words: list[str], same: set[int]) -> list[tuple[str, bool]]:
    """Neighbours with the same mark as one part; a space is marked between marked words."""
    marks = [i not in same for i in range(len(words))]
    for i, word in enumerate(words):
        if word.isspace():
            marks[i] = 0 < i < len(words) - 1 and i - 1 not in same and i + 1 not in same
    parts: list[tuple[str, bool]] = []
    for word, mark in zip(words, marks, strict=True):
        if parts and parts[-1][1] == mark:
            parts[-1] = (parts[-1][0] + word, mark)
        else:
            parts.append((word, mark))
    return parts
