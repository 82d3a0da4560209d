"""Spreadsheets in the format .xlsx, from Excel, LibreOffice or Google Sheets."""

import re
import warnings
import zipfile
from collections.abc import Iterator
from datetime import datetime, time
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO

from seq2seq.data.formats.rows import known_names, units_of
from seq2seq.data.formats.seekable import damaged_for, open_seekable
from seq2seq.data.formats.units import Unit
from seq2seq.errors import DataError

_LARGEST = 512 << 20  # bytes after unpacking; a small zip file can unpack to more than the memory holds
_LAST_ROW = 1 << 20  # of any sheet
_ROWS = 256  # in memory at a time
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SAVE = "open it in a spreadsheet program and save it as .xlsx"


def read_xlsx(
    path: Path, *, src: str | int, tgt: str | int, score: str | int | None = None, sheet: str | None = None
) -> Iterator[Unit]:
    """Stream the rows of a sheet, the first one if ``sheet`` is None; the number of a unit is the row from 1.

    A column is a name in the first row, or a number from 0; if both are numbers, the first row is text too. A number in
    a cell becomes its digits, a date is written as 2024-12-31, and a formula is the value that was last saved. Formats
    of numbers, such as percent, are not applied. Empty rows at the end are ignored.

    Raises:
        DataError: the package is missing, the file is no .xlsx file or is damaged, or a sheet or a column is missing.
    """
    columns = [column for column in (src, tgt, score) if isinstance(column, int)]
    return units_of(_rows(path, sheet, 1 + max(columns, default=-1)), f"{path}: row ", src, tgt, score)


def _rows(path: Path, sheet: str | None, width: int) -> Iterator[tuple[int, list[str]]]:
    """The rows as text; files do not have the empty cells at the end of a row, so they are added up to ``width``."""
    empty_rows = 0
    for number, values in enumerate(_values(path, sheet), start=1):
        if number > _LAST_ROW:
            raise DataError(f"{path}: has a row after row {_LAST_ROW:,}, the last of a sheet; the file is damaged")
        if number > 1 and all(value is None for value in values):
            empty_rows += 1
            continue
        for empty in range(number - empty_rows, number):
            yield empty, []
        empty_rows = 0
        width = max(width, len(values)) if number == 1 else width
        yield number, [*map(_text, values), *[""] * (width - len(values))]


def _values(path: Path, sheet: str | None) -> Iterator[tuple[Any, ...]]:
    """The rows of a sheet as the package gives them; damage can cause any error in it."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        problem = "reading spreadsheets needs the package openpyxl; pip install openpyxl"
        raise DataError(f"{path}: {problem}") from None
    with open_seekable(path) as file:
        _check_kind(file, path)
        try:
            with warnings.catch_warnings():  # about styles and other things that are not read
                warnings.simplefilter("ignore")
                book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except Exception as error:
            raise _damaged(path, error) from None
        sheets = {found.title: found for found in book.worksheets}
        name = next(iter(sheets), "") if sheet is None else sheet
        if name not in sheets:
            raise DataError(f"{path}: there is no sheet {name!r}; {known_names('sheets', sheets)}")
        sheets[name].reset_dimensions()  # some programs write wrong ones, which would hide rows
        rows = sheets[name].iter_rows(values_only=True)
        for first in count(1, _ROWS):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    some = list(islice(rows, _ROWS))
            except Exception as error:
                raise _damaged(f"{path}: row {first} or later", error) from None
            if not some:
                return
            yield from some


def _check_kind(file: BinaryIO, path: Path) -> None:
    """Raise DataError for other kinds of files, and for one that would fill the memory."""
    head = file.read(len(_OLD_OFFICE))
    if head == _OLD_OFFICE:
        raise DataError(f"{path}: is an old Excel file (.xls) or has a password; {_SAVE} without a password")
    try:
        parts = zipfile.ZipFile(file).infolist()
    except Exception as error:
        if head.startswith(b"PK"):
            raise _damaged(path, error) from None
        raise DataError(f"{path}: is not an .xlsx file; {_SAVE}, or choose the format that it has") from None
    names = {part.filename for part in parts}
    if "[Content_Types].xml" not in names or "xl/workbook.bin" in names:
        kind = "an OpenDocument file" if "mimetype" in names else "a zip file of another kind"
        raise DataError(f"{path}: is {kind}, not an .xlsx file; {_SAVE}")
    size = sum(part.file_size for part in parts)
    if size > _LARGEST:
        raise DataError(
            f"{path}: unpacks to {size >> 20} MiB, at most {_LARGEST >> 20} MiB are read; "
            "save the sheet as CSV, or in parts"
        )


def _damaged(place: Path | str, error: Exception) -> DataError:
    return damaged_for(error, place, f"{_SAVE} again")


def _text(value: Any) -> str:
    """What a person sees in a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"  # as many digits as Excel shows
    if isinstance(value, datetime) and value.time() == time():
        return str(value.date())
    return re.sub("_x000D_\n?", "\n", str(value))  # how Excel writes a CR
