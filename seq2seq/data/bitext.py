"""Parallel text as files: the line rule, strict UTF-8, and pairs that never slip against each other.

A line ends at LF and at nothing else. One CR directly before the LF, or at the end of an unterminated last line,
belongs to the ending. A UTF-8 byte order mark at the start of a file is dropped. Lone CR, U+2028, NUL and form feed are
ordinary characters. Files may be plain or gzip, told apart by their first bytes and not by their names; other kinds of
files are refused. Everything is read once, from its start to its end, so that pipes can be read. A line beyond 16 MiB
is an error: no text has one, and a small gzip file can hold one that fills the memory.
"""

import gzip
import io
import sys
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from seq2seq.config import TextFiles
from seq2seq.data.file_kinds import HEAD, not_text
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


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a plain or gzip file or of a named pipe, without their endings, streaming.

    Raises DataError naming the path where it cannot be opened, is no text, or is damaged gzip data.
    """
    try:
        file = path.open("rb", 0)
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory, not a text file; name the files in it one by one") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise unreadable(path, error) from None
    with file:
        yield from read_stream(cast(BinaryIO, file), str(path))


def read_stream(file: BinaryIO, name: str) -> Iterator[bytes]:
    """:func:`read_lines` for an open binary stream such as standard input, called ``name`` in errors.

    Nothing is sought and no more is waited for than the next line needs. The stream stays open.
    """
    try:
        head, whole = _begun(file)
    except OSError as error:
        raise unreadable(name, error) from None
    if head.startswith(_GZIP_MAGIC):
        try:
            head, whole = _begun(cast(BinaryIO, gzip.GzipFile(fileobj=whole)))
        except (EOFError, zlib.error, OSError) as error:
            raise _damaged(name, 1, error) from None
        if head.startswith(_GZIP_MAGIC):
            raise DataError(f"{name}: is compressed with gzip twice; unpack it first: gzip -dc FILE > text.gz")
    if (problem := not_text(head)) is not None:
        raise DataError(f"{name}: {problem}")
    yield from _lines(whole, name)


def read_text(path: Path) -> list[str]:
    """All lines of a file, or of standard input for the path ``-``.

    Raises DataError with the line number where a line is not valid UTF-8.
    """
    if str(path) != "-":
        return [decode_line(raw, path, number) for number, raw in enumerate(read_lines(path), start=1)]
    if sys.stdin is None:
        raise DataError("stdin: is closed; name a file")
    lines = read_stream(sys.stdin.buffer, "stdin")
    return [decode_line(raw, "stdin", number) for number, raw in enumerate(lines, start=1)]


def _begun(file: BinaryIO) -> tuple[bytes, io.BufferedReader]:
    """The first bytes of a stream, no more than :data:`HEAD` and no more than the first line needs; and all of it."""
    read_some = getattr(file, "read1", file.read)  # read1 gives what is there, read would wait for more
    head = b""
    while len(head) < HEAD and b"\n" not in head and (more := read_some(HEAD - len(head))):
        head += more
    return head, io.BufferedReader(_Rejoined(head, read_some), _BLOCK)


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already, put in front of it again."""

    def __init__(self, head: bytes, read_some: Callable[[int], bytes]) -> None:
        self._head, self._read_some = head, read_some

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
        raise _damaged(name, number + 1, error) from None


def decode_line(raw: bytes, path: Path | str, number: int) -> str:
    """Decode a line as strict UTF-8; ``number`` counts from 1 and appears in the DataError for invalid bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: not valid UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}); "
            "convert the file to UTF-8, or remove this line on both sides"
        ) from None


def read_pairs(files: TextFiles) -> Iterator[SentencePair]:
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


def fingerprint_files(files: TextFiles, checksum_of: Callable[[Path], str] = checksum_file) -> str:
    """Hex fingerprint (16 bytes) of the files' bytes on disk, sensitive to their sides and order, not to their names.

    ``checksum_of`` gives what :func:`checksum_file` does, for a caller that remembers it.
    """
    both = (*files.src, *files.tgt)  # of the same length, so the sides need no mark between them
    return checksum("".join(map(checksum_of, both)).encode())


def _damaged(name: str, number: int, error: Exception) -> DataError:
    return DataError(f"{name}:{number}: cannot read on ({error}); the file is damaged or cut short, fetch it again")
