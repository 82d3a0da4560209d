"""Speed of training, translating and preparing data on this machine, beside other programs doing the same work.

Two commands look at the training of this package alone: where the time of a step goes, and whether the losses stay the
same in another number format.

    python scripts/benchmark.py train                 # small model, embedded corpus, every peer that is installed
    python scripts/benchmark.py train --size base --src train.en.gz --tgt train.de.gz --rounds 5
    python scripts/benchmark.py train --architecture recurrent     # beside a padded loop of torch.nn.LSTM
    python scripts/benchmark.py decode --model runs/multi30k --src test.en.gz --tgt test.de.gz
    python scripts/benchmark.py data --src train.en.gz --tgt train.de.gz
    python scripts/benchmark.py quality --minutes 10,20,40  # which BLEU after so much training?
    python scripts/benchmark.py profile --size base --device cuda --src train.en.gz --tgt train.de.gz
    python scripts/benchmark.py curves --device cuda --steps 1000 --variants fp32,bf16,eager

Every program runs in a process of its own, in turn (A B A B), on the same text. The machine's peak is measured
anew in each round, because shared machines drift. Each run is printed and saved with its CPU seconds and with what
other programs took meanwhile; it is called disturbed where that was much. Results: one table here; numbers, versions
and the command as JSON, and a picture, in ``--out``. ``pip install '.[bench]'`` in this checkout installs the peers
that are simple to install.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.curves import EAGER, VARIANTS
from bench.programs import PEERS, RECIPES, RECURRENT_PEERS, TRANSLATORS
from bench.workload import SHAPES

ROOT = Path(__file__).resolve().parents[1]
_COMMANDS = ("train", "decode", "data")  # what `all` means
# Defaults on the CPU and on CUDA.
_STEPS = {"profile": (3, 20), "curves": (100, 1000)}
_DEFAULTS = {"steps": (8, 60), "vocab_size": (8_000, 32_000), "batch_tokens": (4_096, 32_768), "warmup": (2, 20)}


def _some_of(known: Sequence[str], **words: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that takes ``a,b,c``, each of them known, or a word that stands for some of them."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(words.get(text, text.split(",")))
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def _minutes(text: str) -> tuple[float, ...]:
    """The type of an option that takes numbers above 0: ``10,20,40``."""
    minutes = tuple(map(float, text.split(",")))
    if not all(0 < number < math.inf for number in minutes):
        raise argparse.ArgumentTypeError("each must be a number above 0")
    return minutes


def make_parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    peers = tuple(program.name for program in (*PEERS, *RECURRENT_PEERS, *TRANSLATORS, *RECIPES))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("command", choices=[*_COMMANDS, "profile", "curves", "quality", "all"])
    add("--size", choices=[*(size for size in SHAPES if size != "tiny"), "tiny"], default="small")
    kinds = "train: which model; default transformer"
    add("--architecture", choices=["transformer", "recurrent"], default="transformer", help=kinds)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    known = _some_of(peers, all=peers, none=())
    add("--peers", type=known, default=peers, help=f"all, none, or some of {', '.join(peers)}")
    add("--src", type=Path, nargs="+", help="source text, plain or gzip; default: embedded corpus")
    add("--tgt", type=Path, nargs="+", help="target text; for decode, the reference translations")
    add("--valid-src", type=Path, nargs="+", help="quality: what ours is validated with")
    add("--valid-tgt", type=Path, nargs="+", help="quality: its translations")
    test = "quality: what is translated and scored; all: what decode translates, as --src is for the other commands"
    add("--test-src", type=Path, nargs="+", help=test)
    add("--test-tgt", type=Path, nargs="+", help="quality, all: the reference translations")
    add("--threads", type=int, help="CPU threads; default: all")
    add("--rounds", type=int, default=3)
    add("--out", type=Path, default=Path("runs/benchmark"))
    pieces = "joint pieces; default 8,000, on cuda 32,000; small text gives fewer"
    add("--vocab", type=int, dest="vocab_size", metavar="VOCAB", help=pieces)
    add("--batch-tokens", type=int, help="target tokens per step; default 4,096, on cuda 32,768")
    add("--warmup", type=int, help="steps before measuring; default 2, on cuda 20")
    add("--steps", type=int, help="measured steps; default 8, profile 3, curves 100; on cuda 60, 20, 1,000")
    add("--model", type=Path, help="decode: the model or run folder to translate with")
    add("--lines", type=int, help="decode: translate the first lines only")
    add("--latency-lines", type=int, default=50, help="decode: sentences translated one by one")
    add("--length-penalty", type=float, help="decode: default as the model's config says")
    fp32_alone = "decode: fp32 alone, as where int8 is slow"
    add("--without-int8", dest="int8", action="store_false", help=fp32_alone)
    some = f"curves: some of {', '.join(VARIANTS)}; default: all, on the CPU no eager"
    add("--variants", type=_some_of(tuple(VARIANTS)), help=some)
    minutes = "quality: training times, each a run of each program; default 10,20,40"
    add("--minutes", type=_minutes, default=(10.0, 20.0, 40.0), help=minutes)
    add("--dropout", type=float, default=0.0, help="curves: default 0, as its random numbers may differ")
    return parser


def _files(part: str, src: list[Path] | None, tgt: list[Path] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both sides of a text as given; if nothing is, that part of the embedded corpus."""
    if (src is None) != (tgt is None):
        raise SystemExit("source and target text belong together; give both")
    default_src, default_tgt = (ROOT / "data" / f"{part}.{language}" for language in ("en", "zh"))
    given = (src or [default_src], tgt or [default_tgt])
    resolved_src, resolved_tgt = (tuple(str(path.resolve()) for path in paths) for paths in given)
    return resolved_src, resolved_tgt


