"""Memory and start-up time of training on corpora of several sizes: both should not grow with the corpus.

Each size is trained twice for two steps: once from the text, once with the prepared corpus. Fails if the second start
takes more than half as much memory or CPU time again for the largest corpus as for the smallest.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

from faults.watched import measure
from seq2seq.data.formats.lines import read_lines
from tests.toy import ROOT, command

_CONFIG = """\
run_dir: run
data:
  train: {{src: train-{size}.src, tgt: train-{size}.tgt}}
  valid: {{src: valid.src, tgt: valid.tgt}}
  cache_dir: cache
tokenizer: {{joint: false, vocab_size: 8000}}
model: {{preset: tiny}}
train: {{batch_tokens: 4096, max_steps: 2, validate_every: 2, save_every: 2}}
decode: {{beam_size: 1}}
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this attack."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[30_000, 300_000, 960_000], help="sentence pairs")
    parser.add_argument("--src", type=Path, help="text to take the pairs from, over and over; default: embedded corpus")
    parser.add_argument("--tgt", type=Path, help="its translation")


def _write(source: Path, target: Path, count: int) -> None:
    endless = itertools.chain.from_iterable(read_lines(source) for _ in itertools.count())
    with target.open("wb") as file:
        file.writelines(line + b"\n" for line in itertools.islice(endless, count))


def run(args: argparse.Namespace) -> list[str]:
    """Measure; a prepared corpus of any size has to start equally fast and small."""
    src, tgt = args.src or ROOT / "data/train.en", args.tgt or ROOT / "data/train.zh"
    args.out.mkdir(parents=True, exist_ok=True)
    for path, side in ((src, "src"), (tgt, "tgt")):
        _write(path, args.out / f"valid.{side}", 10)
    results = []
    for size in args.sizes:
        for path, side in ((src, "src"), (tgt, "tgt")):
            _write(path, args.out / f"train-{size}.{side}", size)
        (args.out / "config.yaml").write_text(_CONFIG.format(size=size), encoding="utf-8")
        now = f"{size}-{time.time_ns()}"
        words = [command("train", "config.yaml", f"run_dir=runs/{now}-{start}") for start in ("first", "again")]
        first, again = (measure(start, args.out / "log", args.out) for start in words)
        results.append(again)
        print(
            f"{size:,} pairs: from the text {first.seconds:.1f} s, {first.mib:,.0f} MiB; prepared "
            f"{again.seconds:.1f} s ({again.cpu_seconds:.1f} s of CPU time), {again.mib:,.0f} MiB: start, two steps, "
            "validation and saving"
        )
    held = all(last <= 1.5 * first for first, last in zip(results[0][1:], results[-1][1:], strict=True))
    return [] if held else ["it grows with the corpus"]
