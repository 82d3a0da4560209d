"""Protected strings that stand outside the sentence: taken out of a source, and put into its translation by attention.

A model that has seen no tags or addresses in training translates the words around them badly, and a search that must
write them makes it worse. So the model does not read them. A string stands beside the word that looked most at the
string's neighbour in the source. Tags keep their order, so that they stay well-formed.

Shapes: ``T`` target and ``S`` source tokens of a sentence, without the end-of-sentence token.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import Protected
from seq2seq.decode.protect import protected
from seq2seq.decode.speller import in_word, is_boundary

_OUTSIDE: tuple[Protected, ...] = ("tags", "placeholders", "urls", "emails")  # numbers belong to the sentence
_CLOSING = ".,;:!?)]}\u2026\u3002\uff0c\uff1b\uff1a\uff01\uff1f\uff09"  # no space stands before it
_OF_SENTENCE = 0.1  # weight of the words of the whole sentence beside that of the nearest one

Numbers = NDArray[np.float64]


class Outside(NamedTuple):
    """A string that was taken out, or several with nothing but white space between them."""

    text: str
    at: int  # its place in what is left
    spaced: tuple[bool, bool]  # whether there was white space or nothing before and after it; after it also punctuation
    follows: bool  # it belongs to the word before it, not to the next one
    has_tag: bool
    is_address: bool  # and what stands directly behind it would become a part of it


class Bare(NamedTuple):
    """A source without its strings."""

    text: str
    strings: tuple[Outside, ...]  # in the order of the source


def take_out(text: str, kinds: Sequence[Protected]) -> Bare:
    """A source without its strings of these kinds; numbers stay. A space keeps words apart."""
    found = protected(text, [kind for kind in kinds if kind in _OUTSIDE])
    groups: list[tuple[int, int, set[Protected]]] = []
    for at, kept in sorted((at, kept) for kept, places in found.items() for at in places):
        end = at + len(kept.text)
        if groups and not text[groups[-1][1] : at].strip():
            start, _, known = groups.pop()
            groups.append((start, end, known | {kept.kind}))
        else:
            groups.append((at, end, {kept.kind}))
    left, strings, last = "", [], 0
    for start, end, known in groups:
        left, last = _joined(left, text[last:start]), end
        spaced = (
            not text[:start] or text[start - 1].isspace(),
            not text[end:] or text[end].isspace() or text[end] in _CLOSING,
        )
        follows = not text[end:].lstrip()[:1].isalnum() or spaced == (False, True)
        address = bool(known & {"urls", "emails"})
        strings.append(Outside(text[start:end], len(left.rstrip()), spaced, follows, "tags" in known, address))
    return Bare(_joined(left, text[last:]) if groups else text, tuple(strings))


def put_in(translation: str, cuts: Sequence[int | None], alignment: Numbers, bare: Bare, columns: Sequence[int]) -> str:
    """The translation with the strings of its source.

    Args:
        cuts: [T + 1], the places in the translation before each token and after the last one; None: inside a character.
        alignment: [T, S], where the model looked for each token.
        columns: for each string, the number of source tokens before it.
    """
    allowed = [n for n, at in enumerate(cuts) if at is not None and is_boundary(translation, at)]
    fits = np.array([_fit(alignment, one, at) for one, at in zip(bare.strings, columns, strict=True)])[:, allowed]
    first, last = bare.strings[0], bare.strings[-1]
    if first.at == 0 and last.at == len(bare.text) and first.has_tag and last.has_tag:  # they enclose the sentence
        fits[0, 0] += len(cuts)
    chosen = fits.argmax(axis=1)
    tags = [n for n, one in enumerate(bare.strings) if one.has_tag]
    if tags:
        places = [bare.strings[n].at for n in tags]
        apart = [place < following for place, following in pairwise(places)]
        chosen[tags] = _in_order(fits[tags], apart) or _in_order(fits[tags], [False] * len(apart))
    for n in sorted(range(len(chosen)), key=lambda n: (chosen[n], n), reverse=True):
        at = cuts[allowed[chosen[n]]]
        translation = _inserted(translation[:at], bare.strings[n], translation[at:])
    return translation


def _fit(alignment: Numbers, one: Outside, column: int) -> Numbers:
    """How well a string fits before each target token and after the last one, [T + 1]."""
    num_tokens, num_columns = alignment.shape
    weights = alignment / np.maximum(alignment.sum(axis=1, keepdims=True), 1e-9)
    before = weights[:, :column].sum(axis=1)
    fit = np.zeros(num_tokens + 1)
    fit[1:] += before.cumsum()  # the words before the string are translated before it,
    fit[:-1] += (1 - before)[::-1].cumsum()[::-1]  # and those after it are translated after it
    fit *= _OF_SENTENCE / max(1, num_tokens)
    if column == num_columns:
        fit[-1] += num_tokens + 1
    elif one.follows and column:
        fit[1:] += weights[:, column - 1]
    else:
        fit[:-1] += weights[:, column]
    return fit


def _in_order(fits: Numbers, apart: Sequence[bool]) -> list[int]:
    """The columns of the rows that do not fall and have the largest sum; none if there are too few columns.

    ``apart``: [rows - 1], whether a row needs another column than the one before it: tags with words between them.
    """
    best = [fits[0]]
    for row, gap in zip(fits[1:], apart, strict=True):
        before = np.maximum.accumulate(best[-1])
        best.append(row + (np.append(-np.inf, before[:-1]) if gap else before))
    if best[-1].max() == -np.inf:
        return []
    chosen, end = [], fits.shape[1]
    for row, gap in zip(reversed(best), [*apart[::-1], False], strict=True):
        at = int(row[:end].argmax())
        chosen.append(at)
        end = at if gap else at + 1
    return chosen[::-1]


def _inserted(left: str, one: Outside, right: str) -> str:
    """A string with the spaces that it had, except before punctuation and where there were no words."""
    gap = not left or not right or left[-1].isspace() or right[0].isspace()
    left, right = left.rstrip(), right.lstrip()
    before = (one.spaced[0] and (gap or in_word(left[-1]))) or _grows(left, one.text)
    after = (one.spaced[1] and (gap or in_word(right[0]))) or _grows(one.text, right)
    after = after or (one.is_address and in_word(right[:1] or " "))
    return left + " " * bool(left and before) + one.text + " " * (after and right[:1] not in _CLOSING) + right


def _grows(left: str, right: str) -> bool:
    return bool(left and right) and in_word(left[-1]) and in_word(right[0])


def _joined(left: str, right: str) -> str:
    """What stands before and after a string, without it."""
    if not left or left[-1].isspace():
        right = right.lstrip()
    if right[:1] in _CLOSING:
        left = left.rstrip()
    return left + " " * _grows(left, right) + right
