"""Normalisation of source text: one kind of space, no meaningless invisible characters, composed characters (NFC).

One sentence can be written in several ways that look alike: with a no-break space, with a soft hyphen from a PDF, or
with an accent as a separate character. The model should read them as the same. Visible differences such as full-width
forms are kept (NFC, not NFKC). Target text is never normalised: French, for example, needs its narrow no-break spaces.
"""

import re
import unicodedata

RULES = 1  # part of the tokenizer's fingerprint; raise it when the rules below change

SPACES = "".join(character for character in map(chr, range(0x3001)) if character.isspace() and character != " ")
# Soft hyphen, zero-width space, word joiner, byte order mark inside the text, direction marks.
INVISIBLE = "\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u206f\ufeff"
# The joiners U+200C and U+200D have a meaning in emoji and in Arabic, Indic and other scripts. Between characters of
# these blocks (Latin, Greek, Cyrillic, general punctuation, East Asian) they have none.
_UNJOINED = "\u0000-\u052f\u1e00-\u1fff\u2010-\u205e\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
_JOINERS = re.compile(f"(?<![^{_UNJOINED}])[\u200c\u200d]+(?![^{_UNJOINED}])")
_SPACE = re.compile(f"[{SPACES}]")
_REMOVED = re.compile(f"[{INVISIBLE}]")


def normalise(text: str) -> str:
    """``text`` in NFC, with all white space as U+0020, without meaningless invisible characters. It is idempotent."""
    text = _SPACE.sub(" ", text)
    if text.isascii():
        return text
    # What is left out can have stood between the parts of a character, which decides about the joiners beside it.
    visible = unicodedata.normalize("NFC", _REMOVED.sub("", text))
    return unicodedata.normalize("NFC", _JOINERS.sub("", visible))


def is_removed(character: str) -> bool:
    """Whether :func:`normalise` removes a character wherever it stands."""
    return _REMOVED.fullmatch(character) is not None
