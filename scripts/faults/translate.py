"""Kills (-9) of `translate --resume` on a large file; then the memory of translating files of several sizes.

The input repeats the source side of the embedded corpus, mixed with blank lines, lines far too long for the model,
invalid bytes and CRLF. It is translated once undisturbed and once with kills at random moments, the same command again
after each; the two outputs must be equal in every byte, and no file may look finished before it is. Without --model a
small model is trained for a few seconds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
from pathlib import Path

from tqdm import tqdm

from faults.small_run import small_config, write_text
from faults.watched import killed_after, measure
from seq2seq.data.formats.lines import read_lines
from tests.toy import ROOT, command, train

_GREEDY = ("--beam-size", "1", "--max-length-ratio", "1", "--max-length-offset", "4", "--device", "cpu")
_STEPS = ("train.max_steps=200", "train.validate_every=200", "train.save_every=200")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The size of the attack."""
    parser.add_argument("--model", type=Path, metavar="DIR", help="run folder or model folder (default: a small one)")
    parser.add_argument("--lines", type=int, default=100_000, help="of the input that is killed at (default: 100,000)")
    parser.add_argument("--kills", type=int, default=20, help="0 leaves this part out (default: 20)")
    parser.add_argument("--gzip", action="store_true", help="compressed input and output")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], metavar="LINES", help="inputs to measure memory on")
    parser.add_argument("--seed", type=int, default=1, help="of the input and the moments (default: 1)")


def run(args: argparse.Namespace) -> list[str]:
    """Kill, compare, measure."""
    args.out.mkdir(parents=True, exist_ok=True)
    model = args.model.resolve() if args.model else small_model(args.out)
    problems = _after_kills(args, model) if args.kills else []
    return problems + (_memory(args, model) if args.sizes else [])


def _after_kills(args: argparse.Namespace, model: Path) -> list[str]:
    ending = ".gz" if args.gzip else ""
    source = args.out / f"in{ending}"
    write_input(source, args.lines, args.seed, args.gzip)
    undisturbed, killed = args.out / f"undisturbed{ending}", args.out / f"killed{ending}"
    for leftover in args.out.glob("*killed*"):
        leftover.unlink()
    log, nothing = args.out / "log", args.out / "nothing.in"
    nothing.touch()
    start_up = measure(translating(model, nothing, args.out / "nothing.out"), log).seconds
    seconds = measure(translating(model, source, undisturbed), log).seconds
    resume = translating(model, source, killed, "--resume")
    print(f"undisturbed: {args.lines:,} lines in {seconds:.1f} s, {start_up:.1f} of them to start", flush=True)
    rng = random.Random(args.seed)
    kept: list[int] = []  # lines after every kill
    longest = 1.6 * (start_up + (seconds - start_up) / args.kills)  # some work should be left after the last kill
    for _ in tqdm(range(args.kills), desc="kills"):
        if not killed_after(rng.uniform(0, longest), resume, log):
            return ["done before all kills, which is too early to show anything; give more --lines"]
        record = killed.with_name(f".{killed.name}.partial.json")
        kept.append(json.loads(record.read_bytes())["num_lines"] if record.exists() else 0)
        if killed.exists() and killed.read_bytes() != undisturbed.read_bytes():
            return [f"after kill {len(kept)}, {killed} looks finished and is not"]
    resumed, again = measure(resume, log).seconds, measure(resume, log).seconds
    equal = undisturbed.read_bytes() == killed.read_bytes()
    num_lines = _count_lines(killed)
    print(f"lines kept after each of the {len(kept)} kills: {', '.join(map(str, kept))}")
    print(f"the last start took {resumed:.1f} s, one more on the complete output {again:.1f} s")
    print(f"output: {killed.stat().st_size:,} bytes, {num_lines:,} lines, {'equal' if equal else 'DIFFERENT'}")
    left = sorted(path.name for path in args.out.glob(".*killed*"))
    print(f"beside it: {', '.join(left)}", flush=True)
    return ["it ended otherwise, see above"] * (not equal or num_lines != args.lines or len(left) != 1)


def _memory(args: argparse.Namespace, model: Path) -> list[str]:
    peaks: list[float] = []
    for lines in args.sizes:
        source, target = args.out / f"memory-{lines}.in", args.out / f"memory-{lines}.out"
        write_input(source, lines, args.seed, args.gzip)
        cost = measure(translating(model, source, target), args.out / "log")
        if (found := _count_lines(target)) != lines:
            return [f"{lines:,} lines: the output has {found:,}"]
        peaks.append(cost.mib)
        print(f"{lines:,} lines: {cost.seconds:,.0f} s, most memory {cost.mib:,.0f} MiB", flush=True)
        source.unlink()
        target.unlink()
    return ["the memory grows with the file"] * (max(peaks) >= 1.1 * min(peaks))


def small_model(out: Path) -> Path:
    """A model that is trained in a few seconds, in the folder ``out``; one that is there is used again."""
    run = out / "model"
    if not (run / "best").exists():
        shutil.rmtree(run, ignore_errors=True)
        text = write_text(out / "text", pairs=20_000)
        train(small_config(text, run, "data.max_length=64", "train.batch_tokens=3000", *_STEPS))
    return run


def translating(model: Path, source: Path, target: Path, *options: str) -> list[str]:
    """The command that translates ``source`` to ``target``, fast."""
    return command("translate", model, "--input", source, "--output", target, *_GREEDY, *options)


def write_input(path: Path, num_lines: int, seed: int, compressed: bool) -> None:
    """Write lines of the embedded corpus, among them blank ones, long ones, invalid bytes and CRLF."""
    rng, ordinary = random.Random(seed), (ROOT / "data/train.en").read_bytes().splitlines()
    with gzip.open(path, "wb") if compressed else path.open("wb") as file:
        for _ in range(num_lines):
            kind, line = rng.random(), rng.choice(ordinary)
            if kind < 0.02:
                line = rng.choice([b"", b"  ", "\u3000".encode()])
            elif kind < 0.022:
                line = b" ".join(rng.choices(ordinary, k=30))
            elif kind < 0.024:
                line = line[:5] + b"\xff\xc3" + line[5:]
            file.write(line + (b"\r\n" if kind > 0.98 else b"\n"))


def _count_lines(path: Path) -> int:
    return sum(1 for _ in read_lines(path))
