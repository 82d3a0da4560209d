"""The heaviest work of a run, done and measured in a process of its own before the run itself begins.

A process of its own leaves no trace in the run (weights, random numbers, what the allocator keeps), its peak of memory
is measured exactly, and where the system kills it for want of memory the run lives to tell. What it does is in
``rehearsed_run``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import seq2seq
from seq2seq.config import Config
from seq2seq.errors import OutOfMemoryError, UserError
from seq2seq.train.distributed import Processes

# Of the room that there is, what a run may need by its rehearsal. The rest is for what a rehearsal cannot see: other
# programs, the exchange of gradients, and on the CPU, where shapes differ, memory that comes to lie in pieces: a run of
# 60 steps in one part each took up to 1.4 times its rehearsal's.
USABLE = {"cuda": 0.9, "cpu": 0.7}


@dataclass(frozen=True)
class Rehearsal:
    """What was measured. Memory is the device's on CUDA, else main memory, in bytes; None where it cannot be told."""

    peak: int | None  # what the process used at most
    room: int | None  # what it could have used
    usable: float  # the share of the room that a run may need
    heaviest: str  # the heaviest training step, in words
    num_steps: int  # of an epoch
    step_seconds: float  # of a usual step
    validation_seconds: float  # of the heaviest lines of the validation and test text, not of all
    bleu: float  # of that validation; the model has seen a few steps
    checkpoint_seconds: float  # to write a checkpoint, read it back and compare

    @property
    def fits(self) -> bool:
        """Whether the run may start: it leaves some memory free, as far as that is known."""
        return self.peak is None or self.room is None or self.peak <= self.usable * self.room


def rehearse(config: Config, processes: Processes) -> Rehearsal:
    """Train on the heaviest steps, validate on the heaviest lines, and write and read a checkpoint, all of one process.

    Each process of a run rehearses its own share, at the same time as the others. The run folder is afterwards as it
    was before; the data must have been prepared.

    Args:
        config: with a number in train.batch_tokens.

    Raises:
        OutOfMemoryError: it needs more memory than there is.
        UserError: what would end the run with this message, too.
    """
    folder = config.run_dir / f"rehearsal-{processes.rank}"
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from seq2seq.train.rehearsed_run import main; main()"],
            input=json.dumps(_script(config, processes, folder)).encode(),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": _python_path()},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.returncode == -signal.SIGKILL:
        raise OutOfMemoryError("out of memory: the system has killed the rehearsal of the run")
    if done.returncode != 0:
        raise RuntimeError(f"the rehearsal of the run has failed:\n{done.stderr.decode(errors='replace')}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "out_of_memory" in answer:
        raise OutOfMemoryError(answer["out_of_memory"])
    if "error" in answer:
        raise UserError(answer["error"])
    return Rehearsal(**answer)


def _script(config: Config, processes: Processes, folder: Path) -> dict[str, object]:
    """What the other process is told."""
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if processes.count > 1 else 1
    return {
        "config": config.model_dump(mode="json"),
        "folder": str(folder),
        "device": str(processes.device),
        "processes": processes.count,
        "neighbours": neighbours,  # processes of the run on this machine, which share its memory
        "threads": torch.get_num_threads(),
    }


def _python_path() -> str:
    """Where the other process finds this package, be it installed or not."""
    here = str(Path(seq2seq.__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
