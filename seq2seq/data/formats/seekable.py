"""Files that are not read from start to end, but by a package that jumps in them: opening, and damage in one line."""

import io
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from seq2seq.data.formats.compression import open_file
from seq2seq.data.formats.lines import printable
from seq2seq.errors import DataError


def open_seekable(path: Path) -> BinaryIO:
    """Open a file that must allow jumps; raises DataError for a folder, a pipe or a missing file."""
    with suppress(OSError):  # open_file says what is wrong
        if path.is_fifo() or path.is_char_device():
            raise DataError(
                f"{path}: is a pipe, but this format is not read from start to end; save it as a file first"
            )
    return io.BufferedReader(open_file(path))  # type: ignore[type-var]


def damaged_for(package_error: Exception, place: Path | str, remedy: str) -> DataError:
    """The error to raise when a package cannot read a file; ``remedy``: what to do again."""
    reason = printable(" ".join(f"{type(package_error).__name__} {package_error}".split()), 120)
    return DataError(f"{place}: cannot be read ({reason}); the file is damaged or cut short, {remedy}")
