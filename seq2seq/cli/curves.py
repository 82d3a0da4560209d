"""``seq2seq curves``: a picture of a run so far, or of several runs together."""

import argparse

from seq2seq.cli.common import Subparsers, path
from seq2seq.errors import UserError

_EPILOG = """\
One run: its loss, scores, learning rate and gradient norm. Up to 8 runs: their
losses and BLEU, against steps, minutes and target tokens. A run may be in
progress.
"""


def add(subparsers: Subparsers) -> None:
    help_ = "draw a run, or several runs together, from their metrics so far"
    usage = "seq2seq curves RUN [RUN ...] [--output FILE.png]"
    description = "Draw a run, or several runs together."
    parser = subparsers.add_parser("curves", help=help_, usage=usage, description=description, epilog=_EPILOG)
    parser.add_argument("runs", type=path, nargs="+", metavar="RUN", help="run folder")
    help_ = "the picture; needed for several runs; default for one: its curves.png"
    parser.add_argument("--output", type=path, metavar="FILE.png", help=help_)


def run(args: argparse.Namespace) -> None:
    from seq2seq.report.curves import draw_curves, draw_together

    if args.output is None and len(args.runs) > 1:
        raise UserError("several runs: give --output FILE.png, the picture of all of them")
    if args.output is not None and args.output.suffix != ".png":
        raise UserError(f"--output {args.output}: the picture is a PNG file; give a name that ends with .png")
    print(draw_curves(args.runs[0], args.output) if len(args.runs) == 1 else draw_together(args.runs, args.output))
