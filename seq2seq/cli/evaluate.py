"""``seq2seq evaluate``: BLEU and chrF of a model, or of finished translations."""

import argparse
import json
import sys
from pathlib import Path

from seq2seq.cli.common import MODEL_HELP, Subparsers, add_decode_options, given_decode_options, load_translator, path
from seq2seq.errors import UserError


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="BLEU and chrF of a model, or of a file of translations",
        usage="seq2seq evaluate (MODEL ... --src FILE | --hyp FILE) --ref FILE [options]",
        description="Score a model (MODEL and --src) or finished translations (--hyp) with sacreBLEU.",
        epilog="Scores are comparable only where their signatures are equal.",
    )
    argument = parser.add_argument
    argument("models", type=path, nargs="*", metavar="MODEL", help=f"{MODEL_HELP}; several: an ensemble")
    argument("--src", type=path, metavar="FILE", help="source text for MODEL; -: standard input")
    argument("--hyp", type=path, metavar="FILE", help="translations to score; -: standard input")
    help_ = "reference translations; may be repeated"
    argument("--ref", type=path, metavar="FILE", action="append", required=True, help=help_)
    argument("--tokenize", metavar="NAME", help="sacreBLEU tokenizer; default: by target language")
    argument("--tgt-lang", metavar="CODE", help="default: the model's, or the suffix of --ref")
    argument("--json", action="store_true", help="print a JSON record instead of text")
    argument("--save", type=path, metavar="FILE", help="also write the JSON record to FILE")
    argument("--save-hyp", type=path, metavar="FILE", help="also write the translations to FILE")
    add_decode_options(parser)


def run(args: argparse.Namespace) -> None:
    from seq2seq.data.formats.lines import read_text
    from seq2seq.evaluate import fingerprint_lines, score
    from seq2seq.files import write_text
    from seq2seq.languages import language_of
    from seq2seq.model_folder import find_model_folder

    _check(args)
    references = [read_text(path) for path in args.ref]
    record: dict[str, object] = {}
    language = args.tgt_lang
    if args.hyp is not None:
        hypotheses = read_text(args.hyp)
        scored = str(args.hyp)
    else:
        src = read_text(args.src)
        for path, reference in zip(args.ref, references, strict=True):
            if len(reference) != len(src):  # before the work begins
                raise UserError(f"{args.src} has {len(src)} lines but {path} has {len(reference)}")
        translator, decode = load_translator(args)
        hypotheses = translator.translate(src, decode)
        language = language or translator.config.data.target_language
        names = " + ".join(map(str, args.models))
        record = {"model": names, "model_metadata": translator.metadata, "decode": decode.model_dump()}
        record["src"] = {"file": str(args.src), "blake2b": fingerprint_lines(src)}
        step = translator.metadata.get("step", "")
        known = f" (step {int(step):,})" if step.isdecimal() else ""
        how = f"sampling, temperature {decode.temperature}, seed {decode.seed}"
        how = how if decode.sample else f"beam {decode.beam_size}, length penalty {decode.length_penalty}"
        how += f", {decode.quantize}" if decode.quantize else ""
        how += ", minimum Bayes risk" if decode.choose == "mbr" else ""
        if (reverse := translator.reverse) is not None:
            how += f", reranked by {args.rerank} (weight {reverse.weight})"
            record["rerank"] = {"model": str(args.rerank), **reverse.identity()}
        folders = " + ".join(str(find_model_folder(model)) for model in args.models)
        scored = f"model {folders}{known}, {how}, src {args.src}"
    scores = score(hypotheses, references, args.tokenize, language or language_of(args.ref[0]))
    print(f"{scored}, ref {' '.join(map(str, args.ref))}, {scores.num_lines:,} lines", file=sys.stderr)
    for note in scores.notes:
        print(f"note: {note}", file=sys.stderr)
    refs = zip(args.ref, references, strict=True)
    record["refs"] = [{"file": str(path), "blake2b": fingerprint_lines(lines)} for path, lines in refs]
    text = json.dumps({**scores.as_json(), **record}, indent=2, ensure_ascii=False)
    if args.save_hyp is not None:
        write_text(args.save_hyp, "".join(f"{line}\n" for line in hypotheses))
    if args.save is not None:
        write_text(args.save, text + "\n")
    print(text if args.json else scores)


def _check(args: argparse.Namespace) -> None:
    """Find mistakes in the arguments before the work begins."""
    from seq2seq.evaluate import load_tokenizer

    if (args.hyp is None) == (not args.models) or (not args.models) != (args.src is None):
        raise UserError("give either MODEL with --src, or --hyp")
    if args.hyp is not None and (unused := given_decode_options(args)):
        raise UserError(f"remove {', '.join(unused)}: no effect with --hyp, where nothing is translated")
    if args.tokenize is not None:
        load_tokenizer(args.tokenize)
    if [str(path) for path in (args.hyp, args.src, *args.ref)].count("-") > 1:
        raise UserError("only one of --hyp, --src and --ref can be - (standard input); write the others to files")
    used = [given for given in (args.hyp, args.src, *args.ref) if given is not None]
    for option, output in (("--save", args.save), ("--save-hyp", args.save_hyp)):
        if output is None:
            continue
        if any(_are_same(output, other) for other in used):
            raise UserError(f"{option} {output}: would overwrite a file that is used here; choose another name")
        used.append(output)


def _are_same(one: Path, other: Path) -> bool:
    """Whether two names lead to one file, which need not exist."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))
