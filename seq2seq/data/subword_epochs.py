"""Subword regularisation: every epoch has its own corpus, in which the sentences are segmented at random."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from seq2seq.data.corpus import Corpus, open_corpus
from seq2seq.data.corpus_writer import CorpusWriter, Sentences, Side, join_sentences
from seq2seq.data.parallel import Workers
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair
from seq2seq.errors import DataError
from seq2seq.files import fingerprint

_CHUNK_PAIRS = 8192  # each chunk has its own seed, so another size gives other samples
_NICENESS = 10  # training has priority


class Resampler:
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

    def __enter__(self) -> Resampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def sample(self, folder: Path, seed: int) -> Corpus:
        """Open the corpus sampled with ``seed`` in ``folder``, or make it; its checksums are verified.

        A damaged corpus is made again, with a message on standard error. This method waits for :meth:`sample_ahead`; if
        that failed, it tries again and raises the error.
        """
        wait(self._ahead)
        self._ahead.clear()
        task = self._task(seed)
        if folder.exists():
            try:
                return open_corpus(folder, task.fingerprint, verify=True)
            except DataError as error:
                tqdm.write(f"{error} (seq2seq does this now)", file=sys.stderr)
        self._make(folder, task)
        return open_corpus(folder, task.fingerprint, verify=True)

    def sample_ahead(self, folder: Path, seed: int) -> None:
        """Start to make the corpus in the background, at low priority, unless it exists."""
        if not folder.exists():
            self._ahead.append(self._thread.submit(self._make, folder, self._task(seed)))

    def close(self) -> None:
        """Stop the work in the background; no incomplete file remains."""
        self._workers.close()
        self._thread.shutdown(cancel_futures=True)

    def _task(self, seed: int) -> _Task:
        return _Task(self._corpus, self._tokenizers, self._strength, self._max_length, seed, _CHUNK_PAIRS)

    def _make(self, folder: Path, task: _Task) -> None:
        parts = range(task.num_chunks)
        few = len(parts) == 1  # takes less time than starting processes
        chunks = map(task.sample, parts) if few else self._workers.map(task.sample, parts)
        with CorpusWriter(folder, self._tokenizers) as writer:
            for number, (src, tgt) in enumerate(chunks):
                pairs = task.pairs(number)
                writer.add(src, tgt, self._corpus.lines[pairs.start : pairs.stop])
            writer.finish(asdict(self._corpus.counts), task.fingerprint)


@dataclass(frozen=True)
class _Task:
    """One sampled corpus to make; any process can make any chunk."""

    corpus: Corpus
    tokenizers: TokenizerPair
    strength: float
    max_length: int
    seed: int
    chunk_pairs: int

    @property
    def fingerprint(self) -> str:
        """Hex fingerprint (16 bytes) of everything the sampled corpus depends on."""
        sources = {"corpus": self.corpus.fingerprint, "tokenizers": self.tokenizers.fingerprint}
        return fingerprint(**sources, strength=self.strength, seed=self.seed, max_length=self.max_length)

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return -(-self.corpus.num_pairs // self.chunk_pairs)

    def pairs(self, number: int) -> range:
        """The pairs of chunk ``number``."""
        return range(self.corpus.num_pairs)[number * self.chunk_pairs : (number + 1) * self.chunk_pairs]

    def sample(self, number: int) -> tuple[Sentences, Sentences]:
        """Both sides of chunk ``number``, sampled."""
        return self._side("src", self.tokenizers.src, number), self._side("tgt", self.tokenizers.tgt, number)

    def _side(self, side: Side, tokenizer: Tokenizer, number: int) -> Sentences:
        stored = [self.corpus.sentence(side, i).tolist()[:-1] for i in self.pairs(number)]
        mixed = hashlib.blake2b(f"{self.seed} {side} {number}".encode()).digest()
        seed = int.from_bytes(mixed[:8], "little")
        sampled = tokenizer.encode_sampled(tokenizer.decode_batch(stored), self.strength, seed)
        kept = [new if len(new) < self.max_length else old for new, old in zip(sampled, stored, strict=True)]
        return join_sentences(kept, tokenizer.vocab_size)
