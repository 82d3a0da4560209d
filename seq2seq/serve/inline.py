"""Tags inside a sentence: put into its translation where the model looked from.

Every element encloses one run of words of the translation: that in which most words looked more at the words inside the
element than at any outside. Elements inside each other stay so, and elements beside each other never overlap, but
their order may change. What has no text, such as an image, stands beside the translation of its neighbour.

Shapes: ``T`` target and ``S`` source tokens without the end-of-sentence token; ``U`` words of the translation, ``W`` of
the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from seq2seq.decode.speller import is_boundary
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from seq2seq.serve.markup import Inline, escaped

Numbers = NDArray[np.float64]
Span = tuple[int, int]


@dataclass(frozen=True)
class Looked:
    """Where a model looked when it wrote a translation."""

    text: str
    words: list[Span]  # W, in characters
    translation: str
    units: list[Span]  # U, words or parts of words in characters, each with the space before it
    weights: Numbers  # [U, W]


def with_elements(translator: Translator, text: str, translation: str, elements: Sequence[Inline]) -> str | None:
    """The translation of a text as HTML, with all elements; None: nobody knows where the model looked."""
    if not translation.strip():
        return None
    try:
        looked = look(translator, text, translation, elements)
    except UserError:  # an ensemble, another engine, or a text that is too long
        return None
    return None if looked is None else put_in(looked, elements)


def look(translator: Translator, text: str, translation: str, elements: Sequence[Inline]) -> Looked | None:
    """Where the model looked; None: it has no attention.

    Raises:
        UserError: it cannot be looked into, or the text is too long for it.
    """
    alignment = translator.attention(text, translation).alignment
    if alignment is None:
        return None
    source, target = translator.tokenizers.src, translator.tokenizers.tgt
    (ids,) = target.encode([translation])
    begun = target.decode_batch([ids[:n] for n in range(len(ids))])
    ends = [0, *(len(some) if translation.startswith(some) else 0 for some in begun[1:]), len(translation)]
    starts = np.maximum.accumulate(ends)  # of the tokens, in characters
    copies = _copies(text, translation, elements)
    allowed = {int(at) for at in starts if is_boundary(translation, int(at))} | set(copies.values())
    units = _spans(sorted(allowed | {0, len(translation)}))
    places = {at for one in elements for at in (one.start, one.end)}
    places |= {at for at in range(len(text) + 1) if is_boundary(text, at)}
    words = [(start, end) for start, end in _spans(sorted(places)) if text[start:end].strip()]
    before = source.encode([text[:at] for word in words for at in word])
    of_sentence = alignment[:-1, -1 - len(source.encode([text])[0]) : -1].astype(np.float64)
    weights = np.zeros((len(units), len(words)))
    rows = [[t for t in range(len(ids)) if starts[t] < end and starts[t + 1] > start] for start, end in units]
    for column in range(len(words)):
        first, last = (len(before[2 * column + side]) for side in (0, 1))
        of_word = of_sentence[:, first : max(last, first + 1)].sum(axis=1)
        weights[:, column] = [of_word[some].sum() for some in rows]
    return Looked(text, words, translation, units, weights)


def put_in(looked: Looked, elements: Sequence[Inline]) -> str:
    """The translation as HTML, with all elements of its source."""
    return _Placing(looked, elements).html()


def _spans(places: Sequence[int]) -> list[Span]:
    return list(pairwise(places))


def _copies(text: str, translation: str, elements: Iterable[Inline]) -> dict[int, int]:
    """Places of a source that are inside of words, such as H2O, and their places in the same words of a translation."""
    found: dict[int, int] = {}
    for at in {at for one in elements for at in (one.start, one.end)}:
        if is_boundary(text, at):
            continue
        start = max(n for n in range(at) if is_boundary(text, n))
        end = min(n for n in range(at, len(text) + 1) if is_boundary(text, n))
        for match in re.finditer(re.escape(text[start:end]), translation):
            if is_boundary(translation, match.start()) and is_boundary(translation, match.end()):
                found[at] = match.start() + at - start
                break
    return found


class _Placing:
    """The places of the elements of one sentence."""

    def __init__(self, looked: Looked, elements: Sequence[Inline]) -> None:
        self._looked, self._elements = looked, elements
        self._units = [looked.translation[start:end] for start, end in looked.units]
        self._copies = _copies(looked.text, looked.translation, elements)
        self._children: dict[int, list[int]] = {}
        for number, one in enumerate(elements):
            self._children.setdefault(one.parent, []).append(number)
        self._spans: dict[int, Span] = {}
        letters = np.array([any(map(str.isalnum, looked.text[start:end])) for start, end in looked.words])
        self._of_words = np.array([any(map(str.isalnum, unit)) for unit in self._units])
        # Everything looks at full stops, because they say nothing.
        alike = np.equal.outer(self._of_words, letters)
        self._letters = letters
        self._weights = np.where(alike, looked.weights, 0.01 * looked.weights)
        self._weights /= np.maximum(self._weights.sum(axis=1, keepdims=True), 1e-9)
        self._place(-1, (0, len(self._units)), (0, len(looked.text)))
        self._written: list[str] = []
        self._spaced: set[int] = set()  # units whose space is written

    def html(self) -> str:
        self._write(-1, (0, len(self._units)))
        return "".join(self._written)

    def _place(self, parent: int, room: Span, of_parent: Span) -> None:
        """Place the elements inside an element that has the units ``room``."""
        children = self._children.get(parent, [])
        with_text = [number for number in children if self._elements[number].start < self._elements[number].end]
        gains = {number: self._gains(number, of_parent) for number in with_text}
        free, taken = [room] * (room[0] < room[1]), list[Span]()
        while gains:
            best = {number: _best_run(gain, self._edges(number), free) for number, gain in gains.items()}
            number = max(best, key=lambda one: best[one][0])
            start, end = best[number][1]
            if start == end:  # all words are taken
                start = end = self._beside(number, room, taken)
            else:
                (gap,) = (one for one in free if one[0] <= start and end <= one[1])
                free.remove(gap)
                free += [one for one in ((gap[0], start), (end, gap[1])) if one[0] < one[1]]
                taken.append((start, end))
            self._spans[number] = start, end
            del gains[number]
        for number in children:
            if number not in with_text:
                self._spans[number] = (place := self._beside(number, room, taken), place)
        for number in with_text:
            one = self._elements[number]
            self._place(number, self._spans[number], (one.start, one.end))

    def _gains(self, number: int, of_parent: Span) -> Numbers:
        """[U]: how much more each unit looked at a word inside the element than at one outside, in its parent."""
        one, text = self._elements[number], self._looked.text
        copied = [self._copies.get(at) for at in (one.start, one.end)]
        if copied[0] is not None or copied[1] is not None:
            first, last = self._copy_of(one, copied)
            return np.array([1.0 if first <= start and end <= last else -9.0 for start, end in self._looked.units])
        inside = np.array([one.start <= start and end <= one.end for start, end in self._looked.words])
        within = self._weights[:, inside].max(axis=1, initial=0)
        gains = within - self._weights[:, ~inside].max(axis=1, initial=0) - 1e-6
        rest = text[of_parent[0] : one.start] + text[one.end : of_parent[1]]
        return np.asarray(gains if any(map(str.isalnum, rest)) else np.where(self._of_words, 1.0, gains))

    def _edges(self, number: int) -> NDArray[np.bool_]:
        """[U]: where a run may begin and end; an element without punctuation gets none at its edges."""
        one = self._elements[number]
        inside = [one.start <= start and end <= one.end for start, end in self._looked.words]
        return self._of_words | (not self._letters[inside].all())

    def _copy_of(self, one: Inline, copied: Sequence[int | None]) -> Span:
        """The characters of the copy of an element inside a word."""
        first, last = copied
        length = one.end - one.start
        return (last or 0) - length if first is None else first, (first or 0) + length if last is None else last

    def _beside(self, number: int, room: Span, taken: Sequence[Span]) -> int:
        """The unit before which something without a text stands."""
        one = self._elements[number]
        if self._belongs_to_next(one):
            near = [n for n, (start, _) in enumerate(self._looked.words) if start >= one.start][:1]
        else:
            near = [n for n, (_, end) in enumerate(self._looked.words) if end <= one.start][-1:]
        place = room[0] if one.start == 0 else room[1]
        if near and room[0] < room[1]:
            place = room[0] + int(self._weights[room[0] : room[1], near[0]].argmax())
            place += not self._belongs_to_next(one)
        for start, end in taken:
            if start < place < end:
                place = start if self._belongs_to_next(one) else end
        return place

    def _belongs_to_next(self, one: Inline) -> bool:
        following = self._looked.text[one.start :].lstrip()[:1]
        return following.isalnum() and (one.spaces[0] or not one.spaces[1])

    def _write(self, parent: int, room: Span) -> None:
        def order(number: int) -> tuple[int, bool, bool, int]:
            start, end = self._spans[number]
            one = self._elements[number]
            return start, one.start == one.end and self._belongs_to_next(one), start < end, number

        at = room[0]
        for number in sorted(self._children.get(parent, []), key=order):
            one, (start, end) = self._elements[number], self._spans[number]
            self._write_units(at, start)
            at = max(start, end)
            has_text = one.start < one.end
            if has_text and start < end:
                self._write_space(start)
            elif not has_text and self._belongs_to_next(one):
                self._write_space(start)
                self._written.append(" " * (one.spaces[0] and self._no_space_yet()))
            elif not has_text:
                self._written.append(" " * (one.spaces[0] and self._no_space_yet()))
            self._written.append(one.opening)
            self._write(number, (start, end))
            self._written.append(one.closing)
            if not has_text and self._belongs_to_next(one):
                self._written.append(" " * (one.spaces[1] and start < len(self._units)))
        self._write_units(at, room[1])

    def _no_space_yet(self) -> bool:
        return bool(self._written) and not self._written[-1][-1:].isspace()

    def _write_units(self, start: int, end: int) -> None:
        for unit in range(start, end):
            self._write_space(unit)
            self._written.append(escaped(self._units[unit].lstrip()))

    def _write_space(self, unit: int) -> None:
        if unit < len(self._units) and unit not in self._spaced:
            self._spaced.add(unit)
            text = self._units[unit]
            self._written.append(text[: len(text) - len(text.lstrip())])


def _best_run(gains: Numbers, edges: NDArray[np.bool_], free: Sequence[Span]) -> tuple[float, Span]:
    """The run of free units with the largest sum, and the sum; an empty run if no unit is free."""
    best = (-np.inf, (0, 0))
    for first, last in free:
        total, since = -np.inf, first
        for unit in range(first, last):
            if total <= 0 and edges[unit]:
                total, since = 0.0, unit
            total += gains[unit]
            if total > best[0] and edges[unit]:
                best = (float(total), (since, unit + 1))
    return best
