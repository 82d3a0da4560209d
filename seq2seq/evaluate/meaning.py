"""What a BLEU score means in plain words."""

from __future__ import annotations

# What a model with this BLEU or more usually does. Rough: BLEU depends on the languages and the text.
_MEANING = (
    (40.0, "most lines are translated well"),
    (25.0, "the meaning of most lines is there, with mistakes"),
    (12.0, "the meaning of many lines is there, with many mistakes"),
    (4.0, "single words and phrases are right, whole lines are not"),
    (0.0, "hardly anything is translated"),
)
WHOLE_LINES = 4.0  # below it, no line is translated as a whole


def meaning_of(bleu: float) -> str:
    """What a model with this BLEU (0 to 100) usually does, as the end of a sentence."""
    return next((words for least, words in _MEANING if bleu >= least), _MEANING[-1][1])
