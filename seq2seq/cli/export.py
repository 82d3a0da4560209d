"""``seq2seq export``: a model for another program, proved to translate there as it does here."""

import argparse
from functools import partial

from seq2seq.cli.common import MODEL_HELP, Subparsers, path
from seq2seq.errors import UserError

_DESCRIPTION = """\
Convert a model for another program, and prove it: the converted model is loaded
there, translates a probe set, and its tokens, texts and scores are compared with
those of this program. The report is beside the model (parity.txt, parity.json).
A difference is an error, and nothing is written.
"""


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "export",
        help="convert a model for another program, with a proof",
        usage="seq2seq export MODEL --to PROGRAM --output DIR [option ...]",
        description=_DESCRIPTION,
    )
    argument = parser.add_argument
    argument("model", type=path, metavar="MODEL", help=MODEL_HELP)
    choices = ["ctranslate2", "huggingface", "argos"]
    argument("--to", choices=choices, required=True, metavar="PROGRAM", help=", ".join(choices))
    argument("--output", type=path, required=True, metavar="DIR", help="the new folder")
    help_ = "source lines to compare with; default: probe.txt of the model"
    argument("--probe", type=path, metavar="FILE", help=help_)
    help_ = "translations of the lines of --probe: the report then says what int8 costs in BLEU"
    argument("--ref", type=path, metavar="FILE", help=help_)
    help_ = "accept up to N lines that differ; default: 0"
    argument("--allow-differences", type=int, default=0, metavar="N", help=help_)


def run(args: argparse.Namespace) -> None:
    from seq2seq.export.run import Order, export

    if args.allow_differences < 0:
        raise UserError("--allow-differences: must be at least 0")
    if args.ref is not None and args.probe is None:
        raise UserError("--ref: give --probe FILE, too, the lines that it translates")
    order = Order(args.model, args.to, args.output, args.probe, args.ref, args.allow_differences)
    export(order, partial(print, flush=True))
