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
    "lzma": lzma.compress(TEXT.encode(), lzma.FORMAT_ALONE),
    "lz4": b"\x04\x22\x4d\x18\x64\x40",
    "gzip -dc": b"\x1f\x9d\x90" + TEXT.encode(),
    "gzip twice": gzip.compress(gzip.compress(TEXT.encode())),
    "with xz and again with gzip; .* gzip -dc FILE > text.xz": gzip.compress(lzma.compress(TEXT.encode())),
    "tar archive.*tar -xOf": tar(),
    "tar archive": gzip.compress(tar()),
    "tar": bz2.compress(tar()),
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


TMX = '<?xml version="1.0" encoding="UTF-16"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4"><header/>'
STRUCTURED = {
    "a TMX file.*{tmx: FILE, src_lang: en, tgt_lang: de}": [
        *(TMX.encode(), TMX.encode("utf-16"), TMX.encode("utf-8-sig"), TMX.encode("utf-16-be"), b"<tmx>"),
        gzip.compress(b"<!-- made by hand -->\n<tmx>\n"),
    ],
    "XML or HTML.*convert it to TMX": [
        b"<?xml version='1.0'?>\n<a/>",
        b"<xliff>",
        b"\n<!DOCTYPE html>",
        b"<HTML><body>",
    ],
    "JSON.*{jsonl: FILE, src: KEY, tgt: KEY}": [
        *(b'{"en": "a", "de": "b"}\n', b'\xef\xbb\xbf {\n "en" : 1', b'[{"en": "a"}]', b'[\n  {\n    "en": 2'),
    ],
    "a Parquet table.*{parquet: FILE, src: COLUMN, tgt: COLUMN}": [b"PAR1\x15\x04\x15"],
    "a zip archive.*{moses: FILE, src_lang: en, tgt_lang: de}": [archive("OpenSubtitles.de-en.de"), archive("README")],
    "an Excel file.*{xlsx: FILE, src: COLUMN, tgt: COLUMN}": [
        *(archive("xl/workbook.xml"), archive("[Content_Types].xml"), archive("docProps/app.xml")),
    ],
    "export it as plain text": [archive("word/document.xml"), archive("mimetype")[:38] + b"application/vnd.oasis"],
    "UTF-16, .*iconv": ["a man\n".encode("utf-16")],
}


@pytest.mark.parametrize("expected", STRUCTURED)
def test_a_dataset_of_another_format_is_refused_with_the_config_that_reads_it(tmp_path: Path, expected: str) -> None:
    """Guards against training on tags and braces, each line of a TMX file being a sentence."""
    for data in STRUCTURED[expected]:
        (tmp_path / "text").write_bytes(data)
        with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))}/text: is .*{expected}") as error:
            next(read_lines(tmp_path / "text", plain=True))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "first", ["<b>Go!</b>", "{name}, come here!", "[laughs] {sighs}", "<unk> <tmx", '"{"', "{", "<"]
)
def test_a_dataset_may_begin_with_a_tag_or_brace(tmp_path: Path, first: str) -> None:
    """Guards against refusing lines of ordinary text that only look a little like another format."""
    (tmp_path / "text").write_text(f"{first}\nA dog.\n", encoding="utf-8")
    assert list(read_lines(tmp_path / "text", plain=True)) == [first.encode(), b"A dog."]


@pytest.mark.parametrize("line", [b'{"a": 1}', b"<?xml version='1.0'?>", b"<tmx>", b"<!DOCTYPE html>", b'[{"a": 1}]'])
def test_a_line_to_translate_may_be_of_any_form(line: bytes) -> None:
    """Guards against a translation that stops because its first line is markup."""
    assert list(read_stream(io.BytesIO(line), "stdin")) == [line]


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
