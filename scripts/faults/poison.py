"""Lines that make the loss explode are put into the training text at known places; the guard has to name them.

A few targets of the embedded corpus become very long strings of random letters. For every step that is left out the
first line that is named must be a poisoned one, and each poisoned line must be found. The same training without poison
must leave out no step.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from tests.toy import ROOT, command, environment

_CONFIG = """\
run_dir: run
data:
  train: {src: train.en, tgt: train.zh}
  valid: {src: valid.en, tgt: valid.zh}
tokenizer: {joint: false, vocab_size: 900}
model: {preset: tiny, encoder_layers: 2, decoder_layers: 2, d_model: 64, num_heads: 2, d_ff: 128, positions: rotary}
optim: {lr: 4e-3, warmup_steps: 50}
train: {batch_tokens: 512, validate_every: 100000, patience: null}
decode: {beam_size: 1}
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this attack."""
    parser.add_argument("--poisoned", type=int, default=6, help="lines to poison")
    parser.add_argument("--steps", type=int, default=1000, help="steps to train")
    parser.add_argument("--seed", type=int, default=1)


def _write_text(folder: Path, poisoned: set[int], rng: random.Random) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attack
    folder.mkdir(parents=True)
    for name in ("train", "valid"):
        for side in ("en", "zh"):
            lines = (ROOT / "data" / f"{name}.{side}").read_text(encoding="utf-8").split("\n")[:-1]
            if name == "valid":
                lines = lines[:20]
            elif side == "zh":
                letters = sorted(set("".join(lines)))
                for line in sorted(poisoned):
                    lines[line] = "".join(rng.choices(letters, k=rng.randint(150, 250)))
            (folder / f"{name}.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "config.yaml").write_text(_CONFIG, encoding="utf-8")


def _records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _train(folder: Path, poisoned: set[int], args: argparse.Namespace) -> tuple[dict[int, str], dict[int, list[int]]]:
    """Train in ``folder``; gives the bad steps with their reasons, and for each its lines, counted from 0."""
    _write_text(folder, poisoned, random.Random(args.seed))
    words = command("train", "config.yaml", f"train.max_steps={args.steps}")
    subprocess.run(words, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    bad = {int(str(r["step"])): str(r["bad"]) for r in _records(folder / "run/metrics.jsonl") if "bad" in r}
    named: dict[int, list[int]] = {step: [] for step in bad}
    for record in _records(folder / "run/bad_lines.jsonl"):
        named[int(str(record["step"]))].append(int(str(record["tgt"]).rsplit(":", 1)[1]) - 1)
    return bad, named


def run(args: argparse.Namespace) -> int:
    """Train with poison and without; 0 if exactly the poisoned steps were left out and their lines named."""
    number = len((ROOT / "data/train.zh").read_bytes().splitlines())
    poisoned = set(random.Random(args.seed).sample(range(number), args.poisoned))
    bad, named = _train(args.out / "poisoned", poisoned, args)
    clean, _ = _train(args.out / "clean", set(), args)
    wrong = Counter[str]()
    for step, reason in bad.items():
        hits = [line in poisoned for line in named[step]]
        first = hits.index(False) if False in hits else len(hits)
        print(f"step {step}: {reason}; {sum(hits)} of its {len(hits)} lines are poisoned, the first {first} named are")
        wrong["steps without poison left out"] += not any(hits)
        wrong["steps whose first named line is a good one"] += first == 0
    found = poisoned & {line for lines in named.values() for line in lines}
    print(f"{len(found)} of {len(poisoned)} poisoned lines were in the {len(bad)} steps left out of {args.steps}")
    print(f"without poison {len(clean)} of {args.steps} steps were left out")
    wrong["steps of the clean text left out"] = len(clean)
    wrong["poisoned lines not found"] = len(poisoned - found)
    wrong = +wrong
    print("held" if not wrong else f"FAILED: {dict(wrong)}")
    return 1 if wrong else 0
