"""``seq2seq report``: a run as one web page."""

import argparse

from seq2seq.cli.common import Subparsers, path
from seq2seq.errors import UserError

_EPILOG = """\
The page has curves, scores, the card, translations of the same lines over time,
the text, skipped steps, settings and versions. It is one file and needs no
network. The run may be in progress.
"""


def add(subparsers: Subparsers) -> None:
    help_ = "a page about a run, finished or in progress"
    usage = "seq2seq report RUN [--output FILE]"
    parser = subparsers.add_parser(
        "report", help=help_, usage=usage, description="Write a web page about a run.", epilog=_EPILOG
    )
    parser.add_argument("run", type=path, metavar="RUN", help="run folder")
    parser.add_argument("--output", type=path, metavar="FILE", help="the page, FILE.html; default: report.html of RUN")


def run(args: argparse.Namespace) -> None:
    from seq2seq.report.run_page import REPORT, write_run_page

    output = args.output or args.run / REPORT
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output}: the page is an HTML file; give a name that ends with .html")
    write_run_page(args.run, output)
    print(output)
