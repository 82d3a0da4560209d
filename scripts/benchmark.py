"""Speed of training, translating and preparing data on this machine, beside other programs doing the same work.

Two commands look at the training of this package alone: where the time of a step goes, and whether the losses stay the
same in another number format.

    python scripts/benchmark.py train                 # small model, embedded corpus, every peer that is installed
    python scripts/benchmark.py train --size base --src train.en.gz --tgt train.de.gz --rounds 5
    python scripts/benchmark.py decode --model runs/multi30k --src test.en.gz --tgt test.de.gz
    python scripts/benchmark.py data --src train.en.gz --tgt train.de.gz
    python scripts/benchmark.py profile --size base --device cuda --src train.en.gz --tgt train.de.gz
    python scripts/benchmark.py curves --device cuda --steps 1000 --variants fp32,bf16,eager

Every program runs in a process of its own, in turn (A B A B), on the same text. The machine's peak is measured
anew in each round, because shared machines drift. Results: one table here; numbers, versions and the command
as JSON, and a picture, in ``--out``. ``pip install -e .[bench]`` installs the peers that are simple to install.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
import time
from pathlib import Path

from bench import curves, peers, translators
from bench.machine import num_cores
from bench.options import ROOT, Options
from bench.report import write_json
from bench.workload import SHAPES

_COMMANDS = ("train", "decode", "data")  # what `all` means
_STEPS = {"train": (8, 60), "profile": (3, 20), "curves": (100, 1000)}  # on the CPU, on CUDA; data as train
_PEERS = (*peers.NAMES, *translators.NAMES)


def _peers(text: str) -> tuple[str, ...]:
    """The names in ``a,b,c``; ``all`` and ``none`` are what they say."""
    names: tuple[str, ...] = {"all": _PEERS, "none": ()}.get(text, tuple(text.split(",")))
    unknown = sorted(set(names) - set(_PEERS))
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(_PEERS)}")
    return names


def _variants(text: str) -> tuple[str, ...]:
    """The names in ``a,b,c``; one that stands there twice is run twice."""
    names = tuple(text.split(","))
    unknown = sorted(set(names) - set(curves.VARIANTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(curves.VARIANTS)}")
    return names


def make_parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*_COMMANDS, "profile", "curves", "all"])
    parser.add_argument("--size", choices=[size for size in SHAPES if size != "tiny"] + ["tiny"], default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peers", default="all", type=_peers, help=f"all, none, or some of {', '.join(_PEERS)}")
    parser.add_argument("--src", type=Path, nargs="+", help="source text, plain or gzip; default: embedded corpus")
    parser.add_argument("--tgt", type=Path, nargs="+", help="target text; for decode, the reference translations")
    parser.add_argument("--test-src", type=Path, nargs="+", help="all: what decode translates; --src is the others'")
    parser.add_argument("--test-tgt", type=Path, nargs="+", help="all: the reference translations")
    parser.add_argument("--threads", type=int, help="CPU threads; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--vocab", type=int, help="joint pieces; default 8,000, on cuda 32,000; small text gives fewer")
    parser.add_argument("--batch-tokens", type=int, help="target tokens per step; default 4,096, on cuda 32,768")
    parser.add_argument("--warmup", type=int, help="steps before measuring; default 2, on cuda 20")
    parser.add_argument(
        "--steps", type=int, help="measured steps; default 8, profile 3, curves 100; on cuda 60, 20, 1,000"
    )
    parser.add_argument("--model", type=Path, help="decode: the model or run folder to translate with")
    parser.add_argument("--lines", type=int, help="decode: translate the first lines only")
    parser.add_argument("--latency-lines", type=int, default=50, help="decode: sentences translated one by one")
    parser.add_argument("--length-penalty", type=float, help="decode: default as the model's config says")
    known = ", ".join(curves.VARIANTS)
    parser.add_argument(
        "--variants", type=_variants, help=f"curves: some of {known}; default: all, on the CPU no eager"
    )
    parser.add_argument(
        "--dropout", type=float, default=0.0, help="curves: default 0, as its random numbers may differ"
    )
    return parser


def make_options(args: argparse.Namespace, command: str) -> Options:
    """What the command line asks a command for, with defaults that depend on the device."""
    cuda = args.device == "cuda"
    src, tgt, part = args.src, args.tgt, "train"
    if command == "decode":
        part = "test"
        if args.command == "all" or args.test_src:
            src, tgt = args.test_src, args.test_tgt
    cpu_steps, cuda_steps = _STEPS.get(command, _STEPS["train"])
    if (src is None) != (tgt is None):
        raise SystemExit("source and target text belong together; give both")
    return Options(
        size=args.size,
        device=args.device,
        peers=args.peers,
        src=tuple(path.resolve() for path in src or [ROOT / "data" / f"{part}.en"]),
        tgt=tuple(path.resolve() for path in tgt or [ROOT / "data" / f"{part}.zh"]),
        threads=args.threads or num_cores(),
        rounds=args.rounds,
        out=args.out.resolve(),
        vocab_size=args.vocab or (32_000 if cuda else 8_000),
        batch_tokens=args.batch_tokens or (32_768 if cuda else 4_096),
        warmup=args.warmup or (20 if cuda else 2),
        steps=args.steps or (cuda_steps if cuda else cpu_steps),
        model=args.model,
        lines=args.lines,
        latency_lines=args.latency_lines,
        length_penalty=args.length_penalty,
        variants=args.variants or tuple(name for name in curves.VARIANTS if cuda or name != curves.EAGER),
        dropout=args.dropout,
    )


def main() -> int:
    """Run the benchmarks that the command line names."""
    args = make_parser().parse_args()
    sys.path.insert(1, str(ROOT))  # the package of this checkout, installed or not
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
        report = {"command": shlex.join(["python", *sys.argv]), "date": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        report |= importlib.import_module(f"bench.{command}").benchmark(options)
        path = options.out / f"{command}-{options.size}.json"
        write_json(path, report)
        print(f"everything: {path}")
        for problem in report.get("problems", []):
            print(problem)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
