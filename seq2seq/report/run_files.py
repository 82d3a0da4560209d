"""The files of a run as far as they can be read: the run may be in progress, and files may be damaged or missing."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seq2seq.config import Config, load_saved_config
from seq2seq.errors import UserError
from seq2seq.evaluate.card import Card
from seq2seq.model_folder import CONFIG, WEIGHTS
from seq2seq.tensors import read_metadata
from seq2seq.train.metrics import BAD_LINES, METRICS, SAMPLES, TIMING, read_metrics
from seq2seq.train.starts import STARTS

Records = list[dict[str, Any]]

_LARGEST_STEP = 1 << 53  # beyond it, a damaged record
_CARD = Path("card", "card.json")


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds."""

    folder: Path
    config: Config | None
    config_text: str
    metrics: Records
    timing: Records
    samples: Records
    bad_lines: Records
    starts: Records
    test: dict[str, Any]  # test.json; empty if there is none
    card: Card | None
    corpus: dict[str, Any]  # of the training corpus: counts of pairs; empty if it is not there
    left_out: dict[str, Any]  # pairs that cleaning left out, by cause
    examples: list[list[str]]  # of them: cause, place, source, target
    metadata: dict[str, str]  # of the best model
    problems: tuple[str, ...]  # what could not be read

    @staticmethod
    def read(folder: Path) -> RunFiles:
        """Read a run folder.

        Raises:
            UserError: it is no run folder.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder of a run")
        if not (folder / METRICS).is_file() and not (folder / CONFIG).is_file():
            raise UserError(f"{folder}: is no run folder: it has neither {METRICS} nor {CONFIG}")
        problems: list[str] = []
        config = card = None
        try:
            config = load_saved_config(folder / CONFIG)
        except UserError as error:
            problems.append(f"{CONFIG} could not be read: {_first_line(error)}")
        if (folder / _CARD).is_file():
            try:
                card = Card.model_validate_json((folder / _CARD).read_bytes())
            except (OSError, ValidationError) as error:
                problems.append(f"{_CARD} could not be read: {_first_line(error)}")
        for name in (METRICS, TIMING):
            if damaged := _num_damaged(folder / name):
                problems.append(f"{name}: {damaged:,} damaged lines are left out")
        metadata: dict[str, str] = {}
        if (folder / "best" / WEIGHTS).is_file():
            try:
                metadata = read_metadata(folder / "best" / WEIGHTS)
            except UserError as error:
                problems.append(f"the best model could not be read: {_first_line(error)}")
        data = folder / "data" if config is None or config.data.cache_dir is None else config.data.cache_dir
        prints = metadata.get("data", "").split()
        corpus = _json(_newest(data, "train", prints) / "meta.json")
        clean = _newest(data, "clean", [])
        return RunFiles(
            folder=folder,
            config=config,
            config_text=_text(folder / CONFIG),
            metrics=_records(folder / METRICS),
            timing=_records(folder / TIMING),
            samples=_records(folder / SAMPLES),
            bad_lines=_records(folder / BAD_LINES),
            starts=_records(folder / STARTS),
            test=_json(folder / "test.json"),
            card=card,
            corpus=_dict(corpus.get("counts")),
            left_out=_dict(_json(clean / "meta.json").get("counts")),
            examples=[row for line in _text(clean / "examples.tsv").split("\n") if len(row := line.split("\t")) == 4],
            metadata=metadata,
            problems=tuple(problems),
        )

    def points(self, name: str, records: Records | None = None) -> list[tuple[float, float]]:
        """Steps and values of a field, where it is a finite number."""
        found = self.metrics if records is None else records
        pairs = ((record["step"], number(record.get(name))) for record in found)
        return [(step, value) for step, value in pairs if value is not None]


def number(value: object) -> float | None:
    """A finite number, or None."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def _records(path: Path) -> Records:
    with suppress(OSError):
        return [record for record in read_metrics(path) if 0 <= record["step"] < _LARGEST_STEP]
    return []


def _num_damaged(path: Path) -> int:
    """Lines, except an incomplete last one, that are no record."""
    if not path.is_file():
        return 0
    with suppress(OSError):
        return _text(path).count("\n") - len(_records(path))
    return 0


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        return _dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _newest(data: Path, kind: str, prints: list[str]) -> Path:
    """The folder ``kind``-FINGERPRINT of the prepared text: of a fingerprint if it is there, else the newest."""
    with suppress(OSError):
        found = [path for path in data.glob(f"{kind}-*") if path.is_dir()] if data.is_dir() else []
        fitting = [path for path in found if path.name.partition("-")[2] in prints]
        return max(fitting or found, key=lambda path: path.stat().st_mtime, default=data / kind)
    return data / kind
