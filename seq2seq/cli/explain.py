"""``seq2seq explain``: a page that shows how a model came to a translation."""

import argparse

from seq2seq.cli.common import MODEL_HELP, Subparsers, load_translator, path
from seq2seq.errors import UserError

_DESCRIPTION = """\
Write a web page about one translation: attention by layer and head, the words
that the model weighed at every step, and the beam as a tree. The page is one
file, needs no network, and has English and Chinese captions.
"""


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="a page that shows how a model came to a translation",
        usage='seq2seq explain MODEL "a sentence" --output FILE.html [option ...]',
        description=_DESCRIPTION,
    )
    argument = parser.add_argument
    argument("models", type=path, nargs="+", metavar="MODEL", help=MODEL_HELP)
    argument("text", metavar="TEXT", help="the sentence to translate")
    argument("--reference", metavar="TEXT", help="another translation, scored beside the model's")
    argument("--output", type=path, metavar="FILE", help="the page, FILE.html")
    argument("--png", type=path, metavar="FILE", help="a picture of the alignment alone")
    argument("--beam-size", type=int, metavar="K", help="default: the value in the model's config")
    argument("--length-penalty", type=float, metavar="A", help="default: the value in the model's config")
    argument("--device", choices=["auto", "cpu", "cuda"], default="auto", metavar="NAME", help="cpu or cuda")


def run(args: argparse.Namespace) -> None:
    if len(args.models) > 1:
        raise UserError(
            f"give one MODEL and the sentence in quotes, not {len(args.models)} models: several cannot be looked into; "
            "`seq2seq score` scores a translation with several"
        )
    if args.output is None and args.png is None:
        raise UserError("give --output FILE.html for the page, or --png FILE.png for the alignment alone")
    if args.output == args.png:
        raise UserError(f"--output and --png: both are {args.png}; give the picture another name")
    from seq2seq.report.explain import draw_alignment, write_page

    args.engine = "torch"  # the other one cannot be looked into
    translator, decode = load_translator(args)
    explanation = translator.explain(args.text, args.reference, decode)
    print(explanation.translation.text)
    if args.output is not None:
        write_page(explanation, args.output)
    if args.png is not None:
        draw_alignment(explanation.attention, args.png)
