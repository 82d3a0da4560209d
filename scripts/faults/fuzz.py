"""Damaged and hostile files for every reader: each gives its content or one clear error, quickly and in little memory.

This runs the property tests of `tests/properties` with many examples. A finding is an exception other than UserError,
a wrong answer, a crash of the process, memory beyond half a gigabyte, or more than ten seconds. pytest prints the
smallest input that shows it. The last input of a process that died is in --out, in `popen-*/input.txt`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from tests.toy import ROOT, environment

_READERS = (
    *("text", "tsv", "csv", "jsonl", "tmx", "moses", "xlsx", "parquet"),
    *("config", "tokenizer", "corpus", "checkpoint", "model"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this attack."""
    parser.add_argument("--reader", choices=_READERS, action="append", help="only this reader; may be repeated")
    parser.add_argument("--examples", type=int, default=100_000, help="for each reader (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same examples (default: 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="readers at a time (default: %(default)s)")


def run(args: argparse.Namespace) -> list[str]:
    """Test the readers."""
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-v", "--hypothesis-show-statistics", "--hypothesis-profile=thorough"]
    command += [f"--hypothesis-seed={args.seed}", "-p", "no:cacheprovider", f"--basetemp={args.out}"]
    jobs = args.jobs if args.jobs > 1 else 0  # in this process, which can report any text
    command += [f"--numprocesses={jobs}", "-k", " or ".join(args.reader or _READERS), "tests/properties"]
    variables = {**environment(), "HYPOTHESIS_EXAMPLES": str(args.examples)}
    return ["pytest says which reader"] * bool(subprocess.run(command, cwd=ROOT, env=variables).returncode)
