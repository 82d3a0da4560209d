"""Every start of a run, as a line of ``starts.jsonl``: versions, machine, and what the run chose.

Nothing is read from this file when a run continues; people and reports read it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from seq2seq import __version__
from seq2seq.device import device_name
from seq2seq.train.distributed import Processes
from seq2seq.train.recipe import Choice

STARTS = "starts.jsonl"


@dataclass(frozen=True)
class Start:
    """One start of a run."""

    step: int  # after which it continues; 0 for a new run
    date: str  # ISO 8601, UTC
    versions: dict[str, str]
    device: str
    processes: int
    threads: int  # of PyTorch, in each process
    dtype: str  # of the computation
    choices: tuple[Choice, ...]  # none if the run has begun before

    @staticmethod
    def now(processes: Processes, dtype: torch.dtype, step: int, choices: Sequence[Choice]) -> Start:
        """The start that happens now."""
        versions = {"seq2seq": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
        return Start(
            step=step,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=versions | {"system": platform.platform(terse=True)},
            device=device_name(processes.device),
            processes=processes.world_size,
            threads=torch.get_num_threads(),
            dtype=str(dtype).removeprefix("torch."),
            choices=tuple(choices),
        )

    def record(self, run_dir: Path) -> None:
        """Add the line to the file of the run."""
        with (run_dir / STARTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self), ensure_ascii=False) + "\n")
