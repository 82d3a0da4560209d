"""Promise: TSV and CSV give the texts of their two columns, or one line that says what is wrong where."""

import csv
import gzip
import io
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq.data.formats.tables import read_csv, read_tsv
from seq2seq.errors import DataError

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
DAMAGE = st.lists(
    st.sampled_from([b"en", b"de", b",", b'"', b"\n", b"\r", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1f\x8b", b" "])
).map(b"".join)


def write(path, data):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def one_line(text):
    return re.sub("\r\n|\r|\n", " ", text)


@pytest.mark.parametrize(
    ("data", "src", "tgt", "units"),
    [
        ("en\tde\na\tb\n", "en", "de", [("a", "b", 2)]),
        ("de\t en \tnote\r\na\tb\tc\r\n", "en", "de", [("b", "a", 2)]),
        ("a\tb\tc\nd\te\n", 0, 1, [("a", "b", 1), ("d", "e", 2)]),
        ("en\tde\na\tb\n", 1, "en", [("b", "a", 2)]),
        ("\ufeffen\tde\n\ta b \n", "en", "de", [("", "a b ", 2)]),
        ('"a\t"b""\n', 0, 1, [('"a', '"b""', 1)]),
        ("a\rb\tc\u2028\x0b\u0085\0\n", 0, 1, [("a b", "c\u2028\x0b\u0085\0", 1)]),
        ("a\tb\n\n  \nc\td\n\n", 0, 1, [("a", "b", 1), ("", "", 2), ("", "", 3), ("c", "d", 4)]),
        ("a\tb\n\t\n", 0, 1, [("a", "b", 1), ("", "", 2)]),
        ("a\tb\n\n\n", 0, 1, [("a", "b", 1), ("", "", 2)]),
        ("", 0, 1, []),
        ("en\tde", "en", "de", []),
    ],
)
def test_tsv(tmp_path, data, src, tgt, units):
    """Guards against quotes that swallow lines, a header read as text, stripped text and lost empty lines."""
    assert [unit[:3] for unit in read_tsv(write(tmp_path / "t.tsv", data), src=src, tgt=tgt)] == units
    packed = write(tmp_path / "t.gz", gzip.compress(data.encode()))
    assert [unit[:3] for unit in read_tsv(packed, src=src, tgt=tgt)] == units


@pytest.mark.parametrize(
    ("data", "delimiter", "src", "tgt", "units"),
    [
        ("en,de\na,b\n", ",", "en", "de", [("a", "b", 2)]),
        ("en;de\na;b,c\n", ";", "de", "en", [("b,c", "a", 2)]),
        ('\ufeff en ,de\r\n"a, ""b""",c', ",", "en", "de", [('a, "b"', "c", 2)]),
        ('"a\r\nb\nc\rd",e\nf,g\n', ",", 0, 1, [("a b c d", "e", 1), ("f", "g", 4)]),
        ('5" wide,"6"" wide"\n', ",", 0, 1, [('5" wide', '6" wide', 1)]),
        ("a,b\n\n \nc,d\n\n", ",", 0, 1, [("a", "b", 1), ("", "", 2), ("", "", 3), ("c", "d", 4)]),
        (' a , "b"\n', ",", 0, 1, [(" a ", ' "b"', 1)]),
        ("a\tb\n", "\t", 0, 1, [("a", "b", 1)]),
        ("", ",", 0, 1, []),
    ],
)
def test_csv(tmp_path, data, delimiter, src, tgt, units):
    """Guards against a byte order mark in a name, lines counted as rows, and line breaks left in a sentence."""
    path = write(tmp_path / "t.csv", data)
    assert [unit[:3] for unit in read_csv(path, src=src, tgt=tgt, delimiter=delimiter)] == units


@QUICK
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=5))
def test_what_the_csv_module_writes_is_read(tmp_path, rows):
    """Guards against characters that quotes hide from us only sometimes."""
    text = io.StringIO()
    csv.writer(text).writerows([("en", "de"), *rows])
    units = read_csv(write(tmp_path / "t.csv", text.getvalue()), src="en", tgt="de")
    assert [(src, tgt) for src, tgt, *_ in units] == [(one_line(src), one_line(tgt)) for src, tgt in rows]


@QUICK
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=5))
def test_tsv_gives_back_every_cell(tmp_path, rows):
    """Guards against cells that change on their way."""
    rows = [tuple(one_line(cell).replace("\t", " ") for cell in row) for row in rows]
    data = "en\tde\n" + "".join(f"{src}\t{tgt}\n" for src, tgt in rows)
    units = read_tsv(write(tmp_path / "t.tsv", data), src="en", tgt="de")
    assert [unit[:3] for unit in units] == [(src, tgt, number) for number, (src, tgt) in enumerate(rows, start=2)]


