"""``seq2seq doctor``: check the text of a config and rehearse its run."""

import argparse

from seq2seq.cli.common import Subparsers, add_config
from seq2seq.errors import EXIT_USER_ERROR

_EPILOG = """\
The report says what is ok, doubtful or wrong in the text (every line is read),
in the tokenizer, and in the heaviest work of the run: a step, a validation and
a checkpoint. `seq2seq train` then uses the tokenizer and corpora made here.
exit codes: 0 nothing is wrong; 2 something is wrong, or the config has mistakes
"""


def add(subparsers: Subparsers) -> None:
    text = "check a config's text and rehearse its run, in about a minute"
    add_config(subparsers.add_parser("doctor", help=text, description=text.capitalize() + ".", epilog=_EPILOG))


def run(args: argparse.Namespace) -> int:
    from seq2seq.config import load_config

    config = load_config(args.config, args.overrides)
    from seq2seq.doctor.report import summary
    from seq2seq.doctor.run import examine

    sections = []
    for section in examine(config):
        print(section, flush=True)
        sections.append(section)
    print(summary(sections))
    wrong = any(verdict.mark == "WRONG" for section in sections for verdict in section.verdicts)
    return EXIT_USER_ERROR if wrong else 0
