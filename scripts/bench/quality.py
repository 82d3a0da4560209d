"""Time to quality: the BLEU that programs reach in some minutes of training, on the same text and the same threads.

Ours is ``seq2seq train`` with a config that has nothing but paths, and all its validations happen in these minutes.
Beside it, :mod:`bench.marian` trains Hugging Face's Marian model by two recipes. A tokenizer is made before the minutes
begin, and the test is made after they have ended. Runs that the JSON file has are not made again, as long as text,
threads and recipe are the same; to measure another version of this package, use another ``--out``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml

from bench import process
from bench.marian import RECIPES as MARIAN_RECIPES
from bench.process import usage
from bench.programs import RECIPES, Program, choose
from bench.report import Line, draw_lines, failure, save_report, saved_report, table
from bench.workload import changed
from seq2seq.config import DataConfig
from seq2seq.data.formats.pairs import fingerprint_text
from seq2seq.train.metrics import METRICS, TIMING, read_metrics

_OURS = Program("seq2seq", "seq2seq (this package)", "bench.quality")
_HEADER = ("time to quality", "minutes", "BLEU", "chrF", "trained min", "steps", "epochs", "all min")
_LOG = 2  # standard error, which is the job's log: its standard output is for the result


def benchmark(options: Namespace) -> dict[str, Any]:
    """Train and test, print the table and draw the picture; returns what it measured for the JSON file.

    ``runs`` in it are all that were ever made, ``problems`` lines about those that failed.
    """
    folder, jobs = options.out / "work" / "quality", options.out / "jobs" / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    data = DataConfig.model_validate(options.data)
    text = {part: fingerprint_text(getattr(data, part)) for part in options.data}
    both = [program.name for program in RECIPES if "marian" in options.peers]
    others, missing = choose(RECIPES, [*options.peers, *both])
    programs = [_OURS, *others]
    kept = saved_report(options).get("runs", [])
    rows, problems = [], []
    lines: dict[str, list[tuple[float, float]]] = {program.name: [] for program in programs}
    for minutes in options.minutes:
        for program in programs:
            what = _identity(program, minutes, options, text)
            run = next((run for run in kept if run["what"] == what), None)
            title, made_before = f"{minutes:g} minutes: {program.title}", run is not None
            if run is None:
                print(f"{title} ...", flush=True)
                spec = changed(options, minutes=minutes, folder=str(folder))
                run = {"what": what, **process.run_job(program.job, spec, jobs)}
                if "error" not in run:
                    kept.append(run)
                    save_report(options, {"runs": kept})  # so that a stop loses one run at most
            print(f"{title}: {_in_words(run)}{', made before' * made_before}{usage(run)}", flush=True)
            rows.append(_row(program, minutes, run))
            if "error" in run:
                problems.append(f"{title}: failed: {run['error']}")
            else:
                lines[program.name].append((minutes, run["bleu"]))
    signatures = sorted({run["bleu_signature"] for run in kept if run["what"]["text"] == text})
    if len(signatures) > 1:
        problems.append("the runs were scored in different ways, so their BLEU cannot be compared")
    print("", table(_HEADER, rows), "", *(f"BLEU: {signature}" for signature in signatures), *missing, sep="\n")
    drawn: list[Line] = [(program.title, sorted(lines[program.name]), program.ours) for program in programs]
    labels = ("minutes of training", "BLEU of the test text")
    draw_lines(options.out / "quality.png", f"Time to quality, threads: {options.threads}", labels, drawn)
    return {"runs": kept, "table": rows, "problems": problems}


def _identity(program: Program, minutes: float, options: Namespace, text: dict[str, str]) -> dict[str, Any]:
    """What must be equal for a run to be the same run."""
    recipe = None if program.ours else MARIAN_RECIPES[program.job.split(":")[1]].as_json()
    same = {"minutes": minutes, "threads": options.threads, "device": options.device}
    return {"program": program.name, **same, "text": text, "recipe": recipe}


def _in_words(run: dict[str, Any]) -> str:
    if "error" in run:
        return f"failed: {run['error']}"
    return f"BLEU {run['bleu']:.2f} after {run['steps']:,} steps in {run['seconds'] / 60:.1f} minutes"


def _row(program: Program, minutes: float, run: dict[str, Any]) -> list[str]:
    start = [program.title, f"{minutes:g}"]
    if failed := failure([run]):
        return [*start, failed, *[""] * (len(_HEADER) - 3)]
    scores = [f"{run['bleu']:.2f}", f"{run['chrf']:.2f}", f"{run['seconds'] / 60:.1f}"]
    return [*start, *scores, f"{run['steps']:,}", f"{run['epochs']:,}", f"{run['wall_seconds'] / 60:.1f}"]


def run(spec: Namespace) -> dict[str, Any]:
    """Job: ``seq2seq train`` with a new config of paths alone, in a new run folder; read from what it wrote."""
    name = f"seq2seq-{spec.minutes:g}"
    run_dir, config = Path(spec.folder) / name, Path(spec.folder) / f"{name}.yaml"
    shutil.rmtree(run_dir, ignore_errors=True)  # of a run that was stopped
    config.write_text(yaml.safe_dump({"run_dir": str(run_dir), "data": spec.data}, allow_unicode=True), "utf-8")
    bounds = [f"train.max_minutes={spec.minutes}", f"train.threads={spec.threads}"]
    subprocess.run([sys.executable, "-m", "seq2seq", "train", str(config), *bounds], stdout=_LOG, check=True)
    steps = [record for record in read_metrics(run_dir / METRICS) if "loss" in record]
    timing = read_metrics(run_dir / TIMING)
    training, validation = (sum(record.get(key, 0.0) for record in timing) for key in ("seconds", "validation_seconds"))
    scores = json.loads((run_dir / "test.json").read_text(encoding="utf-8"))
    return {
        **{key: scores[key] for key in ("bleu", "bleu_signature", "bleu_details", "chrf", "chrf_signature")},
        "tested_step": int(scores["model"]["step"]),
        "seconds": training + validation,
        "validation_seconds": validation,
        "steps": len(steps),
        "tgt_tokens": sum(record["tokens"] for record in steps),
        "epochs": steps[-1]["epoch"],
    }
