"""Promise: sampled corpora are pure functions of their arguments, whoever makes them, when, and on how many cores."""

import errno
import threading
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from seq2seq.config import TokenizerConfig
from seq2seq.data import parallel
from seq2seq.data import subword_epochs as resample
from seq2seq.data.corpus import Corpus, build_corpus
from seq2seq.data.corpus_writer import SIDES, CorpusWriter
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.subword_epochs import Resampler
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair, train_tokenizer
from seq2seq.errors import DataError

NUM_PAIRS = 40


@pytest.fixture(scope="module")
def tokenizers(tiny_tokenizers) -> TokenizerPair:
    words = ["kato", "miren", "solka", "tomi", "renka"] * 40
    return TokenizerPair(tiny_tokenizers.src, train_tokenizer(words, TokenizerConfig(kind="bpe", vocab_size=290))[0])


@pytest.fixture(scope="module")
def corpus(tokenizers, tmp_path_factory) -> Corpus:
    rng = np.random.default_rng(2)

    def line() -> str:
        return " ".join(rng.choice(["kato", "miren", "solka", "tomi", "renka"], size=rng.integers(1, 9)))

    pairs = [SentencePair(line(), line(), 2 * i) for i in range(NUM_PAIRS)]
    return build_corpus(tmp_path_factory.mktemp("corpus") / "c", pairs, tokenizers, "f")


@pytest.fixture
def cores(monkeypatch):
    """``cores(n)``: from now on there are so many."""
    monkeypatch.setattr(resample, "_CHUNK_PAIRS", 7)
    return lambda number: monkeypatch.setattr(parallel, "num_cores", lambda: number)


@pytest.fixture
def sample(corpus, tokenizers, tmp_path):
    """``sample(folder's name, seed)``; its processes, which take long to start, serve the whole test."""
    with ExitStack() as opened:

        @cache
        def resampler(strength: float, max_length: int) -> Resampler:
            return opened.enter_context(Resampler(corpus, tokenizers, strength, max_length))

        def sample(name: str, seed: int, strength: float = 0.2, max_length: int = 256) -> Corpus:
            return resampler(strength, max_length).sample(tmp_path / name, seed)

        yield sample


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_sampling_keeps_the_pairs(corpus, tokenizers, sample, cores):
    """Guards against sampled epochs that mix up pairs, lose their EOS, or ignore the seed or the limit of length."""
    cores(1)
    one, other = sample("one", 1), sample("other", 2)
    assert contents(one.folder)["src.ids"] != contents(other.folder)["src.ids"]
    assert len({corpus.fingerprint, one.fingerprint, other.fingerprint}) == 3
    changed = 0
    for i in range(corpus.num_pairs):
        for tokenizer, side in ((tokenizers.src, "src"), (tokenizers.tgt, "tgt")):
            old, new = corpus.sentence(side, i), one.sentence(side, i)
            assert len(set(tokenizer.decode_batch([new, old]))) == 1
            assert new[-1] == EOS_ID
            changed += new.tolist() != old.tolist()
    assert changed > corpus.num_pairs // 2
    assert one.lines.tolist() == corpus.lines.tolist()
    assert one.counts == corpus.counts
    longest = max(corpus.src_lengths.max(), corpus.tgt_lengths.max())
    tight = sample("tight", 1, strength=0.9, max_length=int(longest))
    assert max(tight.src_lengths.max(), tight.tgt_lengths.max()) <= longest


def test_chunks_and_sides_are_sampled_apart(tiny_tokenizers, tmp_path, cores):
    """Guards against a seed used twice: equal sentences would be cut alike on both sides, or again in every chunk."""
    cores(1)
    pairs = [SentencePair("katomiren solka", "katomiren solka", i) for i in range(14)]
    corpus = build_corpus(tmp_path / "c", pairs, tiny_tokenizers, "f")
    with Resampler(corpus, tiny_tokenizers, 0.2, 256) as resampler:
        sampled = resampler.sample(tmp_path / "r", 1)
    parts = [[tuple(sampled.sentence(side, first + i)) for i in range(7)] for side in SIDES for first in (0, 7)]
    assert all(one != other for number, one in enumerate(parts) for other in parts[:number])


