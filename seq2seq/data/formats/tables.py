"""Tables in text files: TSV, where tabs separate cells, and CSV, where cells can have quotes and line breaks."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seq2seq.data.formats.lines import decode_line, printable, read_lines
from seq2seq.data.formats.rows import units_of
from seq2seq.data.formats.units import Unit
from seq2seq.errors import DataError

_LONGEST_CELL = 16 << 20  # characters; without a limit, a quote that is never closed would fill the memory
_DELIMITERS = ";\t,|"  # what other programs write


def read_tsv(path: Path, *, src: str | int, tgt: str | int, score: str | int | None = None) -> Iterator[Unit]:
    """Stream the rows of a file with one row per line and tabs between the cells; quotes are ordinary characters.

    A column is a name in the first row, or a number from 0; if both are numbers, the first row is text too. An empty
    line gives two blank sides, except at the end.

    Raises:
        DataError: the file cannot be read, a column is missing, or a row has too few cells.
    """
    return units_of(tsv_rows(read_lines(path), path), f"{path}:", src, tgt, score)


def tsv_rows(lines: Iterable[bytes], name: Path | str) -> Iterator[tuple[int, list[str]]]:
    """The numbered rows of the lines of a TSV file; an empty line has no cells."""
    for number, raw in enumerate(lines, start=1):
        line = decode_line(raw, name, number)
        yield number, _cells(line.split("\t"))


def read_csv(
    path: Path, *, src: str | int, tgt: str | int, score: str | int | None = None, delimiter: str = ","
) -> Iterator[Unit]:
    """Stream the rows of a CSV file (RFC 4180); the number of a unit is the line where its row starts.

    Columns and empty lines are as for :func:`read_tsv`.

    Raises:
        DataError: the file cannot be read, quotes are wrong, a column is missing, or a row has too few cells.
    """
    return units_of(csv_rows(path, delimiter), f"{path}:", src, tgt, score)


def csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file and the lines where they start; see :func:`read_csv`. An empty line has no cells."""
    for index, (number, row) in enumerate(parse_csv(read_lines(path), path, delimiter)):
        if index == 0 and len(row) == 1:  # two sides need two cells
            found = next((repr(mark) for mark in _DELIMITERS if mark in row[0]), "the character between the cells")
            raise DataError(
                f"{path}:{number}: the first row has one cell, '{printable(row[0], 60)}', because the delimiter is "
                f"{delimiter!r}; set the delimiter to {found}"
            )
        yield number, row


def parse_csv(lines: Iterable[bytes], name: Path | str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """:func:`csv_rows` of the lines of a file, which may have a single column."""
    reader = csv.reader(_csv_lines(lines, name), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            row = _next_row(reader)
        except csv.Error as error:
            raise DataError(f"{name}:{number}: {_explain(error)}") from None
        if row is None:
            return
        yield number, _cells(row)


def _cells(row: list[str]) -> list[str]:
    """The cells of a row; an empty line, also one of spaces, has none."""
    return [] if len(row) == 1 and not row[0].strip() else row


def _csv_lines(lines: Iterable[bytes], name: Path | str) -> Iterator[str]:
    for number, raw in enumerate(lines, start=1):
        if b"\0" in raw:  # the csv module of Python 3.10 cannot read it
            raise DataError(f"{name}:{number}: has a NUL character, which text does not have; export the table again")
        try:
            yield raw.decode("utf-8") + "\n"
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}:{number}: not valid UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}); "
                "if it is from Excel, convert it first: iconv -f windows-1252 -t utf-8 FILE > text.csv"
            ) from None


def _next_row(reader: Any) -> list[str] | None:
    """The next row; the limit of the csv module holds for the whole process, so it is raised only for this moment."""
    others = csv.field_size_limit(_LONGEST_CELL)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(others)


def _explain(error: csv.Error) -> str:
    message = str(error)
    if "end of data" in message:
        return "a quote opens a cell in this row and is never closed; close it"
    if "field limit" in message:
        return f"a cell is longer than {_LONGEST_CELL >> 20} MiB; probably a quote is not closed, close it"
    if "expected after" in message:
        return (
            "a quote in this row is followed by text; inside a cell with quotes write each quote twice, "
            "and read a file without such quotes as tsv"
        )
    if "new-line" in message:
        return "has a CR outside quotes; convert the line ends first: tr '\\r' '\\n' < FILE > text.csv"
    return f"cannot be read as CSV ({message}); export the table again"
