"""Promise: a sheet gives what a person sees in its two columns, or one line that says what is wrong where."""

import datetime
import io
import re
import sys
import warnings
import zipfile

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq.data.formats.spreadsheet import read_xlsx
from seq2seq.errors import DataError

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LETTERS = st.characters(exclude_categories=["Cs", "Cc", "Cn"])  # XML has no control characters
CELL = st.one_of(st.none(), st.text(LETTERS, max_size=8).filter(lambda text: not text.startswith("=")))
SHEET, TYPES = "xl/worksheets/sheet1.xml", "[Content_Types].xml"
SHARED = (
    '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>en</t></si><si><t>de</t></si>'
    "<si><r><t>rich </t></r><r><t>text</t></r></si><si><t>two_x000D_\nlines_x000D_more</t></si></sst>"
)


def book(rows, name="Sheet"):
    """A workbook with the sheets ``name``, which has these rows, and ``other``."""
    workbook = openpyxl.Workbook()
    workbook.active.title = name
    for row in rows:
        workbook.active.append(row)
    workbook.create_sheet("other").append(["fr", "es"])
    return saved(workbook)


def saved(workbook):
    data = io.BytesIO()
    workbook.save(data)
    return data.getvalue()


def changed(data, **parts):
    """A zip file with new or replaced parts; a function changes a part."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        content = {name: old.read(name) for name in old.namelist()}
    for name, new in parts.items():
        content[name] = new(content[name].decode()).encode() if callable(new) else new.encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new_file:
        for name, text in content.items():
            new_file.writestr(name, text)
    return packed.getvalue()


def write(path, data):
    path.write_bytes(data)
    return path


def read(path, data, src="en", tgt="de", **settings):
    return [unit[:3] for unit in read_xlsx(write(path / "t.xlsx", data), src=src, tgt=tgt, **settings)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12"),
        (12.0, "12"),
        (12.5, "12.5"),
        (0.1 + 0.2, "0.3"),
        (-1e300, "-1e+300"),
        (True, "TRUE"),
        (None, ""),
        ("", ""),
        (" a ", " a "),
        ("a\nb\r\nc", "a b c"),
        ("#N/A", "#N/A"),
        ("007", "007"),
        (datetime.date(2024, 12, 31), "2024-12-31"),
        (datetime.datetime(2024, 12, 31, 9, 5), "2024-12-31 09:05:00"),
        (datetime.time(9, 5), "09:05:00"),
    ],
)
def test_a_cell_is_what_a_person_sees(tmp_path, value, text):
    """Guards against 12.0 for 12, the word None, and lost zeros."""
    assert read(tmp_path, book([["en", "de"], ["x", value]])) == [("x", text, 2)]


def test_columns_and_sheets(tmp_path):
    """Guards against a header read as text, and against the active sheet where the first is meant."""
    data = book([[" de", "en ", 3], ["a", "b", "c"]], name="Eins")
    assert read(tmp_path, data) == [("b", "a", 2)]
    assert read(tmp_path, data, 0, 2) == [(" de", "3", 1), ("a", "c", 2)]
    assert read(tmp_path, data, "3", 0) == [("c", "a", 2)]
    assert read(tmp_path, data, "fr", "es", sheet="other") == []
    assert read(tmp_path, data, 0, 9, sheet="Eins") == [(" de", "", 1), ("a", "", 2)]


def test_rows_keep_their_numbers(tmp_path):
    """Guards against empty rows that shift all later ones, and thousands of formatted but empty rows at the end."""
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    sheet.append(["en", "de", "note"])
    sheet["A3"], sheet["C5"] = "a", "n"
    sheet["B900"].font = openpyxl.styles.Font(bold=True)
    assert read(tmp_path, saved(workbook)) == [("", "", 2), ("a", "", 3), ("", "", 4), ("", "", 5)]


def test_a_wrong_size_hides_no_rows(tmp_path):
    """Guards against programs that note a sheet's size before they have written it."""
    data = changed(book([["en", "de"], ["a", "b"]]), **{SHEET: lambda xml: xml.replace('ref="A1:B2"', 'ref="A1"')})
    assert read(tmp_path, data) == [("a", "b", 2)]


def test_shared_strings(tmp_path):
    """Excel writes texts apart from the cells, in parts where a letter is bold, and a CR as _x000D_."""
    cells = [
        f'<row r="{n}"><c r="A{n}" t="s"><v>{n * 2 - 2}</v></c><c r="B{n}" t="s"><v>{n * 2 - 1}</v></c></row>'
        for n in (1, 2)
    ]
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'
    data = changed(
        book([]),
        **{
            "xl/sharedStrings.xml": SHARED,
            TYPES: lambda xml: xml.replace("</Types>", part),
            SHEET: lambda xml: re.sub(
                "<sheetData ?/>|<sheetData></sheetData>", f"<sheetData>{''.join(cells)}</sheetData>", xml
            ),
        },
    )
    assert read(tmp_path, data) == [("rich text", "two lines more", 2)]


