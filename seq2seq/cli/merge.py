"""``seq2seq merge``: the parts of ``translate --shard`` as one file."""

import argparse

from seq2seq.cli.common import Subparsers, path

_EPILOG = """\
FILE.shard-1-of-8, FILE.shard-2-of-8, ... must be beside FILE, each with
its record (FILE.shard-1-of-8.json). FILE is written only if each part is there
once, all are of the same model, options and source, and counts, order and
checksums hold. It has the bytes that one process would have written.
"""


def add(subparsers: Subparsers) -> None:
    help_ = "join the parts of translate --shard, with a proof"
    parser = subparsers.add_parser("merge", help=help_, description="Join translated parts.", epilog=_EPILOG)
    parser.add_argument("output", type=path, metavar="FILE", help="the --output that the parts were translated with")


def run(args: argparse.Namespace) -> None:
    from seq2seq.decode.merge import merge

    print(merge(args.output))