def make_options(args: argparse.Namespace, command: str) -> argparse.Namespace:
    """What the command line asks a command for: its options, with defaults that depend on command and device."""
    from seq2seq.data.parallel import num_cores

    options = argparse.Namespace(**vars(args))
    cuda = args.device == "cuda"
    for key, values in {**_DEFAULTS, "steps": _STEPS.get(command, _DEFAULTS["steps"])}.items():
        setattr(options, key, getattr(args, key) or values[cuda])
    src, tgt, part = args.src, args.tgt, "train"
    if command == "decode":
        part = "test"
        if args.command == "all" or args.test_src:
            src, tgt = args.test_src, args.test_tgt
    options.src, options.tgt = _files(part, src, tgt)
    kind = "recurrent-" if command == "train" and args.architecture == "recurrent" else ""
    options.out, options.report = args.out.resolve(), f"{command}-{kind}{args.size}"
    if command == "quality":
        texts = {
            "train": (args.src, args.tgt),
            "valid": (args.valid_src, args.valid_tgt),
            "test": (args.test_src, args.test_tgt),
        }
        if len({src is None for src, _ in texts.values()}) > 1:
            raise SystemExit("give all of --src, --valid-src and --test-src with their translations, or none of them")
        sides = {part: _files(part, *given) for part, given in texts.items()}
        options.data = {part: {"src": list(src), "tgt": list(tgt)} for part, (src, tgt) in sides.items()}
        options.report = command  # its models have sizes of their own
    options.threads = args.threads or num_cores()
    options.variants = args.variants or tuple(name for name in VARIANTS if cuda or name != EAGER)
    return options


def main() -> int:
    """Run the benchmarks that the command line names."""
    args = make_parser().parse_args()
    sys.path.insert(1, str(ROOT))  # the package of this checkout, installed or not
    from bench.report import save_report

    commands: tuple[str, ...] = _COMMANDS if args.command == "all" else (args.command,)
    if "decode" in commands and args.model is None:
        if args.command == "decode":
            print("decode needs --model: a trained model's folder (an untrained one never ends a sentence)")
            return 2
        print("decode is left out: it needs --model, a trained model's folder")
        commands = tuple(command for command in commands if command != "decode")
    status = 0
    for command in commands:
        options = make_options(args, command)
        found = importlib.import_module(f"bench.{command}").benchmark(options)
        print(f"everything: {save_report(options, found)}")
        for problem in found.get("problems", []):
            print(problem)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