@QUICK
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=5))
def test_what_the_package_writes_is_read(tmp_path, rows):
    """Guards against cells that change on their way."""
    units = read(tmp_path, book([("en", "de"), *rows, ("end", "end")]))
    assert [unit[:2] for unit in units[:-1]] == [(src or "", tgt or "") for src, tgt in rows]


@QUICK
@given(data=st.data())
def test_damage_is_one_line(tmp_path, data):
    """Guards against tracebacks and warnings, whatever the bytes are."""
    whole = book([["en", "de"], ["a", 1.5], [True, "b"]])
    part = data.draw(st.sampled_from([None, SHEET, TYPES, "xl/workbook.xml", "xl/styles.xml"]))
    place, junk = (
        data.draw(st.floats(0, 1)),
        data.draw(st.sampled_from([b"", b"\0", b"<", b"99999", b't="s"', b"\xff"])),
    )

    def damage(old):
        middle = int(place * len(old))
        return old[:middle] + junk + old[middle + 3 :]

    if part is None:
        damaged = damage(whole)
    else:
        damaged = changed(whole, **{part: lambda xml: damage(xml.encode()).decode("latin-1")})
    message = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read(tmp_path, damaged)
        except DataError as error:
            message = str(error)
    assert re.fullmatch(r"([^\n]+: [^\n]+; [^\n]+)?", message)


def zipped(claimed_size=0, **parts):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, text in parts.items():
            file.writestr(name, text)
            file.filelist[-1].file_size = claimed_size or len(text)
    return data.getvalue()


BOMB = '<!DOCTYPE a [<!ENTITY a "{}">{}]>'.format(
    "x" * 1000, "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True))
)
EMPTY = book([])
TEXT = book([["en", "de"], ["a", "b"]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (book([["en", "fr"]]), r"t.xlsx: row 1: there is no column 'de'; choose one of the columns 'en', 'fr'$"),
        (EMPTY, r"t.xlsx: row 1: there is no row with the names"),
        (b"", r"t.xlsx: is not an .xlsx file; open it .* and save it as .xlsx, or choose"),
        (b"en,de\na,b\n", r"t.xlsx: is not an .xlsx file; "),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(999),
            r"t.xlsx: is an old Excel file \(.xls\) or has a password; ",
        ),
        (zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"), r"is an OpenDocument file, not an .xlsx"),
        (zipped(text="a"), r"t.xlsx: is a zip file of another kind, not an .xlsx file"),
        (zipped(**{TYPES: "", "xl/workbook.bin": ""}), r"t.xlsx: is a zip file of another kind"),
        (zipped(**{TYPES: "<Types/>", "word/document.xml": ""}), r"t.xlsx: cannot be read \(.*save it as .xlsx again$"),
        (TEXT[:-100], r"t.xlsx: cannot be read \(BadZipFile .*; the file is damaged or cut short"),
        (changed(TEXT, **{SHEET: lambda xml: xml[:-60]}), r"t.xlsx: row 1 or later: cannot be read \(ParseError"),
        (changed(TEXT, **{SHEET: lambda xml: xml.replace('r="2"', 'r="99999999"')}), r"a row after row 1,048,576"),
        (
            changed(TEXT, **{SHEET: lambda xml: BOMB + xml.split("?>")[-1].replace("<t>a", "<t>&i;")}),
            r"t.xlsx: row 1 or later: cannot be read \(ParseError limit on input amplification",
        ),
        (zipped(513 << 20, **{TYPES: ""}), r"t.xlsx: unpacks to 513 MiB, at most 512 MiB are read; save .* CSV"),
    ],
)
def test_mistakes(tmp_path, data, message):
    """Each mistake has its place and its remedy."""
    with pytest.raises(DataError, match=message):
        read(tmp_path, data)


def test_sheets_that_are_missing(tmp_path):
    """The message names those that there are."""
    with pytest.raises(
        DataError, match=r"t.xlsx: there is no sheet 'sheet'; choose one of the sheets 'Sheet', 'other'$"
    ):
        read(tmp_path, TEXT, sheet="sheet")


def test_without_a_file_or_the_package(tmp_path, monkeypatch):
    """Guards against tracebacks of what is missing."""
    with pytest.raises(DataError, match=r"t.xlsx: no such file; check the path"):
        list(read_xlsx(tmp_path / "t.xlsx", src=0, tgt=1))
    with pytest.raises(DataError, match=r"is a directory, not a file; "):
        list(read_xlsx(tmp_path, src=0, tgt=1))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"t.xlsx: reading .* needs the package openpyxl; pip install openpyxl"):
        read(tmp_path, TEXT)
