"""Promise: the two files of lines in a zip archive are read like two plain files, or the archive is refused."""

import gzip
import io
import os
import re
import threading
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq.data.formats.lines import read_lines
from seq2seq.data.formats.moses import read_moses
from seq2seq.data.formats.units import Unit
from seq2seq.errors import DataError

EN, DE = "Corpus.en-de.en", "Corpus.en-de.de"


def write(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "Corpus.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def read(path: Path, src_lang: str = "en", tgt_lang: str = "de") -> list[Unit]:
    return list(read_moses(path, src_lang=src_lang, tgt_lang=tgt_lang))


def test_an_archive_of_opus(tmp_path: Path) -> None:
    """Guards against reading the README as a language, lines that slip, and blank lines that vanish."""
    text = {EN: b"one\r\n\n three \n", DE: "\ufeffeins\nzwei\u2028\ndrei".encode()}
    members = {"README": b"x", "LICENSE": b"y", **text, "Corpus.en-de.ids": b"1\n", "Corpus.en-de.xml": b"<x/>"}
    expected = [Unit("one", "eins", 1), Unit("", "zwei\u2028", 2), Unit(" three ", "drei", 3)]
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        assert read(write(tmp_path, members, method)) == expected
    assert read(tmp_path / "Corpus.zip", "DE", "En")[0] == Unit("eins", "one", 1)
    assert read(write(tmp_path, {EN: b"", DE: b""})) == []


LINES = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"\x00", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b" "]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(parts=LINES)
def test_lines_are_those_of_a_plain_file(tmp_path: Path, parts: list[bytes]) -> None:
    """Guards against a second line rule."""
    (tmp_path / "plain").write_bytes(b"".join(parts))
    path = write(tmp_path, {EN: b"".join(parts), DE: b"".join(parts)})
    plain = [line.decode() for line in read_lines(tmp_path / "plain")]
    assert read(path) == [Unit(line, line, number) for number, line in enumerate(plain, start=1)]


@pytest.mark.parametrize(
    ("names", "languages", "found"),
    [
        (["a.en_GB", "a.de"], ("en", "de"), "a.en_GB"),
        (["a.en-US", "a.en", "a.de"], ("en", "de"), "a.en"),
        (["x/a.ZH_cn", "x/a.de", "__MACOSX/x/._a.zh_CN"], ("zh-CN", "de"), "x/a.ZH_cn"),
        (["a.fr", "a.de"], ("en", "de"), "has no file whose name ends with .en; it has a.fr, a.de;"),
        (["a.en", "a.de"], ("en_GB", "de"), "no file whose name ends with .en_GB"),
        (["a.en_GB", "a.en_US", "a.de"], ("en", "de"), "several files for the language en: a.en_GB, a.en_US;"),
        (["x/a.en", "y/a.en", "a.de"], ("en", "de"), "several files .* x/a.en, y/a.en"),
        (["a.en_GB", "a.de"], ("en", "en_GB"), "a.en_GB: is found for both languages, en and en_GB"),
        (["en/", "de/"], ("en", "de"), "it has no files;"),
        ([f"{i}.x" for i in range(99)], ("en", "de"), "8.x, 9.x and 89 more;"),
        (["a\n\x1b[2J.x"], ("en", "de"), re.escape(r"it has a\n\x1b[2J.x;")),
        (["all.zip"], ("en", "de"), "it has all.zip; unpack it and name its two files"),
    ],
)
def test_the_ending_of_a_name_is_its_language(
    tmp_path: Path, names: list[str], languages: tuple[str, str], found: str
) -> None:
    """Guards against guessing between files, and against errors that do not show what the archive has."""
    path = write(tmp_path, {name: b"" if name.endswith("/") else name.encode() for name in names})
    if found in names:
        assert [unit.src for unit in read(path, *languages)] == [found]
        return
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}.*{found}") as error:
        read(path, *languages)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("num_src", "num_tgt"), [(3, 7), (7, 3), (0, 2)])