@QUICK
@given(data=DAMAGE, columns=st.sampled_from([("en", "de"), (0, 1), (1, "en")]))
def test_damage_is_one_line(tmp_path, data, columns):
    """Guards against tracebacks, whatever the bytes are."""
    path = write(tmp_path / "t", data)
    for read in (read_tsv, read_csv):
        message = ""
        try:
            assert not any("\n" in unit.src + unit.tgt for unit in read(path, src=columns[0], tgt=columns[1]))
        except DataError as error:
            message = str(error)
        assert re.fullmatch(r"([^\n]+: [^\n]+; [^\n]+)?", message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("en\tfr\n", r"t:1: there is no column 'de'; choose one of the columns 'en', 'fr'$"),
        ("en\tDE\n", r"t:1: there is no column 'de'"),
        ("\t".join(f"c{i}" for i in range(99)), r"'c0', .*'c11' and 87 more$"),
        ("en\t" + "x" * 999, r"'x{39}…'$"),
        ("", r"t:1: there is no row with the names of the columns; .* numbers"),
        ("\nen\tde\n", r"t:1: there is no row with the names"),
        ("en\tde\ten\n", r"t:1: two columns are named 'en'; rename one"),
        ("en\tde\na\tb\nc\n", r"t:3: has 1 cell, but column 1 \(counted from 0\) is needed; complete the row"),
        (b"en\tde\na\t\xff\n", r"t:2: not valid UTF-8 \(byte 0xff at column 3\); convert"),
        (b"PK\x03\x04", r"t: is a zip archive"),
        (None, r"t: no such file"),
    ],
)
def test_mistakes_in_tsv(tmp_path, data, message):
    """Each mistake has its place and its remedy."""
    path = tmp_path / "t" if data is None else write(tmp_path / "t", data)
    with pytest.raises(DataError, match=message):
        list(read_tsv(path, src="en", tgt="de"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("en;de\na;b\n", r"t:1: the first row has one cell, 'en;de', because the delimiter is ','; set .* to ';'$"),
        ("en\tde\n", r"set the delimiter to '\\t'$"),
        ("en:de\n", r"set the delimiter to the character between the cells$"),
        ("en,fr\n", r"t:1: there is no column 'de'; choose one of the columns 'en', 'fr'$"),
        ('en,de\n"a\n,b\n', r"t:2: a quote opens a cell in this row and is never closed; close it$"),
        ('en,de\na,b\n"a\nb"c,d\n', r"t:3: a quote in this row is followed by text; .* twice"),
        ("en,de\ra,b\r", r"t:1: has a CR outside quotes; convert the line ends first: tr"),
        ('en,de\n"a\n\0",b\n', r"t:3: has a NUL character"),
        (
            b"en,de\na,\x93b\x94\n",
            r"t:2: not valid UTF-8 \(byte 0x93 at column 3\); .*iconv -f windows-1252 -t utf-8 FILE",
        ),
        (
            'en,de\n"' + ("x" * (1 << 20) + "\n") * 17,
            r"t:2: a cell is longer than 16 MiB; probably a quote is not closed",
        ),
        ("en,de\na\n", r"t:2: has 1 cell, but"),
    ],
)
def test_mistakes_in_csv(tmp_path, data, message):
    """Each mistake has the line where its row began and its remedy."""
    with pytest.raises(DataError, match=message):
        list(read_csv(write(tmp_path / "t", data), src="en", tgt="de"))


def test_long_cells_need_no_change_of_the_csv_module(tmp_path):
    """Guards against the module's limit of 131,072 characters, and against changing it for the rest of the program."""
    limit = csv.field_size_limit()
    units = read_csv(write(tmp_path / "t", "a,b\n" + "x" * 200_000 + ",y\n"), src=0, tgt=1)
    next(units)
    assert csv.field_size_limit() == limit
    assert len(next(units).src) == 200_000


def test_rows_come_one_by_one(tmp_path):
    """Guards against reading a whole file before the first row."""
    for read in (read_tsv, read_csv):
        units = read(write(tmp_path / "t", b"a\tb,c\td\n" * 3 + b"\xff"), src=0, tgt=1)
        assert [next(units).number for _ in range(3)] == [1, 2, 3]
        with pytest.raises(DataError, match=r"t:4: not valid UTF-8"):
            next(units)
