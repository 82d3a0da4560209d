"""``seq2seq train``: train a model, or continue an interrupted run."""

import argparse
import os

from seq2seq.cli.common import Subparsers, add_config
from seq2seq.errors import EXIT_STOPPED
from seq2seq.whole_run import checked_config, opened_run, stopped_line, train_whole

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
    config = checked_config(args.config, args.overrides)
    if args.verify_resume:
        from seq2seq.train.verify import verify_resume

        with opened_run(config) as processes:
            found = verify_resume(config, processes)
            if processes.is_main:
                print(found)
        return 0
    summary = train_whole(config, ends_process=True)
    if not summary.stopped:
        return 0
    if os.environ.get("RANK", "0") == "0":
        print(stopped_line(summary, "command"))
    return EXIT_STOPPED
