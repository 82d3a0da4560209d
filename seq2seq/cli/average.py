"""``seq2seq average``: a model whose weights are the mean of several."""

import argparse

from seq2seq.cli.common import Subparsers, path


def add(subparsers: Subparsers) -> None:
    text = "average the weights of several models into a new model"
    parser = subparsers.add_parser("average", help=text, description=text.capitalize() + ".")
    help_ = "model folder, checkpoint file, or run folder (its checkpoints)"
    parser.add_argument("models", type=path, nargs="+", metavar="MODEL", help=help_)
    parser.add_argument("--output", type=path, required=True, metavar="DIR", help="the new model folder")


def run(args: argparse.Namespace) -> None:
    from seq2seq.train.averaging import average_models

    num_models = average_models(args.models, args.output)
    print(f"{args.output}: the average of {num_models} models")
