"""Subword regularisation: every epoch has its own corpus, in which the sentences are segmented at random."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from seq2seq.data.corpus import Corpus, open_corpus
from seq2seq.data.corpus_writer import SIDES, Sentences, corpus_writer, join_sentences
from seq2seq.data.parallel import Workers
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.errors import DataError
from seq2seq.files import fingerprint

_CHUNK_PAIRS = 8192  # each chunk has its own seed, so another size gives other samples
_NICENESS = 10  # training has priority


class Resampler(AbstractContextManager["Resampler"]):
    """Makes sampled corpora from a corpus, on demand or in advance. Close it, or use it in a ``with``.

    A sampled corpus has the same pairs in the same order. It depends only on the arguments, not on the number of cores.
    A sentence that would exceed ``max_length`` tokens keeps its stored pieces.
    """

    def __init__(self, corpus: Corpus, tokenizers: TokenizerPair, strength: float, max_length: int) -> None:
        """``strength`` is as for :meth:`Tokenizer.encode_sampled`. This starts no process or thread."""
        if corpus.vocab_sizes != (tokenizers.src.vocab_size, tokenizers.tgt.vocab_size):
            raise DataError(f"{corpus.folder}: built with other tokenizers; build the corpus again")
        self._corpus, self._tokenizers, self._strength, self._max_length = corpus, tokenizers, strength, max_length
        self._workers = Workers(_NICENESS)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="resampler")
        self._ahead: list[Future[None]] = []

    def __exit__(self, *error: object) -> None:
        self.close()

    def sample(self, folder: Path, seed: int) -> Corpus:
        """Open the corpus sampled with ``seed`` in ``folder``, or make it; its checksums are verified.

        A damaged corpus is made again, with a message on standard error. This method waits for :meth:`sample_ahead`; if
        that failed, it tries again and raises the error.
        """
        wait(self._ahead)
        self._ahead.clear()
        made_from = self._fingerprint(seed)
        if folder.exists():
            try:
                return open_corpus(folder, made_from, verify=True)
            except DataError as error:
                tqdm.write(f"{error} (seq2seq does this now)", file=sys.stderr)
        self._make(folder, seed)
        return open_corpus(folder, made_from, verify=True)

    def growth(self, pairs: range) -> float:
        """About how many times as many steps an epoch of a sampled corpus has, from these pairs."""
        sampled = _sample(self._corpus, self._tokenizers, self._strength, self._max_length, 0, (0, pairs))
        stored = (self._corpus.src_lengths, self._corpus.tgt_lengths)
        sides = zip(sampled, stored, strict=True)
        return max(int(new.lengths.sum()) / int(old[list(pairs)].sum()) for new, old in sides)

    def sample_ahead(self, folder: Path, seed: int) -> None:
        """Start to make the corpus in the background, at low priority, unless it exists."""
        if not folder.exists():
            self._ahead.append(self._thread.submit(self._make, folder, seed))

    def close(self) -> None:
        """Stop the work in the background; no incomplete file remains."""
        self._workers.close()
        self._thread.shutdown(cancel_futures=True)

    def _fingerprint(self, seed: int) -> str:
        """Hex fingerprint (16 bytes) of everything the sampled corpus depends on."""
        sources = {"corpus": self._corpus.fingerprint, "tokenizers": self._tokenizers.fingerprint}
        return fingerprint(**sources, strength=self._strength, seed=seed, max_length=self._max_length)

    def _make(self, folder: Path, seed: int) -> None:
        starts = range(0, self._corpus.num_pairs, _CHUNK_PAIRS)
        chunks = list(enumerate(range(self._corpus.num_pairs)[start : start + _CHUNK_PAIRS] for start in starts))
        sample = partial(_sample, self._corpus, self._tokenizers, self._strength, self._max_length, seed)
        with corpus_writer(folder, self._tokenizers) as writer:
            sampled = self._workers.map(sample, chunks, few=1)
            for (_, pairs), (src, tgt) in zip(chunks, sampled, strict=True):
                writer.add(src, tgt, self._corpus.lines[pairs.start : pairs.stop])
            writer.finish(asdict(self._corpus.counts), self._fingerprint(seed))


def _sample(
    corpus: Corpus, tokenizers: TokenizerPair, strength: float, max_length: int, seed: int, chunk: tuple[int, range]
) -> list[Sentences]:
    """Both sides of a chunk (its number and its pairs), sampled. Any process can do this."""
    number, pairs = chunk
    sampled = []
    for side, tokenizer in zip(SIDES, (tokenizers.src, tokenizers.tgt), strict=True):
        stored = [corpus.sentence(side, i).tolist()[:-1] for i in pairs]
        mixed = hashlib.blake2b(f"{seed} {side} {number}".encode()).digest()
        new = tokenizer.encode_sampled(tokenizer.decode_batch(stored), strength, int.from_bytes(mixed[:8], "little"))
        tags = set(tokenizer.tags.values())
        new = [[*old[:1], *ids] if old[0] in tags else ids for ids, old in zip(new, stored, strict=True)]
        kept = [ids if len(ids) < max_length else old for ids, old in zip(new, stored, strict=True)]
        sampled.append(join_sentences(kept, tokenizer.vocab_size))
    return sampled
