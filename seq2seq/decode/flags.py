"""Flags: what is visibly wrong with a translation, found by a look at source and translation alone.

A flag means that a line should be looked at, not that it is wrong: names are copied for good reasons, and a number may
be written in words. A line without flags may still be a bad translation.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

from seq2seq.data.clean_rules import addresses, have_other_numbers, is_foreign, marks, without_marks
from seq2seq.faults import copies, loops
from seq2seq.languages import count_words, script_of_letter, short_code, writing_of

Flag: TypeAlias = Literal["empty", "looping", "copied", "short", "long", "script", "numbers", "tags"]
FLAGS: tuple[Flag, ...] = get_args(Flag)

# A letter of these scripts says as much as so many Latin ones: with them, both sides of Tatoeba (English, German,
# Chinese), of Multi30k and of the embedded corpus have about the same size.
_WEIGHTS = {"han": 3.0, "kana": 2.0, "hangul": 2.3}
_SMOOTHING = 10.0  # added to both sizes: short lines differ more
_SHORT, _LONG = 0.5, 2.0  # outside: 0.05 to 0.3 % of the references of these corpora
_FEWEST_COPIED = 2  # words; a single one may be a name


def length_ratio(source: str, translation: str) -> float:
    """The size of the translation divided by that of its source, both smoothed; about 1 in any pair of languages."""
    return (_size(translation) + _SMOOTHING) / (_size(source) + _SMOOTHING)


def find_flags(
    source: str, translation: str, languages: tuple[str | None, str | None] = (None, None), *, cut: bool = False
) -> tuple[Flag, ...]:
    """The flags of a line, in the order of :data:`FLAGS`; a blank source has none.

    Args:
        languages: the codes of source and target, if they are known. Without the second, no line is flagged for its
            script; between two kinds of one language, a copy is no fault.
        cut: whether the translation reached its length limit before it was complete.
    """
    if not source.strip():
        return ()
    if not translation.strip():
        return ("empty",)
    src, tgt = languages
    same = src is not None and tgt is not None and short_code(src) == short_code(tgt)
    ratio = length_ratio(source, translation)
    lost = Counter([*marks(source), *addresses(source)]) - Counter([*marks(translation), *addresses(translation)])
    plain = without_marks(source), without_marks(translation)
    found: dict[Flag, bool] = {
        "looping": loops(translation) and not loops(source),
        "copied": not same and copies(source, translation) and count_words(plain[0]) >= _FEWEST_COPIED,
        "short": ratio < _SHORT,
        "long": ratio > _LONG or cut,
        "script": is_foreign(plain[1], writing_of(tgt)),
        "numbers": have_other_numbers(*plain),
        "tags": bool(lost),
    }
    return tuple(flag for flag in FLAGS if found.get(flag))


def _size(text: str) -> float:
    """The number of characters, weighted by how much they say."""
    return sum(map(_weight, text.strip()))


@lru_cache(maxsize=1 << 16)
def _weight(character: str) -> float:
    return _WEIGHTS.get(script_of_letter(character) or "", 1.0)
