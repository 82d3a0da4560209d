"""The output file of a translation: it gets its name when it is complete, and an interrupted one can be resumed.

The unfinished file is ``.NAME.partial`` in the same folder; a lock keeps other processes away. To resume, a record
(``.NAME.partial.json``) has the lines read, the bytes written and checksums of both. Output is on the disk before its
record. The record stays beside a complete output, so the same command knows that nothing is left to do.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from seq2seq.errors import UserError
from seq2seq.files import open_locked, put_in_place, read_checksum, remove_leftovers, unwritable, write_text


@dataclass(frozen=True)
class Record:
    """The progress of a translation."""

    run: Mapping[str, object]  # everything that affects the output, except the input
    num_lines: int  # of the input
    num_problems: int  # reported for these lines
    input: str  # checksum of these lines
    size: int  # of the output, in bytes
    output: str  # checksum of these bytes


def saved_lines(target: Path) -> int:
    """The number of the last line of the input whose translation to ``target`` is saved; 0 if there is no record."""
    try:
        return Record(**json.loads(_record_path(target).read_text(encoding="utf-8"))).num_lines
    except (OSError, ValueError, TypeError, RecursionError):
        return 0


def wait_for_writer(target: Path) -> None:
    """Wait until no process writes ``target``; raises OSError if its unfinished file cannot be opened."""
    partial = _partial_path(target)
    if partial.exists():
        open_locked(partial, wait=True).close()


def _partial_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _record_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial.json")


class OutputFile:
    """An unfinished output file for ``target``, in a block that writes it and calls :meth:`finish`.

    If the block fails, only the output saved by :meth:`keep` is left.

    Raises:
        UserError: the output cannot be written, or another process is writing it.
    """

    def __init__(self, target: Path) -> None:
        if target.is_dir():
            raise UserError(f"{target}: cannot be written: it is a folder")
        if target.is_symlink():
            raise UserError(f"{target}: cannot be written: it is a link that points back to itself")
        self.target = target
        self.partial = _partial_path(target)
        self.record_path = _record_path(target)
        self.complete = False  # whether ``target`` is the complete output
        self.size = 0
        self.lines_kept: int | None = None  # input lines whose translation is saved, even if this process is killed
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_locked(self.partial)
        except BlockingIOError:
            advice = "wait until it ends, or choose another output file"
            raise UserError(f"{self.partial}: another process is writing it; {advice}") from None
        except OSError as error:
            raise unwritable(target, error) from error
        self._checksum = read_checksum(self._file, 0)  # of the bytes written so far

    def __enter__(self) -> OutputFile:
        return self

    @property
    def checksum(self) -> str:
        """Of the output so far."""
        return self._checksum.hexdigest()

    def recall(self) -> Record | None:
        """The record of an earlier process; None if there is nothing to resume. Changes nothing.

        Raises:
            UserError: the partial output or its record is damaged.
        """
        try:
            record = Record(**json.loads(self.record_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError):
            both = f"delete it and {self.partial} to start again"
            raise UserError(f"{self.record_path}: damaged, or not a record of a translation; {both}") from None
        if self._file.seek(0, os.SEEK_END) == 0 and record.size > 0:  # finished, or deleted
            if self.target.is_file() and self.target.stat().st_size == record.size:
                with self.target.open("rb") as file:
                    self._checksum = read_checksum(file, record.size)
                self.complete = self.checksum == record.output
                self.size = record.size if self.complete else 0
            return record if self.complete else None
        self._checksum = read_checksum(self._file, record.size)
        if self.checksum != record.output:
            raise UserError(f"{self.partial}: damaged (its checksum differs); delete it to start again")
        return record

    def resume(self, record: Record) -> None:
        """Continue after the output that ``record``, from :meth:`recall`, counts."""
        self._file.truncate(record.size)  # the rest may be an incomplete window
        self._file.seek(record.size)
        self.size, self.lines_kept = record.size, record.num_lines

    def clear(self) -> bool:
        """Delete the partial output and its record; returns whether there was output."""
        self.record_path.unlink(missing_ok=True)  # first: without it, nothing can be resumed
        remove_leftovers(self.record_path.parent, re.escape(self.record_path.name))
        held = self._file.seek(0, os.SEEK_END)
        self._checksum = read_checksum(self._file, 0)  # now at the start of the file
        self._file.truncate()
        self.size, self.lines_kept, self.complete = 0, 0, False  # recall may have counted a complete output
        return held > 0

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)
        self._checksum.update(data)
        self.size += len(data)

    def keep(self, run: Mapping[str, object], num_lines: int, num_problems: int, input_checksum: str) -> None:
        """Force the output to the disk and save its record; the arguments are those of :class:`Record`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        record = Record(run, num_lines, num_problems, input_checksum, self.size, self.checksum)
        write_text(self.record_path, json.dumps(asdict(record), indent=1) + "\n")
        self.lines_kept = num_lines

    def finish(self) -> None:
        """Give the complete output its name."""
        self._file.flush()
        put_in_place(self.partial, self.target)

    def discard(self) -> None:
        """Delete the partial output."""
        self.partial.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and self.lines_kept == 0:
            self.discard()
        elif error is not None and self.lines_kept:
            kept = f"the first {self.lines_kept:,} lines are saved"
            print(f"{self.target}: {kept}; run the same command to continue", file=sys.stderr)
        with suppress(OSError):  # bytes that could not be written before
            self._file.close()
        if isinstance(error, OSError):
            raise unwritable(self.target, error) from error
