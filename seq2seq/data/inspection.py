"""Facts about every line of a text, for ``doctor``: counts, hashes, scripts, and flags for what looks wrong.

Every line becomes one record of :data:`LINE` (about 30 bytes). A corpus of any size is read once, on all cores, and
checks (repeated pairs, overlap with the test set, sides that drift apart) work on arrays of records. The text is read
again only for the lines that are shown or listed. Invalid lines and unreadable files are recorded, not raised.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property, lru_cache
from itertools import chain, islice, repeat, zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import TextFiles, file_problem
from seq2seq.data.formats.pairs import PairFile, Text, files_of
from seq2seq.data.normalise import INVISIBLE
from seq2seq.data.parallel import Workers, chunks_of
from seq2seq.errors import DataError
from seq2seq.languages import QUESTION_MARKS, script_of_letter
from seq2seq.traces import has_capitals, has_subwords, is_tokenised

LINE = np.dtype(
    [
        ("number", "<u4"),  # in its file, as the file's users count
        ("hash", "<u8"),  # of the text without the spaces at both ends
        ("key", "<u8"),  # of the text without case, spaces and punctuation
        ("chars", "<u4"),
        ("words", "<u4"),  # separated by spaces
        ("punctuation", "u1"),  # this and the next two: at most 255
        ("digits", "u1"),
        ("questions", "u1"),
        ("script", "u1"),  # index into script_names(): that of most letters; 0 for none
        ("capitals", "?"),  # whether it has capital letters
        ("flags", "<u2"),  # sum of members of Flag
    ]
)
Lines = NDArray[Any]  # [lines] records of LINE


class Place(NamedTuple):
    """A line of one side of a file of pairs."""

    file: PairFile
    side: Literal[0, 1]
    line: int  # from 0
    number: int  # as the file's users count


class Flag(IntFlag):
    """What looks wrong in a line."""

    INVALID = 1  # not UTF-8
    BLANK = 2
    CONTROL = 4  # control characters, line separators, a byte order mark inside the text
    REPLACED = 8  # U+FFFD, in place of characters that an earlier program lost
    GARBLED = 16  # UTF-8 that was read as Latin-1 and encoded again
    MARKUP = 32  # HTML tags or entities
    SUBWORDS = 64  # marks of a subword tokenizer
    TOKENISED = 128  # spaces between words and punctuation, from a tokenizer
    SPACING = 256  # white space except U+0020 and typographic no-break spaces
    INVISIBLE = 512  # soft hyphens, zero-width characters, direction marks
    DECOMPOSED = 1024  # Unicode that is not in NFC


CHUNK_LINES = 8192
_CHUNK_BYTES = 1 << 22  # limits memory if lines are huge
_MAIN_SCRIPT = 0.8
_FEW_LETTERS = 4  # fewer show no script: many languages use foreign abbreviations

# UTF-8 read with one character per byte: a lead byte, then the Windows-1252 characters of the bytes 80 to BF.
# After A with tilde or circumflex, which can end a word, quotation marks do not count.
_SIGNS = "\u20ac\u0192\u2020\u2021\u02c6\u2030\u0160\u0152\u017d\u2022\u2013\u2014\u02dc\u2122\u0161\u0153\u017e\u0178"
_CONTINUED = "\u0080-\u00bf\u201a\u201e\u2026\u2039\u2018\u2019\u201c\u201d\u203a" + _SIGNS
_GARBLED = re.compile(
    f"[\u00c2\u00c3][\u0080-\u00aa\u00ac-\u00ba\u00bc-\u00bf{_SIGNS}]|\u00e2[\u20ac\u0080][{_CONTINUED}]"
    f"|(?:[\u00e3-\u00ed][{_CONTINUED}]{{2}}){{2}}|(?:[\u00d0\u00d1][{_CONTINUED}]){{2}}"
)
_MARKUP = re.compile(
    r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,5}|#x[0-9a-fA-F]{1,5});|</?[a-zA-Z][a-zA-Z0-9]{0,9}(?:\s[^<>]*)?/?>"
)

# No-break spaces are correct beside digits and, in French, beside punctuation.
_SPACING = re.compile("[\t\u1680\u2000-\u200a\u205f\u3000]|(?<![\\d«‹–—])[\u00a0\u202f](?![\\d»›!?:;%€$£°–—])")
_INVISIBLES = re.compile(f"[{INVISIBLE}]")

# Kinds of characters. _LETTERS + i is a letter of script i.
_OTHER, _SPACE, _PUNCTUATION, _DIGIT, _QUESTION, _CONTROL, _REPLACEMENT, _LETTERS = range(8)
_CATEGORIES = {"Nd": _DIGIT, "Zs": _SPACE, "Cc": _CONTROL, "Zl": _CONTROL, "Zp": _CONTROL}
_NO_KEY = (_SPACE, _PUNCTUATION, _QUESTION, _CONTROL)


@dataclass(frozen=True)
class FileFacts:
    """One side of a file of pairs: a record for each line, and the error if it could not be read to its end."""

    file: PairFile
    side: Literal[0, 1]
    lines: Lines
    error: str | None = None

    @property
    def path(self) -> Path:
        """The file that has this side."""
        return self.file.paths[self.side]

    def place(self, line: int) -> Place:
        """The place of line ``line``, counted from 0."""
        return Place(self.file, self.side, line, int(self.lines["number"][line]))


@dataclass(frozen=True)
class PartFacts:
    """The files of one part of the text: train, valid or test."""

    src: list[FileFacts]
    tgt: list[FileFacts]  # same number of files as src

    @cached_property
    def pairs(self) -> tuple[Lines, Lines]:
        """[pairs] source and target records of all files. Lines without a partner at the end of a file are left out."""
        sizes, sides = self._sizes(), (self.src, self.tgt)
        src, tgt = ([facts.lines[:size] for facts, size in zip(side, sizes, strict=True)] for side in sides)
        return np.concatenate(src), np.concatenate(tgt)

    @cached_property
    def filled(self) -> NDArray[np.bool_]:
        """[pairs] whether both sides have text."""
        src, tgt = self.pairs
        return np.asarray((src["flags"] | tgt["flags"]) & Flag.BLANK == 0)

    def places(self, pair: int) -> tuple[Place, Place]:
        """The source line and the target line of pair ``pair``, which counts from 0."""
        (number,), (line,) = (found.tolist() for found in self.locate(np.array([pair])))
        return self.src[number].place(line), self.tgt[number].place(line)

    def locate(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of the file of each pair, and its line there; all count from 0."""
        ends = np.cumsum(self._sizes())
        number = np.searchsorted(ends, pairs, side="right")
        return number, pairs - np.concatenate([[0], ends])[number]

    def _sizes(self) -> list[int]:
        return [min(len(src.lines), len(tgt.lines)) for src, tgt in zip(self.src, self.tgt, strict=True)]


