"""`seq2seq train`, which also says on standard output when each of its phases begins and ends.

    python scripts/faults/marked.py CONFIG [section.key=value ...]

A line is ``mark RANK PID begin PHASE STEP`` or the same with ``end``. The package does not know of it: what it calls is
wrapped from outside.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STEP = [0]  # the optimizer step that the process is at


def _marked(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    from seq2seq.train.setup import Run

    rank = os.environ.get("RANK", "0")

    def say(what: str) -> None:
        os.write(1, f"mark {rank} {os.getpid()} {what} {phase} {_STEP[0]}\n".encode())

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if arguments and isinstance(arguments[0], Run):
            _STEP[0] = arguments[0].progress.step + (phase == "step")
        say("begin")
        try:
            return function(*arguments, **options)
        finally:
            say("end")

    return wrapped


def main() -> int:
    """Train as the command line says."""
    from seq2seq.cli.main import main as run_command
    from seq2seq.data import prepare, vocabulary
    from seq2seq.data.subword_epochs import Resampler
    from seq2seq.report import curves
    from seq2seq.train import trainer

    phases: list[tuple[object, str, str]] = [
        (vocabulary, "train_tokenizer", "tokenizer"),
        (prepare, "build_corpus", "corpus"),
        (Resampler, "_make", "sampling"),
        (trainer, "train_step", "step"),
        (trainer, "validate_run", "validation"),
        (trainer, "score_test_set", "test"),
        (trainer, "calibrate_best", "calibration"),
        (trainer, "save_model_folder", "model"),
        (trainer, "save_checkpoint", "checkpoint"),
        (curves, "draw_curves", "curves"),
    ]
    for owner, name, phase in phases:
        setattr(owner, name, _marked(phase, getattr(owner, name)))
    return run_command(["train", *sys.argv[1:]])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
