"""Promise: a vocabulary grows at its end; the old pieces stay what they were, and each new one can be used."""

import itertools
import random
from dataclasses import replace

import pytest

from seq2seq.config import TokenizerConfig
from seq2seq.data.extended_vocabulary import Parts, added_pieces, extended, extended_pair
from seq2seq.data.piece_model import UNUSED, Piece, PieceModel
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair, train_tokenizer

OLD = ("ka", "to", "mi", "ren", "sol", "vu", "pa", "lin")
NEW = ("кот", "дом", "мир", "лес", "sol", "renka", "pato", "море")


def lines_of(syllables: tuple[str, ...], seed: int) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(pair) for pair in itertools.product(syllables, repeat=2)]
    return [" ".join(rng.choice(words) for _ in range(rng.randrange(1, 8))) for _ in range(150)]


OLD_LINES, NEW_LINES = lines_of(OLD, 1), lines_of(NEW, 2)


def learned(
    kind: str, lines: list[str], tags: tuple[str, ...] = (), *, size: int = 330, bytes_: bool = True
) -> Tokenizer:
    config = TokenizerConfig(kind=kind, vocab_size=size, byte_fallback=bytes_)
    return train_tokenizer(lines, config, tags)[0]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_old_pieces_keep_their_ids_and_each_new_one_is_used(kind: str) -> None:
    """Guards against vectors that belong to other pieces, a piece twice (which SentencePiece refuses), pieces that no
    text can have, and text that is not given back as it was."""
    old, new = learned(kind, OLD_LINES, ("bt",)), learned(kind, NEW_LINES)
    both = extended(old, new, ("bt", "ru"), bpe=kind == "bpe")
    assert both.pieces(range(old.vocab_size)) == old.pieces(range(old.vocab_size))
    added = added_pieces(old, both)
    assert added[0] == "<ru>"
    assert set(added[1:]) <= set(new.pieces(range(new.vocab_size)))
    assert len(added) > 20
    alone = Parts(both)
    assert all(alone(piece) == [i] for i, piece in enumerate(added[1:], start=old.vocab_size + 1))
    assert both.decode_batch(both.encode(NEW_LINES)) == NEW_LINES
    counts = [sum(map(len, tokenizer.encode(NEW_LINES))) for tokenizer in (old, both, new)]
    assert counts[1] < 1.1 * counts[2] < counts[0]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_an_unused_piece_comes_into_use(kind: str) -> None:
    """Guards against a second piece of the same text, which SentencePiece refuses: the sides of an imported model have
    all pieces of a common table, and do not use those of the other side."""
    old, new = learned(kind, OLD_LINES), learned(kind, NEW_LINES)
    added = added_pieces(old, extended(old, new, (), bpe=kind == "bpe"))
    model = PieceModel.parse(old.model)
    sleeping = Tokenizer(replace(model, pieces=(*model.pieces, Piece(added[0], 0.0, UNUSED))).serialise())
    both = extended(sleeping, new, (), bpe=kind == "bpe")
    assert both.pieces([old.vocab_size]) == added[:1]
    assert Parts(both)(added[0]) == [old.vocab_size]
    assert added_pieces(sleeping, both) == added[1:]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_text_without_new_parts_is_cut_as_before(kind: str) -> None:
    """Guards against a model that loses what it had, because its own text reaches it in other pieces."""
    old, new = learned(kind, OLD_LINES), learned(kind, lines_of(("кот", "дом", "мир", "лес"), 3))
    both = extended(old, new, (), bpe=kind == "bpe")
    assert both.vocab_size > old.vocab_size
    assert both.encode(OLD_LINES) == old.encode(OLD_LINES)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_that_no_text_can_have_are_left_out(kind: str) -> None:
    """Guards against vectors that never learn: the old merges cut the letters of a new piece elsewhere, or its parts
    are likelier than the piece. Bytes are no pieces to add, either."""
    old = learned(kind, OLD_LINES, size=60, bytes_=False)
    new = learned(kind, lines_of(("atom", "ikar", "olmi", "enso", "oka"), 5))
    both = extended(old, new, (), bpe=kind == "bpe")
    added = added_pieces(old, both)
    lacking = set(new.pieces(range(4, new.vocab_size))) - set(old.pieces(range(old.vocab_size)))
    lacking = {piece for piece in lacking if not piece.startswith("<0x")}
    assert added
    assert set(added) < lacking if kind == "bpe" else set(added) <= lacking
    alone = Parts(both)
    assert all(alone(piece) == [i] for i, piece in enumerate(added, start=old.vocab_size))


