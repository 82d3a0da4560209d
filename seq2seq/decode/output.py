"""The output file of a translation: it has its name only when it is complete, and can be gone on with after a death.

It grows as ``.NAME.partial`` beside its place, where a lock keeps a second process away. To go on with it, a record
(``.NAME.partial.json``) says how far input and output are done, with checksums of both; what it speaks of is on the
disk before it is. The record stays beside a complete output, so that the same command finds that nothing is left to do.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from seq2seq.errors import UserError
from seq2seq.files import open_locked, put_in_place, read_checksum, remove_leftovers, unwritable, write_text


@dataclass(frozen=True)
class Record:
    """How far a translation has come."""

    run: Mapping[str, object]  # what decides the output besides the input
    num_lines: int  # of the input
    num_problems: int  # told of these lines
    input: str  # checksum of these lines
    size: int  # of the output, in bytes
    output: str  # checksum of these bytes


class OutputFile:
    """An output on its way to ``target``; see :func:`output_file`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.partial = target.with_name(f".{target.name}.partial")
        self.record_path = target.with_name(f".{target.name}.partial.json")
        self.complete = False  # under its name already
        self.size = 0
        self.lines_kept = 0  # of the input: their translation survives the death of this process
        self.disposable = False  # what is there is worth nothing if this process fails
        try:
            self._file = open_locked(self.partial)
        except BlockingIOError:
            advice = "wait for its end, or name another output"
            raise UserError(f"{self.partial}: another process is writing it; {advice}") from None
        self._checksum = read_checksum(self._file, 0)  # of what was written so far

    def recall(self) -> Record | None:
        """What an earlier process recorded; None where there is nothing to go on with. Changes nothing.

        Raises:
            UserError: the partial output or its record is damaged.
        """
        record = self._read_record()
        if record is None:
            return None
        if self._file.seek(0, os.SEEK_END) == 0 and record.size > 0:  # finished, or deleted
            if self.target.is_file() and self.target.stat().st_size == record.size:
                with self.target.open("rb") as file:
                    self.complete = read_checksum(file, record.size).hexdigest() == record.output
            return record if self.complete else None
        self._checksum = read_checksum(self._file, record.size)
        if self._checksum.hexdigest() != record.output:
            raise UserError(f"{self.partial}: damaged, not what was written there; delete it to start afresh")
        return record

    def go_on(self, record: Record) -> None:
        """Write on behind the output that ``record``, which was recalled, speaks of."""
        self._file.truncate(record.size)  # the rest may be half a window
        self._file.seek(record.size)
        self.size, self.lines_kept = record.size, record.num_lines

    def clear(self) -> bool:
        """Start afresh; whether something was deleted for that."""
        self.record_path.unlink(missing_ok=True)  # first: without it, nobody goes on with the rest
        remove_leftovers(self.record_path.parent, re.escape(self.record_path.name))
        held = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self._file.truncate()
        self._checksum = read_checksum(self._file, 0)
        self.disposable = True
        return held > 0

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)
        self._checksum.update(data)
        self.size += len(data)

    def keep(self, run: Mapping[str, object], num_lines: int, num_problems: int, input_checksum: str) -> None:
        """Make what was written last, whatever happens, and record it; the arguments are those of :class:`Record`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        record = Record(run, num_lines, num_problems, input_checksum, self.size, self._checksum.hexdigest())
        write_text(self.record_path, json.dumps(asdict(record), indent=1) + "\n")
        self.lines_kept, self.disposable = num_lines, False

    def finish(self) -> None:
        """Give the complete output its name."""
        self._file.flush()
        put_in_place(self.partial, self.target)

    def discard(self) -> None:
        """Delete the partial output."""
        self.partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process have it."""
        with suppress(OSError):  # of what could not be written before
            self._file.close()

    def _read_record(self) -> Record | None:
        try:
            return Record(**json.loads(self.record_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError):
            both = f"delete it and {self.partial} to start afresh"
            raise UserError(f"{self.record_path}: not a record of a translation, or damaged; {both}") from None


@contextmanager
def output_file(target: Path) -> Iterator[OutputFile]:
    """Open the output for a block that writes it and calls ``finish``.

    Where the block fails, nothing is left but what was kept.

    Raises:
        UserError: it cannot be written, or another process writes it.
    """
    if target.is_dir():
        raise UserError(f"{target}: cannot be written: it is a folder")
    if target.is_symlink():
        raise UserError(f"{target}: cannot be written: it is a link that leads to itself")
    output, whole = None, False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        output = OutputFile(target)
        yield output
        whole = True
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        if output is not None:
            if not whole and output.disposable:
                output.discard()
            elif not whole and output.lines_kept:
                kept = f"the first {output.lines_kept:,} lines are done"
                print(f"{target}: {kept}; the same command goes on after them", file=sys.stderr)
            output.close()
