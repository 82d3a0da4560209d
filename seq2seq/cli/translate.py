"""``seq2seq translate``: a file, a pipe or a terminal, line by line."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from seq2seq.cli.common import Subparsers, add_decode_options, load_translator, path
from seq2seq.errors import UserError

_DOCUMENTS = (".tsv", ".csv", ".jsonl", ".tmx", ".html", ".htm")  # endings of files with more than text
_EPILOG = """\
--n-best above 1: up to N rows per line, best first: line number, score, text
score: log-probability / length penalty; with --choose mbr: mean chrF, 0 to 100;
  with --rerank: that of both models; lines with terms: the log-probability
--scores, after the score: the mean log-probability of a token, the lowest one
  of a token, the ratio of the lengths (about 1, in all languages)
--flags: confidence (of calibrated models: how probably it is acceptable); then
  empty, looping, copied, short, long, script, numbers, tags (lost or changed)
--shard 3/8 writes FILE.shard-3-of-8, and `seq2seq merge FILE` joins all parts;
  auto/8: the number is SLURM_ARRAY_TASK_ID (1 to 8) or JOB_COMPLETION_INDEX
"""


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "translate",
        help="translate a file or standard input, line by line",
        usage="seq2seq translate MODEL ... [--input FILE] [--output FILE] [option ...]",
        description="Translate line by line: one output line for each input line, in the same order.",
        epilog=_EPILOG,
    )
    argument, home = parser.add_argument, os.path.expanduser
    argument("models", type=path, nargs="+", metavar="MODEL", help="run folder or model folder; several: an ensemble")
    argument("--input", type=home, metavar="FILE", default="-", help="text, gzip or a pipe; default: standard input")
    help_ = "translate TEXT; may be repeated"
    argument("--text", action="append", metavar="TEXT", help=help_)
    argument("--output", type=home, metavar="FILE", default="-", help="name.gz: compressed; default: standard output")
    help_ = "text, or tsv: source, translation, score"
    argument("--format", choices=["text", "tsv"], metavar="NAME", help=help_)
    argument("--scores", action="store_true", help="three more columns, see below")
    argument("--flags", action="store_true", help="more columns: confidence, and what looks wrong")
    argument("--review", type=int, metavar="N", help="print the N lines to look at first")
    argument("--prefix", type=path, metavar="FILE", help="how the translation of each line begins")
    argument("--glossary", type=path, metavar="FILE", help="CSV: source term, target term to use for it")
    argument("--resume", action="store_true", help="continue an interrupted translation")
    help_ = "only part I of N of --input, see below"
    argument("--shard", metavar="I/N", help=help_)
    choices, help_ = ["replace", "blank", "fail"], "lines not in UTF-8: replace (default), blank or fail"
    argument("--invalid-bytes", choices=choices, default="replace", metavar="HOW", help=help_)
    add_decode_options(parser)


def run(args: argparse.Namespace) -> None:
    from seq2seq.decode.calibration import calibration_for
    from seq2seq.decode.files import Beside, Extras, Format, translate_file
    from seq2seq.decode.prompt import Prompt
    from seq2seq.decode.shards import parse_shard
    from seq2seq.decode.streams import Texts, is_stream, refuse_same_file

    source = Path(args.input)
    if args.text is not None and args.input != "-":
        raise UserError("--text and --input: give one of them")
    if args.input != "-":
        _check_there("--input", source)
    if args.output == "-" and getattr(sys.stdout, "name", None) == os.devnull:  # main replaces a closed stream
        raise UserError("standard output is closed; redirect it, or give --output FILE")
    shard = None if args.shard is None else parse_shard(args.shard, os.environ)
    for option in [*["--resume"] * args.resume, *["--shard"] * (shard is not None)]:
        if args.input == "-" or not source.is_file():
            raise UserError(f"{option}: give --input FILE; input from a pipe cannot be read again")
        if is_stream(args.output):
            raise UserError(f"{option}: give --output FILE; output to a pipe cannot be continued")
        if args.prefix is not None and not args.prefix.is_file():
            raise UserError(f"{option}: --prefix must be a file; a pipe cannot be read again")
    if args.format == "text" and (args.scores or args.flags):
        raise UserError("--scores and --flags are columns of --format tsv; remove --format text")
    if args.review is not None and args.review < 1:
        raise UserError(f"--review: must be at least 1, not {args.review}")
    if args.input.lower().removesuffix(".gz").endswith(_DOCUMENTS):
        what = "lines of plain text; for the texts in it, upload it to seq2seq serve (README, /translate_file)"
        print(f"note: --input {source} is read as {what}", file=sys.stderr)
    refuse_same_file(args.input, args.output)
    for option, given in (("--prefix", args.prefix), ("--glossary", args.glossary)):
        if given is not None:
            _check_there(option, given)
            refuse_same_file(str(given), args.output, option)
    translator, decode = load_translator(args)
    form: Format = args.format or ("tsv" if args.scores or args.flags else "text")
    calibration = None
    if args.flags or args.review:
        calibration = calibration_for(translator, decode, partial(print, file=sys.stderr))
    extras = Extras(args.scores, args.flags, args.review or 0, calibration)
    beside = Beside(args.prefix, args.glossary)
    text: str | Texts | Prompt = args.input
    if args.text is not None:
        text = Texts(args.text)
    elif args.input == args.output == "-" and Prompt.is_possible():
        text = Prompt(translator.config.data.source_language)
    translate_file(translator, text, args.output, decode, args.invalid_bytes, args.resume, form, extras, beside, shard)


def _check_there(option: str, file: Path) -> None:
    if file.is_dir() or not file.exists():
        problem = "is a directory, not a text file" if file.is_dir() else "no such file"
        raise UserError(f"{option}: {problem}: {file}")
