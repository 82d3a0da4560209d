"""The metrics files of a run, and TensorBoard.

``metrics.jsonl`` holds one line for every step and one for every validation, and nothing that depends on the machine's
speed, so an interrupted and continued run ends with the same file as an undisturbed one. Speed is in ``timing.jsonl``.
``bad_lines.jsonl`` appears with the first bad step and holds its sentence pairs.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

from seq2seq.files import write_text

METRICS = "metrics.jsonl"
BAD_LINES = "bad_lines.jsonl"
TIMING = "timing.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; damaged lines and a last one cut off are left out. No file gives no records."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a block that a crash of the machine left empty
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


class MetricsLog:
    """Appends to the metrics files of a run that continues after ``last_step``; what comes later in them goes."""

    def __init__(self, run_dir: Path, last_step: int) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics = self._reopen(run_dir / METRICS, last_step)
        self._timing = self._reopen(run_dir / TIMING, last_step)
        self._bad_lines = run_dir / BAD_LINES
        if self._bad_lines.exists():
            self._reopen(self._bad_lines, last_step).close()
        self._board: _Board | None = None
        with suppress(ImportError):  # it need not be installed
            self._board = _Board(run_dir / "tensorboard", last_step + 1)

    @staticmethod
    def _reopen(path: Path, last_step: int) -> TextIO:
        kept = [json.dumps(record) + "\n" for record in read_metrics(path) if record["step"] <= last_step]
        write_text(path, "".join(kept))
        return path.open("a", encoding="utf-8")

    def metrics(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Add a record of a step or a validation."""
        self._add(self._metrics, step, values)

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Add a record of speed."""
        self._add(self._timing, step, values)

    def bad_lines(self, step: int, lines: Iterable[Mapping[str, object]]) -> None:
        """Add the sentence pairs of a bad step, a record for each."""
        with self._bad_lines.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step, **line}, ensure_ascii=False) + "\n" for line in lines)

    def _add(self, file: TextIO, step: int, values: Mapping[str, float | int | str]) -> None:
        file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if not isinstance(value, str):
                    self._board.add(name, value, step)

    def flush(self) -> None:
        """Hand everything to the operating system, so that a killed process loses nothing of it."""
        self._metrics.flush()
        self._timing.flush()
        if self._board is not None:
            self._board.file.flush()

    def close(self) -> None:
        """Close the files: all of them, also where the disk is too full for what one still holds."""
        with ExitStack() as files:
            files.callback(self._metrics.close)
            files.callback(self._timing.close)
            if self._board is not None:
                files.callback(self._board.file.close)


class _Board:
    """Scalars for TensorBoard. PyTorch's writer has a thread that dies with a traceback when the disk is full."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """What the folder holds of ``first_step`` and later is no longer shown."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("wb")
        self._records = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, name: str, value: float, step: int) -> None:
        """Add one number."""
        self._write(step=step, summary=self._summary(value=[self._summary.Value(tag=name, simple_value=value)]))

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
