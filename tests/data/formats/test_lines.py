"""Promise: only LF ends a line, in files and streams, plain and gzip."""

import gzip
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq.data.formats import lines as lines_module
from seq2seq.data.formats.lines import decode_line, read_lines, read_stream, read_text
from seq2seq.errors import DataError

BOM = b"\xef\xbb\xbf"
ODD_BYTES = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"\x00", b"\x0c", b"\xe2\x80\xa8", b"\xc2\x85", BOM, b"\xff", b" "])
).map(b"".join)


def reference_lines(data: bytes) -> list[bytes]:
    data = data[len(BOM) :] if data.startswith(BOM) else data
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [line[:-1] if line.endswith(b"\r") else line for line in lines]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=ODD_BYTES, compress=st.booleans())
def test_line_rule_matches_reference(tmp_path, data, compress):
    """Guards against splitlines-like rules, a lost last line, and a BOM or CR taken from the wrong place."""
    path = write(tmp_path / "text", gzip.compress(data) if compress else data)
    assert list(read_lines(path)) == reference_lines(data)


@settings(deadline=None)
@given(data=ODD_BYTES, compress=st.booleans())
def test_streams_follow_the_same_line_rule(data, compress):
    """Guards against a BOM that only files lose, and against a first byte lost while looking for gzip."""
    stream = io.BytesIO(gzip.compress(data) if compress else data)
    assert list(read_stream(stream, "stdin")) == reference_lines(data)
    assert not stream.closed


@pytest.mark.parametrize("data", [b"", b"\x1f", b"\x1f\n", b"\x1fa\n\x8b", b"\n", BOM, BOM[:1]])
def test_streams_that_begin_oddly(data):
    """Guards against taking the first half of gzip's mark for the whole, or losing it."""
    assert list(read_stream(io.BytesIO(data), "stdin")) == reference_lines(data)


@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_stream_gives_each_line_at_once(buffering):
    """Guards against waiting for more input than a line needs, which would hang a dialogue through pipes."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", 0) as sink, os.fdopen(reading, "rb", buffering) as stream:
        lines = read_stream(stream, "stdin")
        for line in (b"", b"two", b"3" * 9999):
            sink.write(line + b"\n")
            assert next(lines) == line
        sink.write(b"end")
        sink.close()
        assert list(lines) == [b"end"]


def test_gzip_arrives_in_small_parts():
    """Guards against a pipe whose first read gives one byte only, and takes several gzip members as one text."""
    packed = gzip.compress(b"a\n") + gzip.compress(b"b")
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        with os.fdopen(writing, "wb", 0) as sink:
            sink.write(packed[:1])
            stream.peek(1)
            sink.write(packed[1:])
        assert list(read_stream(stream, "stdin")) == [b"a", b"b"]


def test_damaged_streams_are_named():
    """Guards against a stream cut short passing for a complete one."""
    packed = gzip.compress(b"a\n" * 1000)
    for damaged in (packed[:2], packed[: len(packed) // 2], packed[:-4]):
        with pytest.raises(DataError, match=r"^stdin:\d+: .*damaged"):
            list(read_stream(io.BytesIO(damaged), "stdin"))


def test_a_directory_is_no_stream():
    """Guards against a traceback where a shell opens a folder as standard input."""

    class Folder(io.BytesIO):
        def read(self, size=-1):
            raise IsADirectoryError(21, "Is a directory")

        read1 = read

    with pytest.raises(DataError, match=r"stdin: cannot be read \(Is a directory\)"):
        list(read_stream(Folder(), "stdin"))


def test_texts_are_strict(tmp_path):
    """Guards against scores of text that was read with replacement characters or cut at U+2028."""
    text = write(tmp_path / "text", BOM + "Grüße\u2028!\r\n\nlast".encode())
    assert read_text(text) == ["Grüße\u2028!", "", "last"]
    assert read_text(write(tmp_path / "empty", b"")) == []
    with pytest.raises(DataError, match=r"bad:2: not valid UTF-8 \(byte 0xff at column 2\)"):
        read_text(write(tmp_path / "bad", gzip.compress(b"a\nb\xff\n")))
    with pytest.raises(DataError, match="no such file"):
        read_text(tmp_path / "missing")


def test_line_rule_by_example(tmp_path):
    """The cases that users meet, spelled out."""
    data = BOM + "one\r\ntwo\rhalf\u2028more\x0b\x0c\x00\u0085\n\r\r\n\nlast\r".encode()
    expected = ["one", "two\rhalf\u2028more\x0b\x0c\x00\u0085", "\r", "", "last"]
    assert [raw.decode() for raw in read_lines(write(tmp_path / "text", data))] == expected


def test_gzip_is_told_by_content_not_name(tmp_path):
    """Guards against trusting file names."""
    assert list(read_lines(write(tmp_path / "plain.gz", b"a\nb\n"))) == [b"a", b"b"]
    assert list(read_lines(write(tmp_path / "packed.txt", gzip.compress(b"a\n") + gzip.compress(b"b\n")))) == [
        b"a",
        b"b",
    ]


@pytest.mark.parametrize("damage", ["truncated", "scrambled", "wrong checksum", "garbage behind"])
def test_damaged_gzip_names_path_and_line(tmp_path, damage):
    """Guards against a half-read file passing as a short one, and against tracebacks from zlib."""
    packed = gzip.compress(b"".join(b"line %d\n" % i for i in range(1000)))
    damaged = {
        "truncated": packed[: len(packed) // 2],
        "scrambled": packed[:200] + b"\xff" * 100 + packed[300:],
        "wrong checksum": packed[:-8] + b"\0\0\0\0" + packed[-4:],
        "garbage behind": packed + b"garbage",
    }[damage]
    path = write(tmp_path / "text.gz", damaged)
    with pytest.raises(DataError, match=r"text\.gz:\d+: .*damaged"):
        list(read_lines(path))


def test_unreadable_files_are_named(tmp_path):
    """Guards against a bare OSError for a wrong path."""
    for path, reason in ((tmp_path / "missing", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(DataError, match=reason) as error:
            list(read_lines(path))
        assert str(path) in str(error.value)


def test_invalid_utf8_is_located():
    """Guards against replacement characters in training text."""
    assert decode_line("Grüße，\0".encode(), Path("f"), 1) == "Grüße，\0"
    with pytest.raises(DataError, match=r"f:2: not valid UTF-8 \(byte 0xff at column 3\)"):
        decode_line(b"ab\xffc", Path("f"), 2)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_line_without_end_is_an_error(tmp_path, monkeypatch, pack):
    """Guards against a gzip file of a few kilobytes, or a device, whose one line fills the memory."""
    monkeypatch.setattr(lines_module, "_LONGEST_LINE", 1000)
    good = b"a\n" + b"x" * 999 + b"\n" + b"y" * 1000
    path = write(tmp_path / "text", pack(good))
    assert [len(line) for line in read_lines(path)] == [1, 999, 1000]
    for bad in (good + b"y", b"a\n" + b"x" * 1000 + b"\nz"):
        lines = [read_lines(write(path, pack(bad))), read_stream(io.BytesIO(pack(bad)), "stdin")]
        for reader in lines:
            with pytest.raises(DataError, match=r"(text|stdin):[23]: the line is longer than"):
                list(reader)
