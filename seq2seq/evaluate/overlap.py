"""Overlap of a test set with training text: lines that are there, and lines that are nearly there.

Only the test set is indexed; the training text is read once, in chunks of any size, in any number of processes. So
memory does not grow with the training text.

Exact: the same without case, spaces and punctuation. Near: at most :data:`MOST_DIFFERENT` of the words differ, by edit
distance. In scripts without spaces between words, letters count as words.

Of a short line one word may differ: a look-up without each of its words finds all such sentences. Of a long line
several may differ: sentences are compared with it that share rare sequences of letters in different parts of it, so one
is missed only if its few changes are spread over nearly all parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.inspection import joined_keys, key_characters, line_keys
from seq2seq.evaluate.words import words_of
from seq2seq.languages import script_in

# With a third, short lines would be near to sentences of another meaning; with a fifth, a changed word in a sentence of
# four would not be found.
MOST_DIFFERENT = 0.25
FEWEST_WORDS = 3  # of a test line that can be near to another: one more word makes four
FEWEST_OF_LONG = 8  # words of a line in which two may differ
_DENSE = ("han", "kana", "hangul")  # scripts whose letters say as much as two or three of others
# Anchors of a long line: the rarest sequence in each part; how many of them a sentence must have to be compared.
_PARTS, _NEEDED = 8, 2
_FILTER = 1 << 18  # slots
_MULTIPLIER = 0x9E3779B97F4A7C15

Keys = NDArray[np.uint64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Near:
    """A training sentence that is nearly a test line."""

    different: float  # share of the words
    text: str


@dataclass(frozen=True)
class Matches:
    """Test lines, by their numbers from 0, that are in some training text."""

    pairs: frozenset[int] = frozenset()  # source and a reference together
    sources: frozenset[int] = frozenset()
    references: frozenset[int] = frozenset()
    near: Mapping[int, Near] | None = None  # sources, also of lines that are there exactly

    def __or__(self, other: Matches) -> Matches:
        """What is in one text or the other; of near sentences the nearest, and the first of these."""
        near = dict(self.near or {})
        for line, found in (other.near or {}).items():
            if line not in near or found.different < near[line].different:
                near[line] = found
        return Matches(self.pairs | other.pairs, self.sources | other.sources, self.references | other.references, near)


class TestLines:
    """A test set, prepared to be found in training text. A pickle of it is small."""

    __test__ = False  # for pytest

    def __init__(self, sources: Sequence[str], references: Sequence[Sequence[str]], sample: Sequence[str]) -> None:
        """``sample``: some source sentences of the training text, which show what sequences are rare in it."""
        filled = np.array([bool(text.strip()) for text in sources], bool)
        keys = line_keys(sources)
        self._sources = _Wanted(keys, filled)
        sides = [(line_keys(texts), np.array([bool(text.strip()) for text in texts], bool)) for texts in references]
        self._references = [_Wanted(*side) for side in sides]
        self._pairs = [_Wanted(joined_keys(keys, other), filled & has) for other, has in sides]
        self._near = _NearLines(sources, sample)

    def find(self, sources: Sequence[str], targets: Sequence[str]) -> Matches:
        """The test lines that are in these training pairs."""
        source_keys, target_keys = line_keys(sources), line_keys(targets)
        pairs = joined_keys(source_keys, target_keys)
        return Matches(
            frozenset().union(*(wanted.found_in(pairs) for wanted in self._pairs)),
            self._sources.found_in(source_keys),
            frozenset().union(*(wanted.found_in(target_keys) for wanted in self._references)),
            self._near.find(sources),
        )


class _Wanted:
    """The keys of the test lines with text."""

    def __init__(self, keys: Keys, filled: NDArray[np.bool_]) -> None:
        self._lines = np.flatnonzero(filled)
        self._keys = keys[self._lines]

    def found_in(self, keys: Keys) -> frozenset[int]:
        return frozenset(self._lines[np.isin(self._keys, keys)].tolist())


@dataclass(frozen=True)
class _Sequences:
    """The sequences of letters of lines."""

    hashes: Keys  # of all lines, one after the other
    line: Numbers  # of each sequence
    start: Numbers  # [lines + 1] where the sequences of each line begin
    letters: Numbers  # [lines]


def _sequences(texts: Sequence[str], length: int) -> _Sequences:
    codes = key_characters(texts)
    ends = np.flatnonzero(codes == ord("\n"))
    letters = np.diff(ends, prepend=-1) - 1
    count = np.maximum(letters - length + 1, 0)
    start = np.concatenate([[0], np.cumsum(count)])
    line = np.repeat(np.arange(len(texts)), count)
    at = np.arange(start[-1]) - start[line] + (ends - letters)[line]
    hashes = np.zeros(len(at), np.uint64)
    for offset in range(length):
        hashes = hashes * np.uint64(_MULTIPLIER) + codes[at + offset]
    return _Sequences(hashes ^ (hashes >> np.uint64(29)), line, start, letters)


class _NearLines:
    """The test lines with enough words, prepared to be found where some of their words differ."""

    def __init__(self, sources: Sequence[str], sample: Sequence[str]) -> None:
        self._words = [words_of(text) for text in sources]
        self._short: dict[str, list[int]] = {}  # test lines by what they are with and without one of their words
        for line, words in enumerate(self._words):
            if FEWEST_WORDS <= len(words) < FEWEST_OF_LONG:
                for key in _shortened(words):
                    self._short.setdefault(key, []).append(line)
        self._anchors = _Anchors(
            {line: sources[line] for line, words in enumerate(self._words) if len(words) >= FEWEST_OF_LONG}, sample
        )

    def find(self, sources: Sequence[str]) -> dict[int, Near]:
        """The nearest of these sentences for each test line that has a near one."""
        best: dict[int, Near] = {}
        long: dict[int, list[str]] = {}
        for number, text in enumerate(sources):
            words = words_of(text)
            if len(words) <= FEWEST_OF_LONG:
                for line in {line for key in _shortened(words) for line in self._short.get(key, ())}:
                    self._compare(line, words, text, best)
            if len(words) >= (1 - MOST_DIFFERENT) * FEWEST_OF_LONG:
                long[number] = words
        numbers = list(long)
        for line, other in self._anchors.find([sources[number] for number in numbers]):
            self._compare(line, long[numbers[other]], sources[numbers[other]], best)
        return best

    def _compare(self, line: int, words: list[str], text: str, best: dict[int, Near]) -> None:
        own = self._words[line]
        most = MOST_DIFFERENT * max(len(own), len(words))
        if abs(len(own) - len(words)) > most or (Counter(own) - Counter(words)).total() > most:
            return
        different = edit_distance(own, words) / max(len(own), len(words))
        if different <= MOST_DIFFERENT and (line not in best or different < best[line].different):
            best[line] = Near(different, text)


def _shortened(words: list[str]) -> set[str]:
    """A short sentence, and the same without each of its words: two that differ in one word have one in common."""
    return {" ".join(words), *(" ".join(words[:place] + words[place + 1 :]) for place in range(len(words)))}


class _Anchors:
    """Rare sequences of letters of long test lines, by which sentences are found that are worth comparing."""

    def __init__(self, texts: Mapping[int, str], sample: Sequence[str]) -> None:
        """``texts``: by the numbers of their lines; ``sample`` shows what is rare."""
        self._length = 2 if script_in(texts.values()) in _DENSE else 4
        found = _sequences(list(texts.values()), self._length)
        common = Counter(_sequences(sample, self._length).hashes.tolist()) + Counter(found.hashes.tolist())
        anchors: list[tuple[int, int]] = []
        for number, line in enumerate(texts):
            own = found.hashes[found.start[number] : found.start[number + 1]].tolist()
            edges = [len(own) * part // _PARTS for part in range(_PARTS + 1)]
            parts = (own[first:last] for first, last in pairwise(edges) if first < last)
            anchors += ((anchor, line) for anchor in {min(part, key=common.__getitem__) for part in parts})
        anchors.sort()
        self._anchors = np.array([anchor for anchor, _ in anchors], np.uint64)
        self._lines = np.array([line for _, line in anchors], np.int64)
        self._filter = np.zeros(_FILTER, bool)
        self._filter[self._anchors % np.uint64(_FILTER)] = True

    def find(self, sources: Sequence[str]) -> Iterable[tuple[int, int]]:
        """Test lines and the numbers of sentences that share enough anchors."""
        if not len(self._anchors) or not sources:
            return []
        found = _sequences(sources, self._length)
        hits = np.flatnonzero(self._filter[found.hashes % np.uint64(_FILTER)])
        first = np.searchsorted(self._anchors, found.hashes[hits], "left")
        count = np.searchsorted(self._anchors, found.hashes[hits], "right") - first
        of_hit = np.repeat(np.arange(len(hits)), count)
        place = np.arange(len(of_hit)) - np.repeat(np.cumsum(count) - count, count) + first[of_hit]
        # A sentence that repeats an anchor counts it several times; that only makes more pairs to compare.
        pairs, times = np.unique(self._lines[place] * len(sources) + found.line[hits[of_hit]], return_counts=True)
        return zip(*(part.tolist() for part in np.divmod(pairs[times >= _NEEDED], len(sources))), strict=True)


def edit_distance(one: Sequence[str], two: Sequence[str]) -> int:
    """How many words must be changed, added or removed to make ``two`` of ``one`` (Levenshtein 1965)."""
    row = list(range(len(two) + 1))
    for number, word in enumerate(one, start=1):
        before, row[0] = row[0], number
        for place, other in enumerate(two, start=1):
            changed = before + (word != other)
            before, row[place] = row[place], min(changed, row[place] + 1, row[place - 1] + 1)
    return row[-1]
