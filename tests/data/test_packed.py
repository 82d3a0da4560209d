"""Promise: packing only lays sentences end to end."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.data.packed import Capacity, pack, pack_pairs, pack_sentences
from seq2seq.data.symbols import BOS_ID, EOS_ID, IGNORE_LABEL


def check_layout(side, sentences):
    """``side`` is what :class:`Packed` says about these sentences."""
    assert side.ids.tolist() == [i for s in sentences for i in s]
    assert side.positions.tolist() == [p for s in sentences for p in range(len(s))]
    assert side.lengths.tolist() == [len(s) for s in sentences]
    assert side.offsets.tolist() == [sum(map(len, sentences[:i])) for i in range(len(sentences) + 1)]
    assert side.max_length == max(map(len, sentences))
    assert side.num_sentences == len(sentences)
    assert side.offsets.dtype == torch.int32
    assert {t.dtype for t in (side.ids, side.positions, side.lengths, side.cells, side.grid)} == {torch.int64}
    # The grid, read by rows, holds each sentence from the left, and the cells are its inverse.
    assert side.grid.numel() == side.num_sentences * side.max_length
    assert side.grid[side.cells].tolist() == list(range(side.ids.numel()))
    rows = side.ids[side.grid].view(side.num_sentences, side.max_length)
    assert [row[: len(s)].tolist() for row, s in zip(rows, sentences, strict=True)] == [list(s) for s in sentences]
    padding = torch.ones(side.grid.numel(), dtype=torch.bool).index_fill_(0, side.cells, False)
    assert not side.grid[padding].any()


sentence = st.lists(st.integers(4, 60000), max_size=9).map(lambda ids: [*ids, EOS_ID])


@settings(deadline=None, max_examples=60)
@given(pairs=st.lists(st.tuples(sentence, sentence), min_size=1, max_size=9))
def test_pack_pairs_layout(pairs):
    """Guards against a shift that carries a token over from the sentence before, and against wrong offsets."""
    src, tgt = zip(*pairs, strict=True)
    flat = [(np.concatenate(side).astype(np.uint16), np.array([len(s) for s in side], np.int32)) for side in (src, tgt)]
    batch = pack_pairs(*flat[0], *flat[1])
    check_layout(batch.src, src)
    check_layout(batch.tgt, [[BOS_ID, *s[:-1]] for s in tgt])
    assert batch.labels.tolist() == [i for s in tgt for i in s]
    assert batch.labels.dtype == torch.int64
    assert batch.num_labels == sum(map(len, tgt))
    check_layout(pack_sentences(src), src)


def test_pack_pairs_of_nothing_is_one_ignored_pair():
    """Guards against a rank without sentences that skips the step and leaves the others waiting."""
    none = np.array([], dtype=np.int64)
    batch = pack_pairs(none, none, none, none)
    assert batch.num_labels == 0
    assert batch.labels.tolist() == [IGNORE_LABEL]
    check_layout(batch.src, [[EOS_ID]])
    check_layout(batch.tgt, [[EOS_ID]])


@pytest.mark.parametrize(
    ("ids", "lengths"),
    [
        pytest.param([5, 6, 3], [], id="no sentence"),
        pytest.param([5, 6, 3], [0, 3], id="an empty sentence"),
        pytest.param([5, 6, 3], [2], id="tokens left over"),
        pytest.param([5, 6, 3], [2, 2], id="tokens missing"),
        pytest.param([5, 6, 3], [4, -1], id="a negative length"),
    ],
)
def test_pack_refuses_defects(ids, lengths):
    """Guards against a layout that silently shifts the sentences after a defect."""
    with pytest.raises(AssertionError):
        pack(np.array(ids), np.array(lengths, dtype=np.int64))


def test_moving_a_batch_keeps_all_of_it():
    """Guards against a field forgotten when a batch moves to another device."""
    batch = pack_pairs(*(np.array(x) for x in ([5, 3, 6, 7, 3], [2, 3], [8, 3, 3], [2, 1])))
    moved = batch.to(torch.device("meta"))
    for side in (moved.src, moved.tgt):
        assert all(getattr(side, f).is_meta for f in ("ids", "positions", "offsets", "lengths", "cells", "grid"))
    assert moved.labels.is_meta
    assert (moved.num_labels, moved.src.max_length, moved.tgt.max_length) == (3, 3, 2)
    assert moved.src.ids.shape == batch.src.ids.shape


def test_a_batch_beyond_its_capacity_is_refused():
    """Guards against filling of negative length, where a batch is packed that does not fit."""
    capacity = Capacity(src_tokens=16, tgt_tokens=16, sentences=9, max_length=8)
    for tokens in (16, 17, 40):
        assert not capacity.fits(tokens, 3, 2)
        with pytest.raises(AssertionError, match="larger than its capacity"):
            capacity.fillings(tokens, 3)
