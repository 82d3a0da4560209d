"""``seq2seq calibrate``: confidence for a model that has none, or for another kind of text or search."""

import argparse

from seq2seq.cli.common import MODEL_HELP, Subparsers, add_decode_options, load_translator, path
from seq2seq.errors import UserError

_EPILOG = """\
Translates up to 2,000 lines and writes confidence.json into the model folder.
`train` does this with data.valid; imported and averaged models need this command.
The text must be new to the model: text that it learnt from makes it too sure.
"""


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "calibrate",
        help="learn when a model's translations are good (translate --flags)",
        usage="seq2seq calibrate MODEL --src FILE --ref FILE [option ...]",
        description="Learn, from parallel text, how probable it is that a translation is acceptable.",
        epilog=_EPILOG,
    )
    parser.add_argument("models", type=path, nargs=1, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--src", type=path, required=True, metavar="FILE", help="source text, such as data.valid's")
    parser.add_argument("--ref", type=path, required=True, metavar="FILE", help="its reference translations")
    add_decode_options(parser)


def run(args: argparse.Namespace) -> None:
    from seq2seq.data.formats.lines import read_text
    from seq2seq.decode.calibration import CannotCalibrateError, save_calibration
    from seq2seq.model_folder import CONFIDENCE
    from seq2seq.train.calibrate import calibrate

    if args.sample:
        raise UserError("--sample: only translations of a beam search can be calibrated; remove it")
    src, ref = read_text(args.src), read_text(args.ref)
    if len(src) != len(ref):
        raise UserError(f"{args.src} has {len(src):,} lines but {args.ref} has {len(ref):,}")
    translator, decode = load_translator(args)
    (folder,) = translator.folders
    try:
        calibration = calibrate(translator, src, ref, decode)
    except CannotCalibrateError as error:
        raise UserError(f"{args.src}: {error}") from None
    save_calibration(folder, calibration)
    print(f"{folder / CONFIDENCE}: {calibration}")
