"""``seq2seq train``: train a model, or continue an interrupted run."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from seq2seq.cli.common import Subparsers, add_config
from seq2seq.errors import EXIT_STOPPED, ReportedElsewhereError, UserError

if TYPE_CHECKING:
    from seq2seq.config import Config
    from seq2seq.train.trainer import Summary

_EPILOG = """\
A run trains the tokenizer, builds the corpora, trains and validates the model,
keeps the best and the last model, and scores the test set. An interrupted run
continues from its last checkpoint, and ends as if it had not been interrupted.
Several GPUs: torchrun --nproc-per-node 4 -m seq2seq train CONFIG
"""


def add(subparsers: Subparsers) -> None:
    help_ = "train a model, or continue an interrupted run"
    description = "Train a model. The same command continues an interrupted run."
    parser = subparsers.add_parser("train", help=help_, description=description, epilog=_EPILOG)
    add_config(parser)
    help_ = "train a few steps, to test that a stopped run continues exactly"
    parser.add_argument("--verify-resume", action="store_true", help=help_)


def run(args: argparse.Namespace) -> int:
    from seq2seq.config import check_files, load_config

    try:
        config = load_config(args.config, args.overrides)
        check_files(config)
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":  # under torchrun the first process of each machine reports it
            raise ReportedElsewhereError from error
        raise
    from seq2seq.files import locked_run
    from seq2seq.memory import memory_explained
    from seq2seq.report.curves import draw_curves
    from seq2seq.train.distributed import joined_processes
    from seq2seq.train.setup import set_up
    from seq2seq.train.trainer import train

    explained = memory_explained(lambda: "the start or the saving of a run: free memory, or choose a smaller model")
    with (
        joined_processes(config.train.device) as processes,
        locked_run(config.run_dir) if processes.is_main else nullcontext(),
        explained,
    ):
        if args.verify_resume:
            from seq2seq.train.verify import verify_resume

            found = verify_resume(config, processes)
            if processes.is_main:
                print(found)
            return 0
        summary = train(set_up(config, processes))
        if processes.is_main and not summary.stopped:
            try:
                draw_curves(config.run_dir)
            except UserError as error:
                with suppress(OSError):  # the terminal is gone, but the run is complete
                    print(f"curves.png was not drawn: {error}", file=sys.stderr)
    if processes.is_main:
        _print(summary, config)
    return EXIT_STOPPED if summary.stopped else 0


def _print(summary: Summary, config: Config) -> None:
    from seq2seq.train.outcome import outcome

    progress, run_dir = summary.progress, config.run_dir
    if summary.stopped:
        print(f"{summary.reason}; saved after step {progress.step:,}; the same command continues from there")
        return
    best = "" if progress.best_score is None else f", best {config.train.metric} {abs(progress.best_score):.2f}"
    print(f"done: {summary.reason}; {progress.step:,} steps in {progress.seconds / 60:.1f} minutes{best}")
    if progress.best_step:
        print(f"best model: {run_dir / 'best'} (step {progress.best_step:,})")
    else:
        print(f"no best model: no validation gave a finite number; the last model is {run_dir / 'last'}")
    for sentence in outcome(config, progress):
        print(sentence)
    if summary.test is not None:
        print(f"test set, {run_dir / 'test.hyp.txt'}:\n{summary.test}")
