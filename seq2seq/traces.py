"""Traces of earlier processing in a line of text: subword marks, tokenisation, lower case."""

from __future__ import annotations

import re
from collections.abc import Iterable

# subword-nmt, SentencePiece, WordPiece and the OpenNMT tokenizer
_SUBWORDS = re.compile(r"\S@@(?=\s|$)|\u2581|(?:^|\s)##\w|\uffed(?=\s|\w)|(?<=\s)\uffed")
# A space before a single full stop or comma (other marks do not count: French and Hindi have spaces before some);
# escapes and hyphens of Moses; parts of English words as in the Penn Treebank.
_TOKENISED = re.compile(
    r"[^\s.,] [.,](?=$|\s(?!\.))|\S [。，、](?=\s|$)|&(?:apos|quot|#91|#93|#124);|\s@-@\s"
    r"|\b(?:do|does|did|is|are|was|ca|wo) n't\b"
)
# Spaces in scripts that have none between words: a letter of such a script, and a space between two such letters.
_UNSPACED = "[\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f\u0e80-\u0eff\u1780-\u17ff]"
_LETTER, _SEAM = re.compile(_UNSPACED), re.compile(f"(?<={_UNSPACED}) (?={_UNSPACED})")
_LETTERS_PER_SEAM = 6  # words are shorter; phrases, which Thai and Khmer separate by spaces, are longer
_ENOUGH_LINES = 2000
_MANY = 0.3  # of the lines of a text


def has_subwords(line: str) -> bool:
    """Whether a line has marks of a subword tokenizer, as in ``wom@@ an``, ``▁the``, ``play ##ing``."""
    return ("@@" in line or "##" in line or not line.isascii()) and _SUBWORDS.search(line) is not None


def is_tokenised(line: str) -> bool:
    """Whether a tokenizer has separated words and marks: ``the end .``, ``it &apos;s``, ``我们 喜欢``."""
    if _TOKENISED.search(line):
        return True
    seams = 0 if line.isascii() else len(_SEAM.findall(line))
    return seams > 1 and _LETTERS_PER_SEAM * seams >= len(_LETTER.findall(line))


def has_capitals(line: str) -> bool:
    """Whether a line has a capital letter."""
    return line.lower() != line


def processed(lines: Iterable[str]) -> str | None:
    """The kind of processing in a large part of a text's first lines, in words for a message; None for plain text."""
    seen = [line for line, _ in zip(lines, range(_ENOUGH_LINES), strict=False) if line.strip()]
    for word, found in (("cut into subwords", has_subwords), ("tokenised", is_tokenised)):
        if sum(map(found, seen)) > _MANY * len(seen):
            return word
    return None
