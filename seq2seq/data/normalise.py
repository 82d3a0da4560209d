"""Source text as the model reads it: one kind of space, nothing invisible without meaning, composed characters.

The same sentence comes in many spellings that look alike: with a no-break space, a soft hyphen from a PDF, or an accent
as a character of its own. The model should read them as one. Full-width forms and all that is visible stay (NFC, not
NFKC). Target text is never normalised: a French translation has its narrow no-break spaces on purpose.
"""

import re
import unicodedata

RULES = 1  # part of the tokenizer's fingerprint; raise it when the same text comes to be normalised otherwise

SPACES = "".join(character for character in map(chr, range(0x3001)) if character.isspace() and character != " ")
# Soft hyphen, zero-width space, word joiner, byte order mark inside the text, marks of writing direction.
INVISIBLE = "\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u206f\ufeff"
# The joiners U+200C and U+200D have meaning in emoji and in Arabic, Indic and other scripts. Between characters of
# these blocks (Latin, Greek, Cyrillic, general punctuation, East Asian) they are leftovers.
_UNJOINED = "\u0000-\u052f\u1e00-\u1fff\u2010-\u205e\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
_JOINERS = re.compile(f"(?<![^{_UNJOINED}])[\u200c\u200d]+(?![^{_UNJOINED}])")
_SPACE = re.compile(f"[{SPACES}]")
_GONE = re.compile(f"[{INVISIBLE}]")


def normalise(text: str) -> str:
    """``text`` with every white space as U+0020, without invisible leftovers, in NFC; twice is the same as once."""
    text = _SPACE.sub(" ", text)
    if text.isascii():
        return text
    visible = _JOINERS.sub("", _GONE.sub("", unicodedata.normalize("NFC", text)))
    return unicodedata.normalize("NFC", visible)
