"""The runs that the recipe (seq2seq/train/recipe.py) was fitted to: makes those of a plan that the table lacks.

    python scripts/recipe/run.py --data DIR            # plan.txt and runs.jsonl beside this file
    python scripts/recipe/run.py --show                # the table, without training

``DIR/<corpus>/`` has train, valid and a test (``test*``), each as ``<name>.<language>.gz``. A line of a plan is a run::

    multi30k/en-de 3000 1242  optim.lr=3e-3 warmup=0.1 average=0.05

corpus and languages, number of pairs (a fixed random choice of the training text), steps, settings. ``warmup`` and
``average`` are shares of the steps; a line that does not speak of weight decay is without. Each run trains on one
thread, so that several can run side by side and its CPU time is what it costs. It is validated on 500 lines, three
times, and tested on 1,000. The same command continues after a stop. On a GPU (``--device cuda``) a tiny model leaves
most of the card idle: with NVIDIA MPS (``nvidia-cuda-mps-control -d``) and ``--jobs 14`` an H100 makes a hundred runs
in ten minutes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import STDOUT, Popen
from threading import Lock
from typing import Any

HERE = Path(__file__).resolve().parent
_VALID, _TEST = 500, 1_000  # lines
_CONFIG = """\
run_dir: run
data: {{dir: "{folder}", cache_dir: "{folder}", train: {{src: train.{src}, tgt: train.{tgt}}},
  valid: {{src: valid.{src}, tgt: valid.{tgt}}}, test: {{src: test.{src}, tgt: test.{tgt}}}}}
"""


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return list(file)


def _text(data: Path, work: Path, corpus: str, pairs: int) -> Path:
    """Write the text of a run once; returns its config."""
    name, languages = corpus.split("/")
    folder, (src, tgt) = work / f"{name}.{languages}-{pairs}", languages.split("-")
    config = folder / "config.yaml"
    if config.exists():
        return config
    folder.mkdir(parents=True, exist_ok=True)
    for language in (src, tgt):
        train, valid = (_lines(data / name / f"{split}.{language}.gz") for split in ("train", "valid"))
        test = _lines(next((data / name).glob(f"test*.{language}.gz")))
        order = list(range(len(train)))
        random.Random(1).shuffle(order)  # the same for both sides
        chosen = {"train": [train[number] for number in order[:pairs]], "valid": valid[:_VALID], "test": test[:_TEST]}
        for split, lines in chosen.items():
            (folder / f"{split}.{language}").write_text("".join(lines), encoding="utf-8", newline="\n")
    config.write_text(_CONFIG.format(folder=folder, src=src, tgt=tgt), encoding="utf-8")
    return config


def _settings(steps: int, words: list[str], device: str) -> dict[str, str]:
    """The overrides of a run."""
    settings = {"train.device": device, "train.threads": "1", "train.max_steps": str(steps), "train.patience": "null"}
    settings |= {"optim.weight_decay": "0", "train.validate_every": str(-(-steps // 3)), "train.save_every": str(steps)}
    for word in words:
        key, value = word.split("=", 1)
        if key == "warmup":
            settings["optim.warmup_steps"] = str(max(1, int(float(value) * steps)))
        elif key == "average":
            settings["train.ema_decay"] = str(1 - 1 / max(2.0, float(value) * steps))
        else:
            settings[key] = value
    return settings


def make(line: str, data: Path, work: Path, device: str) -> dict[str, Any]:
    """Train and test; the record for the table."""
    corpus, pairs, steps, *words = line.split()
    config = _text(data, work, corpus, int(pairs))
    run = work / f"run-{hashlib.blake2b(line.encode(), digest_size=8).hexdigest()}"
    shutil.rmtree(run, ignore_errors=True)
    settings = {"run_dir": str(run), **_settings(int(steps), words, device)}
    started = time.monotonic()
    command = [sys.executable, "-m", "seq2seq", "train", str(config)]
    with (work / f"{run.name}.log").open("wb") as log:
        process = Popen(
            [*command, *(f"{key}={value}" for key, value in settings.items())],
            stdout=log,
            stderr=STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{line}: {Path(log.name).read_text(encoding='utf-8')[-2000:]}")
    test = json.loads((run / "test.json").read_text(encoding="utf-8"))
    records = [json.loads(record) for record in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    validations = [record for record in records if "valid_loss" in record]
    tokens = sum(record["tokens"] for record in records if "tokens" in record)
    shutil.rmtree(run)
    return {
        "run": " ".join(line.split()),
        "bleu": round(test["bleu"], 2),
        "chrf": round(test["chrf"], 2),
        "valid_bleu": [round(record["valid_bleu"], 2) for record in validations],
        "valid_loss": [round(record["valid_loss"], 3) for record in validations],
        "tokens": tokens,
        "device": device,
        "seconds": round(time.monotonic() - started),
        "cpu_seconds": round(used.ru_utime + used.ru_stime),
    }


def _read(table: Path) -> dict[str, dict[str, Any]]:
    records = map(json.loads, table.read_text(encoding="utf-8").splitlines()) if table.exists() else ()
    return {record["run"]: record for record in records}


def _plan(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if words := line.split("#")[0].split():
            yield " ".join(words)


def _show(table: dict[str, dict[str, Any]]) -> None:
    for run, record in sorted(table.items()):
        print(f"{record['bleu']:6.2f} {record['chrf']:6.2f} {record['valid_loss'][-1]:6.3f} {run}")


def main() -> None:
    """Make the missing runs, or show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with a folder for each corpus")
    parser.add_argument("--work", type=Path, default=Path("runs/recipe"), help="text and runs (default: runs/recipe)")
    parser.add_argument("--plan", type=Path, default=HERE / "plan.txt")
    parser.add_argument("--table", type=Path, default=HERE / "runs.jsonl")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side (default: all cores)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--show", action="store_true", help="print the table")
    args = parser.parse_args()
    if args.show:
        return _show(_read(args.table))
    if args.data is None:
        parser.error("give --data, or --show")
    args.work.mkdir(parents=True, exist_ok=True)
    missing, lock = [line for line in _plan(args.plan) if line not in _read(args.table)], Lock()

    def add(line: str) -> bool:
        """Whether the run was made. One that fails must not take away the time of the others."""
        try:
            record = make(line, args.data.resolve(), args.work.resolve(), args.device)
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            return False
        with lock, args.table.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['bleu']:6.2f} {line}", flush=True)
        return True

    with ThreadPoolExecutor(args.jobs) as pool:
        made = list(pool.map(add, missing))
    if not all(made):
        sys.exit(f"{made.count(False)} of {len(made)} runs failed; the same command makes them again")


if __name__ == "__main__":
    main()
