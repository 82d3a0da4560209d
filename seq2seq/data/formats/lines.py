"""Lines of a text file or stream: the line rule, strict UTF-8, gzip.

Only LF ends a line. A CR before the LF, or at the end of a last line without LF, belongs to the line ending. A UTF-8
byte order mark at the start of a file is removed. Lone CR, U+2028, NUL and form feed are ordinary characters. A file is
plain text or gzip, which its first bytes decide, not its name; other kinds of files are errors. Files are read once,
from start to end, so pipes work. A line above 16 MiB is an error: text has no such lines, and a small gzip file can
contain one that fills the memory.
"""

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from seq2seq.data.formats.file_kinds import HEAD, not_text
from seq2seq.errors import DataError
from seq2seq.files import unreadable

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
_LONGEST_LINE = 16 << 20  # bytes; encoding such a line takes 1 GB of memory


def read_lines(path: Path) -> Iterator[bytes]:
    """Stream the lines of a plain file, a gzip file or a named pipe, without their endings.

    Raises DataError with the path if the file cannot be opened, is not text, or is damaged gzip data.
    """
    try:
        file = path.open("rb", 0)
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory, not a text file; list its files one by one") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise unreadable(path, error) from None
    with file:
        yield from read_stream(cast(BinaryIO, file), str(path))


def read_stream(file: BinaryIO, name: str) -> Iterator[bytes]:
    """:func:`read_lines` for an open binary stream such as standard input; ``name`` is its name in errors.

    It never seeks, and waits only for the bytes of the next line. The stream stays open.
    """
    try:
        head, stream = _read_head(file)
    except OSError as error:
        raise unreadable(name, error) from None
    number = 0
    try:
        if head.startswith(_GZIP_MAGIC):
            head, stream = _read_head(cast(BinaryIO, gzip.GzipFile(fileobj=stream)))
            if head.startswith(_GZIP_MAGIC):
                raise DataError(f"{name}: is compressed with gzip twice; unpack it once: gzip -dc FILE > text.gz")
        if (problem := not_text(head)) is not None:
            raise DataError(f"{name}: {problem}")
        for number, raw in enumerate(iter(partial(stream.readline, _LONGEST_LINE + 1), b""), start=1):
            if len(raw) > _LONGEST_LINE:
                raise DataError(
                    f"{name}:{number}: the line is longer than {_LONGEST_LINE >> 20} MiB; "
                    "if this is text, put one sentence on each line"
                )
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if line:  # a file with only a byte order mark has no lines
                yield line.removesuffix(b"\n").removesuffix(b"\r")
    except (EOFError, zlib.error, OSError) as error:
        advice = "the file is damaged or cut short, copy it again"
        raise DataError(f"{name}:{number + 1}: cannot read further ({error}); {advice}") from None


def read_text(path: Path) -> list[str]:
    """Read all lines of a file, or of standard input for the path ``-``.

    Raises DataError with the line number if a line is not valid UTF-8.
    """
    lines, name = read_lines(path), str(path)
    if name == "-":
        if sys.stdin is None:
            raise DataError("stdin: is closed; name a file")
        lines, name = read_stream(sys.stdin.buffer, "stdin"), "stdin"
    return [decode_line(raw, name, number) for number, raw in enumerate(lines, start=1)]


def _read_head(file: BinaryIO) -> tuple[bytes, io.BufferedReader]:
    """The first bytes of a stream (at most :data:`HEAD`, and only until the first line ends), and the whole stream."""
    read_some = getattr(file, "read1", file.read)  # read1 returns what is there; read would wait for more
    head = b""
    while len(head) < HEAD and b"\n" not in head and (more := read_some(HEAD - len(head))):
        head += more
    return head, io.BufferedReader(_Unread(head, read_some), _BLOCK)


class _Unread(io.RawIOBase):
    """A stream whose first bytes were already read; it returns them again."""

    def __init__(self, head: bytes, read_some: Callable[[int], bytes]) -> None:
        self._head, self._read_some = head, read_some

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._head = self._head or self._read_some(len(buffer)), b""
        buffer[: len(data)] = data
        return len(data)


def decode_line(raw: bytes, path: Path | str, number: int) -> str:
    """Decode a line as strict UTF-8; invalid bytes raise DataError with ``number``, which counts from 1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: not valid UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}); "
            "convert the file to UTF-8, or remove this line on both sides"
        ) from None


def printable(text: str, width: int) -> str:
    """A line to show: at most ``width`` characters, with escapes for invisible characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: width + 1])
    return shown if len(text) <= width and len(shown) <= width else shown[: width - 1] + "…"
