"""``seq2seq doctor``: check the text of a config and make a dry run."""

import argparse

from seq2seq.cli.common import Subparsers, add_config, path
from seq2seq.errors import EXIT_USER_ERROR

_EPILOG = """\
The report says what is ok, doubtful or wrong in the text (every line is read),
in the tokenizer, and in the heaviest work of the run: a step, a validation and
a checkpoint. `seq2seq train` then uses the tokenizer and corpora made here.
--list names every line and pair with a finding, not only three of each kind:
finding <tab> place <tab> other place <tab> source <tab> target, after a header.
The other place is the other side's, or that of the earlier pair it repeats.
exit codes: 0 nothing is wrong; 2 something is wrong, or the config has mistakes
"""


def add(subparsers: Subparsers) -> None:
    text = "check a config's text and make a dry run, in about a minute"
    parser = subparsers.add_parser("doctor", help=text, description=text.capitalize() + ".", epilog=_EPILOG)
    add_config(parser)
    help_ = "write all lines and pairs with findings to this file, with their places and texts"
    parser.add_argument("--list", type=path, metavar="FILE.tsv", help=help_)


def run(args: argparse.Namespace) -> int:
    from seq2seq.config import load_config

    config = load_config(args.config, args.overrides)
    from seq2seq.doctor.report import summary
    from seq2seq.doctor.run import examine, inspect, texts_of

    if args.list is not None:
        from seq2seq.doctor.listing import check_target, write_list

        check_target(args.list, texts_of(config).values(), args.config)  # before the long work
    parts = inspect(config)
    sections = []
    for section in examine(config, parts):
        print(section, flush=True)
        sections.append(section)
    print(summary(sections))
    if args.list is not None:
        print(write_list(args.list, parts, sections))
    wrong = any(verdict.mark == "WRONG" for section in sections for verdict in section.verdicts)
    return EXIT_USER_ERROR if wrong else 0
