"""Random sources are ones that text can have."""

from pathlib import Path

from seq2seq.data.extended_vocabulary import extended
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.export.probe import random_ids


def test_random_ids_are_no_tags_wherever_these_are(tagged: Path) -> None:
    """Guards against tags in the middle of a probe: those of a model that was extended are its last pieces."""
    old = TokenizerPair.load(tagged / "best").src
    tokenizer = extended(old, None, ("later",), bpe=True)
    drawn = {i for ids in random_ids(tokenizer, 300, 30) for i in ids}
    usable = set(range(EOS_ID + 1, tokenizer.vocab_size)) - set(tokenizer.tags.values())
    assert tokenizer.tags["later"] == tokenizer.vocab_size - 1
    assert drawn == usable


def test_random_ids_are_the_same_every_time(tagged: Path) -> None:
    """Guards against two exports of one model that were proved with other sources."""
    tokenizer = TokenizerPair.load(tagged / "best").src
    found = random_ids(tokenizer, 5, 7)
    assert found == random_ids(tokenizer, 5, 7)
    assert found != random_ids(tokenizer, 5, 7, seed=1)
    assert all(1 <= len(ids) <= 7 for ids in found)
