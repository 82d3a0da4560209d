"""Lines of a text file or stream: the line rule, strict UTF-8.

Only LF ends a line. A CR before the LF, or at the end of a last line without LF, belongs to the line ending. A UTF-8
byte order mark at the start of a file is removed. Lone CR, U+2028, NUL and form feed are ordinary characters. A file is
plain text or compressed text (``compression.py``), which its first bytes decide, not its name; other kinds of files are
errors. Files are read once, from start to end, so pipes work. A line above 16 MiB is an error: text has no such lines,
and a small compressed file can contain one that fills the memory.
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from seq2seq.data.formats.compression import DAMAGE, damaged, decompressed, open_file
from seq2seq.data.formats.file_kinds import not_text, structured
from seq2seq.errors import DataError

_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = 16 << 20  # bytes; encoding such a line takes 1 GB of memory


def read_lines(path: Path, *, plain: bool = False, gzip_only: bool = False) -> Iterator[bytes]:
    """Stream the lines of a text file or a named pipe, without their endings.

    Args:
        plain: refuse TMX, JSON and the like, and say how a dataset is read from them. Ordinary text may begin in the
            same way, so this is for files of a dataset.
        gzip_only: refuse other compressions; for text to translate and to score.

    Raises DataError with the path if the file cannot be opened, is not text, or is damaged.
    """
    with open_file(path) as file:
        yield from read_stream(file, str(path), plain=plain, gzip_only=gzip_only)


def read_stream(file: BinaryIO, name: str, *, plain: bool = False, gzip_only: bool = False) -> Iterator[bytes]:
    """:func:`read_lines` for an open binary stream such as standard input; ``name`` is its name in errors.

    It never seeks, and waits only for the bytes of the next line. The stream stays open.
    """
    number = 0
    try:
        head, stream = decompressed(file, name, gzip_only)
        if (problem := (plain and structured(head)) or not_text(head)) is not None:
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
    except DAMAGE as error:
        raise damaged(f"{name}:{number + 1}", error) from None


def read_text(path: Path) -> list[str]:
    """Read all lines of a file, or of standard input for the path ``-``.

    Raises DataError with the line number if a line is not valid UTF-8.
    """
    lines, name = read_lines(path, gzip_only=True), str(path)
    if name == "-":
        if sys.stdin is None:
            raise DataError("stdin: is closed; name a file")
        lines, name = read_stream(sys.stdin.buffer, "stdin", gzip_only=True), "stdin"
    return [decode_line(raw, name, number) for number, raw in enumerate(lines, start=1)]


def decode_line(raw: bytes, path: Path | str, number: int) -> str:
    """Decode a line as strict UTF-8; invalid bytes raise DataError with ``number``, which counts from 1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: not valid UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}); "
            "convert the file to UTF-8, or remove this line (of a pair of files: in both)"
        ) from None


def printable(text: str, width: int) -> str:
    """A line to show: at most ``width`` characters, with escapes for invisible characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: width + 1])
    return shown if len(text) <= width and len(shown) <= width else shown[: width - 1] + "…"
