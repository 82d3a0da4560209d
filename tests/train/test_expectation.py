"""Promise: a run says before it starts whether text and time are enough, and what to expect."""

from seq2seq.train.expectation import expectation


def test_too_little_is_said_before_the_run() -> None:
    """The run with 2,700 pairs and 86 steps was known to be useless before it began."""
    little = expectation(300, 4_000, 1_024, 86)
    assert [sentence.split(":")[0] for sentence in little] == ["too little text", "too little time"]
    assert "300 pairs" in little[0]
    assert "86 steps" in little[1]


def test_runs_of_like_size_are_named() -> None:
    """A range of scores, with how it was obtained; nothing where no run of ours is near."""
    (found,) = expectation(3_500, 45_000, 1_024, 1_000)
    assert found.startswith("what to expect: ")
    assert "3,000 pairs" in found
    assert "165,813" not in found
    assert expectation(50_000_000, 10**9, 25_000, 100_000) == []
