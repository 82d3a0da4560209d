"""Promise: a Parquet table gives the strings of two columns, or one line that says what is wrong where."""

import os
import re
import sys

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from seq2seq.data.formats.parquet import read_parquet
from seq2seq.errors import DataError

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELL = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))


def write(path, table, **settings):
    parquet.write_table(pa.table(table), path / "t", **settings)
    return path / "t"


def read(path, src="en", tgt="de"):
    return [unit[:3] for unit in read_parquet(path, src=src, tgt=tgt)]


@pytest.mark.parametrize(
    ("table", "src", "tgt", "units"),
    [
        ({"n": [1, 2], "de": ["b", None], "en": ["a\r\nc", " c "]}, "en", "de", [("a c", "b", 1), (" c ", "", 2)]),
        (
            {"t": [{"en": "a", "de": "b"}, None, {"en": "c"}]},
            "t.en",
            "t.de",
            [("a", "b", 1), ("", "", 2), ("c", "", 3)],
        ),
        ({"t": [{"en": "a"}], "t.en": ["x"]}, "t.en", "t.en", [("x", "x", 1)]),
        ({"t": [{"u": {"en": "a", "d.e": "b"}}]}, "t.u.en", "t.u.d.e", [("a", "b", 1)]),
        (
            {"en": pa.array(["a", "b", "a"]).dictionary_encode(), "de": pa.array(["x"] * 3, pa.large_string())},
            *("en", "de", [("a", "x", 1), ("b", "x", 2), ("a", "x", 3)]),
        ),
        ({"en": pa.array([], pa.string()), "de": pa.array([], pa.string())}, "en", "de", []),
    ],
)
def test_columns(tmp_path, table, src, tgt, units):
    """Guards against dots taken the wrong way, null as the word None, and a struct that is null."""
    assert read(write(tmp_path, table), src, tgt) == units


@QUICK
@given(
    rows=st.lists(st.tuples(CELL, CELL), max_size=9), size=st.integers(1, 9), codec=st.sampled_from(["none", "zstd"])
)
def test_what_the_package_writes_is_read(tmp_path, rows, size, codec):
    """Guards against rows that get lost or new numbers between the parts of a table."""
    table = {side: pa.array([row[i] for row in rows], pa.string()) for i, side in enumerate(("en", "de"))}
    units = read(write(tmp_path, table, row_group_size=size, compression=codec))
    sides = [[re.sub("\r\n|\r|\n", " ", text or "") for text in row] for row in rows]
    assert units == [(src, tgt, number) for number, (src, tgt) in enumerate(sides, start=1)]


def test_large_tables_have_right_numbers(tmp_path):
    """Guards against numbers that start again."""
    texts = [str(number) for number in range(1, 10_001)]
    assert all(src == str(number) for src, _, number in read(write(tmp_path, {"en": texts, "de": texts})))


@QUICK
@given(place=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_damage_is_one_line(tmp_path, place, byte, cut):
    """Guards against tracebacks, whatever the bytes are."""
    path = write(tmp_path, {"en": ["a", "b", None] * 9, "de": pa.array(["x", "y", "x"] * 9).dictionary_encode()})
    data = bytearray(path.read_bytes())
    middle = int(place * (len(data) - 1))
    data[middle] = byte
    path.write_bytes(data[:middle] if cut else data)
    message = ""
    try:
        read(path)
    except DataError as error:
        message = str(error)
    assert re.fullmatch(r"([^\n]+: [^\n]+; [^\n]+)?", message)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"en": ["a"], "fr": ["b"]}, r"t: there is no column 'de'; choose one of the columns 'en', 'fr'$"),
        ({"en": ["a"], "t": [{"de": "b", "u": {"x": 1}}]}, r"one of the columns 'en', 't.de', 't.u.x'$"),
        (
            {"en": ["a"], "de": [1]},
            r"t: column 'de' has values of the type int64, not strings; name a column of strings",
        ),
        ({"en": ["a"], "de": [["b"]]}, r"has values of the type list<element: string>, not strings"),
        ({"en": ["a"], "de": [{"x": "b"}]}, r"has values of the type struct<x: string>, not strings"),
        ({"en": ["a"], "de": [b"b"]}, r"has values of the type binary, not strings"),
    ],
)
def test_wrong_columns(tmp_path, table, message):
    """Each mistake names the columns that there are, or what is in the column."""
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, table))


def test_two_columns_of_one_name(tmp_path):
    """Guards against a choice by chance."""
    table = pa.table([["a"], ["b"], ["c"]], names=["en", "de", "de"])
    parquet.write_table(table, tmp_path / "t")
    with pytest.raises(DataError, match=r"t: 2 columns are named 'de'; write the table with different names"):
        read(tmp_path / "t")


def test_invalid_utf8_names_the_row(tmp_path):
    """Guards against a row that is found only by trying."""
    texts = pa.array([b"a", b"b", b"\xff"]).view(pa.string())
    with pytest.raises(DataError, match=r"t: row 3: not valid UTF-8; write the table again"):
        read(write(tmp_path, {"en": texts, "de": texts}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"t: is not a Parquet file; choose the format that it has$"),
        (b"en,de\n", r"t: is not a Parquet file"),
        (b"PAR1", r"t: cannot be read \(ArrowInvalid .*; the file is damaged or cut short, copy it again$"),
        (b"PAR1" + bytes(9) + b"PAR1", r"t: cannot be read \("),
    ],
)
def test_other_files(tmp_path, data, message):
    """Each mistake has its remedy."""
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "t")


def test_pipes_folders_and_missing_things(tmp_path, monkeypatch):
    """Guards against waiting for a pipe for ever, and tracebacks of what is missing."""
    with pytest.raises(DataError, match=r"t: no such file; check the path"):
        read(tmp_path / "t")
    with pytest.raises(DataError, match=r"is a directory, not a file; list its files one by one"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: is a pipe, .*; save it as a file first"):
        read(tmp_path / "pipe")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"t: reading .* needs the package pyarrow; pip install pyarrow"):
        read(tmp_path / "t")
