"""Sentence pairs: line n of a source file with line n of its target file."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from seq2seq.config import TextFiles
from seq2seq.data.formats.lines import decode_line, read_lines
from seq2seq.errors import DataError
from seq2seq.files import checksum, checksum_file


class SentencePair(NamedTuple):
    """A source sentence, its translation, and their 0-based line number over the whole list of files."""

    src: str
    tgt: str
    line: int


def read_pairs(files: TextFiles) -> Iterator[SentencePair]:
    """Yield all pairs in order; raises DataError if a source and its target file have different line counts."""
    first = 0
    for src_path, tgt_path in zip(files.src, files.tgt, strict=True):
        number = 0
        lines = zip_longest(read_lines(src_path), read_lines(tgt_path))
        for number, (src, tgt) in enumerate(lines, start=1):
            if src is None or tgt is None:  # one file has ended; count the rest of the other
                counts = [number - 1, number + sum(1 for _ in lines)]
                num_src, num_tgt = counts if src is None else reversed(counts)
                raise DataError(
                    f"{src_path} has {num_src} lines but {tgt_path} has {num_tgt}; "
                    "line n of both must be a pair; seq2seq doctor shows where they drift apart"
                )
            src_text, tgt_text = decode_line(src, src_path, number), decode_line(tgt, tgt_path, number)
            yield SentencePair(src_text, tgt_text, first + number - 1)
        first += number


def places_of(lines: Sequence[int], paths: Sequence[Path]) -> list[str]:
    """``file:line`` (from 1) of line numbers that count from 0 over the whole list of files."""
    first_lines = [0]
    for path in paths[:-1]:
        first_lines.append(first_lines[-1] + sum(1 for _ in read_lines(path)))
    files = [bisect_right(first_lines, line) - 1 for line in lines]
    return [f"{paths[file]}:{line - first_lines[file] + 1}" for file, line in zip(files, lines, strict=True)]


def fingerprint_files(files: TextFiles, checksum_of: Callable[[Path], str] = checksum_file) -> str:
    """Hex fingerprint (16 bytes) of the files' bytes, sides and order; their names do not count.

    A caller that caches checksums passes its own ``checksum_of``.
    """
    both = (*files.src, *files.tgt)  # of equal length, so no separator is needed
    return checksum("".join(map(checksum_of, both)).encode())
