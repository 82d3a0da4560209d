"""Promise: gzip, bzip2, xz and zstd are unpacked alike, whole and in order; every damage is named."""

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.data.formats import lines as lines_module
from seq2seq.data.formats.compression import decompressed, open_bytes
from seq2seq.data.formats.lines import read_lines, read_stream
from seq2seq.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHECKED = {zstd.CompressionParameter.checksum_flag: 1}  # as the program zstd does
PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstd.compress(data, options=CHECKED),
}
TEXT = b"".join(b"line %d\n" % number for number in range(1000))
every_kind = pytest.mark.parametrize("kind", PACKERS)


@every_kind
@settings(deadline=None, max_examples=20)
@given(
    parts=st.lists(st.binary(max_size=99), min_size=1, max_size=4), padding=st.binary(max_size=0) | st.just(bytes(8))
)
def test_all_parts_are_read(kind: str, parts: list[bytes], padding: bytes) -> None:
    """Guards against the end of the first part passing for the end of the text, as in files packed by many cores."""
    packed = b"".join(PACKERS[kind](b"x" + part) + padding for part in parts)
    head, stream = decompressed(io.BytesIO(packed), "text")
    text = b"".join(b"x" + part for part in parts)
    assert stream.read() == text
    assert text.startswith(head)


@every_kind
def test_files_streams_and_bytes_agree(tmp_path: Path, kind: str) -> None:
    """Guards against formats that unpack files in different ways, and against trusting a name."""
    path, packed = tmp_path / "text.txt", PACKERS[kind](TEXT[:5000]) + PACKERS[kind](TEXT[5000:])
    path.write_bytes(packed)
    assert list(read_lines(path)) == list(read_stream(io.BytesIO(packed), "stdin")) == TEXT.splitlines()
    with open_bytes(path) as file:
        assert file.read() == TEXT
    path.write_bytes(PACKERS[kind](b""))
    assert list(read_lines(path)) == []


@pytest.mark.parametrize("kind", ["bzip2", "xz", "zstd"])
def test_a_stream_gives_what_has_arrived(kind: str) -> None:
    """Guards against waiting for more of a pipe than the next line needs."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", 0) as sink, os.fdopen(reading, "rb") as stream:
        lines = read_stream(stream, "stdin")
        for line in (b"one", b"two", b"three"):
            packed = PACKERS[kind](line + b"\n")
            sink.write(packed)
            assert next(lines) == line
        sink.close()
        assert list(lines) == []


@every_kind
def test_damage_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    """Guards against a part of the text passing for all of it, most of all where damage looks like padding."""
    path, packed = tmp_path / "text", PACKERS[kind](TEXT)
    second = bytearray(packed)
    second[2] ^= 0xFF  # the second part no longer begins like one
    for damage in (
        *(packed[: len(packed) // 2], packed[:-1], packed + b"garbage", packed + bytes(3) + b"garbage"),
        *(packed[:300] + b"\xff" * 100 + packed[400:], packed + packed[:5], packed + second),
    ):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}:\d+: cannot read further \(.+\); .*damaged"):
            list(read_lines(path))
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: cannot read further"), open_bytes(path) as file:
            file.read()


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(list(PACKERS)), at=st.floats(0, 1), change=st.binary(min_size=1, max_size=9), cut=st.booleans()
)
def test_random_damage_is_refused_or_harmless(kind: str, at: float, change: bytes, cut: bool) -> None:
    """Guards against a traceback, and against changed text; some bytes of a header mean nothing."""
    packed = PACKERS[kind](TEXT)
    place = 10 + int(at * (len(packed) - 10))  # behind the bytes that decide
    lines, message = TEXT.splitlines(), "stdin: "
    try:
        lines = list(read_stream(io.BytesIO(packed[:place] + change + packed[place + cut * len(change) :]), "stdin"))
    except DataError as error:
        message = str(error)
    assert lines == TEXT.splitlines()
    assert re.fullmatch(r"stdin(:\d+)?: .*", message)


@every_kind
def test_a_bomb_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Guards against a small file whose one line is as large as the memory."""
    monkeypatch.setattr(lines_module, "_LONGEST_LINE", 1 << 20)
    path = tmp_path / "text"
    path.write_bytes(PACKERS[kind](bytes(4 << 20)))
    with pytest.raises(DataError, match="text:1: the line is longer than 1 MiB"):
        list(read_lines(path))
    with open_bytes(path) as file:
        assert len(file.read(1000)) == 1000


def test_compressed_twice() -> None:
    """Guards against noise that is read as text because only the outer compression was taken away."""
    for outer, pack in PACKERS.items():
        for inner, pack_before in PACKERS.items():
            how = f"{outer} twice" if inner == outer else f"{inner} and again with {outer}"
            with pytest.raises(DataError, match=rf"^stdin: is compressed with {how}; .*: {outer} -dc FILE > text\."):
                next(read_stream(io.BytesIO(pack(pack_before(TEXT))), "stdin"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a traceback that does not say what to install."""
    monkeypatch.setitem(sys.modules, zstd.__name__, None)
    monkeypatch.delattr(sys.modules[zstd.__name__.rpartition(".")[0]], "zstd", raising=False)
    packed = PACKERS["zstd"](TEXT)
    with pytest.raises(DataError, match=r"^stdin: .* needs the package backports.zstd; pip install backports.zstd$"):
        next(read_stream(io.BytesIO(packed), "stdin"))


def test_more_memory_than_usual_is_no_damage() -> None:
    """Guards against advice to copy a whole file again, and against gigabytes for a few lines."""
    window = {zstd.CompressionParameter.window_log: 30, zstd.CompressionParameter.enable_long_distance_matching: 1}
    packer = zstd.ZstdCompressor(options=window)
    large = bytearray(lzma.compress(TEXT))
    end = 12 + 4 * large[12]  # of the header of the first block, without its checksum
    large[16] = 34  # the size of its dictionary: 512 MiB; to compress with one would take as much
    large[end : end + 4] = struct.pack("<I", zlib.crc32(large[12:end]))
    for packed in (packer.compress(TEXT) + packer.flush(), bytes(large)):
        with pytest.raises(DataError, match=r"^stdin:1: cannot read further \(.*emory.*\); unpack it first"):
            next(read_stream(io.BytesIO(packed), "stdin"))


def test_files_that_cannot_be_opened_or_are_no_text(tmp_path: Path) -> None:
    """Guards against a traceback from every format that reads bytes; UTF-16 is for the format to decide."""
    (tmp_path / "a.pdf").write_bytes(gzip.compress(b"%PDF-1.7\n"))
    for name, reason in (("missing", "no such file"), ("", "is a directory"), ("a.pdf", "is a PDF, not text")):
        with (
            pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / name))}: {reason}"),
            open_bytes(tmp_path / name),
        ):
            pass
    (tmp_path / "wide").write_bytes("a man\n".encode("utf-16"))
    with open_bytes(tmp_path / "wide") as file:
        assert file.read().decode("utf-16") == "a man\n"
