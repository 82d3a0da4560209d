"""What stands in a sentence and no model reads: taken out of the source, and put into its translation by attention.

These are tags, placeholders and addresses. A model that has seen none of them in training translates the words around
them badly, and a search that must write them makes it worse. So they leave the source, and come back afterwards:

- A pair of tags encloses one run of words of the translation: that in which most words looked more at the words inside
  it than at any outside. Pairs inside each other stay so, and pairs beside each other never overlap, but their order
  may change.
- What has no words inside, such as a placeholder, an image, or a tag without its other one, stands beside the word that
  looked most at its neighbour.

Shapes: ``T`` target and ``S`` source tokens of a sentence, without the end-of-sentence token and what stands before the
sentence; ``U`` words of the translation, ``W`` of the source.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode.speller import in_word, is_boundary

_CLOSING = ".,;:!?)]}\u2026\u3002\uff0c\uff1b\uff1a\uff01\uff1f\uff09"  # no space stands before it
# How much more a unit must look at a single word inside a pair of tags than at any outside: small words, such as a
# preposition, look at the word behind them.
_OF_ONE_WORD = 0.2
_DEPTH = 50  # of pairs in a sentence; deeper tags have no other one
# The weight of the order of the whole sentence beside that of the nearest word, for what has no words; for a pair, only
# if no unit looked at its words.
_OF_SENTENCE, _OF_PLACE = 0.8, 0.02
_ADDRESSES = frozenset(("urls", "emails"))

Numbers = NDArray[np.float64]
Span = tuple[int, int]


class Fragment(NamedTuple):
    """A tag, a text or a string of a sentence, as it is written."""

    raw: str
    kind: str  # text, open, close, point (without words of its own), string (the same, and it separates words)
    name: str = ""  # of the element that is opened or closed; of a string: which kind of protected string it is
    text: str = ""  # what the model reads of a text


class Element(NamedTuple):
    """A pair of tags, or something without words."""

    opening: str
    closing: str
    start: int  # the part of the text inside it, in characters
    end: int
    parent: int  # the pair around it, by its number; -1: none
    spaces: tuple[bool, bool]  # whether there was white space or nothing before and after it; after it also punctuation
    strings: frozenset[str]  # the kinds of protected strings in it, if it has no words


class Bare(NamedTuple):
    """A sentence as the model reads it."""

    text: str
    elements: tuple[Element, ...]  # in the order of the source; parents come first


@dataclass(frozen=True)
class Looked:
    """Where a model looked when it wrote a translation."""

    text: str
    words: list[Span]  # W, in characters
    translation: str
    units: list[Span]  # U, words or parts of words in characters, each with the space before it
    weights: Numbers  # [U, W]


def mates(parts: Sequence[Fragment]) -> dict[int, int]:
    """The number of the closing tag for that of each opening one; others have none, or are too deep."""
    found: dict[int, int] = {}
    stack, names = list[int](), Counter[str]()
    for number, part in enumerate(parts):
        if part.kind == "open":
            stack.append(number)
            names[part.name] += 1
        while part.kind == "close" and names[part.name]:
            opened = stack.pop()
            names[parts[opened].name] -= 1
            if parts[opened].name == part.name:
                if len(stack) < _DEPTH:
                    found[opened] = number
                break
    return found


def take_out(parts: Sequence[Fragment]) -> Bare:
    """The text of a sentence whose tags are paired, and what stands in it.

    What has no words between is one element: ``{x}{y}``, or an image inside a link.
    """
    pairs, text = mates(parts), ""
    num_words = [0, *accumulate(bool(part.text.strip()) for part in parts)]
    space_after = [True]
    for part in reversed(parts):
        space_after.append(part.text[0].isspace() or part.text[0] in _CLOSING if part.text else space_after[-1])
    elements, stack, number, between = list[Element](), list[int](), 0, ""
    while number < len(parts):
        part, last = parts[number], number
        if part.kind == "text":
            text, between = _joined(text, part.text, between), ""
        elif part.kind == "close":
            opened = elements[at := stack.pop()]
            start = len(text) - len(text[opened.start :].lstrip())
            elements[at] = opened._replace(closing=part.raw, start=start, end=len(text.rstrip()))
        else:
            parent, spaced = stack[-1] if stack else -1, not text or text[-1].isspace()
            if num_words[number] < num_words[pairs.get(number, number)]:
                stack.append(len(elements))
                at, strings, between = len(text), frozenset[str](), ""
            else:
                last, at = _last_without_words(parts, number, pairs, num_words), len(text.rstrip())
                strings = frozenset(one.name for one in parts[number : last + 1] if one.kind == "string")
                between = "string" if strings else "point"
            raw = "".join(one.raw for one in parts[number : last + 1])
            spaces = spaced, space_after[len(parts) - last - 1]
            elements.append(Element(raw, "", at, at, parent, spaces, strings))
        number = last + 1
    return Bare(text.rstrip(), tuple(elements))


def _last_without_words(parts: Sequence[Fragment], first: int, pairs: dict[int, int], num_words: Sequence[int]) -> int:
    """The last one of the neighbours that have no words inside and between them."""
    last = number = first
    while number < len(parts) and parts[number].kind != "close":
        end = pairs.get(number, number)
        if num_words[first] < num_words[end + 1]:
            break
        last, number = last if parts[number].kind == "text" else end, end + 1
    return last


def _joined(left: str, right: str, between: str) -> str:
    """The text before and after a part of the kind ``between``."""
    if not left or left[-1].isspace():
        right = right.lstrip()
    if right[:1] in _CLOSING and between in ("point", "string"):
        left = left.rstrip()
    return left + " " * (between == "string" and _grows(left, right)) + right


def _grows(left: str, right: str) -> bool:
    """Whether two texts become one word."""
    return bool(left and right) and in_word(left[-1]) and in_word(right[0])


def look(tokenizers: TokenizerPair, bare: Bare, ids: Sequence[int], translation: str, alignment: Numbers) -> Looked:
    """Where a model looked.

    Args:
        ids: T, of the translation.
        alignment: [T, S], where it looked for each token.
    """
    text, elements = bare.text, bare.elements
    begun = tokenizers.tgt.decode_batch([ids[:n] for n in range(1, len(ids))])
    ends = [0, *(len(some) if translation.startswith(some) else 0 for some in begun), len(translation)]
    starts = np.maximum.accumulate(ends)  # of the tokens, in characters
    allowed = {int(at) for at in starts if is_boundary(translation, int(at))}
    units = list(pairwise(sorted(allowed | {0, len(translation), *_copies(text, translation, elements).values()})))
    places = {at for one in elements for at in (one.start, one.end)}
    places |= {at for at in range(len(text) + 1) if is_boundary(text, at)}
    words = [(start, end) for start, end in pairwise(sorted(places)) if text[start:end].strip()]
    columns = [0, *map(len, tokenizers.src.encode([text[:end] for _, end in words]))]
    weights = np.zeros((len(units), len(words)))
    rows = [[t for t in range(len(ids)) if starts[t] < end and starts[t + 1] > start] for start, end in units]
    for column, (first, last) in enumerate(pairwise(columns)):
        of_word = alignment[:, first : max(last, first + 1)].sum(axis=1)
        weights[:, column] = [of_word[some].sum() for some in rows]
    return Looked(text, words, translation, units, weights)


def put_in(looked: Looked, elements: Sequence[Element], written: Callable[[str], str] = str) -> str:
    """The translation with all elements of its source; ``written``: how its own text is written, such as escaped."""
    return _Placing(looked, elements, written).text()


def _copies(text: str, translation: str, elements: Iterable[Element]) -> dict[int, int]:
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

    def __init__(self, looked: Looked, elements: Sequence[Element], written: Callable[[str], str]) -> None:
        self._looked, self._elements, self._as_written = looked, elements, written
        self._units = [looked.translation[start:end] for start, end in looked.units]
        self._copies = _copies(looked.text, looked.translation, elements)
        self._children: dict[int, list[int]] = {}
        for number, one in enumerate(elements):
            self._children.setdefault(one.parent, []).append(number)
        self._letters = np.array([any(map(str.isalnum, looked.text[start:end])) for start, end in looked.words], bool)
        self._of_words = np.array([any(map(str.isalnum, unit)) for unit in self._units], bool)
        # Everything looks at full stops, because they say nothing.
        alike = np.equal.outer(self._of_words, self._letters)
        self._weights = np.where(alike, looked.weights, 0.01 * looked.weights)
        self._weights /= np.maximum(self._weights.sum(axis=1, keepdims=True), 1e-9)
        self._spans: dict[int, Span] = {}
        self._written: list[str] = []
        self._left = ""  # the last character that was written, without tags around words
        self._decided = -1, False  # the last unit that something stands before, and whether a space follows that

    def text(self) -> str:
        whole = 0, len(self._units)
        self._place(-1, whole)
        self._write(-1, whole)
        return "".join(self._written)

    def _place(self, parent: int, room: Span) -> None:
        """Place the elements inside an element that has the units ``room``."""
        children = self._children.get(parent, [])
        with_text = [number for number in children if self._elements[number].start < self._elements[number].end]
        gains = {number: self._gains(number) for number in with_text}
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
        after = room[0]  # the last tag without its other one; they keep their order
        for number in children:
            if number not in with_text:
                is_tag = "tags" in self._elements[number].strings
                place = self._beside(number, room, taken, after if is_tag else 0)
                self._spans[number] = place, place
                after = place if is_tag else after
        for number in with_text:
            self._place(number, self._spans[number])

    def _around(self, one: Element) -> Span:
        """The text inside the element around another one."""
        return self._elements[one.parent][2:4] if one.parent >= 0 else (0, len(self._looked.text))

    def _gains(self, number: int) -> Numbers:
        """[U]: how much more each unit looked at a word inside the element than at one outside, in its parent."""
        one, text = self._elements[number], self._looked.text
        copied = [self._copies.get(at) for at in (one.start, one.end)]
        if copied[0] is not None or copied[1] is not None:
            first, last = self._copy_of(one, copied)
            return np.array([1.0 if first <= start and end <= last else -9.0 for start, end in self._looked.units])
        inside = self._inside(one)
        within = self._weights[:, inside].max(axis=1, initial=0)
        least = _OF_ONE_WORD if inside.sum() == 1 else 1e-6
        gains = within - self._weights[:, ~inside].max(axis=1, initial=0) - least
        gains += _OF_PLACE * (self._in_order(one.start)[:-1] + self._in_order(one.end)[1:] - 2)
        first, last = self._around(one)
        rest = text[first : one.start] + text[one.end : last]
        return np.asarray(gains if any(map(str.isalnum, rest)) else np.where(self._of_words, 1.0, gains))

    def _inside(self, one: Element) -> NDArray[np.bool_]:
        """[W]: the words inside an element."""
        return np.array([one.start <= start and end <= one.end for start, end in self._looked.words])

    def _edges(self, number: int) -> NDArray[np.bool_]:
        """[U]: where a run may begin and end; an element without punctuation gets none at its edges."""
        return self._of_words | (not self._letters[self._inside(self._elements[number])].all())

    def _copy_of(self, one: Element, copied: Sequence[int | None]) -> Span:
        """The characters of the copy of an element inside a word."""
        first, last = copied
        length = one.end - one.start
        return (last or 0) - length if first is None else first, (first or 0) + length if last is None else last

    def _beside(self, number: int, room: Span, taken: Sequence[Span], after: int = 0) -> int:
        """The unit before which something without words stands, in no run that is taken, and not before ``after``."""
        one, rows = self._elements[number], self._weights[slice(*room)]
        is_tag, belongs_to_next, (first, last) = "tags" in one.strings, self._belongs_to_next(one), self._around(one)
        if one.start == last and (is_tag or one.spaces[0]):
            return room[1]
        if one.start == first and (is_tag or not belongs_to_next):
            return room[0]
        fit = _OF_SENTENCE * self._in_order(one.start)[room[0] : room[1] + 1]
        following = sum(end <= one.start for _, end in self._looked.words)
        if belongs_to_next:
            fit[:-1] += rows[:, following]
        else:
            fit[1:] += rows[:, following - 1]
        allowed = [n for n in range(room[0], room[1] + 1) if not any(start < n < end for start, end in taken)]
        return max((n for n in allowed if n >= after), key=lambda n: float(fit[n - room[0]]))

    def _in_order(self, at: int) -> Numbers:
        """[U + 1]: how well a place of the source fits before each unit and after the last one, from 0 to 1.

        The words before it should be translated before it, and those after it after it.
        """
        before = self._weights[:, [end <= at for _, end in self._looked.words]].sum(axis=1)
        both = np.append(0, before.cumsum()) + np.append((1 - before)[::-1].cumsum()[::-1], 0)
        return np.asarray(both / max(1, len(before)))

    def _belongs_to_next(self, one: Element) -> bool:
        following = self._looked.text[one.start :].lstrip()[:1]
        return following.isalnum() and (one.spaces[0] or not one.spaces[1])

    def _write(self, parent: int, room: Span) -> None:
        def order(number: int) -> tuple[int, bool, bool, int]:
            one, (start, end) = self._elements[number], self._spans[number]
            return start, start < end, self._belongs_to_next(one) and "tags" not in one.strings, number

        at = room[0]
        for number in sorted(self._children.get(parent, []), key=order):
            one, (start, end) = self._elements[number], self._spans[number]
            self._write_units(at, start)
            at = end
            if start < end:
                self._write_space(start)
                self._written.append(one.opening)
                self._write(number, (start, end))
                self._written.append(one.closing)
            else:
                self._write_string(one, self._raw(number), start)
        self._write_units(at, room[1])

    def _raw(self, number: int) -> str:
        one = self._elements[number]
        return one.opening + "".join(map(self._raw, self._children.get(number, []))) + one.closing

    def _write_units(self, start: int, end: int) -> None:
        for unit in range(start, end):
            self._write_space(unit)
            if text := self._units[unit].lstrip():
                self._written.append(self._as_written(text))
                self._left = text[-1]

    def _write_space(self, unit: int) -> None:
        """Write the white space before a unit, if it is not there yet."""
        decided, space = self._decided
        if unit != decided:
            space = self._units[unit][:1].isspace()
        if space and self._left.strip():
            self._written.append(" ")
            self._left = " "

    def _write_string(self, one: Element, raw: str, unit: int) -> None:
        """Write something without words before a unit.

        It has the spaces of the source, except before punctuation, and where the translation has no words beside it.
        """
        following = "".join(self._units[unit:])
        left, right, is_space = self._left.strip(), following.lstrip()[:1], following[:1].isspace()
        gap = not left or not right or is_space
        before = (one.spaces[0] and (gap or in_word(left) or left in _CLOSING)) or _grows(left, raw)
        after = (one.spaces[1] and (gap or in_word(right))) or _grows(raw, right)
        after = after or (bool(one.strings & _ADDRESSES) and in_word(right or " "))
        if is_space and not before and not after and not self._looked.text[one.start :][:1].isspace():
            before, after = self._belongs_to_next(one), not self._belongs_to_next(one)
        if left and (before or self._decided == (unit, True)):
            self._written.append(" ")
        self._written.append(raw)
        self._left = raw[-1]
        self._decided = unit, after and right not in _CLOSING


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
