"""Promise: every format gives the same pairs, each with its place; line n of a source file has line n of its target."""

import csv
import gzip
import itertools
import json
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import openpyxl
import pyarrow.parquet
import pytest

from seq2seq.config import (
    CsvFiles,
    Dataset,
    JsonlFiles,
    MosesFiles,
    ParquetFiles,
    TextFiles,
    TmxFiles,
    TsvFiles,
    XlsxFiles,
)
from seq2seq.data.formats.pairs import SentencePair, fingerprint_text, places_of, read_pairs
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
    assert [tuple(pair)[:3] for pair in read_pairs(both)] == expected
    thrice = TextFiles(src=both.src + one.src, tgt=both.tgt + one.tgt)
    assert [pair.line for pair in read_pairs(thrice)] == list(range(7))
    with pytest.raises(DataError, match="has 3 lines"):
        list(read_pairs(TextFiles(src=one.src + two.src, tgt=two.tgt + one.tgt)))


def test_fingerprint_names_a_missing_file(tmp_path):
    """Guards against a bare OSError for a wrong path."""
    with pytest.raises(DataError, match="missing"):
        fingerprint_text(TextFiles(src=(tmp_path / "missing",), tgt=(tmp_path / "missing",)))


def test_fingerprint_sees_content_order_and_sides(tmp_path):
    """Guards against a changed or swapped corpus passing for the old one."""
    a, b, ab, empty = (write(tmp_path / n, d) for n, d in (("a", b"a"), ("b", b"b"), ("ab", b"ab"), ("empty", b"")))
    cases = [((a,), (b,)), ((b,), (a,)), ((a, b), (b, a)), ((b, a), (a, b)), ((ab,), (empty,)), ((empty,), (ab,))]
    prints = [fingerprint_text(TextFiles(src=case[0], tgt=case[1])) for case in cases]
    assert len(set(prints)) == len(cases)
    assert all(len(p) == 32 for p in prints)
    assert fingerprint_text(TextFiles(src=(a,), tgt=(b,))) == prints[0]
    copy = write(tmp_path / "copy", b"a")
    assert fingerprint_text(TextFiles(src=(copy,), tgt=(b,))) == prints[0]
    write(a, b"A")
    assert fingerprint_text(TextFiles(src=(a,), tgt=(b,))) != prints[0]


PAIRS = [
    ("one", "eins"),
    ("", "zwei"),
    ('say "three", please', "drei; vier\tfünf"),
    ("a\u2028b & <c>", "x y"),
    ("six", ""),
]
PLAIN = [(src, tgt.replace("\t", " ")) for src, tgt in PAIRS]


def write_tmx(path: Path, pairs: list[tuple[str, str]]) -> None:
    units = "".join(
        "<tu>"
        + "".join(
            f'<tuv xml:lang="{code}"><seg>{escape(text)}</seg></tuv>'
            for code, text in zip(("en", "de"), pair, strict=True)
        )
        + "</tu>\n"
        for pair in pairs
    )
    path.write_text(f'<?xml version="1.0"?>\n<tmx version="1.4"><body>\n{units}</body></tmx>\n', encoding="utf-8")


