"""Subword regularisation: a corpus whose sentences are cut into pieces anew, at random, for every epoch."""

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

_CHUNK_PAIRS = 8192  # each chunk has a seed of its own: another size would give other samples
_NICENESS = 10  # training comes first


class Resampler:
    """Makes sampled corpora from a corpus, when they are needed or ahead of it. Close it, or use it in a ``with``.

    A sampled corpus has the same pairs in the same order. It is a pure function of all arguments, whatever the number
    of cores. A sentence that would exceed ``max_length`` tokens keeps its stored pieces.
    """

    def __init__(self, corpus: Corpus, tokenizers: TokenizerPair, strength: float, max_length: int) -> None:
        """``strength`` is what :meth:`Tokenizer.encode_sampled` takes. No process or thread is started yet."""
        if corpus.vocab_sizes != (tokenizers.src.vocab_size, tokenizers.tgt.vocab_size):
            raise DataError(f"{corpus.folder}: was not built with these tokenizers; build the corpus again")
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
        """The corpus sampled with ``seed``, in ``folder``; opened where it is there already, and made again, with a
        word on standard error, where it is damaged. All its checksums are verified in either case.

        What :meth:`sample_ahead` has begun is waited for. Where it failed, it is tried again, so that its error is
        raised here.
        """
        wait(self._ahead)
        self._ahead.clear()
        task = self._task(seed)
        if folder.exists():
            try:
                return open_corpus(folder, task.fingerprint, verify=True)
            except DataError as error:
                tqdm.write(f"{error}: doing so", file=sys.stderr)
        self._make(folder, task)
        return open_corpus(folder, task.fingerprint, verify=True)

    def sample_ahead(self, folder: Path, seed: int) -> None:
        """Begin in the background, at low priority, what :meth:`sample` will be asked for and is not there yet."""
        if not folder.exists():
            self._ahead.append(self._thread.submit(self._make, folder, self._task(seed)))

    def close(self) -> None:
        """Give up what is being made ahead; nothing of it remains."""
        self._workers.close()
        self._thread.shutdown(cancel_futures=True)

    def _task(self, seed: int) -> _Task:
        return _Task(self._corpus, self._tokenizers, self._strength, self._max_length, seed, _CHUNK_PAIRS)

    def _make(self, folder: Path, task: _Task) -> None:
        parts = range(task.num_chunks)
        few = len(parts) == 1  # done before a process has started
        chunks = map(task.sample, parts) if few else self._workers.map(task.sample, parts)
        with CorpusWriter(folder, self._tokenizers) as writer:
            for number, (src, tgt) in enumerate(chunks):
                pairs = task.pairs(number)
                writer.add(src, tgt, self._corpus.lines[pairs.start : pairs.stop])
            writer.finish(asdict(self._corpus.counts), task.fingerprint)


@dataclass(frozen=True)
class _Task:
    """One sampled corpus to make, chunk by chunk, in any process."""

    corpus: Corpus
    tokenizers: TokenizerPair
    strength: float
    max_length: int
    seed: int
    chunk_pairs: int

    @property
    def fingerprint(self) -> str:
        """Hex fingerprint (16 bytes) of all that the sampled corpus depends on."""
        sources = {"corpus": self.corpus.fingerprint, "tokenizers": self.tokenizers.fingerprint}
        return fingerprint(**sources, strength=self.strength, seed=self.seed, max_length=self.max_length)

    @property
    def num_chunks(self) -> int:
        """In how many parts the work is cut."""
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
        fitting = [new if len(new) < self.max_length else old for new, old in zip(sampled, stored, strict=True)]
        return join_sentences(fitting, tokenizer.vocab_size)
