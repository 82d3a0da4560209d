"""Validation pairs that are taken out of the training text (``data.valid: 500``)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b

import numpy as np

from seq2seq.config import DataConfig, HeldOut
from seq2seq.data.cleaning import Cleaned
from seq2seq.data.formats.pairs import SentencePair, read_pairs
from seq2seq.errors import DataError


class TrainAndValid:
    """The pairs to train on and those to validate on, both without those that cleaning leaves out.

    Held-out pairs are those whose sources have the smallest hashes. So the choice does not depend on order or format,
    and more text changes little of it. Of all pairs with the same source (except for case, spaces and punctuation), the
    first is validated with and the others are in neither text, because the model would have seen their source.
    """

    def __init__(self, data: DataConfig, cleaned: Cleaned | None = None) -> None:
        """``cleaned``: which training pairs are left out; None for none."""
        self._data, self.cleaned = data, cleaned
        self._num_repeats = 0

    def train(self) -> Iterator[SentencePair]:
        """The pairs to train on, with their numbers in the whole text."""
        pairs = self._clean()
        if not isinstance(self._data.valid, HeldOut):
            return pairs
        return (pair for pair in pairs if source_hash(pair.src) not in self._held_out)

    def valid(self) -> Iterator[SentencePair]:
        """The pairs to validate on, numbered from 0."""
        if not isinstance(self._data.valid, HeldOut):
            yield from read_pairs(self._data.valid)
            return
        missing = set(self._held_out)
        for pair in self._clean():
            if _has_text(pair) and (key := source_hash(pair.src)) in missing:
                yield pair._replace(line=len(self._held_out) - len(missing))
                missing.remove(key)

    def _clean(self) -> Iterator[SentencePair]:
        pairs = read_pairs(self._data.train)
        return pairs if self.cleaned is None else self.cleaned.keep(pairs)

    def notice(self) -> str | None:
        """What was taken out, in words; None if valid is a text of its own."""
        if not isinstance(self._data.valid, HeldOut):
            return None
        return (
            f"valid: {len(self._held_out):,} pairs taken out of train; {self._num_repeats:,} other pairs with their "
            "sources are in neither"
        )

    @cached_property
    def _held_out(self) -> frozenset[int]:
        """The hashes of the sources; raises DataError if too few others are left."""
        assert isinstance(self._data.valid, HeldOut)
        hashes = array("Q", (source_hash(pair.src) for pair in self._clean() if _has_text(pair)))
        keys, counts = np.unique(np.array(hashes, dtype=np.uint64), return_counts=True)
        share = self._data.valid.share
        number = int(self._data.valid.from_train) if share is None else max(1, round(share * len(keys)))
        if 2 * number > len(keys):
            raise DataError(
                f"data.valid: {self._data.valid.from_train} of the training pairs are to be held out, but data.train "
                f"has only {len(keys):,} different sources; hold out at most half of them, or name files to validate on"
            )
        self._num_repeats = int(counts[:number].sum()) - number
        return frozenset(keys[:number].tolist())


def _has_text(pair: SentencePair) -> bool:
    return bool(pair.src.strip() and pair.tgt.strip())


def source_hash(source: str) -> int:
    """The hash by which pairs are held out: of the source without case, spaces and punctuation."""
    key = "".join(filter(str.isalnum, source.casefold())) or source.strip()
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
