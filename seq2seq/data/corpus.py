"""The corpus on disk: token ids of both sides, memory-mapped, so a large corpus needs little memory and opens fast.

A corpus is a folder::

    src.ids  tgt.ids          ids of all sentences, one after the other, each with EOS at its end (uint16 or uint32)
    src.offsets  tgt.offsets  start of each sentence, and then the end of the last one (int64, pairs + 1)
    lines                     0-based line number of each pair in its text files (int64, pairs)
    meta.json                 version, counts, vocabulary sizes, fingerprint, sizes and checksums of all files

It is written to a temporary folder that is then renamed, so a folder with the final name is complete. The caller makes
the fingerprint from all that the corpus depends on (text files, tokenizers, filters).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from seq2seq.data.checksums import FileRecord
from seq2seq.data.corpus_writer import FILES, META, SIDES, VERSION, Ids, Sentences, Side, corpus_writer, join_sentences
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.parallel import Workers, chunks_of
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.errors import DataError
from seq2seq.files import checksum_file, sealed_json

_CHUNK_PAIRS = 8192
_CHUNK_CHARACTERS = 1 << 21  # limits memory if lines are huge
_AGAIN = "delete the folder to rebuild it"


def why_left_out(
    src: int, tgt: int, max_length: int | None, max_ratio: float | None
) -> Literal["empty", "too_long", "ratio"] | None:
    """Why a pair with these numbers of tokens, EOS included, is left out; None if it is kept.

    ``max_length`` limits the tokens of each side. ``max_ratio`` limits the tokens of the longer side divided by those
    of the shorter; because both count the EOS, it allows more for very short sentences. None is no limit.
    """
    shorter, longer = sorted((src, tgt))
    if shorter == 1:
        return "empty"
    if max_length is not None and longer > max_length:
        return "too_long"
    return "ratio" if max_ratio is not None and longer > max_ratio * shorter else None


@dataclass(frozen=True)
class FilterCounts:
    """Number of pairs read, kept, and left out for each reason; the first reason that applies counts."""

    read: int = 0
    kept: int = 0
    empty: int = 0
    too_long: int = 0
    ratio: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kept:,} of {self.read:,} pairs kept; left out: {self.empty:,} with a blank side, "
            f"{self.too_long:,} too long (max_length), {self.ratio:,} with too different lengths (max_ratio)"
        )


class _Meta(BaseModel):
    """``meta.json``. Its numbers are checked against the files."""

    model_config = ConfigDict(strict=True)

    num_pairs: int
    fingerprint: str
    vocab_sizes: dict[Side, int]
    counts: dict[str, int]
    dtypes: dict[str, Literal["<u2", "<u4", "<i8"]]  # numbers only: numpy knows other types, such as objects
    files: dict[str, FileRecord]


class Corpus:
    """A corpus opened for reading, by :func:`open_corpus`. Its pickle has only the folder's path.

    Reading raises DataError at sentences or ids that are out of range, which only damage can cause.
    """

    def __init__(self, folder: Path, meta: _Meta) -> None:
        self.folder = folder
        self.num_pairs = meta.num_pairs
        self.fingerprint = meta.fingerprint
        self.counts = FilterCounts(**meta.counts)
        self.vocab_sizes: tuple[int, int] = (meta.vocab_sizes["src"], meta.vocab_sizes["tgt"])
        self._arrays = {name: np.asarray(np.memmap(folder / name, dtype=meta.dtypes[name], mode="r")) for name in FILES}
        expected = {"lines": self.num_pairs}
        for side in SIDES:
            expected[f"{side}.offsets"] = self.num_pairs + 1
            first, expected[f"{side}.ids"] = self._arrays[f"{side}.offsets"][[0, -1]].tolist()
            if first != 0:
                raise self._damaged(f"{side}.offsets", f"the first sentence starts at {first}, not 0")
        for name, size in expected.items():
            if self._arrays[name].size != size:
                raise self._damaged(name, f"{self._arrays[name].size} numbers instead of {size}")

    def _damaged(self, name: str, what: str) -> DataError:
        return DataError(f"{self.folder / name}: damaged, {what}; {_AGAIN}")

    def __reduce__(self) -> tuple[Callable[[Path], Corpus], tuple[Path]]:
        return open_corpus, (self.folder,)

    @property
    def lines(self) -> NDArray[np.int64]:
        """[pairs] 0-based line number of each pair in its text."""
        return self._arrays["lines"]

    @cached_property
    def src_lengths(self) -> NDArray[np.int32]:
        """[pairs] source tokens, EOS included."""
        return self._bounds("src", slice(None))[0].astype(np.int32)

    @cached_property
    def tgt_lengths(self) -> NDArray[np.int32]:
        """[pairs] target tokens, EOS included."""
        return self._bounds("tgt", slice(None))[0].astype(np.int32)

    def take(
        self, side: Side, indices: NDArray[np.integer] | Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Sentences ``indices`` of one side, one after the other in that order.

        Returns ids [tokens] and lengths [len(indices)], EOS included; raises IndexError for an index out of range.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < self.num_pairs:
            raise IndexError(f"sentence index out of range for {self.num_pairs} pairs")
        lengths, starts = self._bounds(side, chosen)
        ends = np.cumsum(lengths)
        tokens = np.arange(ends[-1] if chosen.size else 0) + np.repeat(starts - (ends - lengths), lengths)
        ids = self._checked(side, self._arrays[f"{side}.ids"][tokens])
        return ids.astype(np.int64), lengths.astype(np.int32)

    def sentence(self, side: Side, i: int) -> Ids:
        """[length] ids of sentence ``i`` of one side, EOS included; a read-only view."""
        if not 0 <= i < self.num_pairs:
            raise IndexError(f"sentence {i} of {self.num_pairs}")
        (length,), (start,) = self._bounds(side, np.array([i]))
        return self._checked(side, self._arrays[f"{side}.ids"][start : start + length])

    def _bounds(self, side: Side, chosen: NDArray[np.int64] | slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lengths and starts of sentences, checked to lie within the ids."""
        offsets, size = self._arrays[f"{side}.offsets"], self._arrays[f"{side}.ids"].size
        starts, ends = offsets[:-1][chosen], offsets[1:][chosen]
        lengths = ends - starts
        if starts.size and (starts.min() < 0 or ends.max() > size or lengths.min() < 1 or lengths.max() >= 1 << 31):
            raise self._damaged(f"{side}.offsets", "a sentence ends before it starts or lies outside the file")
        return lengths, starts

    def _checked(self, side: Side, ids: Ids) -> Ids:
        if ids.size and ids.max() >= self.vocab_sizes[SIDES.index(side)]:
            raise self._damaged(f"{side}.ids", f"id {ids.max()} is outside the vocabulary")
        return ids


