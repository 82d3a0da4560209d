"""``seq2seq score``: how likely models find given translations."""

import argparse
import os
from pathlib import Path

from seq2seq.cli.common import MODEL_HELP, Subparsers, add_machine_options, load_translator, path
from seq2seq.errors import UserError

_EPILOG = """\
text (default): for each MODEL the log-probability of the target line (natural
logarithm, with the end of the sentence), in total, per token and per word
tsv: source and target before them; jsonl: also the tokens, each with its own
A word stands between spaces; of a script without them, each letter is a word.
A pair that is too long for a model is not scored: nan, or null in jsonl.
The sums of the file are printed on standard error.
"""


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "score",
        help="how likely models find given translations",
        usage="seq2seq score MODEL ... --src FILE --tgt FILE [--format NAME] [--output FILE] [option ...]",
        description="Log-probabilities of given translations: one output line for each pair of lines.",
        epilog=_EPILOG,
    )
    argument, home = parser.add_argument, os.path.expanduser
    argument("models", type=path, nargs="+", metavar="MODEL", help=f"{MODEL_HELP}; several: each has columns")
    argument("--src", type=home, required=True, metavar="FILE", help="source text; -: standard input")
    argument("--tgt", type=home, required=True, metavar="FILE", help="its translation; -: standard input")
    argument("--output", type=home, metavar="FILE", default="-", help="name.gz: compressed; default: standard output")
    choices = ["text", "tsv", "jsonl"]
    argument("--format", choices=choices, default="text", metavar="NAME", help="text, tsv or jsonl; see below")
    argument("--tag", metavar="TAG", help="the tag before every source sentence (data.train.tag)")
    argument("--batch-tokens", type=int, metavar="T", help="batch size: tokens of the longer side")
    argument("--quantize", choices=["int8", "none"], metavar="KIND", help="int8 (on the CPU) or none")
    argument("--engine", choices=["torch", "ctranslate2"], metavar="NAME", help="torch, or ctranslate2 (on the CPU)")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> None:
    from seq2seq.decode.score_files import ScoringModel, score_files
    from seq2seq.decode.streams import refuse_same_file

    for option, name in (("--src", args.src), ("--tgt", args.tgt)):
        if name != "-" and (Path(name).is_dir() or not Path(name).exists()):
            problem = "is a directory, not a text file" if Path(name).is_dir() else "no such file"
            raise UserError(f"{option}: {problem}: {name}")
        refuse_same_file(name, args.output)
    if args.src == args.tgt == "-":
        raise UserError("only one of --src and --tgt can be - (standard input); write the other to a file")
    models = []
    for model in args.models:
        translator, decode = load_translator(argparse.Namespace(**{**vars(args), "models": [model]}))
        models.append(ScoringModel(str(model), translator, decode))
    score_files(models, args.src, args.tgt, args.output, args.format)