def test_samples_do_not_depend_on_cores_or_on_being_made_ahead(corpus, tokenizers, sample, cores, tmp_path):
    """Guards against a resumed run on another machine, or in the middle of an epoch, that sees other samples."""
    cores(1)
    expected = {seed: contents(sample(f"expected-{seed}", seed).folder) for seed in (5, 6)}
    cores(3)
    with Resampler(corpus, tokenizers, 0.2, 256) as resampler:
        assert contents(resampler.sample(tmp_path / "a", 5).folder) == expected[5]
        resampler.sample_ahead(tmp_path / "b", 6)
        assert contents(resampler.sample(tmp_path / "b", 6).folder) == expected[6]
        resampler.sample_ahead(tmp_path / "c", 5)  # not what is asked for in the end
        assert contents(resampler.sample(tmp_path / "c", 6).folder) == expected[6]


def test_samples_that_are_there_are_opened(corpus, tokenizers, sample, tmp_path):
    """Guards against work done twice, after a restart or ahead, and against taking another epoch's samples."""
    first = sample("r", 1)
    inode = (first.folder / "meta.json").stat().st_ino
    sample("r", 1)
    with Resampler(corpus, tokenizers, 0.2, 256) as resampler:
        resampler.sample_ahead(tmp_path / "r", 1)
        resampler.sample(tmp_path / "r", 1)
    assert (first.folder / "meta.json").stat().st_ino == inode
    assert sample("r", 2).fingerprint != first.fingerprint
    with pytest.raises(DataError, match="built with other tokenizers"):
        Resampler(corpus, TokenizerPair(tokenizers.tgt, tokenizers.src), 0.2, 256)


@pytest.mark.parametrize("chunk_pairs", [NUM_PAIRS, 7])
def test_damaged_samples_are_named_and_made_again(sample, cores, tmp_path, monkeypatch, capsys, chunk_pairs):
    """Guards against an epoch of other ids than were drawn, after one flipped bit in what an earlier start left: a
    corpus of several chunks was looked at twice, and the second time without its checksums."""
    cores(1)
    monkeypatch.setattr(resample, "_CHUNK_PAIRS", chunk_pairs)
    sample("a", 5)
    whole = contents(tmp_path / "a")
    for name, content in whole.items():
        assert not capsys.readouterr().err
        (tmp_path / "a" / name).write_bytes(content[:4] + bytes([content[4] ^ 1]) + content[5:])
        sample("a", 5)
        assert contents(tmp_path / "a") == whole
        assert f"{tmp_path / 'a'}" in capsys.readouterr().err


def test_ahead_means_while_the_caller_goes_on(corpus, tokenizers, tmp_path):
    """Guards against samples that are begun only when they are asked for."""
    with Resampler(corpus, tokenizers, 0.2, 256) as resampler:
        resampler.sample_ahead(tmp_path / "r", 1)
        deadline = time.monotonic() + 300
        while not (tmp_path / "r").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_what_fails_ahead_is_told_when_it_is_needed(corpus, tokenizers, tmp_path, monkeypatch):
    """Guards against an error lost in a thread, and against one of the past that stands in the way."""
    resampler = Resampler(corpus, tokenizers, 0.2, 256)
    add = CorpusWriter.add

    def full(self, *sentences):
        raise OSError(errno.ENOSPC, "No space left on device")

    with resampler:
        monkeypatch.setattr(CorpusWriter, "add", full)
        resampler.sample_ahead(tmp_path / "r", 1)
        with pytest.raises(DataError, match="no space left"):
            resampler.sample(tmp_path / "r", 1)
        resampler.sample_ahead(tmp_path / "r", 1)
        resampler._thread.submit(lambda: None).result()
        monkeypatch.setattr(CorpusWriter, "add", add)
        assert resampler.sample(tmp_path / "r", 1).num_pairs == NUM_PAIRS


def test_closing_gives_up_what_is_made_ahead(corpus, tokenizers, cores, tmp_path, monkeypatch):
    """Guards against a run that ends only when the next epoch is sampled, and against remains of that."""
    cores(1)
    monkeypatch.setattr(resample, "_CHUNK_PAIRS", 1)
    added = []
    add = CorpusWriter.add
    begun = threading.Event()

    def slow_add(self, *args):
        added.append(args)
        begun.set()
        time.sleep(0.2)
        add(self, *args)

    monkeypatch.setattr(CorpusWriter, "add", slow_add)
    resampler = Resampler(corpus, tokenizers, 0.2, 256)
    resampler.sample_ahead(tmp_path / "r", 1)
    resampler.sample_ahead(tmp_path / "s", 2)
    begun.wait()
    resampler.close()
    assert len(added) < NUM_PAIRS // 2
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("resampler")]
