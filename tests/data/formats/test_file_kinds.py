"""Promise: what is no text is refused by name, whatever it is called; text with a NUL or broken bytes is text."""

import bz2
import gzip
import io
import lzma
import os
import re
import sqlite3
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seq2seq.data.formats.lines import read_lines, read_stream
from seq2seq.errors import DataError

TEXT = "She left Beijing.\nA dog sleeps in the garden.\n"


def archive(name: str) -> bytes:
    """A zip archive with one file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(name, TEXT)
    return content.getvalue()


def tar() -> bytes:
    content, info = io.BytesIO(), tarfile.TarInfo("train.en")
    info.size = len(TEXT)
    with tarfile.open(fileobj=content, mode="w") as file:
        file.addfile(info, io.BytesIO(TEXT.encode()))
    return content.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table pairs (src, tgt)")
    return connection.serialize() if hasattr(connection, "serialize") else b"SQLite format 3\0" + bytes(84)


def array() -> bytes:
    content = io.BytesIO()
    np.save(content, np.arange(9))
    return content.getvalue()


KINDS = {
    "xz.*xz -dc": lzma.compress(TEXT.encode()),
    "lzma": lzma.compress(TEXT.encode(), lzma.FORMAT_ALONE),
    "bzip2.*bzip2 -dc": bz2.compress(TEXT.encode()),
    "bzip2": bz2.compress(b""),
    "zstd.*zstd -dc": b"\x28\xb5\x2f\xfd\x04\x58" + TEXT.encode(),
    "lz4": b"\x04\x22\x4d\x18\x64\x40",
    "gzip -dc": b"\x1f\x9d\x90" + TEXT.encode(),
    "gzip twice": gzip.compress(gzip.compress(TEXT.encode())),
    "xz": gzip.compress(lzma.compress(TEXT.encode())),
    "tar archive.*tar -xOf": tar(),
    "tar archive": gzip.compress(tar()),
    "zip archive": archive("train.en"),
    "Office file": archive("word/document.xml"),
    "7z": b"7z\xbc\xaf\x27\x1c\0\4",
    "rar": b"Rar!\x1a\x07\x01\x00",
    "PDF.*pdftotext": b"%PDF-1.7\n%\xe2\xe3",
    "old Office file": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0",
    "RTF": b"{\\rtf1\\ansi",
    "Parquet": b"PAR1\x15\x04\x15",
    "SQLite": database(),
    "array": array(),
    "image": b"\x89PNG\r\n\x1a\n\0\0",
    "program": b"\x7fELF\2\1\1",
    "UTF-16, .*iconv -f utf-16 -t utf-8": TEXT.encode("utf-16"),
    "UTF-16,": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-32, .*iconv": TEXT.encode("utf-32"),
    "UTF-16LE": TEXT.encode("utf-16-le"),
    "UTF-16BE": TEXT.encode("utf-16-be"),
    "UTF-32LE": TEXT.encode("utf-32-le"),
    "UTF-32BE": TEXT.encode("utf-32-be"),
    "UTF-16LE.*utf-16le": "Она уехала из Пекина вчера рано утром и не вернулась.\n".encode("utf-16-le"),
    "UTF-16LE, ": "Hello.\n".encode("utf-16-le"),
}


@pytest.mark.parametrize("expected", KINDS)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, expected: str) -> None:
    """Guards against an archive that is "translated": words about nothing, and not even the right number of lines."""
    data = KINDS[expected]
    (tmp_path / "text.en").write_bytes(data)
    for name, lines in (
        (str(tmp_path / "text.en"), read_lines(tmp_path / "text.en")),
        ("stdin", read_stream(io.BytesIO(data), "stdin")),
    ):
        with pytest.raises(DataError, match=f"^{re.escape(name)}: is .*{expected}") as error:
            list(lines)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0\n" * 20,
        b"a\0\n" * 20,
        b"abc\0def",
        b"one\0two\0three\0four\0five\0six\0seven\0eight\0nine\0ten\0eleven\n",
        b"a\0b\n",
        bytes(100),
        b"\xff\n\xfe\xff\xfe\n",
        b"BZh9 is a name\nPK\nPAR1 and 2\n%PD\n",
        b"PAR1 and 2\n",
        b"BZh9 is a name\n",
        b"GIF8 RIFF MZ II* Obj {rtf\n",
        "北京。\n".encode() * 30,
        "\ufeffShe left.\n".encode(),
        "Она уехала.\0\n".encode(),
        b"",
    ],
)
def test_odd_text_is_text(data: bytes) -> None:
    """Guards against text with a NUL, or one that begins like a file of another kind, being refused."""
    assert b"\n".join(read_stream(io.BytesIO(data), "stdin")) == data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read_once_and_whole(tmp_path: Path, pack) -> None:
    """Guards against a named pipe opened twice: what was looked at first was lost, and the second open waits."""
    path, data = tmp_path / "pipe", pack(TEXT.encode() * 5000)
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    writer.start()
    assert b"".join(line + b"\n" for line in read_lines(path)) == TEXT.encode() * 5000
    writer.join(10)
    assert not writer.is_alive()
