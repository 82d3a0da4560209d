"""``seq2seq average``: a model whose weights are the average of several."""

import argparse

from seq2seq.cli.common import Subparsers, path


def add(subparsers: Subparsers) -> None:
    text = "average the weights of several models into a new model"
    usage = "seq2seq average MODEL ... [--weights X ...] --output DIR"
    parser = subparsers.add_parser("average", help=text, usage=usage, description=text.capitalize() + ".")
    help_ = "model folder, checkpoint file, or run folder (its checkpoints)"
    parser.add_argument("models", type=path, nargs="+", metavar="MODEL", help=help_)
    help_ = "how much each MODEL counts (0.3 0.7 is the same as 3 7); the checkpoints of a run folder share its weight"
    parser.add_argument("--weights", type=float, nargs="+", metavar="X", help=help_)
    parser.add_argument("--output", type=path, required=True, metavar="DIR", help="the new model folder")


def run(args: argparse.Namespace) -> None:
    from seq2seq.train.averaging import average_models

    num_models = average_models(args.models, args.output, args.weights)
    print(f"{args.output}: the average of {num_models} models")
