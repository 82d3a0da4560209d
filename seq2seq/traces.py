"""Traces that earlier processing has left in a line of text: subword marks, tokenisation, lower case."""

from __future__ import annotations

import re
from collections.abc import Iterable

# subword-nmt, SentencePiece, WordPiece and the OpenNMT tokenizer
_SUBWORDS = re.compile(r"\S@@(?=\s|$)|\u2581|(?:^|\s)##\w|\uffed(?=\s|\w)|(?<=\s)\uffed")
# A space before a full stop or comma, unless it is one of several (French puts spaces before other marks, Hindi before
# the danda); the escapes of Moses; its hyphens; the parts of English words as Penn Treebank cuts them.
_TOKENISED = re.compile(
    r"[^\s.,] [.,](?=$|\s(?!\.))|\S [。，、](?=\s|$)|&(?:apos|quot|#91|#93|#124);|\s@-@\s"
    r"|\b(?:do|does|did|is|are|was|ca|wo) n't\b"
)
# Text without spaces between words, with spaces: a letter of such a script, and a space between two of them.
_UNSPACED = "[\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f\u0e80-\u0eff\u1780-\u17ff]"
_LETTER, _SEAM = re.compile(_UNSPACED), re.compile(f"(?<={_UNSPACED}) (?={_UNSPACED})")
_LETTERS_PER_SEAM = 6  # words are shorter, phrases (which Thai and Khmer set apart by spaces) are longer
_ENOUGH_LINES = 2000
_MANY = 0.3  # of the lines of a text


def has_subwords(line: str) -> bool:
    """Whether marks of a subword tokenizer are left in it, as ``wom@@ an``, ``▁the``, ``play ##ing``."""
    return ("@@" in line or "##" in line or not line.isascii()) and _SUBWORDS.search(line) is not None


def is_tokenised(line: str) -> bool:
    """Whether words and marks stand apart, as a tokenizer leaves them: ``the end .``, ``it &apos;s``, ``我们 喜欢``."""
    if _TOKENISED.search(line):
        return True
    seams = 0 if line.isascii() else len(_SEAM.findall(line))
    return seams > 1 and _LETTERS_PER_SEAM * seams >= len(_LETTER.findall(line))


def has_capitals(line: str) -> bool:
    """Whether any of its letters is a capital."""
    return line.lower() != line


def processed(lines: Iterable[str]) -> str | None:
    """What a text is where a large part of its first lines is no plain text: a word for a message, or None."""
    seen = [line for line, _ in zip(lines, range(_ENOUGH_LINES), strict=False) if line.strip()]
    for word, found in (("cut into subwords", has_subwords), ("tokenised", is_tokenised)):
        if sum(map(found, seen)) > _MANY * len(seen):
            return word
    return None
