"""Compression below every format: gzip, bzip2, xz and zstd are known by their first bytes and unpacked while read.

A file may hold several compressed parts one after the other, and zero bytes as padding behind them. Anything else
behind a part is an error, because it may be the damaged rest of the text. No stream is sought in, so pipes work.
"""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from seq2seq.data.formats.file_kinds import HEAD, binary
from seq2seq.errors import DataError
from seq2seq.files import unreadable

DAMAGE = (EOFError, OSError, zlib.error)  # what is raised while damaged data are read; see damaged

_KINDS = {
    "gzip": (rb"\x1f\x8b", "gz"),
    "bzip2": (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "bz2"),
    "xz": (rb"\xfd7zXZ\x00", "xz"),
    "zstd": (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "zst"),
}
_BLOCK = 1 << 20
_PACKED, _UNPACKED = 1 << 14, 1 << 17  # bytes at a time: a few bytes can unpack to gigabytes
_MEMORY = 1 << 28  # bytes that xz may use; the default of zstd is 1 << 27


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file or a named pipe to read its unpacked bytes once, from start to end.

    Raises DataError if it cannot be opened or is of a binary kind such as a PDF; and, wherever in the block it is read,
    if its data are damaged. Text in UTF-16 is not refused.
    """
    with open_file(path) as file:
        try:
            head, stream = decompressed(file, str(path))
            if (problem := binary(head)) is not None:
                raise DataError(f"{path}: {problem}")
            yield stream
        except DAMAGE as error:
            raise damaged(str(path), error) from None


def open_file(path: Path) -> BinaryIO:
    """Open a file as it is, without a buffer; raises DataError with the path if that fails."""
    try:
        return cast(BinaryIO, path.open("rb", 0))
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory, not a file; list its files one by one") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise unreadable(path, error) from None


def decompressed(file: BinaryIO, name: str, gzip_only: bool = False) -> tuple[bytes, io.BufferedReader]:
    """The unpacked bytes of an open stream: the first (at most :data:`HEAD`), and all of them as a stream.

    Only the first bytes are read now. Later the stream reads no more of ``file`` than it needs, and does not close it.

    Raises:
        DataError: the file cannot be read, is compressed twice, or not with gzip if nothing else is allowed, or zstd is
            not installed.
        EOFError, OSError, zlib.error: (:data:`DAMAGE`) the data are damaged; reading the stream raises them, too.
    """
    try:
        head, stream = _read_head(getattr(file, "read1", file.read))  # read would wait until all bytes are there
    except OSError as error:
        raise unreadable(name, error) from None
    if (kind := _kind(head)) is None:
        return head, stream
    if gzip_only and kind != "gzip":
        raise DataError(f"{name}: is compressed with {kind}, not text; unpack it first: {kind} -dc FILE > text.txt")
    if kind == "gzip":
        head, stream = _read_head(gzip.GzipFile(fileobj=stream).read1)
    else:
        blocks = _unpack(stream, _decompressor(kind, name))
        head, stream = _read_head(lambda size: next(blocks, b""))
    if (inner := _kind(head)) is not None:
        how = f"{kind} twice" if inner == kind else f"{inner} and again with {kind}"
        remedy = f"unpack it once: {kind} -dc FILE > text.{_KINDS[inner][1]}"
        raise DataError(f"{name}: is compressed with {how}; {remedy}")
    return head, stream


def damaged(place: str, error: Exception) -> DataError:
    """The error to raise when one of :data:`DAMAGE` was raised at ``place``."""
    advice = "the file is damaged or cut short, copy it again"
    if "memory" in str(error).lower():
        advice = "unpack it first (if that fails, it is damaged)"
    return DataError(f"{place}: cannot read further ({str(error) or 'it ends too early'}); {advice}")


def _kind(head: bytes) -> str | None:
    """What data that start with ``head`` are compressed with."""
    return next((kind for kind, (start, _) in _KINDS.items() if re.match(start, head)), None)


def _decompressor(kind: str, name: str) -> Callable[[], Any]:
    """What makes the object that unpacks one part; imported here, because a Python may be built without some kinds."""
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Decompressor
    if kind == "xz":
        import lzma

        return partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, _MEMORY)
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        package = "backports.zstd; pip install backports.zstd"
        raise DataError(f"{name}: reading zstd needs the package {package}") from None
    return cast(Callable[[], Any], zstd.ZstdDecompressor)


def _unpack(file: io.BufferedReader, new_decompressor: Callable[[], Any]) -> Iterator[bytes]:
    """The content of all compressed parts of a file, in blocks.

    The file objects of bz2 and lzma would pass over damage: they take the rest of a file for padding if it does not
    begin like a compressed part.
    """
    packed = file.read1(_PACKED)
    while packed:
        part = new_decompressor()
        while not part.eof:
            if part.needs_input and not packed and not (packed := file.read1(_PACKED)):
                raise EOFError("the compressed data end too early")
            try:
                block = part.decompress(packed, _UNPACKED)
            except Exception as error:  # each module has its own; MemoryError has no text
                raise OSError(str(error) or "out of memory") from None
            packed = b""
            if block:
                yield block
        packed = part.unused_data.lstrip(b"\0")
        while not packed and (more := file.read1(_PACKED)):
            packed = more.lstrip(b"\0")


def _read_head(read_some: Callable[[int], bytes]) -> tuple[bytes, io.BufferedReader]:
    """The first bytes (at most :data:`HEAD`, and no more than show the kind), and a stream of all bytes."""
    head = b""
    while len(head) < HEAD and b"\n" not in head and not _kind(head) and (more := read_some(HEAD - len(head))):
        head += more
    return head[:HEAD], io.BufferedReader(_Unread(head, read_some), _BLOCK)


class _Unread(io.RawIOBase):
    """A stream whose first bytes were already read; it returns them again."""

    def __init__(self, head: bytes, read_some: Callable[[int], bytes]) -> None:
        self._left, self._read_some = head, read_some

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._left or self._read_some(len(buffer))
        size = min(len(data), len(buffer))
        buffer[:size], self._left = data[:size], data[size:]
        return size
