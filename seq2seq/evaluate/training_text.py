"""What a model's training text says about a test set: overlap, and how often words are there. It is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.parallel import Workers, chunks_of
from seq2seq.evaluate.overlap import Matches, TestLines
from seq2seq.evaluate.words import words_of

_CHUNK_PAIRS = 8192
_CHUNK_CHARACTERS = 1 << 21  # limits memory if lines are huge


@dataclass(frozen=True)
class Learnt:
    """What was found in the training text."""

    matches: Matches
    source_words: Counter[str]  # how often words of the test set are there
    target_words: Counter[str]
    pairs: Counter[int]  # how many pairs each dataset has

    def __or__(self, other: Learnt) -> Learnt:
        """What is in one part of the text or the other. The counters of the first one are updated."""
        self.source_words.update(other.source_words)
        self.target_words.update(other.target_words)
        self.pairs.update(other.pairs)
        return Learnt(self.matches | other.matches, self.source_words, self.target_words, self.pairs)


class _Reader:
    """Reads a chunk of the training text, in any process."""

    def __init__(self, sources: Sequence[str], references: Sequence[Sequence[str]], sample: Sequence[str]) -> None:
        self._lines = TestLines(sources, references, sample)
        self._source_words = frozenset(word for text in sources for word in words_of(text))
        self._target_words = frozenset(word for text in chain(*references) for word in words_of(text))

    def __call__(self, columns: Sequence[Sequence[str]]) -> tuple[Matches, Counter[str], Counter[str]]:
        src, tgt = columns
        counted = [
            Counter(filter(wanted.__contains__, words_of("\n".join(texts))))
            for texts, wanted in ((src, self._source_words), (tgt, self._target_words))
        ]
        return self._lines.find(src, tgt), counted[0], counted[1]


def read_training_text(
    pairs: Iterable[SentencePair],
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    progress: Callable[[int], object] = lambda count: None,
) -> Learnt:
    """Find a test set in training text, and count its words there, on all cores and with bounded memory.

    ``progress`` is called with the number of pairs that were read since the last call. Raises the errors of ``pairs``.
    """
    found = Learnt(Matches(), Counter(), Counter(), Counter())
    chunks = chunks_of(pairs, lambda pair: len(pair.src) + len(pair.tgt), _CHUNK_PAIRS, _CHUNK_CHARACTERS)
    first = next(chunks, None)
    if first is None:
        return found
    sizes: list[Counter[int]] = []

    def columns(chunk: list[SentencePair]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        src, tgt, _, parts = zip(*chunk, strict=True)  # columns pickle much faster than single pairs
        sizes.append(Counter(parts))
        return src, tgt

    reader = _Reader(sources, references, [pair.src for pair in first])
    with Workers() as workers:
        for number, (matches, *words) in enumerate(workers.map(reader, map(columns, chain([first], chunks)))):
            found |= Learnt(matches, words[0], words[1], sizes[number])
            progress(sizes[number].total())
    return found
