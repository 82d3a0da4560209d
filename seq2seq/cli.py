"""The command line: ``seq2seq train | doctor | evaluate | translate | average | curves | config``.

Each command imports what it needs when it runs, so that help and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq import __version__
from seq2seq.errors import EXIT_STOPPED, EXIT_USER_ERROR, ToldElsewhereError, UserError
from seq2seq.signals import Ended, ended_by_signals

if TYPE_CHECKING:
    from seq2seq.config import DecodeConfig
    from seq2seq.decode.translator import Translator

_DESCRIPTION = """\
Train encoder-decoder Transformers to translate, measure them, and use them.

A first run, from two files of parallel text to translations:

  seq2seq train my.yaml                                 # trains; the same command continues an interrupted run
  seq2seq evaluate runs/my --src test.en --ref test.de  # BLEU and chrF with signatures
  seq2seq translate runs/my --input new.en --output new.de

where my.yaml is

  run_dir: runs/my
  data:
    train: {src: train.en, tgt: train.de}
    valid: {src: valid.en, tgt: valid.de}
"""

_EXIT_CODES = (
    "exit codes: 0 done; 1 a bug, please report it; 2 a mistake in what was given; 75 training was stopped by a signal "
    "and saved; 141 the reader of the output left (| head); 128 + n ended by signal n (130 Ctrl-C, 143 SIGTERM)"
)

_NO_SPACE = "no space left on the device; free some and repeat"
_DEVICE_ERRORS = {  # of files that are written bit by bit, as the log; the others say which file
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "a file would grow larger than the system allows; raise the limit (ulimit -f) and repeat",
    errno.EIO: "the device failed to read or write (input/output error); copy what is whole to another one",
    errno.EROFS: "the device can only be read; mount it for writing and repeat",
}


def _path(text: str) -> Path:
    """A path from the command line; a shell leaves ~ as it is behind a "="."""
    return Path(os.path.expanduser(text))


def _add_decode_options(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("decoding (default: as the model's config says)")
    options.add_argument("--beam-size", type=int, metavar="K", help="hypotheses kept while searching; 1 is greedy")
    options.add_argument("--length-penalty", type=float, metavar="A", help="larger prefers longer output; 0 is none")
    options.add_argument("--n-best", type=int, metavar="N", help="translations of each line, at most")
    options.add_argument("--max-length-ratio", type=float, metavar="R", help="longest output per source token")
    options.add_argument("--max-length-offset", type=int, metavar="T", help="tokens added to the longest output")
    choices = ["true", "false"]
    options.add_argument("--split-sentences", choices=choices, metavar="BOOL", help="true: sentence by sentence")
    options.add_argument("--batch-tokens", type=int, metavar="T", help="source tokens times beam size per batch")
    options.add_argument("--quantize", choices=["int8", "none"], metavar="KIND", help="int8 or none; for the CPU")
    options.add_argument("--sample", action="store_true", default=None, help="draw words at random instead")
    options.add_argument("--temperature", type=float, metavar="X", help="sampling: below 1 keeps to likely words")
    options.add_argument("--top-k", type=int, metavar="K", help="sampling: from the K likeliest words only")
    options.add_argument("--top-p", type=float, metavar="P", help="sampling: from the likeliest words summing to P")
    options.add_argument("--seed", type=int, metavar="N", help="sampling: one seed, the same translations")
    machine = parser.add_argument_group("machine")
    devices, precisions = ["auto", "cpu", "cuda"], ["auto", "fp32", "bf16"]
    machine.add_argument(
        "--device", choices=devices, default="auto", metavar="NAME", help="cpu or cuda; default: CUDA if there"
    )
    machine.add_argument(
        "--precision", choices=precisions, default="auto", metavar="KIND", help="fp32 or bf16; default: bf16 on CUDA"
    )
    machine.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all")


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="seq2seq", description=_DESCRIPTION, epilog=_EXIT_CODES, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"seq2seq {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a model from a config, or continue an interrupted run",
        description="Train a model: tokenizer, binary corpus, training, validation, test scores. The same command\n"
        "continues an interrupted run exactly where its last checkpoint left it. For several GPUs:\n"
        "torchrun --nproc-per-node 4 -m seq2seq train CONFIG",
        formatter_class=formatter,
    )
    train.add_argument("config", type=_path, help="YAML file; `seq2seq config --schema` lists every key")
    train.add_argument("overrides", nargs="*", metavar="section.key=value", help="for example optim.lr=0.002")
    train.add_argument(
        "--verify-resume",
        action="store_true",
        help="train a few steps in one go and with a stop, and say whether both end bit-equal; no more",
    )

    doctor = commands.add_parser(
        "doctor",
        help="check a config's text and make a dry run, in about a minute",
        description="Tell what is fine, doubtful or wrong before a run: the text line by line, the tokenizer, and the\n"
        "run's heaviest work in small. Tokenizer and corpora are made as train makes them, and kept for it.",
        epilog="exit codes: 0 nothing is wrong; 2 something is, or the config is",
        formatter_class=formatter,
    )
    doctor.add_argument("config", type=_path, help="YAML file, as for train")
    doctor.add_argument("overrides", nargs="*", metavar="section.key=value", help="for example data.max_length=128")

    evaluate = commands.add_parser(
        "evaluate",
        help="BLEU and chrF of a model on a test set, or of a file of translations",
        description="Score a model (--src) or finished translations (--hyp) against references with sacreBLEU.",
        epilog="The scores are printed with the signatures that make them comparable.",
    )
    evaluate.add_argument("model", type=_path, nargs="?", metavar="MODEL", help="run folder (its best) or model folder")
    evaluate.add_argument("--src", type=_path, metavar="FILE", help="source text to translate with MODEL; - is stdin")
    evaluate.add_argument(
        "--hyp", type=_path, metavar="FILE", help="translations to score, instead of MODEL and --src; - is stdin"
    )
    evaluate.add_argument(
        "--ref", type=_path, metavar="FILE", action="append", required=True, help="reference; repeat for several"
    )
    evaluate.add_argument("--tokenize", metavar="NAME", help="sacreBLEU tokenizer; default: by the target language")
    evaluate.add_argument("--tgt-lang", metavar="CODE", help="target language; default: the model's, or --ref's suffix")
    evaluate.add_argument("--json", action="store_true", help="print a JSON record instead of text")
    evaluate.add_argument("--save", type=_path, metavar="FILE", help="write the JSON record to a file, too")
    evaluate.add_argument("--save-hyp", type=_path, metavar="FILE", help="write the translations to a file")
    _add_decode_options(evaluate)

    translate = commands.add_parser(
        "translate",
        help="translate a file or standard input, line by line",
        usage="seq2seq translate MODEL [--input FILE] [--output FILE] [option ...]",
        description="Translate line by line: one output line for each input line, in order, whatever it holds.",
        epilog="With --n-best N above 1: up to N different translations of each line, best first,\n"
        "as line number <tab> score <tab> translation; samples may be equal. Lines of a pipe\n"
        "or terminal are answered as they come.\n"
        "exit codes: 0 done; 1 a bug, please report it; 2 a mistake in what was given;\n"
        "130 interrupted; 141 the reader of the output left (| head); 143 terminated",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=27),
    )
    translate.add_argument("model", type=_path, metavar="MODEL", help="run folder (its best) or model folder")
    home = os.path.expanduser
    translate.add_argument(
        "--input", type=home, metavar="FILE", default="-", help="text, gzip or a pipe; default: standard input"
    )
    translate.add_argument(
        "--output", type=home, metavar="FILE", default="-", help="x.gz is compressed; default: standard output"
    )
    translate.add_argument("--resume", action="store_true", help="continue an interrupted translation")
    translate.add_argument(
        "--invalid-bytes",
        choices=["replace", "blank", "fail"],
        default="replace",
        metavar="HOW",
        help="lines that are not UTF-8: replace, blank or fail",
    )
    _add_decode_options(translate)

    average = commands.add_parser(
        "average",
        help="average the weights of models or checkpoints into a new model",
        description="Average weights: of model folders, checkpoint files, or all checkpoints of a run folder.",
    )
    average.add_argument("models", type=_path, nargs="+", metavar="MODEL_OR_CHECKPOINTS")
    average.add_argument("--output", type=_path, required=True, metavar="DIR", help="the new model folder")

    curves = commands.add_parser("curves", help="draw a run's curves.png from its metrics so far")
    curves.add_argument("run", type=_path, metavar="RUN", help="run folder")

    config = commands.add_parser(
        "config",
        help="check a config and print it with every default filled in, or print the schema",
        description="Print the resolved config, or the JSON schema that gives editors completion.",
    )
    config.add_argument("config", type=_path, nargs="?", metavar="CONFIG")
    config.add_argument("overrides", nargs="*", metavar="section.key=value")
    config.add_argument("--schema", action="store_true", help="print the JSON schema of config files")
    return parser


def _complete_streams() -> None:
    """Give a process that was started without a standard stream an empty one; no message is too foreign to print.

    It also keeps files that are opened later from getting the number of a standard stream, and its messages.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it stays open
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _complete_streams()
    # OpenMP's threads spin while they wait, which on busy cores takes the time of those that compute: sentences
    # translated one by one took up to a hundred times as long. OpenMP reads this when PyTorch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = _parser().parse_args(arguments)
    atexit.register(gc.freeze)  # or Python's last collection takes a quarter of a second over PyTorch's modules
    commands: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "train": _train,
        "doctor": _doctor,
        "evaluate": _evaluate,
        "translate": _translate,
        "average": _average,
        "curves": _curves,
        "config": _config,
    }
    try:
        with ended_by_signals(f"seq2seq {args.command}"):
            status = commands[args.command](args)
            sys.stdout.flush()
    except ToldElsewhereError:
        return EXIT_USER_ERROR
    except UserError as error:
        print(f"seq2seq {args.command}: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt as interrupt:
        number = interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT
        names: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
        hint = "; the same command continues from the last checkpoint" if args.command == "train" else ""
        what = names.get(number, f"ended by {signal.Signals(number).name}")
        print(f"\nseq2seq {args.command}: {what}{hint}", file=sys.stderr)
        return 128 + number
    except BrokenPipeError:  # whoever read the output has enough; the exit code is that of SIGPIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at the end
        return 141
    except OSError as error:
        told = _DEVICE_ERRORS.get(error.errno or 0)
        if told is None:
            raise
        print(f"seq2seq {args.command}: error: {told}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # what it holds has no place to go, and Python would try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USER_ERROR
    return status or 0


def _train(args: argparse.Namespace) -> int:
    from seq2seq.config import check_files, load_config

    try:
        config = load_config(args.config, args.overrides)
        check_files(config)
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":  # under torchrun the first process of each machine tells it
            raise ToldElsewhereError from error
        raise
    from seq2seq.files import locked_run
    from seq2seq.memory import memory_explained
    from seq2seq.train.distributed import joined_processes
    from seq2seq.train.setup import set_up
    from seq2seq.train.trainer import train

    explained = memory_explained(lambda: "the start or the saving of a run: free memory, or choose a smaller model")
    with (
        joined_processes(config.train.device) as processes,
        locked_run(config.run_dir) if processes.is_main else nullcontext(),
        explained,
    ):
        if args.verify_resume:
            from seq2seq.train.verify import verify_resume

            found = verify_resume(config, processes)
            if processes.is_main:
                print(found)
            return 0
        summary = train(set_up(config, processes))
    status = EXIT_STOPPED if summary.stopped else 0
    if not processes.is_main:
        return status
    progress = summary.progress
    if summary.stopped:
        print(f"{summary.reason}; saved after step {progress.step:,}, and the same command goes on from there")
        return status
    best = "" if progress.best_score is None else f", best {config.train.metric} {abs(progress.best_score):.2f}"
    print(f"done: {summary.reason}; {progress.step:,} steps in {progress.seconds / 60:.1f} minutes{best}")
    if progress.best_step:
        print(f"best model: {config.run_dir / 'best'} (step {progress.best_step:,})")
    else:
        print(f"no best model: no validation was a finite number; the last model is in {config.run_dir / 'last'}")
    if summary.test is not None:
        print(f"test set, {config.run_dir / 'test.hyp.txt'}:\n{summary.test}")
    return status


def _doctor(args: argparse.Namespace) -> int:
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


def _decode_config(translator: Translator, args: argparse.Namespace) -> DecodeConfig:
    from seq2seq.config import override_decode

    names = ["beam_size", "length_penalty", "n_best", "max_length_ratio", "max_length_offset", "batch_tokens"]
    names += ["sample", "temperature", "top_k", "top_p", "seed"]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.split_sentences is not None:
        given["split_sentences"] = args.split_sentences == "true"
    if args.quantize is not None:
        given["quantize"] = None if args.quantize == "none" else args.quantize
    decode = override_decode(translator.config.decode, given)
    return translator.settle(decode, lambda note: print(f"seq2seq {args.command}: {note}", file=sys.stderr))


def _given_decode_options(args: argparse.Namespace) -> list[str]:
    """The options about decoding and its machine that were given other than by default."""
    parser = argparse.ArgumentParser(add_help=False)
    _add_decode_options(parser)
    defaults = vars(parser.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, value in defaults.items() if getattr(args, name) != value]


def _describe_decoding(decode: DecodeConfig) -> str:
    sampling = f"sampling, temperature {decode.temperature}, seed {decode.seed}"
    search = f"beam {decode.beam_size}, length penalty {decode.length_penalty}"
    return (sampling if decode.sample else search) + (f", {decode.quantize}" if decode.quantize else "")


def _prepare_translating(args: argparse.Namespace) -> None:
    from seq2seq.device import keep_freed_memory

    keep_freed_memory()
    if args.threads is not None:
        import torch

        if args.threads < 1:
            raise UserError("--threads: must be at least 1")
        torch.set_num_threads(args.threads)


def _load_translator(args: argparse.Namespace) -> Translator:
    from seq2seq.decode.translator import Translator
    from seq2seq.model_folder import find_model_folder

    translator = Translator.load(args.model, args.device, args.precision)
    if find_model_folder(args.model) == args.model / "last":
        step = translator.metadata.get("step")
        print(f"{args.model}: has no best model yet; using last, of step {step}, never validated", file=sys.stderr)
    if translator.edited:
        edited = "; ".join(translator.edited)
        print(f"{args.model}: its config.yaml was edited after training: {edited}", file=sys.stderr)
    return translator


def _evaluate(args: argparse.Namespace) -> None:
    import json

    from seq2seq.data.bitext import read_text
    from seq2seq.evaluate import fingerprint_lines, load_tokenizer, score
    from seq2seq.files import write_text
    from seq2seq.languages import language_of
    from seq2seq.model_folder import find_model_folder

    if (args.hyp is None) == (args.model is None) or (args.model is None) != (args.src is None):
        raise UserError("give either MODEL with --src, or --hyp")
    if args.hyp is not None and (unused := _given_decode_options(args)):
        raise UserError(f"{', '.join(unused)}: no effect with --hyp, whose translations exist already; leave out")
    if args.tokenize is not None:
        load_tokenizer(args.tokenize)  # a mistake is reported before the work, not after it
    if [str(path) for path in (args.hyp, args.src, *args.ref)].count("-") > 1:
        raise UserError("only one of --hyp, --src and --ref can be - (standard input); write the others to files")
    references = [read_text(path) for path in args.ref]
    record: dict[str, object] = {}
    language = args.tgt_lang
    if args.hyp is not None:
        hypotheses = read_text(args.hyp)
        scored = str(args.hyp)
    else:
        _prepare_translating(args)
        src = read_text(args.src)
        for path, reference in zip(args.ref, references, strict=True):
            if len(reference) != len(src):  # told before the work, not after it
                raise UserError(f"{args.src} has {len(src)} lines but {path} has {len(reference)}")
        translator = _load_translator(args)
        decode = _decode_config(translator, args)
        hypotheses = translator.translate(src, decode)
        language = language or translator.config.data.target_language
        record = {"model": str(args.model), "model_metadata": translator.metadata, "decode": decode.model_dump()}
        record["src"] = {"file": str(args.src), "blake2b": fingerprint_lines(src)}
        step = translator.metadata.get("step", "")
        known = f" (step {int(step):,})" if step.isdecimal() else ""
        scored = f"model {find_model_folder(args.model)}{known}, {_describe_decoding(decode)}, src {args.src}"
    scores = score(hypotheses, references, args.tokenize, language or language_of(args.ref[0]))
    print(f"{scored}, ref {' '.join(map(str, args.ref))}, {scores.num_lines:,} lines", file=sys.stderr)
    for note in scores.notes:
        print(f"note: {note}", file=sys.stderr)
    record["refs"] = [
        {"file": str(path), "blake2b": fingerprint_lines(lines)}
        for path, lines in zip(args.ref, references, strict=True)
    ]
    text = json.dumps({**scores.as_json(), **record}, indent=2, ensure_ascii=False)
    if args.save_hyp is not None:
        write_text(args.save_hyp, "".join(f"{line}\n" for line in hypotheses))
    if args.save is not None:
        write_text(args.save, text + "\n")
    print(text if args.json else scores)


def _translate(args: argparse.Namespace) -> None:
    from seq2seq.decode.files import FileOptions, translate_file
    from seq2seq.decode.streams import is_stream, refuse_same_file

    source = Path(args.input)
    if args.input != "-" and (source.is_dir() or not source.exists()):
        problem = "is a directory, not a text file" if source.is_dir() else "no such file"
        raise UserError(f"--input: {problem}: {args.input}")
    if args.output == "-" and getattr(sys.stdout, "name", None) == os.devnull:  # see _complete_streams
        raise UserError("standard output is closed; redirect it, or give --output FILE")
    if args.resume:
        if args.input == "-" or not source.is_file():
            raise UserError("--resume: give --input FILE; what came through a pipe cannot be read again")
        if is_stream(args.output):
            raise UserError("--resume: give --output FILE; what was written to a pipe cannot be continued")
    refuse_same_file(args.input, args.output)
    _prepare_translating(args)
    translator = _load_translator(args)
    decode = _decode_config(translator, args)
    translate_file(translator, args.input, args.output, decode, FileOptions(args.invalid_bytes, args.resume))


def _average(args: argparse.Namespace) -> None:
    from seq2seq.train.averaging import average_models

    num_models = average_models(args.models, args.output)
    print(f"{args.output}: the average of {num_models} models")


def _curves(args: argparse.Namespace) -> None:
    from seq2seq.train.metrics import draw_curves

    print(draw_curves(args.run))


def _config(args: argparse.Namespace) -> None:
    import json

    from seq2seq.config import dump_config, load_config, schema

    if args.schema == (args.config is not None):
        raise UserError("give either a config file or --schema")
    print(json.dumps(schema(), indent=2) if args.schema else dump_config(load_config(args.config, args.overrides)))
