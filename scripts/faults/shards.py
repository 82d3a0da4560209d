"""Kills (-9) of the parts of `translate --shard --resume`, which run side by side; then `merge`, and what it refuses.

The text of `attack.py translate` is translated once by one process, and once in parts, each killed at random moments
and started again. The merged output must have the bytes of the one process. Then each part in turn is removed, cut,
doubled and exchanged for one of another run, and `merge` must name it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults.translate import small_model, translating, write_input
from faults.watched import killed_after, measure
from tests.toy import command, environment


def add_options(parser: argparse.ArgumentParser) -> None:
    """The size of the attack."""
    parser.add_argument("--model", type=Path, metavar="DIR", help="run folder or model folder (default: a small one)")
    parser.add_argument("--lines", type=int, default=100_000, help="of the text (default: 100,000)")
    parser.add_argument("--parts", type=int, default=8, help="default: 8")
    parser.add_argument("--together", type=int, default=2, metavar="N", help="parts at the same time (default: 2)")
    parser.add_argument("--kills", type=int, default=3, help="of each part, at most (default: 3)")
    parser.add_argument("--gzip", action="store_true", help="compressed input and output")
    parser.add_argument("--seed", type=int, default=1, help="of the text and the moments (default: 1)")


def run(args: argparse.Namespace) -> list[str]:
    """Kill, merge, compare, harm."""
    args.out.mkdir(parents=True, exist_ok=True)
    model = args.model.resolve() if args.model else small_model(args.out)
    ending = ".gz" if args.gzip else ""
    source, whole, target = (args.out / f"{name}{ending}" for name in ("in", "whole", "parts"))
    for leftover in args.out.glob("*parts*"):
        leftover.unlink()
    write_input(source, args.lines, args.seed, args.gzip)
    cost = measure(translating(model, source, whole), args.out / "log")
    print(f"one process: {args.lines:,} lines in {cost.seconds:.1f} s, {cost.mib:,.0f} MiB", flush=True)

    def one(number: int) -> int:
        rng, log = random.Random(args.seed * 1000 + number), args.out / f"log-{number}"
        part = translating(model, source, target, "--shard", f"{number}/{args.parts}", "--resume")
        longest = 2 * args.together * cost.seconds / args.parts
        kills = sum(killed_after(rng.uniform(1, longest), part, log) for _ in range(args.kills))
        measure(part, log)
        return kills

    started = time.monotonic()
    with ThreadPoolExecutor(args.together) as pool:
        kills = list(pool.map(one, range(1, args.parts + 1)))
    print(
        f"{args.parts} parts, {args.together} together: {time.monotonic() - started:.1f} s, kills: {kills}", flush=True
    )
    merging = command("merge", target)
    merged = measure(merging, args.out / "log")
    equal = whole.read_bytes() == target.read_bytes()
    print(f"merged in {merged.seconds:.1f} s, {merged.mib:,.0f} MiB: {target.stat().st_size:,} bytes, ", end="")
    print("equal" if equal else "DIFFERENT", flush=True)
    problems = ["the merged parts are not what one process writes"] * (not equal)
    problems += ["no part was killed; give more --lines"] * (sum(kills) == 0)
    foreign = args.out / "foreign-parts"
    foreign.unlink(missing_ok=True)
    short = args.out / "short"
    write_input(short, 50, args.seed + 1, args.gzip)
    measure(translating(model, short, foreign, "--shard", "1/1"), args.out / "log")
    return problems + _harmed(target, args.parts, merging, foreign)


def _harmed(target: Path, parts: int, merging: list[str], foreign: Path) -> list[str]:
    """Harm each part in every way; what merge does not name."""
    problems, refused = [], 0
    for number in range(1, parts + 1):
        path = target.with_name(f"{target.name}.shard-{number}-of-{parts}")
        record = path.with_name(f"{path.name}.json")
        other = target.with_name(f"{target.name}.shard-{number % parts + 1}-of-{parts}")
        kept = path.read_bytes(), record.read_bytes()
        for harm in ("missing", "truncated", "doubled", "foreign"):
            target.unlink(missing_ok=True)
            if harm == "missing":
                path.unlink()
            elif harm == "truncated":
                path.write_bytes(kept[0][:-1])
            else:
                of = other if harm == "doubled" else foreign.with_name(f"{foreign.name}.shard-1-of-1")
                shutil.copy(of, path)
                shutil.copy(f"{of}.json", record)
            done = subprocess.run(merging, capture_output=True, text=True, env=environment())
            if done.returncode == 2 and path.name in done.stderr and not target.exists():
                refused += 1
            else:
                problems.append(f"merge does not name part {number}, which is {harm}: {done.stderr.strip()}")
            path.write_bytes(kept[0])
            record.write_bytes(kept[1])
    print(f"missing, truncated, doubled and foreign parts that merge names: {refused} of {4 * parts}")
    return problems