def inspect_parts(
    parts: Mapping[str, Text], on_lines: Callable[[int], object] = lambda count: None
) -> dict[str, PartFacts]:
    """Inspect all text of a run, on all cores. Missing and damaged files are recorded in ``error``, not raised.

    Args:
        parts: by name ("train", "valid", "test").
        on_lines: called with the number of lines done since the last call.
    """
    with Workers() as workers:

        def inspected(files: Iterable[PairFile], side: Literal[0, 1]) -> list[FileFacts]:
            return [_inspect_side(file, side, workers, on_lines) for file in files]

        files = {name: files_of(text) for name, text in parts.items()}
        return {name: PartFacts(inspected(of_part, 0), inspected(of_part, 1)) for name, of_part in files.items()}


def pair_keys(src: Lines, tgt: Lines, name: Literal["hash", "key"] = "key") -> NDArray[np.uint64]:
    """[pairs] one hash for source and target together, from the field ``name``."""
    return joined_keys(src[name], tgt[name])


def joined_keys(src: NDArray[np.uint64], tgt: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """[pairs] one hash for source and target together."""
    return np.asarray(src * np.uint64(0x9E3779B97F4A7C15) + tgt)


def repeats(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the values that repeat an earlier value, ascending, and for each the index of the first such value."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    earliest = first[inverse]
    again = np.flatnonzero(earliest < np.arange(len(keys)))
    return again, earliest[again]


def first_equal(wanted: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[wanted] for each value the index of the first equal one in ``keys``, or -1."""
    if not len(keys):
        return np.full(len(wanted), -1)
    values, first = np.unique(keys, return_index=True)
    nearest = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[nearest] == wanted, first[nearest], -1)


def unlike_lengths(src: Lines, tgt: Lines, factor: float, least: int) -> NDArray[np.int64]:
    """Indices of pairs whose ratio of characters differs from the median ratio by more than ``factor``.

    Pairs with fewer than ``least`` characters on both sides are skipped: ratios of short sentences vary widely.
    """
    ratios = np.log((src["chars"] + 1.0) / (tgt["chars"] + 1.0))
    both = ((src["flags"] | tgt["flags"]) & (Flag.BLANK | Flag.INVALID)) == 0
    if not both.any():
        return np.empty(0, np.int64)
    off = np.abs(ratios - np.median(ratios[both])) > np.log(factor)
    return np.flatnonzero(off & both & (np.maximum(src["chars"], tgt["chars"]) >= least))


def main_script(lines: Lines) -> int:
    """The script of most lines of a side, as an index like the field ``script``; 0 if there is none."""
    shown = lines["script"][lines["script"] > 0]
    counts = np.bincount(shown, minlength=1)
    return int(counts.argmax()) if counts.max() > _MAIN_SCRIPT * max(1, len(shown)) else 0


def examine_lines(raw: Sequence[bytes]) -> Lines:
    """Records of lines, which come without their line endings."""
    records = np.zeros(len(raw), LINE)
    records["hash"] = _hashes(line.strip() for line in raw)
    texts = [line.decode("utf-8", "ignore") for line in raw]
    invalid = [text.encode() != line for text, line in zip(texts, raw, strict=True)]
    records["flags"] = np.where(invalid, Flag.INVALID, 0) | np.fromiter(map(_text_flags, texts), np.int64, len(texts))
    records["chars"] = [len(text) for text in texts]
    records["capitals"] = [has_capitals(text) for text in texts]
    _count_characters(texts, records)
    return records


def script_names() -> list[str]:
    """Names of the scripts, by the number in the field ``script``: latin, cyrillic, han (kana included), ..."""
    return _characters()[2]


def read_places(places: Iterable[Place]) -> dict[Place, bytes]:
    """The lines at these places, except those that a file lacks or that cannot be read; reads every side once."""
    wanted: dict[tuple[PairFile, Literal[0, 1]], dict[int, Place]] = {}
    for place in places:
        wanted.setdefault((place.file, place.side), {})[place.line] = place
    found: dict[Place, bytes] = {}
    for (file, side), lines in wanted.items():
        with suppress(DataError):  # recorded in FileFacts.error
            for line, (_, raw) in enumerate(islice(file.lines(side), max(lines) + 1)):
                if line in lines:
                    found[lines[line]] = raw
    return found


def read_both(src: FileFacts, tgt: FileFacts, lines: Iterable[int]) -> Iterator[tuple[bytes, bytes]]:
    """Source and target text of these lines of a file; their numbers, from 0, ascend and may repeat.

    Each side is read once, and only one pair is in memory. Lines that a side lacks, or that cannot be read any more,
    are empty.
    """
    texts = chain(_both_sides(src, tgt), repeat((b"", b"")))
    pair, read = (b"", b""), 0
    for line in lines:
        if line >= read:
            pair = next(islice(texts, line - read, None))
            read = line + 1
        yield pair


def _both_sides(src: FileFacts, tgt: FileFacts) -> Iterator[tuple[bytes, bytes]]:
    if isinstance(src.file.dataset, TextFiles):
        yield from zip_longest(_readable_lines(src), _readable_lines(tgt), fillvalue=b"")
        return
    with suppress(DataError):
        for unit in islice(src.file.units(), len(src.lines)):
            yield unit.src.encode(), unit.tgt.encode()


def _readable_lines(facts: FileFacts) -> Iterator[bytes]:
    """The lines that could be read; so a file that cannot be opened, or a pipe, which would block, is not opened."""
    with suppress(DataError):
        for _, raw in islice(facts.file.lines(facts.side), len(facts.lines)):
            yield raw


def _inspect_side(
    file: PairFile, side: Literal[0, 1], workers: Workers, on_lines: Callable[[int], object]
) -> FileFacts:
    path = file.paths[side]
    if path.exists() and (problem := file_problem(path)):  # a pipe cannot be read twice: the second time would block
        return FileFacts(file, side, np.empty(0, LINE), f"{path}: {problem}")
    errors: list[str] = []
    numbers = array("I")

    def lines() -> Iterator[bytes]:
        try:
            for number, raw in file.lines(side):
                numbers.append(number)
                yield raw
        except DataError as error:
            errors.append(str(error))

    records = [np.empty(0, LINE)]
    for examined in workers.map(examine_lines, chunks_of(lines(), len, CHUNK_LINES, _CHUNK_BYTES)):
        records.append(examined)
        on_lines(len(examined))
    facts = FileFacts(file, side, np.concatenate(records), errors[0] if errors else None)
    facts.lines["number"] = numbers
    return facts


def _hashes(texts: Iterable[bytes | memoryview]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts), "<u8")


def _text_flags(text: str) -> int:
    flags = 0 if text.strip() else Flag.BLANK
    if ("<" in text or "&" in text) and _MARKUP.search(text):
        flags |= Flag.MARKUP
    if has_subwords(text):
        flags |= Flag.SUBWORDS
    if is_tokenised(text):
        flags |= Flag.TOKENISED
    if not text.isascii() and _GARBLED.search(text):
        return flags | Flag.GARBLED
    if text.strip() and (not text.isascii() or "\t" in text):
        flags |= Flag.SPACING if _SPACING.search(text) else 0
        flags |= Flag.INVISIBLE if _INVISIBLES.search(text) else 0
        flags |= 0 if unicodedata.is_normalized("NFC", text) else Flag.DECOMPOSED
    return flags


def _count_characters(texts: Sequence[str], records: Lines) -> None:
    """Fill the fields that depend on kinds of characters, for all lines at once."""
    kinds, folded, names = _characters()
    codes = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le"), "<u4")
    kind = kinds[codes]
    ends = codes == ord("\n")
    line = np.cumsum(ends) - ends
    shape = len(texts), len(names) + _LETTERS
    counts = np.bincount(line * shape[1] + kind, minlength=shape[0] * shape[1]).reshape(shape)
    in_word = kind != _SPACE
    starts = in_word & np.concatenate([[True], ~in_word[:-1]])
    records["words"] = np.bincount(line[starts], minlength=len(texts))
    for field, wanted in (("punctuation", _PUNCTUATION), ("digits", _DIGIT), ("questions", _QUESTION)):
        records[field] = np.minimum(counts[:, wanted], 255)
    records["flags"] |= np.where(counts[:, _CONTROL] > 0, Flag.CONTROL, 0).astype("u2")
    records["flags"] |= np.where(counts[:, _REPLACEMENT] > 0, Flag.REPLACED, 0).astype("u2")
    keys, has_key = _keys(folded[codes[ends | ~np.isin(kind, _NO_KEY)]])
    records["key"] = np.where(has_key, keys, records["hash"])  # without such characters, the whole text counts
    letters = counts[:, _LETTERS:]
    number, main = letters.sum(axis=1), letters.argmax(axis=1)
    clear = (number >= _FEW_LETTERS) & (2 * letters.max(axis=1) > number)
    records["script"] = np.where(clear, main, 0)


def line_keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    """[lines] only the field ``key`` of lines, which takes a fraction of the time of :func:`examine_lines`."""
    keys, has_key = _keys(key_characters(texts))
    without = np.flatnonzero(~has_key)
    keys[without] = _hashes(texts[line].encode().strip() for line in without.tolist())
    return keys


def key_characters(texts: Sequence[str]) -> NDArray[np.uint32]:
    """The code points that count for the field ``key`` of lines, in lower case, with LF after each line."""
    kinds, folded, _ = _characters()
    codes = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le"), "<u4")
    return np.asarray(folded[codes[(codes == ord("\n")) | ~np.isin(kinds[codes], _NO_KEY)]])


def _keys(codes: NDArray[np.uint32]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """[lines] hashes of the characters that count for the field ``key``, which have LF after each line; and whether
    there are any."""
    ends = 4 * np.flatnonzero(codes == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 4]) if len(ends) else ends
    data = memoryview(codes.tobytes())
    keys = _hashes(data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
    return keys.copy(), ends > starts  # the bytes behind an array from a buffer are fixed


@lru_cache(maxsize=1)
def _characters() -> tuple[NDArray[np.uint8], NDArray[np.uint32], list[str]]:
    """The kind and the lower case of every code point (each [0x110000]), and the names of the scripts.

    The name of a letter in Unicode starts with its script. Chinese characters and kana are one script, because Japanese
    mixes them. Letters above the first 65,536 code points have no script, except Chinese characters.
    """
    names = {"": 0}
    kinds, folded = np.zeros(0x110000, np.uint8), np.arange(0x110000, dtype=np.uint32)
    han = names.setdefault("han", len(names))
    kinds[0x20000:0x32000] = _LETTERS + han
    for code in range(0x10000):
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] == "L":
            name = script_of_letter(character) or ""
            kinds[code] = _LETTERS + names.setdefault("han" if name == "kana" else name, len(names))
            small = character.lower()
            folded[code] = ord(small) if len(small) == 1 else code
        else:
            kinds[code] = _PUNCTUATION if category[0] == "P" else _CATEGORIES.get(category, _OTHER)
    marks = {_SPACE: "\t\n", _CONTROL: "\ufeff", _REPLACEMENT: "\ufffd", _QUESTION: QUESTION_MARKS}
    for kind, characters in marks.items():
        kinds[[ord(character) for character in characters]] = kind
    return kinds, folded, list(names)
