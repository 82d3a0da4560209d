"""``seq2seq clean``: write the training text without the pairs that the rules of a config leave out."""

import argparse

from seq2seq.cli.common import Subparsers, add_config, path

_EPILOG = """\
`seq2seq train` cleans by itself, by the same rules; this command is for other
programs, and to look at what is left out. DIR gets

  train.SRC, train.TGT   the clean pairs, one a line
  left_out.tsv           the others: cause, place, source, target
  manifest.json          rules, files with their checksums, counts by cause
"""


def add(subparsers: Subparsers) -> None:
    text = "write the training text without the pairs that data.clean leaves out"
    parser = subparsers.add_parser(
        "clean",
        help="write the training text that data.clean keeps",
        description=text.capitalize() + ".",
        epilog=_EPILOG,
    )
    add_config(parser)
    parser.add_argument("--output", type=path, required=True, metavar="DIR", help="new folder for the text")


def run(args: argparse.Namespace) -> None:
    from seq2seq.config import load_config

    config = load_config(args.config, args.overrides)
    from seq2seq import __version__
    from seq2seq.data.clean_output import check_new, write_clean_text
    from seq2seq.data.prepare import known_checksums, open_text
    from seq2seq.decode.pair_scorer import ModelScorer

    check_new(args.output)
    cleaned = open_text(config, ModelScorer()).cleaned
    write_clean_text(args.output, config.data, cleaned, known_checksums(config), __version__)
    print(cleaned or "train: no rule of data.clean is on, so all pairs are clean")
    print(f"written to {args.output}")
