"""Words of a text, as they are counted and compared: in lower case, without punctuation."""

from __future__ import annotations

import re

# Letters of scripts without spaces between words: Thai and Lao, Tibetan, Myanmar, Khmer, kana, Chinese characters.
_ALONE = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+(?:['’][^\W_{_ALONE}]+)*")


def words_of(text: str) -> list[str]:
    """The words; every letter of a script without spaces between words is one by itself."""
    return _WORD.findall(text.lower())
