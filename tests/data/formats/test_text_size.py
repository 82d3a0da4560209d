"""Promise: the size of a text is known before anything is tokenised."""

from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.formats.text_size import measure_text


def pairs(*texts: tuple[str, str]) -> list[SentencePair]:
    return [SentencePair(src, tgt, number) for number, (src, tgt) in enumerate(texts)]


def test_pairs_with_text_on_both_sides_count() -> None:
    """Training leaves the others out, so a choice by their number would be wrong."""
    size = measure_text(pairs(("a cat", "猫"), ("", "狗"), ("x", " "), ("the dog", "那只狗")))
    assert (size.num_pairs, size.src.num_characters, size.tgt.num_characters) == (2, 12, 4)
    assert (size.src.script, size.tgt.script) == ("latin", "han")
    empty = measure_text([])
    assert (empty.num_pairs, empty.src.script, empty.src.characters_to_cover(0.9)) == (0, None, set())


def test_the_most_frequent_characters_cover_the_text() -> None:
    """A vocabulary has the characters that make most of the text; the rarest are written as bytes."""
    size = measure_text(pairs(("aaaaaabbbc", "x")))
    assert size.src.characters_to_cover(0.6) == {"a"}
    assert size.src.characters_to_cover(0.61) == {"a", "b"}
    assert size.src.characters_to_cover(1.0) == {"a", "b", "c"}


def test_a_sample_of_a_large_text_has_its_alphabet() -> None:
    """Counting every character of many millions of lines would take minutes."""
    size = measure_text(SentencePair("ab" if number % 2 else "cd", "e", number) for number in range(150_000))
    assert size.src.num_characters == 300_000
    assert size.src.alphabet.total() == 2 * 105_000
    assert size.src.characters_to_cover(1.0) == set("abcd")


def test_different_words_are_counted_where_there_are_spaces() -> None:
    """Guards against sentences of Chinese that count as words, words that count with their full stop again, and memory
    that grows with the text."""
    size = measure_text(pairs(("the cat, the dog.", "猫和狗。"), ("A cat", "一只猫")))
    assert (size.src.num_words, size.tgt.num_words) == (4, None)
    many = measure_text(SentencePair(f"a{number} b{number}", "e", number) for number in range(90_000))
    assert many.src.num_words == 50_000
    assert many.tgt.num_words == 1
