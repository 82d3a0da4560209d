"""Promise: what training leaves out has no say in the vocabulary."""

import base64
import random

import pytest

from seq2seq.config import TokenizerConfig
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.vocabulary import learn_tokenizers
from seq2seq.errors import DataError
from tests.toy import sentences

BOUNDS = {"max_length": 40, "max_ratio": 4}


def learn(pairs, kind="bpe", bounds=BOUNDS, vocab_size=400, **options):
    numbered = (SentencePair(src, tgt, line) for line, (src, tgt) in enumerate(pairs))
    config = TokenizerConfig(kind=kind, vocab_size=vocab_size, **options)
    return learn_tokenizers(numbered, config, **bounds)[0]


def base64_line(length: int) -> str:
    return base64.b64encode(random.Random(length).randbytes(length)).decode()[:length]


JUNK = {
    "a huge line": (base64_line(100_000), "ka"),
    "a long line": (base64_line(600), "dor"),
    "one on each side": (base64_line(230), base64_line(231)),
    "many words": ("qx zq " * 60, "dor fe"),
    "unlike lengths": ("wy " * 30, "dor"),
    "a blank side": ("qqqq zzzz", " \u3000"),
    "nothing to see": ("\u200b\u00ad", "qqqq zzzz"),
}


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_pairs_that_are_left_out_do_not_matter(kind, joint, junk):
    """Guards against a line of base64 that fills the vocabulary, or breaks the unigram trainer, though no training
    step ever sees it."""
    pairs = sentences(200, seed=1)
    clean = learn(pairs, kind, joint=joint)
    assert learn([*pairs[:50], junk, *pairs[50:]], kind, joint=joint).fingerprint == clean.fingerprint


def test_a_pair_that_is_kept_does_matter():
    """Guards against filters that leave out too much: the tokenizer knows every word that training sees."""
    pairs = sentences(200, seed=1)
    pair = ("qqq xx", "zzz")
    assert learn([*pairs, pair]).fingerprint != learn(pairs).fingerprint
    long = learn(pairs, bounds={}).src
    assert learn([*pairs, (base64_line(600), "ka")], bounds={}).src.model != long.model


def test_left_out_characters_do_not_make_the_vocabulary_too_small():
    """Guards against "vocab_size is too small" because of a line that training leaves out."""
    pairs, junk = sentences(200, seed=1), "".join(map(chr, range(0x4E00, 0x4E00 + 150)))
    assert learn([*pairs, (junk, "dor fe gu hex")], vocab_size=330).src.model == learn(pairs, vocab_size=330).src.model


@pytest.mark.parametrize(
    "pairs", [[], [("", "a")], [("a", " \r"), ("\u200b", "b")], [("word " * 300, "a"), ("a", "x" * 300)]]
)
def test_nothing_to_learn_from(pairs):
    """Guards against SentencePiece's own words where no pair is left."""
    with pytest.raises(DataError, match=r"no training pair has text .* data\.max_length \(40\)"):
        learn(pairs)


def test_the_source_is_learnt_as_it_is_read():
    """Guards against pieces for no-break spaces and soft hyphens that no source text has when it is encoded."""
    pairs = sentences(200, seed=1)
    odd = [(src.replace(" ", "\u00a0\u200b"), tgt) for src, tgt in pairs]
    assert learn(odd).fingerprint == learn(pairs).fingerprint
    assert learn(odd, normalise_source=False).fingerprint != learn(pairs, normalise_source=False).fingerprint
    assert learn(pairs, normalise_source=False).src.model == learn(pairs).src.model
    target = [(src, tgt.replace(" ", "\u202f")) for src, tgt in pairs]
    tokenizer = learn(target).tgt
    assert tokenizer.decode_batch(tokenizer.encode([target[0][1]])) == [target[0][1]]


def test_a_sample_of_many_pairs():
    """Guards against a sample that is drawn otherwise every time, or that ignores its size."""
    pairs = sentences(300, seed=1)
    few = [learn(pairs, bounds={**BOUNDS, "max_sentences": 80}).fingerprint for _ in range(2)]
    assert few[0] == few[1] != learn(pairs).fingerprint
    assert learn(pairs[:40], bounds={**BOUNDS, "max_sentences": 80}).fingerprint == learn(pairs[:40]).fingerprint
