"""Promise: what the pieces around a term may be, so that it stands as whole words where it stood so in the source."""

import pytest

from seq2seq.config import TokenizerConfig
from seq2seq.data.tokenizer import Tokenizer, train_tokenizer
from seq2seq.decode.speller import Speller
from seq2seq.decode.terms import DIGIT, WORD, Spelling


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    text = ["see <b> Haus </b> 12 {x} Haus12 a<b>b"] * 50
    return train_tokenizer(text, TokenizerConfig(kind="bpe", vocab_size=320, byte_fallback=True))[0]


def spellings(tokenizer: Tokenizer, text: str, **how: bool | None) -> dict[bool, Spelling]:
    """The spellings of a term, by whether they start a word."""
    term = Speller(tokenizer).term(text, **how)  # type: ignore[arg-type]
    assert term is not None
    return {tokenizer.pieces(one.ids[:1])[0].startswith("\u2581"): one for one in term.spellings}


def test_no_word_grows_out_of_a_term(tokenizer: Tokenizer) -> None:
    """Guards against "<b>" that a word is glued to, although a space follows it in the source, and against "Haus" in
    "Hausboot" and 12 in 123."""
    assert {one.after for one in spellings(tokenizer, "<b>").values()} == {0}
    assert {one.after for one in spellings(tokenizer, "<b>", ends_word=True).values()} == {WORD}
    assert {one.after for one in spellings(tokenizer, "Haus").values()} == {WORD}
    assert {one.after for one in spellings(tokenizer, "12", number=True, ends_word=True).values()} == {DIGIT}
    assert spellings(tokenizer, "Haus")[False].before == WORD
    assert spellings(tokenizer, "Haus")[True].before == 0


def test_a_term_begins_as_in_the_source(tokenizer: Tokenizer) -> None:
    """Guards against a space before a tag that had none, and the other way round; a word always begins one."""
    assert set(spellings(tokenizer, "<b>")) == {False, True}
    assert set(spellings(tokenizer, "<b>", starts_word=True)) == {True}
    assert set(spellings(tokenizer, "<b>", starts_word=False)) == {False}
    assert set(spellings(tokenizer, "Haus", starts_word=True)) == {True}
    assert set(spellings(tokenizer, "Haus", starts_word=False)) == {False, True}


def test_a_part_of_a_character_may_be_one_of_a_letter(tokenizer: Tokenizer) -> None:
    """Guards against a word that continues with the bytes of "ß", which no piece has; bytes of ASCII are known."""
    table = Speller(tokenizer).table
    by_value = {value: i for i, value in tokenizer.byte_values().items()}
    assert (table.starts[by_value[0xC3]], table.ends[by_value[0x9F]]) == (WORD, WORD)
    assert table.starts[by_value[ord("a")]] == WORD
    assert table.starts[by_value[ord("7")]] == WORD | DIGIT
    assert table.starts[by_value[ord("<")]] == 0