def test_unequal_counts_name_both(tmp_path: Path, num_src: int, num_tgt: int) -> None:
    """Guards against the longer side being cut."""
    path = write(tmp_path, {EN: b"s\n" * num_src, DE: b"t\n" * num_tgt})
    with pytest.raises(DataError, match=rf"Corpus\.zip/{EN} has {num_src} lines but .*{DE} has {num_tgt};"):
        read(path)


def test_lines_that_are_no_text_are_located(tmp_path: Path) -> None:
    """Guards against errors that name the archive only."""
    with pytest.raises(DataError, match=rf"Corpus\.zip/{DE}:2: not valid UTF-8 \(byte 0xff at column 1\)"):
        read(write(tmp_path, {EN: b"a\nb\n", DE: b"a\n\xff\n"}))
    with pytest.raises(DataError, match=rf"Corpus\.zip/{EN}: is a PDF, not text"):
        read(write(tmp_path, {EN: b"%PDF-1.7", DE: b"a"}))
    with pytest.raises(DataError, match=rf"Corpus\.zip/{EN}:1: the line is longer than 16 MiB"):
        read(write(tmp_path, {EN: bytes((16 << 20) + 1), DE: b"a"}))


def test_archives_that_cannot_be_unpacked_are_refused(tmp_path: Path) -> None:
    """Guards against a traceback from zipfile, and against a method whose output is not limited."""
    members = {EN: b"one\ntwo\n" * 999, DE: b"eins\nzwei\n" * 999}
    whole = write(tmp_path, members).read_bytes()
    stored = write(tmp_path, members, zipfile.ZIP_STORED).read_bytes()
    directory = whole.index(b"PK\x01\x02")
    encrypted, method = bytearray(whole), bytearray(whole)
    encrypted[directory + 8] |= 1
    method[directory + 10] = 9
    for data, message in (
        (b"no archive", "is not a zip archive; name one"),
        (gzip.compress(whole), "is not a zip archive"),
        (b"", "is not a zip archive"),
        (whole[:-30], "damaged or cut short"),
        (stored.replace(b"zwei", b"drei", 1), f"Bad CRC-32 for file '{DE}'"),
        (whole[:200] + bytes(50) + whole[250:], "damaged or cut short"),
        (encrypted, f"/{EN}: is encrypted; unpack it"),
        (method, f"/{EN}: is compressed with method 9; unpack it"),
    ):
        (tmp_path / "Corpus.zip").write_bytes(data)
        with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path / 'Corpus.zip'))}.*{message}"):
            read(tmp_path / "Corpus.zip")
    with pytest.raises(DataError, match="is compressed with method 12"):
        read(write(tmp_path, members, zipfile.ZIP_BZIP2))
    for name, reason in (("missing", "no such file"), ("", "is a directory")):
        with pytest.raises(DataError, match=reason):
            read(tmp_path / name)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Guards against a traceback where the archive comes through a pipe, in which the directory cannot be sought."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    threading.Thread(target=lambda: os.close(os.open(path, os.O_WRONLY)), daemon=True).start()
    with pytest.raises(DataError, match="pipe: is not a zip archive"):
        read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(at=st.floats(0, 1), change=st.binary(min_size=1, max_size=9), over=st.booleans(), cut=st.booleans())
def test_random_damage_is_refused_or_harmless(tmp_path: Path, at: float, change: bytes, over: bool, cut: bool) -> None:
    """Guards against a traceback for a damaged archive, and against text that nobody wrote."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(EN, "one\ntwo\n")
        archive.writestr(DE, "eins\nzwei\n")
    data = content.getvalue()
    place = int(at * len(data))
    path = tmp_path / "Corpus.zip"
    path.write_bytes(data[:place] + change + (b"" if cut else data[place + over * len(change) :]))
    units, message = [Unit("one", "eins", 1), Unit("two", "zwei", 2)], str(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            units = read(path)
        except DataError as error:
            message = str(error)
    assert units == [Unit("one", "eins", 1), Unit("two", "zwei", 2)]
    assert re.fullmatch(rf"{re.escape(str(path))}.*", message)
