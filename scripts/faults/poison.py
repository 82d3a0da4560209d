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
from pathlib import Path

from faults.small_run import write_config, write_text
from tests.toy import command, environment, metrics

_PAIRS = 20_000  # the embedded corpus
_SETTINGS = [
    *("data.max_length=256", "model.encoder_layers=2", "model.decoder_layers=2", "model.d_model=64"),
    *("model.d_ff=128", "model.positions=rotary", "optim.lr=4e-3", "optim.warmup_steps=50", "train.batch_tokens=512"),
    *("train.validate_every=100000", "train.save_every=100000", "train.patience=null"),
]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this attack."""
    parser.add_argument("--poisoned", type=int, default=6, help="lines to poison")
    parser.add_argument("--steps", type=int, default=1000, help="steps to train")
    parser.add_argument("--seed", type=int, default=1)


def _poison(path: Path, poisoned: set[int], rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    letters = sorted(set("".join(lines)))
    for line in sorted(poisoned):
        lines[line] = "".join(rng.choices(letters, k=rng.randint(150, 250)))
    path.write_text("\n".join(lines), encoding="utf-8")


def _train(folder: Path, poisoned: set[int], args: argparse.Namespace) -> tuple[dict[int, str], dict[int, list[int]]]:
    """Train in ``folder``; gives the bad steps with their reasons, and for each its lines, counted from 0."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attack
    text = write_text(folder / "text", _PAIRS, valid=20)
    _poison(text / "train.zh", poisoned, random.Random(args.seed))
    write_config(text, folder / "run", folder / "config.yaml")
    words = command("train", "config.yaml", *_SETTINGS, f"train.max_steps={args.steps}")
    subprocess.run(words, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    bad = {record["step"]: record["bad"] for record in metrics(folder / "run") if "bad" in record}
    named: dict[int, list[int]] = {step: [] for step in bad}
    lines = folder / "run/bad_lines.jsonl"
    for record in map(json.loads, lines.read_text(encoding="utf-8").splitlines() if bad else []):
        named[record["step"]].append(int(record["tgt"].rsplit(":", 1)[1]) - 1)
    return bad, named


def run(args: argparse.Namespace) -> list[str]:
    """Train with poison and without; exactly the poisoned steps have to be left out and their lines named."""
    poisoned = set(random.Random(args.seed).sample(range(_PAIRS), args.poisoned))
    bad, named = _train(args.out / "poisoned", poisoned, args)
    clean, _ = _train(args.out / "clean", set(), args)
    problems = []
    for step, reason in bad.items():
        hits = [line in poisoned for line in named[step]]
        first = [*hits, False].index(False)
        print(f"step {step}: {reason}; {sum(hits)} of its {len(hits)} lines are poisoned, the first {first} named are")
        if not first:
            problems.append(f"step {step} was left out, and the first line named is a good one")
    found = poisoned & {line for lines in named.values() for line in lines}
    print(f"{len(found)} of {len(poisoned)} poisoned lines were in the {len(bad)} steps left out of {args.steps}")
    print(f"without poison {len(clean)} of {args.steps} steps were left out")
    problems += [f"poisoned lines not found: {len(poisoned - found)}"] * (found != poisoned)
    return problems + [f"steps of the clean text left out: {len(clean)}"] * bool(clean)
