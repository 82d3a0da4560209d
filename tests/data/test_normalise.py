"""Promise: spellings of a source sentence that look alike are one to the model, and what has meaning stays."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seq2seq.data.normalise import normalise

ODD = "aé \u00a0\u00ad\u0301\u0327\u0645\u0915\u094d\u1100\u1161\u2003\u200b\u200c\u200d\u2126\u212a\u2764\ufe0f\ufeff"


@pytest.mark.parametrize("space", "\t\u00a0\u1680\u2000\u2009\u200a\u202f\u205f\u3000\u2028\u2029\u0085\x0b\x0c\r\n")
def test_every_white_space_is_a_space(space):
    """Guards against a no-break or ideographic space that the model reads as an unknown character."""
    assert normalise(f"She left{space}Beijing.") == "She left Beijing."


@pytest.mark.parametrize("mark", "\u00ad\u200b\u2060\ufeff\u200e\u200f\u061c\u202a\u202c\u202e\u2066\u2069\u200c\u200d")
def test_invisible_leftovers_go(mark):
    """Guards against a soft hyphen from a PDF, a mark of direction or a stray joiner that cuts a word."""
    assert normalise(f"{mark}She left Bei{mark}jing{mark}{mark}.{mark}") == "She left Beijing."
    assert normalise(f"北{mark}京") == "北京"


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # Persian, two stems
        "PDF\u200cها",  # Persian, a Latin word with its plural
        "क्\u200dष क्\u200cष",  # Devanagari, half forms
        "\U0001f469\u200d\U0001f4bb \u2764\ufe0f\u200d\U0001f525 \U0001f3c3\u200d\u2642\ufe0f",  # emoji
        "葛\U000e0100 1\ufe0f\u20e3",  # variants
        "，。！？Ａ１ﬁ…~ \x00\x01",  # full-width forms, ligatures, control characters
    ],
)
def test_what_has_meaning_stays(text):
    """Guards against joiners taken from Persian, Indic scripts and emoji, and against NFKC."""
    assert normalise(text) == text


def test_characters_are_composed():
    """Guards against the two spellings of an accent, also where a leftover stands between letter and accent."""
    for text in ("e\u0301 A\u030a \u1112\u1161\u11ab", "e\u00ad\u0301 A\u200b\u030a \u1112\ufeff\u1161\u11ab"):
        assert normalise(text) == "é Å 한"


@given(text=st.one_of(st.text(), st.text(alphabet=ODD)))
@example("\u200c\u1100\ufeff\u1161")  # a joiner beside a syllable whose parts come together only then
def test_twice_is_once(text):
    """Guards against stored pieces that are normalised to something else when they are sampled anew."""
    once = normalise(text)
    assert normalise(once) == once == unicodedata.normalize("NFC", once)
    assert not set(once) & set("\t\n\u00a0\u00ad\u200b\ufeff")
