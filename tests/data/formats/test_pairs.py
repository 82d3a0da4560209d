"""Promise: line n of the source is paired with line n of the target, and files of unequal length are an error."""

import itertools
from pathlib import Path

import pytest

from seq2seq.config import TextFiles
from seq2seq.data.formats.pairs import SentencePair, fingerprint_files, read_pairs
from seq2seq.errors import DataError

BOM = b"\xef\xbb\xbf"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pair_files(folder: Path, src: bytes, tgt: bytes, name: str = "a") -> TextFiles:
    return TextFiles(src=(write(folder / f"{name}.en", src),), tgt=(write(folder / f"{name}.de", tgt),))


def test_invalid_utf8_of_a_side_is_located(tmp_path):
    """Guards against replacement characters slipping into training text."""
    files = pair_files(tmp_path, b"a\nb\n", b"x\nab\xffc\n")
    with pytest.raises(DataError, match=r"a\.de:2: not valid UTF-8 \(byte 0xff at column 3\)"):
        list(read_pairs(files))


@pytest.mark.parametrize(("num_src", "num_tgt"), [(3, 7), (7, 3), (0, 2), (2, 0)])
def test_unequal_counts_name_both_files_and_both_counts(tmp_path, num_src, num_tgt):
    """Guards against zip cutting the longer side; the pairs before the gap are still right."""
    files = pair_files(tmp_path, b"s\n" * num_src, b"t\n" * num_tgt)
    with pytest.raises(DataError) as error:
        list(read_pairs(files))
    message = str(error.value)
    assert f"a.en has {num_src} lines" in message
    assert f"a.de has {num_tgt}" in message
    whole_pairs = itertools.islice(read_pairs(files), min(num_src, num_tgt))
    assert list(whole_pairs) == [SentencePair("s", "t", line) for line in range(min(num_src, num_tgt))]


def test_pairs_of_several_files_count_lines_over_all(tmp_path):
    """Guards against line numbers that start again with every file, and against lengths that only match in total."""
    one, two = pair_files(tmp_path, b"a\n\nb", b"1\n2\n3\n", "one"), pair_files(tmp_path, BOM + b"c\r\n", b"4\n", "two")
    both = TextFiles(src=one.src + two.src, tgt=one.tgt + two.tgt)
    expected = [("a", "1", 0), ("", "2", 1), ("b", "3", 2), ("c", "4", 3)]
    assert [tuple(pair) for pair in read_pairs(both)] == expected
    thrice = TextFiles(src=both.src + one.src, tgt=both.tgt + one.tgt)
    assert [pair.line for pair in read_pairs(thrice)] == list(range(7))
    with pytest.raises(DataError, match="has 3 lines"):
        list(read_pairs(TextFiles(src=one.src + two.src, tgt=two.tgt + one.tgt)))


def test_fingerprint_names_a_missing_file(tmp_path):
    """Guards against a bare OSError for a wrong path."""
    with pytest.raises(DataError, match="missing"):
        fingerprint_files(TextFiles(src=(tmp_path / "missing",), tgt=(tmp_path / "missing",)))


def test_fingerprint_sees_content_order_and_sides(tmp_path):
    """Guards against a changed or swapped corpus passing for the old one."""
    a, b, ab, empty = (write(tmp_path / n, d) for n, d in (("a", b"a"), ("b", b"b"), ("ab", b"ab"), ("empty", b"")))
    cases = [((a,), (b,)), ((b,), (a,)), ((a, b), (b, a)), ((b, a), (a, b)), ((ab,), (empty,)), ((empty,), (ab,))]
    prints = [fingerprint_files(TextFiles(src=case[0], tgt=case[1])) for case in cases]
    assert len(set(prints)) == len(cases)
    assert all(len(p) == 32 for p in prints)
    assert fingerprint_files(TextFiles(src=(a,), tgt=(b,))) == prints[0]
    copy = write(tmp_path / "copy", b"a")
    assert fingerprint_files(TextFiles(src=(copy,), tgt=(b,))) == prints[0]
    write(a, b"A")
    assert fingerprint_files(TextFiles(src=(a,), tgt=(b,))) != prints[0]
