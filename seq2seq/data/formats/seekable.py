"""Files that are not read from start to end: they must be on a disk, and all errors of opening them are one line."""

from pathlib import Path
from typing import BinaryIO

from seq2seq.errors import DataError
from seq2seq.files import unreadable


def open_seekable(path: Path) -> BinaryIO:
    """Open a file that must allow jumps; raises DataError for a folder, a pipe or a missing file."""
    try:
        if path.is_fifo() or path.is_char_device():
            raise DataError(
                f"{path}: is a pipe, but this format is not read from start to end; save it as a file first"
            )
        return path.open("rb")
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory; list its files one by one") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise unreadable(path, error) from None