def open_corpus(
    folder: Path,
    fingerprint: str | None = None,
    verify: bool = False,
    checksum: Callable[[Path], str] = checksum_file,
) -> Corpus:
    """Open a corpus; raises DataError if it is missing, damaged, or has another fingerprint.

    ``meta.json`` and the file sizes are always checked, the fingerprint if it is given, and the checksums of all files
    (computed by ``checksum``) with ``verify``.
    """
    try:
        content = (folder / META).read_bytes()
        tree = from_json(content)
        if tree["version"] != VERSION:
            raise DataError(f"{folder}: format {tree['version']!r:.20}, not {VERSION}; {_AGAIN}")
        if content != sealed_json(tree):
            raise DataError(f"{folder / META}: damaged, its checksum is wrong; {_AGAIN}")
        meta = _Meta.model_validate(tree)
        for name in FILES:
            size, expected = (folder / name).stat().st_size, meta.files[name].bytes
            if size != expected:
                raise DataError(f"{folder / name}: damaged, {size} bytes instead of {expected}; {_AGAIN}")
            if verify and checksum(folder / name) != meta.files[name].blake2b:
                raise DataError(f"{folder / name}: damaged, its checksum is wrong; {_AGAIN}")
        corpus = Corpus(folder, meta)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: not a corpus, {Path(error.filename).name} is missing; build it first") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(f"{folder / 'meta.json'}: damaged at {where}; {_AGAIN}") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f"{folder}: damaged corpus ({type(error).__name__}: {error}); {_AGAIN}") from None
    if fingerprint is not None and fingerprint != corpus.fingerprint:
        raise DataError(
            f"{folder}: built from other text, tokenizers or filters "
            f"(fingerprint {corpus.fingerprint}, now {fingerprint}); {_AGAIN}"
        )
    return corpus


