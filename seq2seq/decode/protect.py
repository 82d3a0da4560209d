"""What is copied from a source into its translation: tags, placeholders, web and e-mail addresses, numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from seq2seq.config import Protected
from seq2seq.data.clean_rules import EMAIL, PLACEHOLDER, TAG, URL
from seq2seq.decode.placing import Bare, Fragment, mates, take_out

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
_OUTSIDE: tuple[Protected, ...] = ("tags", "placeholders", "urls", "emails")  # numbers belong to the sentence
_OF_PAIR = re.compile(r"<(/?)([\w:.-]+)[^<]*(?<!/)>")
_PAIRS = 200  # of tags in a line; with more, each tag is placed by itself


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


def without_strings(text: str, kinds: Sequence[Protected]) -> Bare:
    """A text without its protected strings of these kinds, and these; numbers stay."""
    found = protected(text, [kind for kind in kinds if kind in _OUTSIDE])
    parts: list[Fragment] = []
    last = 0
    for at, (kind, string) in sorted((at, kept) for kept, places in found.items() for at in places):
        parts += _text(text[last:at])
        tag = _OF_PAIR.fullmatch(string) if kind == "tags" else None
        kind_and_name = ("close" if tag[1] else "open", tag[2]) if tag else ("string", kind)
        parts.append(Fragment(string, *kind_and_name))
        last = at + len(string)
    if not parts:
        return Bare(text, ())
    pairs = mates(parts)
    paired = {*pairs, *pairs.values()} if len(pairs) <= _PAIRS else ()
    parts = [
        Fragment(part.raw, "string", "tags") if part.kind in ("open", "close") and number not in paired else part
        for number, part in enumerate(parts)
    ]
    return take_out([*parts, *_text(text[last:])])


def _text(text: str) -> list[Fragment]:
    return [Fragment(text, "text", text=text)] if text else []


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
