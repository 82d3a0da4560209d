"""Parquet tables, the format of data sets on Hugging Face."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seq2seq.data.formats.rows import known_names, one_line
from seq2seq.data.formats.seekable import damaged_for, open_seekable
from seq2seq.data.formats.units import Unit, read_score
from seq2seq.errors import DataError

_ROWS = 4096  # in memory at a time
_BUFFER = 1 << 20  # bytes of a column that are read at a time; without it, all of a row group


def read_parquet(path: Path, *, src: str, tgt: str, score: str | None = None) -> Iterator[Unit]:
    """Stream the rows of a table, of which only these columns are read; the number of a unit is the row from 1.

    The name of a column with dots goes into nested columns (``translation.en``), unless a column has this name. The
    value null is a blank side.

    Raises:
        DataError: the package is missing, the file is no Parquet file or is damaged, or a column is missing or not of
            strings.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        problem = "reading Parquet tables needs the package pyarrow; pip install pyarrow"
        raise DataError(f"{path}: {problem}") from None
    with open_seekable(path) as file:
        if file.read(4) != b"PAR1":
            raise DataError(f"{path}: is not a Parquet file; choose the format that it has")
    try:
        table = ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
        fields = list(table.schema_arrow)
    except Exception as error:  # damage can cause any error in the package
        raise _damaged(path, error) from None
    with table:
        columns = [_find(fields, name, path, _is_text, "strings") for name in (src, tgt)]
        if score is not None:
            columns.append(_find(fields, score, path, _is_number, "numbers"))
        for row, (source, target, *scores) in enumerate(_values(table, columns, path), start=1):
            place = f"{path}: row {row}"
            found = read_score(scores[0].as_py(), place) if scores else None
            yield Unit(_text(source, place), _text(target, place), row, found)


def _values(table: Any, columns: list[list[str]], path: Path) -> Iterator[tuple[Any, ...]]:
    """The values of some columns, row by row; each column is a list of names, from the outermost to its own."""
    from pyarrow.compute import struct_field

    batches = table.iter_batches(_ROWS, columns=[".".join(names) for names in columns], use_threads=False)
    row = 0
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate()
            sides = [
                struct_field(batch.column(first), inner) if inner else batch.column(first) for first, *inner in columns
            ]
        except Exception as error:
            raise _damaged(f"{path}: row {row + 1} or later", error) from None
        yield from zip(*sides, strict=True)
        row += batch.num_rows


def _find(fields: list[Any], name: str, path: Path, fits: Callable[[Any], bool], wanted: str) -> list[str]:
    """The names from the outermost column to the one that is called ``name``, whose type must fit."""
    from pyarrow import DictionaryType, StructType

    steps, inner, rest = [], fields, name
    while not any(field.name == rest for field in inner):
        first, _, rest = rest.partition(".")
        inner = [
            deeper
            for field in inner
            if field.name == first and isinstance(field.type, StructType)
            for deeper in field.type
        ]
        if not inner:
            known = known_names("columns", [known for field in fields for known in _names_in(field)])
            raise DataError(f"{path}: there is no column {name!r}; {known}")
        steps.append(first)
    found = [field for field in inner if field.name == rest]
    if len(found) > 1:
        raise DataError(f"{path}: {len(found)} columns are named {name!r}; write the table with different names")
    kind = found[0].type
    if not fits(kind.value_type if isinstance(kind, DictionaryType) else kind):
        problem = f"has values of the type {kind}, not {wanted}; name a column of {wanted}"
        raise DataError(f"{path}: column {name!r} {problem}")
    return [*steps, rest]


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _is_number(kind: Any) -> bool:
    return re.match(r"u?int\d+$|half|float|double|decimal", str(kind)) is not None


def _names_in(field: Any) -> list[str]:
    """The names of a column without inner columns, or of all its inner columns."""
    from pyarrow import StructType

    if not isinstance(field.type, StructType):
        return [field.name]
    return [f"{field.name}.{name}" for inner in field.type for name in _names_in(inner)]


def _text(value: Any, place: str) -> str:
    try:
        return one_line(value.as_py() or "")
    except UnicodeDecodeError:
        raise DataError(f"{place}: not valid UTF-8; write the table again with text in UTF-8") from None
    except Exception as error:  # a value that points nowhere
        raise _damaged(place, error) from None


def _damaged(place: Path | str, error: Exception) -> DataError:
    return damaged_for(error, place, "copy it again")
