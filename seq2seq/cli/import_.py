"""``seq2seq import``: a model folder from a Marian model in the format of Hugging Face."""

import argparse
from functools import partial

from seq2seq.cli.common import Subparsers, path


def add(subparsers: Subparsers) -> None:
    description = "Make a model folder from a Marian model of Hugging Face (OPUS-MT)."
    help_ = "make a model folder from a Marian model (OPUS-MT)"
    parser = subparsers.add_parser("import", help=help_, description=description)
    parser.add_argument(
        "folder", type=path, metavar="HF_FOLDER", help="config.json, weights, source.spm, vocab.json, ..."
    )
    parser.add_argument("--output", type=path, required=True, metavar="DIR", help="the new model folder")


def run(args: argparse.Namespace) -> None:
    from seq2seq.export.importing import import_folder

    import_folder(args.folder, args.output, partial(print, flush=True))
    print(f"{args.output}: a model folder; seq2seq translate {args.output}")
