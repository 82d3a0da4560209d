"""Promise: what training and search expect of a model holds for every architecture, whatever shares a batch.

That a model computes what its paper says is the promise of the file of its architecture.
"""

import pytest
import torch

from seq2seq.data.packed import PackedBatch, pack_sentences
from seq2seq.data.symbols import BOS_ID
from seq2seq.model import attention
from seq2seq.model.kernels.packed_attention import packed_attention
from tests.model.variants import all_architectures

LENGTHS = [(4, 6), (1, 1), (9, 3), (2, 12), (7, 7)]  # (source, target)


# ------------------------------------------------------------------------------------------------- who sees what


@all_architectures
def test_no_sentence_sees_another(make_model, make_pairs, batch_of, options):
    """Guards against a leak between sentences of a batch: other words in one leave the rest bit-equal (contract 4)."""
    model, pairs = make_model(**options), make_pairs(LENGTHS)
    changed = list(pairs)
    changed[3] = make_pairs(LENGTHS[3:4], seed=9)[0]
    batch = batch_of(pairs)
    one, other = model(batch), model(batch_of(changed))
    rows = slice(int(batch.tgt.offsets[3]), int(batch.tgt.offsets[4]))
    others = torch.ones(len(one), dtype=torch.bool)
    others[rows] = False
    assert torch.equal(one[others], other[others])
    assert (one[rows] - other[rows]).abs().max() > 1e-3


@all_architectures
def test_order_and_company_change_nothing(make_model, make_pairs, batch_of, options):
    """Guards against losses that depend on a sentence's place in the batch, or on the longest one (contract 3)."""
    model, pairs = make_model(**options), make_pairs(LENGTHS)
    whole = model(batch_of(pairs)).split([len(tgt) for _, tgt in pairs])
    mixed = model(batch_of([pairs[i] for i in (2, 0, 4)])).split([len(pairs[i][1]) for i in (2, 0, 4)])
    for i, found in zip((2, 0, 4), mixed, strict=True):
        torch.testing.assert_close(found, whole[i], atol=2e-6, rtol=1e-5)


@all_architectures
def test_no_token_sees_a_later_one(make_model, make_pairs, batch_of, options):
    """Guards against a decoder that reads the word it has to predict; each earlier output stays bit-equal."""
    model, pairs = make_model(**options), make_pairs([(5, 8), (3, 4)])
    batch = batch_of(pairs)
    before = model(batch)
    for at in range(8):
        batch.tgt.ids[at] ^= 1
        after = model(batch)
        batch.tgt.ids[at] ^= 1
        assert torch.equal(before[:at], after[:at])
        assert not torch.equal(before[at], after[at])


@all_architectures
def test_attention_gets_one_dtype_under_autocast(make_model, make_pairs, batch_of, options, monkeypatch):
    """Guards against queries in fp32 beside keys in bf16: on CUDA the kernel would read beyond the end of the keys."""
    seen = []

    def note(heads, *args, **options):
        seen.append({part.dtype for part in heads})
        return packed_attention(heads, *args, **options)

    monkeypatch.setattr(attention, "packed_attention", note)
    with torch.autocast("cpu", torch.bfloat16):
        make_model(**options)(batch_of(make_pairs(LENGTHS)))
    assert all(dtypes == {torch.bfloat16} for dtypes in seen)


# --------------------------------------------------------------------------------------------------- cached decoding


@all_architectures
@torch.no_grad()
def test_cached_steps_equal_the_whole(make_model, make_pairs, options):
    """Guards against a cache that is off by a position, reordered wrongly, or keeps the source of a sentence that left.

    Three sentences with two hypotheses each. On the way hypotheses are exchanged and doubled, and a sentence leaves;
    every step's logits are those of a full pass over each hypothesis by itself.
    """
    model = make_model(**options).eval()
    sources = [src for src, _ in make_pairs([(4, 1), (9, 1), (2, 1)])]
    state = model.begin(pack_sentences(sources), num_hypotheses=2, room=9)
    owners, prefixes = [0, 1, 2], [[BOS_ID] for _ in range(3)]  # one hypothesis each, until the first selection
    rng = torch.Generator().manual_seed(3)
    for step in range(9):
        tokens = torch.tensor([prefix[-1] for prefix in prefixes]).view(len(set(owners)), -1)
        logits = model.step(tokens, state).flatten(0, 1)
        for row, (owner, prefix) in enumerate(zip(owners, prefixes, strict=True)):
            src, tgt = pack_sentences([sources[owner]]), pack_sentences([prefix])
            full = model.logits(model(PackedBatch(src, tgt, tgt.ids, len(prefix))))[-1]
            torch.testing.assert_close(logits[row], full, atol=1e-5, rtol=1e-4)
        sentences, parents = {
            0: ([0, 1, 2], [[0, 0]] * 3),
            1: ([0, 1, 2], [[1, 0], [0, 0], [1, 0]]),
            3: ([0, 2], [[1, 1], [0, 1]]),  # sentence 1 leaves, and sentence 0 goes on with one hypothesis twice
            4: ([1, 0], [[0, 1], [1, 0]]),  # they change places
            6: ([1], [[1, 0]]),
        }.get(step, (list(range(len(owners) // 2)), [[0, 1]] * (len(owners) // 2)))
        chosen = torch.zeros(len(set(owners)), 2, dtype=torch.int64)
        chosen[sentences] = torch.tensor(parents)
        state.follow(chosen)
        state.keep(torch.tensor(sentences))
        width = len(owners) // len(set(owners))
        rows = [width * s + k for s, beams in zip(sentences, parents, strict=True) for k in beams]
        new = torch.randint(4, 23, (len(rows),), generator=rng).tolist()
        prefixes = [[*prefixes[row], token] for row, token in zip(rows, new, strict=True)]
        owners = [owners[row] for row in rows]
        assert state.num_sentences * 2 == len(rows)


# ------------------------------------------------------------------------------------------------------ the rest


@all_architectures
def test_dropout_acts_while_training_only(make_model, make_pairs, batch_of, options):
    """Guards against dropout left on in translation or off in training."""
    model, batch = make_model(**options, dropout=0.3), batch_of(make_pairs(LENGTHS))
    assert not torch.equal(model(batch), model(batch))
    torch.manual_seed(2)
    one = model(batch)
    torch.manual_seed(2)
    assert torch.equal(one, model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))
    without = make_model(**options)
    without.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(batch), without(batch))


@pytest.mark.parametrize("architecture", ["transformer", "recurrent"])
@pytest.mark.parametrize(("tie", "tables"), [("all", 1), ("target", 2), ("none", 3)])
def test_tied_embeddings_are_one_parameter(make_model, tie, tables, architecture):
    """Guards against a tie that is a copy, and against tables tied that should not be."""
    model = make_model(tie_embeddings=tie, architecture=architecture)
    found = [name for name, _ in model.named_parameters() if "embedding" in name or name.startswith("output")]
    assert len(found) == tables
    assert (model.output_weight is model.tgt_embedding.weight) == (tie != "none")
    assert (model.src_embedding.weight is model.tgt_embedding.weight) == (tie == "all")


@all_architectures
def test_initialisation_is_a_function_of_the_seed(make_model, options):
    """Guards against weights drawn from outside torch's generator: two runs with one seed must start alike."""
    one, other = make_model(**options), make_model(**options)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    other.initialise()
    assert not torch.equal(one.output_weight, other.output_weight)
