"""Random segmentations of words, for subword regularisation and BPE-dropout.

SentencePiece can sample, too, but its generator gives different samples in every process, even with the same seed. A
piece never spans a space, so a sentence is sampled word by word, and words are cached.
"""

from __future__ import annotations

import heapq
import math
import random
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import sentencepiece

from seq2seq.data.symbols import UNK_ID

_CACHED_WORDS = 1 << 16
_CACHED_LENGTH = 24  # characters; longer words (whole clauses of Chinese) rarely repeat


def make_sampler(processor: sentencepiece.SentencePieceProcessor) -> Sampler:
    """The sampler for the model: unigram or BPE."""
    # BPE scores are negated merge ranks, so whole numbers; unigram scores are log-probabilities.
    scores = processor.get_score(list(range(processor.get_piece_size())))
    return _BpeSampler(processor) if all(map(float.is_integer, scores)) else _UnigramSampler(processor)


class Sampler(ABC):
    """Segments words at random. It has the ordinary pieces, and the byte ids for characters that are not pieces."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self.ids: dict[str, int] = {}
        self.scores: dict[str, float] = {}
        self._bytes: dict[int, int] = {}
        for i in range(processor.get_piece_size()):
            piece = processor.id_to_piece(i)
            if processor.is_byte(i):
                self._bytes[int(piece[1:-1], 16)] = i
            elif not (processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i)):
                self.ids[piece] = i
                self.scores[piece] = processor.get_score(i)

    @abstractmethod
    def draw(self, word: str, strength: float, rng: random.Random) -> Sequence[int]:
        """The ids of one segmentation; :meth:`Tokenizer.encode_sampled` explains ``strength``."""

    def _spell(self, symbol: str) -> list[int]:
        """The id of a piece; otherwise the ids of the character's bytes; without byte pieces, UNK_ID."""
        if symbol in self.ids:
            return [self.ids[symbol]]
        return [self._bytes[b] for b in symbol.encode("utf-8")] if self._bytes else [UNK_ID]


class _Choice(NamedTuple):
    """The pieces that can start at one position of a word: their cumulative probabilities, ids and ends."""

    cumulative: list[float]
    ids: list[list[int]]
    ends: list[int]


class _UnigramSampler(Sampler):
    """Draws a segmentation with probability proportional to exp(strength * score), by backward sums."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        super().__init__(processor)
        self._longest = max(map(len, self.scores), default=1)
        self._unknown = min(self.scores.values(), default=0.0) - 10.0  # SentencePiece's penalty
        self._cached = lru_cache(maxsize=_CACHED_WORDS)(self._choices)

    def draw(self, word: str, strength: float, rng: random.Random) -> list[int]:
        choices = (self._cached if len(word) <= _CACHED_LENGTH else self._choices)(word, strength)
        ids: list[int] = []
        position = 0
        while position < len(word):
            cumulative, options, ends = choices[position]
            pick = bisect_right(cumulative, rng.random()) if len(ends) > 1 else 0
            ids += options[pick]
            position = ends[pick]
        return ids

    def _choices(self, word: str, strength: float) -> list[_Choice]:
        scores = self.scores
        totals = [0.0] * (len(word) + 1)  # log of the summed weight of all segmentations of word[position:]
        choices = []
        for start in range(len(word) - 1, -1, -1):
            ends = [e for e in range(start + 1, min(len(word), start + self._longest) + 1) if word[start:e] in scores]
            weights = [strength * scores[word[start:end]] + totals[end] for end in ends]
            if not ends or ends[0] > start + 1:  # every single character is an option
                ends.append(start + 1)
                weights.append(strength * self._unknown + totals[start + 1])
            top = max(weights)
            cumulative: list[float] = []
            mass = 0.0
            for weight in weights:
                mass += math.exp(weight - top)
                cumulative.append(mass)
            totals[start] = top + math.log(mass)
            cumulative = [part / mass for part in cumulative]  # the last is exactly 1.0, above every draw
            choices.append(_Choice(cumulative, [self._spell(word[start:end]) for end in ends], ends))
        return choices[::-1]


class _BpeSampler(Sampler):
    """BPE-dropout: merges in order of rank, each skipped with probability ``strength``."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        super().__init__(processor)
        self._cached = lru_cache(maxsize=_CACHED_WORDS)(self._merge_all)

    def draw(self, word: str, strength: float, rng: random.Random) -> list[int]:
        if strength <= 0.0:
            return self._cached(word)[0]
        gaps = self._gaps(strength, rng)
        first = next(gaps)
        if len(word) <= _CACHED_LENGTH:
            ids, num_merges = self._cached(word)
            if first >= num_merges:  # the common case: no merge of this word is skipped
                return ids
        return self._merge(word, first, gaps)[0]

    @staticmethod
    def _gaps(strength: float, rng: random.Random) -> Iterator[int]:
        """Numbers of merges between skipped merges: geometric, one random number for each."""
        log_keep = math.log1p(-strength) if strength < 1.0 else -math.inf
        while True:
            yield int(math.log(1.0 - rng.random()) / log_keep)

    def _merge_all(self, word: str) -> tuple[list[int], int]:
        return self._merge(word, len(word), iter(()))

    def _merge(self, word: str, gap: int, gaps: Iterator[int]) -> tuple[list[int], int]:
        """Merge the best pair first, the leftmost of equals; returns the ids and the number of merges considered."""
        scores = self.scores
        num = len(word)
        symbols = list(word)  # "" for a symbol that was merged into its left neighbour
        after = list(range(1, num + 1))
        before = list(range(-1, num - 1))
        heap: list[tuple[float, int, str]] = []

        def push(left: int) -> None:
            if left >= 0 and after[left] < num:
                pair = symbols[left] + symbols[after[left]]
                if pair in scores:
                    heapq.heappush(heap, (-scores[pair], left, pair))

        for left in range(num):
            push(left)
        considered = 0
        while heap:
            _, left, pair = heapq.heappop(heap)
            right = after[left]
            if not symbols[left] or right >= num or symbols[left] + symbols[right] != pair:
                continue  # outdated: a neighbour was merged
            considered += 1
            if gap == 0:
                gap = next(gaps)
                continue
            gap -= 1
            symbols[left], symbols[right] = pair, ""
            after[left] = after[right]
            if after[left] < num:
                before[after[left]] = left
            push(before[left])
            push(left)
        return [i for symbol in symbols if symbol for i in self._spell(symbol)], considered