def test_new_merges_come_after_the_old_ones() -> None:
    """Guards against bpe text that is cut at places where it was not cut before."""
    old, new = learned("bpe", OLD_LINES), learned("bpe", lines_of(("atom", "ikar", "olmi", "ka", "to"), 5))
    both = extended(old, new, (), bpe=True)

    def ends(tokenizer: Tokenizer, line: str) -> set[int]:
        lengths = [len(piece) for piece in tokenizer.pieces(tokenizer.encode([line])[0])]
        return set(itertools.accumulate(lengths))

    lines = lines_of(("atom", "ikar", "ka", "to", "mi"), 6)
    assert all(ends(both, line) <= ends(old, line) for line in lines)
    assert sum(len(ends(both, line)) for line in lines) < sum(len(ends(old, line)) for line in lines)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_sampled_extension_is_read_as_its_kind(kind: str) -> None:
    """Guards against a bpe model that is sampled as a unigram model because new scores are no whole numbers."""
    both = extended(learned(kind, OLD_LINES), learned(kind, NEW_LINES), (), bpe=kind == "bpe")
    sampled = both.encode_sampled(NEW_LINES, 0.2, seed=4)
    assert both.decode_batch(sampled) == NEW_LINES
    assert sampled != both.encode(NEW_LINES)
    if kind == "bpe":
        assert both.encode_sampled(NEW_LINES, 0.0, seed=4) == both.encode(NEW_LINES)


def test_parts_are_those_of_the_piece_and_not_of_a_word() -> None:
    """Guards against a mark of a space before a piece from the middle of a word; unknown characters are bytes, or the
    unknown piece."""
    old = learned("bpe", OLD_LINES)
    assert old.pieces(Parts(old)("kato")) == ["ka", "to"]
    assert old.pieces(Parts(old)("\u2581kato"))[0].startswith("\u2581")
    assert old.pieces(Parts(old)("м")) == ["<0xD0>", "<0xBC>"]
    assert Parts(learned("bpe", OLD_LINES, size=60, bytes_=False))("м") == [1]


def test_tags_are_found_where_they_are() -> None:
    """Guards against tags at the end of a vocabulary that no command knows and that a search could choose."""
    old = learned("bpe", OLD_LINES, ("bt", "de"))
    both = extended(old, learned("bpe", NEW_LINES), ("de", "fr", "es"), bpe=True)
    size = old.vocab_size
    assert both.tags == {"bt": 4, "de": 5, "fr": size, "es": size + 1}
    assert both.tag_ranges == (range(4, 6), range(size, size + 2))
    assert learned("bpe", OLD_LINES).tag_ranges == ()


def test_both_sides_are_extended() -> None:
    """Guards against one vocabulary that becomes two, a target that gets the tags of the source, and a source that no
    longer normalises."""
    old, new = learned("bpe", OLD_LINES), learned("bpe", NEW_LINES)
    joint = extended_pair(TokenizerPair(old, old).normalising(), TokenizerPair(new, new), ["t"], bpe=True, shared=True)
    assert joint.joint
    assert joint.src.normalises
    assert not joint.tgt.normalises
    apart = extended_pair(TokenizerPair(old, new), TokenizerPair(new, old), ["t"], bpe=True, shared=False)
    assert set(apart.src.tags) == {"t"}
    assert not apart.tgt.tags
    assert apart.tgt.pieces(range(new.vocab_size)) == new.pieces(range(new.vocab_size))
    assert apart.tgt.vocab_size > new.vocab_size
