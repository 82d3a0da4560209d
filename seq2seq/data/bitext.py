"""Parallel text as files: the line rule, strict UTF-8, and pairs that never slip against each other.

A line ends at LF and at nothing else. One CR directly before the LF, or at the end of an unterminated last line,
belongs to the ending. A UTF-8 byte order mark at the start of a file is dropped. Lone CR, U+2028, NUL and form feed are
ordinary characters. Files may be plain or gzip, told apart by their first bytes and not by their names. A line beyond
16 MiB is an error: no text has one, and a small gzip file can hold one that fills the memory.
"""

import gzip
import io
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from seq2seq.errors import DataError
from seq2seq.files import checksum, checksum_file, unreadable

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
_LONGEST_LINE = 16 << 20  # bytes; to encode it takes a gigabyte


class SentencePair(NamedTuple):
    """One source sentence, its translation, and the 0-based number of their line over the whole list of files."""

    src: str
    tgt: str
    line: int


@dataclass(frozen=True)
class ParallelFiles:
    """Source and target files, paired one to one: line n of ``src[i]`` belongs to line n of ``tgt[i]``."""

    src: tuple[Path, ...]
    tgt: tuple[Path, ...]

    def __post_init__(self) -> None:
        if len(self.src) != len(self.tgt):
            raise DataError(
                f"{len(self.src)} source file(s) but {len(self.tgt)} target file(s); list them in pairs: "
                f"source {_names(self.src)}; target {_names(self.tgt)}"
            )
        if not self.src:
            raise DataError("no parallel files given; name at least one source file and one target file")


def open_text(path: Path) -> BinaryIO:
    """Open a plain or gzip file for reading bytes; raises DataError naming the path where that is impossible."""
    try:
        file = path.open("rb")
        if file.peek(2)[:2] != _GZIP_MAGIC:
            return file
        file.close()
        # A gzip file's own readline is a Python function; behind a buffer, lines come at the speed of plain files.
        return io.BufferedReader(cast(io.RawIOBase, gzip.open(path, "rb")), _BLOCK)
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory, not a text file; name the files in it one by one") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise unreadable(path, error) from None


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without their endings, streaming; raises DataError for damaged gzip data."""
    with open_text(path) as file:
        yield from _lines(file, str(path))


def read_stream(file: BinaryIO, name: str) -> Iterator[bytes]:
    """:func:`read_lines` for an open binary stream such as standard input, called ``name`` in errors.

    Nothing is sought and no more is waited for than the next line needs. The stream stays open.
    """
    try:
        head = file.read(1)
        if head == _GZIP_MAGIC[:1]:
            head += file.read(1)
    except OSError as error:
        raise unreadable(name, error) from None
    whole = io.BufferedReader(_Rejoined(head, file))
    yield from _lines(cast(BinaryIO, gzip.GzipFile(fileobj=whole)) if head == _GZIP_MAGIC else whole, name)


def read_text(path: Path) -> list[str]:
    """All lines of a file; raises DataError with the line number where one is not valid UTF-8."""
    return [decode_line(raw, path, number) for number, raw in enumerate(read_lines(path), start=1)]


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already, put in front of it again."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest
        self._read_some = getattr(rest, "read1", rest.read)  # read1 gives what is there, read would wait for more

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._head = self._head or self._read_some(len(buffer)), b""
        buffer[: len(data)] = data
        return len(data)


def _lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The line rule."""
    number = 0
    try:
        for raw in iter(partial(file.readline, _LONGEST_LINE + 1), b""):
            if len(raw) > _LONGEST_LINE:
                raise DataError(
                    f"{name}:{number + 1}: a line of more than {_LONGEST_LINE >> 20} MiB; is this text? "
                    "If so, cut it into sentences"
                )
            line = raw.removeprefix(_BOM) if number == 0 else raw
            number += 1
            if line:  # nothing at all remains of a file that is a byte order mark and no more
                yield line.removesuffix(b"\n").removesuffix(b"\r")
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{name}:{number + 1}: cannot read on ({error}); the file is damaged or cut short, fetch it again"
        ) from None


def decode_line(raw: bytes, path: Path, number: int) -> str:
    """Decode a line as strict UTF-8; ``number`` counts from 1 and appears in the DataError for invalid bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: not valid UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}); "
            "convert the file to UTF-8, or remove this line on both sides"
        ) from None


def read_pairs(files: ParallelFiles) -> Iterator[SentencePair]:
    """Yield every pair in order; raises DataError where two files of a pair differ in their number of lines."""
    first = 0
    for src_path, tgt_path in zip(files.src, files.tgt, strict=True):
        number = 0
        lines = zip_longest(read_lines(src_path), read_lines(tgt_path))
        for number, (src, tgt) in enumerate(lines, start=1):
            if src is None or tgt is None:  # one file has ended: only count on
                counts = [number - 1, number + sum(1 for _ in lines)]
                num_src, num_tgt = counts if src is None else reversed(counts)
                raise DataError(
                    f"{src_path} has {num_src} lines but {tgt_path} has {num_tgt}; "
                    "line n of one must translate line n of the other, so find where they drift apart"
                )
            src_text, tgt_text = decode_line(src, src_path, number), decode_line(tgt, tgt_path, number)
            yield SentencePair(src_text, tgt_text, first + number - 1)
        first += number


def places_of(lines: Sequence[int], paths: Sequence[Path]) -> list[str]:
    """``file:line``, counted from 1, of lines that are counted from 0 over the whole list of files."""
    first_lines = [0]
    for path in paths[:-1]:
        first_lines.append(first_lines[-1] + sum(1 for _ in read_lines(path)))
    files = [bisect_right(first_lines, line) - 1 for line in lines]
    return [f"{paths[file]}:{line - first_lines[file] + 1}" for file, line in zip(files, lines, strict=True)]


def fingerprint_files(files: ParallelFiles, checksum_of: Callable[[Path], str] = checksum_file) -> str:
    """Hex fingerprint (16 bytes) of the files' bytes on disk, sensitive to their sides and order, not to their names.

    ``checksum_of`` gives what :func:`checksum_file` does, for a caller that remembers it.
    """
    both = (*files.src, *files.tgt)  # of the same length, so the sides need no mark between them
    return checksum("".join(map(checksum_of, both)).encode())


def _names(paths: tuple[Path, ...]) -> str:
    return ", ".join(map(str, paths)) or "(none)"
