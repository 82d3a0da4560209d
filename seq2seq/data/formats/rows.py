"""Rows of a table become units: columns by name or number, and each cell becomes one line."""

from collections.abc import Iterable, Iterator, Sequence

from seq2seq.data.formats.lines import printable
from seq2seq.data.formats.units import Unit, read_score
from seq2seq.errors import DataError

_SHOWN = 12  # names in an error message


def units_of(
    rows: Iterator[tuple[int, Sequence[str]]],
    place: str,
    src: str | int,
    tgt: str | int,
    score: str | int | None = None,
) -> Iterator[Unit]:
    """The units of a table's numbered rows.

    A column is a name, which must be in the first row, or a number that counts from 0. Without a name there is no
    first row of names. A row without cells is an empty line: two blank sides, or nothing if it is the last.

    Args:
        rows: numbers and cells; they are read once.
        place: what stands before the number of a row in an error.
        src: column of the source texts.
        tgt: column of the translations.
        score: column of the scores, if there is one.

    Raises:
        DataError: a column is missing, its name is there twice, or a score is no number.
    """
    columns = [column for column in (src, tgt, score) if column is not None]
    if any(isinstance(column, str) for column in columns):
        number, names = next(rows, (1, ()))
        columns = [_column(name, [cell.strip() for cell in names], f"{place}{number}") for name in columns]
    numbers = [column for column in columns if isinstance(column, int)]
    empty_line = 0  # the number of an empty line if it is the latest row
    for number, cells in rows:
        if empty_line:
            yield Unit("", "", empty_line)
        empty_line = 0 if cells else number
        if cells:
            if len(cells) <= max(numbers):
                raise DataError(
                    f"{place}{number}: has {len(cells)} cell{'s' * (len(cells) > 1)}, but column {max(numbers)} "
                    "(counted from 0) is needed; complete the row, or choose other columns"
                )
            source, target, *scores = (cells[column] for column in numbers)
            found = read_score(scores[0], f"{place}{number}") if scores else None
            yield Unit(one_line(source), one_line(target), number, found)


def _column(column: str | int, names: list[str], place: str) -> int:
    """The number of a column."""
    if isinstance(column, int):
        return column
    if not any(names):
        raise DataError(f"{place}: there is no row with the names of the columns; add it, or give columns as numbers")
    if column not in names:
        raise DataError(f"{place}: there is no column {column!r}; {known_names('columns', names)}")
    if names.count(column) > 1:
        raise DataError(f"{place}: two columns are named {column!r}; rename one, or give columns as numbers from 0")
    return names.index(column)


def known_names(what: str, names: Iterable[str]) -> str:
    """The part of an error message that says which names there are."""
    shown = [f"'{printable(name, 40)}'" for name in names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"choose one of the {what} {', '.join(shown[:_SHOWN])}{more}" if shown else f"it has no {what}"


def one_line(text: str) -> str:
    """The text with a space for each line break, because a sentence must stay one line."""
    if "\n" in text or "\r" in text:
        return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
    return text
