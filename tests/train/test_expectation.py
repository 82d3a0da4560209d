"""Promise: a run says before it starts whether text and time are enough, and what to expect."""

from seq2seq.train.expectation import expectation


def test_too_little_is_said_before_the_run() -> None:
    """The run with 2,700 pairs and 86 steps was known to be useless before it began."""
    (text,) = expectation(300, 1_024, 86)
    assert str(text).startswith("too little text: with 300 pairs")
    (short,) = expectation(20_000_000, 1_024, 86)
    assert str(short).startswith("too short: after 86 steps")
    assert not text.is_enough
    assert not short.is_enough


def test_runs_of_like_size_are_named() -> None:
    """A range of scores, with how it was obtained; nothing where no run of ours is near."""
    (found,) = expectation(3_500, 1_024, 1_000)
    assert found.is_enough
    assert str(found).startswith("what to expect: with about as much text and time, runs of ours had BLEU about 17 (")
    assert "3,000 pairs" in str(found)
    assert "30,000 pairs" not in str(found)
    (longer,) = expectation(30_000, 1_024, 2_000)  # between two runs
    assert "about 38 (English-German everyday sentences, 30,000 pairs), about 36 (English-German image" in str(longer)
    assert "about 23 (English-Chinese everyday sentences, 30,000 pairs), about 20 (classical" in str(longer)
    (few,) = expectation(60_000, 1_024, 571)  # halfway in the logarithm of the tokens
    assert "about 28 (English-German everyday sentences, 30,000 pairs)" in str(few)
    (shorter,) = expectation(2_700, 1_024, 150)  # shorter than any run: such a run had 5.7
    assert "BLEU below 12 (English-German everyday sentences, 3,000 pairs)," in str(shorter)
    assert expectation(50_000_000, 25_000, 100_000) == []
    (longest,) = expectation(30_000, 3_328, 6_180)  # longer than any run
    assert "about 40 or more (English-German everyday sentences, 30,000 pairs), about 38 or more (" in str(longest)