def build_corpus(
    folder: Path,
    pairs: Iterable[SentencePair],
    tokenizers: TokenizerPair,
    fingerprint: str,
    *,
    max_length: int | None = None,
    max_ratio: float | None = None,
    tags: Sequence[str | None] = (None,),
) -> Corpus:
    """Encode ``pairs`` into ``folder`` and replace its content; memory does not grow with their number.

    ``tags``: of each dataset that the pairs come from, the tag that its sources begin with.
    Pairs with a blank side, or beyond ``max_length`` or ``max_ratio`` (:func:`why_left_out`), are left out and counted.
    Raises DataError if no pair is kept or the disk is full; then, and if ``pairs`` raises, ``folder`` does not change.
    """
    total: Counter[str] = Counter()
    prefixes = [tokenizers.src.prefix(tag) for tag in tags]
    encode = partial(
        _encode_chunk, tokenizers=tokenizers, prefixes=prefixes, max_length=max_length, max_ratio=max_ratio
    )
    with corpus_writer(folder, tokenizers) as writer, Workers() as workers:
        chunks = chunks_of(pairs, lambda pair: len(pair.src) + len(pair.tgt), _CHUNK_PAIRS, _CHUNK_CHARACTERS)
        # Columns pickle much faster than single pairs.
        for src, tgt, lines, new in workers.map(encode, (tuple(zip(*chunk, strict=True)) for chunk in chunks)):
            writer.add(src, tgt, lines)
            total += new
        counts = FilterCounts(**total)
        if counts.kept == 0:
            raise DataError(f"{folder}: no pair is left for the corpus ({counts}); check the text and these limits")
        writer.finish(asdict(counts), fingerprint)
    return open_corpus(folder, fingerprint)


_Columns = tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...], tuple[int, ...]]  # source, target, line, part
_Encoded = tuple[Sentences, Sentences, NDArray[np.int64], Counter[str]]


def _encode_chunk(
    columns: _Columns,
    tokenizers: TokenizerPair,
    prefixes: Sequence[list[int]],
    max_length: int | None,
    max_ratio: float | None,
) -> _Encoded:
    """Encode and filter one chunk; a pair that is left out counts for the first reason that applies.

    prefixes: of each part, the ids before its sources.
    """
    src, tgt = tokenizers.src.encode(columns[0]), tokenizers.tgt.encode(columns[1])
    src = [[*prefixes[part], *ids] for part, ids in zip(columns[3], src, strict=True)] if any(prefixes) else src
    counts = Counter(read=len(src))
    kept = []
    for i, (source, target, s, t) in enumerate(zip(*columns[:2], src, tgt, strict=True)):
        blank = not source.strip() or not target.strip()
        reason = "empty" if blank else why_left_out(len(s) + 1, len(t) + 1, max_length, max_ratio)
        counts[reason or "kept"] += 1
        if reason is None:
            kept.append(i)
    return (
        join_sentences([src[i] for i in kept], tokenizers.src.vocab_size),
        join_sentences([tgt[i] for i in kept], tokenizers.tgt.vocab_size),
        np.array(columns[2], dtype=np.int64)[kept],
        counts,
    )
