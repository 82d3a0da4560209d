"""``seq2seq curves``: a picture of a run so far."""

import argparse

from seq2seq.cli.common import Subparsers, path


def add(subparsers: Subparsers) -> None:
    description = "Draw the losses, scores, learning rates and gradient norms of a run into its\ncurves.png."
    help_ = "draw curves.png of a run, from its metrics so far"
    parser = subparsers.add_parser("curves", help=help_, description=description)
    parser.add_argument("run", type=path, metavar="RUN", help="run folder; the run may be in progress")


def run(args: argparse.Namespace) -> None:
    from seq2seq.report.curves import draw_curves

    print(draw_curves(args.run))