def write_moses(path: Path, pairs: list[tuple[str, str]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for side, code in enumerate(("en", "de")):
            archive.writestr(f"corpus.de-en.{code}", "".join(f"{pair[side]}\n" for pair in pairs))


def write_table(path: Path, pairs: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("German", "id", "English"), *((tgt, 7, src) for src, tgt in pairs)])


def write_sheet(path: Path, pairs: list[tuple[str, str]]) -> None:
    book = openpyxl.Workbook()
    for row in [("German", "id", "English"), *((tgt, 7, src) for src, tgt in pairs)]:
        book.active.append(row)
    book.save(path)


def every_format(folder: Path, pairs: list[tuple[str, str]]) -> dict[str, tuple[Dataset, str]]:
    """The same pairs in a dataset of each kind, and the place of the third pair."""
    src, tgt = ("".join(f"{pair[side]}\n" for pair in pairs).encode() for side in (0, 1))
    plain = pair_files(folder, src, tgt, "plain")
    names = {"src": "English", "tgt": "German"}
    codes = {"src_lang": "en", "tgt_lang": "de"}
    keys = {"src": "translation.en", "tgt": "translation.de"}
    tsv = "".join(f"{src}\t{tgt}\n" for src, tgt in pairs)
    write(folder / "a.tsv.gz", gzip.compress(tsv.encode()))
    objects = [{"translation": {"en": src, "de": tgt}} for src, tgt in pairs]
    write(folder / "a.jsonl", "".join(f"{json.dumps(item)}\n" for item in objects).encode())
    write_tmx(folder / "a.tmx", pairs)
    write_moses(folder / "a.zip", pairs)
    write_table(folder / "a.csv", pairs)
    write_sheet(folder / "a.xlsx", pairs)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), folder / "a.parquet")
    return {
        "plain": (plain, "plain.en:3"),
        "tsv": (TsvFiles(tsv=folder / "a.tsv.gz", src=0, tgt=1), "a.tsv.gz:3"),
        "csv": (CsvFiles(csv=folder / "a.csv", **names), "a.csv:4"),
        "xlsx": (XlsxFiles(xlsx=folder / "a.xlsx", **names), "a.xlsx: row 4"),
        "jsonl": (JsonlFiles(jsonl=folder / "a.jsonl", **keys), "a.jsonl:3"),
        "parquet": (ParquetFiles(parquet=folder / "a.parquet", **keys), "a.parquet: row 3"),
        "tmx": (TmxFiles(tmx=folder / "a.tmx", **codes), "a.tmx: unit 3"),
        "moses": (MosesFiles(moses=folder / "a.zip", **codes), "a.zip:3"),
    }


def test_the_same_pairs_through_every_format(tmp_path):
    """Guards against a format that changes text or order, or makes another corpus of it, and against wrong places."""
    found = every_format(tmp_path, PLAIN)
    (plain, _), *others = found.values()
    for dataset, place in found.values():
        assert [(pair.src, pair.tgt) for pair in read_pairs(dataset)] == PLAIN
        assert fingerprint_text(dataset) == fingerprint_text(plain)
        assert places_of([2], dataset)[0][0] == str(tmp_path / place)
    assert len(others) == 7
    several = [dataset for dataset, _ in found.values()]
    assert [pair.line for pair in read_pairs(several)] == list(range(len(several) * len(PLAIN)))
    places = places_of([7, 2, 37], several)
    assert [place.replace(f"{tmp_path}/", "") for place, _ in places] == ["a.tsv.gz:3", "plain.en:3", "a.zip:3"]


def test_the_text_is_read_once_for_its_fingerprint(tmp_path):
    """Guards against a large translation memory that is read anew at every start, and against sides mixed up."""
    dataset = every_format(tmp_path, PLAIN)["tmx"][0]
    known, computed = {}, []

    def recall(path, how, compute):
        if (path, how) not in known:
            computed.append(path.name)
            known[path, how] = compute()
        return known[path, how]

    assert fingerprint_text(dataset, recall) == fingerprint_text(dataset, recall) == fingerprint_text(dataset)
    swapped = TmxFiles(tmx=tmp_path / "a.tmx", src_lang="de", tgt_lang="en")
    assert fingerprint_text(swapped, recall) != fingerprint_text(dataset)
    assert computed == ["a.tmx", "a.tmx"]


def test_patterns_name_files_in_order(tmp_path):
    """Guards against an order that depends on the file system, and sides whose files do not belong together."""
    for number in (2, 10, 1):
        pair_files(tmp_path, b"%d\n" % number, b"%d\n" % number, f"part-{number:02d}")
    dataset = TextFiles(src=tmp_path / "part-*.en", tgt=tmp_path / "part-*.de")
    assert [pair.src for pair in read_pairs(dataset)] == ["1", "2", "10"]
    (tmp_path / "part-02.de").unlink()
    with pytest.raises(DataError, match="the patterns match 3 source files but 2 target files"):
        list(read_pairs(dataset))
