"""What is copied from a source into its translation: tags, placeholders, web and e-mail addresses, numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from seq2seq.config import Protected
from seq2seq.data.clean_rules import EMAIL, PLACEHOLDER, TAG, URL

# A number with its separators: 1,234.5 and 10:30.
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_PATTERNS: dict[Protected, re.Pattern[str]] = {
    "tags": TAG,
    "placeholders": PLACEHOLDER,
    "urls": URL,
    "emails": EMAIL,
    "numbers": _NUMBER,
}
_AFTER_URL = ".,;:!?'*"  # the end of the sentence, not of the address
_BRACKETS = {")": "(", "]": "["}


class Kept(NamedTuple):
    """A protected string."""

    kind: Protected
    text: str


def protected(text: str, kinds: Sequence[Protected]) -> dict[Kept, list[int]]:
    """Where a text has each of its protected strings. What is inside another one, of an earlier kind, is no own."""
    found: dict[Kept, list[int]] = {}
    taken = bytearray(len(text))
    for kind in (kind for kind in _PATTERNS if kind in kinds):
        for match in _PATTERNS[kind].finditer(text):
            string = _without_punctuation(match[0]) if kind == "urls" else match[0]
            start, end = match.start(), match.start() + len(string)
            if string and not any(taken[start:end]):
                found.setdefault(Kept(kind, string), []).append(start)
                taken[start:end] = b"\1" * len(string)
    return found


def not_kept(source: str, translation: str, kinds: Sequence[Protected]) -> list[str]:
    """The protected strings of a source that its translation does not have exactly as often."""
    there = protected(translation, kinds)
    return [one.text for one, places in protected(source, kinds).items() if len(there.get(one, ())) != len(places)]


def _without_punctuation(address: str) -> str:
    """An address without what belongs to the sentence; a bracket is part of it if the opening one is."""
    count = {bracket: address.count(bracket) for bracket in "()[]"}
    end = len(address)
    while end and (
        (last := address[end - 1]) in _AFTER_URL or count.get(last, 0) > count.get(_BRACKETS.get(last, ""), end)
    ):
        count[last] = count.get(last, 0) - 1
        end -= 1
    return address[:end]
