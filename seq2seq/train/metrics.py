"""The metrics files of a run, and TensorBoard.

``metrics.jsonl`` has one line for every step and one for every validation, and nothing that depends on the machine's
speed, so a run that was stopped and continued ends with the same file as one that was not. Speed is in
``timing.jsonl``. ``samples.jsonl`` has the translations of the same few lines from every validation, and
``bad_lines.jsonl``, which appears with the first bad step, its sentence pairs.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from seq2seq.files import write_text

METRICS = "metrics.jsonl"
BAD_LINES = "bad_lines.jsonl"
TIMING = "timing.jsonl"
SAMPLES = "samples.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, without damaged and incomplete lines. A missing file gives no records."""
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


def is_number(value: object) -> bool:
    """Whether the value of a record is a finite number; that of a damaged record may be anything."""
    return isinstance(value, (int, float)) and math.isfinite(value)


class MetricsLog:
    """Appends to the metrics files of a run that continues after ``last_step``. Later records are removed first."""

    def __init__(self, run_dir: Path, last_step: int) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._files = {name: self._reopen(run_dir / name, last_step) for name in (METRICS, TIMING)}
        self._texts = {name: run_dir / name for name in (BAD_LINES, SAMPLES)}
        for path in self._texts.values():
            if path.exists():
                self._reopen(path, last_step, ascii_only=False).close()
        self._board: _Board | None = None
        with suppress(ImportError):  # tensorboard is optional
            self._board = _Board(run_dir / "tensorboard", last_step + 1)

    @staticmethod
    def _reopen(path: Path, last_step: int, *, ascii_only: bool = True) -> TextIO:
        records = (record for record in read_metrics(path) if record["step"] <= last_step)
        kept = [json.dumps(record, ensure_ascii=ascii_only) + "\n" for record in records]
        write_text(path, "".join(kept))
        return path.open("a", encoding="utf-8")

    def add(self, name: str, step: int, values: Mapping[str, float | int | str]) -> None:
        """Add a record to the file ``name``: METRICS (of a step or a validation) or TIMING (speed)."""
        self._files[name].write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for key, value in values.items():
                if not isinstance(value, str):
                    self._board.add(key, value, step)

    def add_texts(self, name: str, step: int, records: Iterable[Mapping[str, object]]) -> None:
        """Add records to the file ``name``: BAD_LINES (the sentence pairs of a bad step) or SAMPLES."""
        with self._texts[name].open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step, **record}, ensure_ascii=False) + "\n" for record in records)

    def flush(self) -> None:
        """Pass all records to the operating system, so that they are kept even if the process is killed."""
        for file in self._open():
            file.flush()

    def close(self) -> None:
        """Close all files, even if the disk is too full for the rest of one of them."""
        with ExitStack() as files:
            for file in self._open():
                files.callback(file.close)

    def _open(self) -> list[IO[Any]]:
        return [*self._files.values(), *([] if self._board is None else [self._board.file])]


class _Board:
    """Scalars for TensorBoard. PyTorch's writer has a thread that dies with a traceback when the disk is full."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Records in the folder from ``first_step`` on are no longer shown."""
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
