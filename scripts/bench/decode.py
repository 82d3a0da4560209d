"""The decoding benchmark: the same weights, the same text and the same beam by every program in turn."""

from __future__ import annotations

import operator
import shutil
import statistics
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

from bench import process
from bench.decoding import read_lines
from bench.programs import TRANSLATORS, Program, choose
from bench.report import Bar, Spread, draw_bars, failure, table
from bench.workload import changed
from seq2seq.config import load_saved_config
from seq2seq.evaluate import score
from seq2seq.model_folder import CONFIG, find_model_folder

OURS = Program("ours", "seq2seq", "bench.decoding:ours")
_BEAMS = (5, 1)
_HEADER = (
    *("translating", "beam", "tokens/s", "sentences/s", "BLEU", "as seq2seq"),
    *("one by one ms", "p95 ms", "as in batch", "memory MiB"),
)


class Entry(NamedTuple):
    """One row of the table: a program, a number format, a beam."""

    program: Program
    spec: Namespace
    once: bool = False  # in the first round alone

    @property
    def title(self) -> str:
        """With the number format and what was tuned."""
        settings = self.spec.settings
        tuned = f" {settings['inter_threads']}x{settings['intra_threads']}" if settings else ""
        return f"{self.program.title} {self.spec.number_format}{tuned}{', CPU' if self.once else ''}"

    @property
    def key(self) -> str:
        """Its name in the JSON file."""
        return f"{self.title}, beam {self.spec.beam_size}"


def formats(program: Program, options: Namespace) -> list[str]:
    """Number formats to measure; on the CPU the first of ours is the one whose texts the others are compared with."""
    if options.device == "cuda":
        return ["bfloat16"]
    return ["float32", "int8"] if options.int8 and program.name in ("ours", "ctranslate2") else ["float32"]


def benchmark(options: Namespace) -> dict[str, Any]:
    """Measure, print the table and draw the picture; returns what it measured for the JSON file."""
    folder = find_model_folder(options.model)
    config = load_saved_config(folder / CONFIG)
    if options.length_penalty is None:
        options.length_penalty = config.decode.length_penalty
    spec = changed(options, model=str(folder.resolve()), number_format="float32", settings={})
    jobs = options.out / "jobs" / "decode"
    entries, tuning, missing = _prepare(spec, jobs)
    rounds: list[dict[str, Any]] = []
    for number in range(1, options.rounds + 1):
        runs = {
            entry.key: process.run_and_print(
                f"round {number}: {entry.key}", entry.program.job, entry.spec, jobs, "tokens", "tokens/s"
            )
            for entry in entries
            if number == 1 or not entry.once
        }
        rounds.append(runs)
    references = read_lines(options.tgt, options.lines)
    rows, bars, signature = _summarise(entries, rounds, references, config.data.target_language)
    notes = f"BLEU: {signature}; length penalty {options.length_penalty:g}; model {folder}"
    print("", table(_HEADER, rows), "", notes, *missing, sep="\n")
    title = f"Translating, {options.device}, threads: {options.threads}"
    draw_bars(options.out / f"decode-{options.size}.png", title, "target tokens per second", bars)
    for run in (run for runs in rounds[1:] for run in runs.values()):
        run.pop("texts", None)  # the first round's translations say enough
    return {"tuning": tuning, "signature": signature, "rounds": rounds, "table": rows}


def _prepare(spec: Namespace, jobs: Path) -> tuple[list[Entry], dict[str, dict[str, Any]], list[str]]:
    """All rows in order, what was tuned for them, and lines about what cannot be measured.

    CTranslate2 gets a converted model, and is tuned for each of its rows.
    """
    others, missing = choose(TRANSLATORS, spec.peers)
    entries: list[Entry] = []
    tuning: dict[str, dict[str, Any]] = {}
    if spec.device != "cpu":  # ours in fp32 on the CPU, whose texts all others are compared with
        entries += [Entry(OURS, changed(spec, device="cpu", beam_size=beam), once=True) for beam in _BEAMS]
    for program in (OURS, *others):
        tuned_too = program.name == "ctranslate2"
        if tuned_too:
            spec.converted = str(spec.out / "work" / "ctranslate2")
            shutil.rmtree(spec.converted, ignore_errors=True)
            converted = process.run_job("bench.translators.convert", spec, jobs)
            if "error" in converted:
                missing.append(f"{program.title}: {converted['error']}")
                continue
        rows = [(number_format, beam) for number_format in formats(program, spec) for beam in _BEAMS]
        for number_format, beam in rows:
            entry = Entry(program, changed(spec, number_format=number_format, beam_size=beam))
            if tuned_too:
                tuned = tuning[entry.key] = process.run_job("bench.translators.ctranslate2", entry.spec, jobs)
                if "error" in tuned:
                    missing.append(f"{entry.title}: {tuned['error']}")
                    continue
                entry.spec.settings = tuned["settings"]
            entries.append(entry)
    return entries, tuning, missing


def _summarise(
    entries: list[Entry], rounds: list[dict[str, Any]], references: list[str], language: str | None
) -> tuple[list[list[str]], list[Bar], str]:
    """A row and a bar for each entry, and sacreBLEU's signature."""
    rows, bars, signature = [], [], ""
    ours = {entry.spec.beam_size: rounds[0][entry.key].get("texts") for entry in entries[: len(_BEAMS)]}
    for entry in entries:
        runs = [runs[entry.key] for runs in rounds if entry.key in runs]
        beam = str(entry.spec.beam_size)
        if failed := failure(runs):
            rows.append([entry.title, beam, failed, *[""] * (len(_HEADER) - 3)])
            continue
        texts, reference = runs[0]["texts"], ours[entry.spec.beam_size]
        scores = score(texts, [references], target_language=language)
        signature = scores.bleu_signature
        speed = Spread.of([run["tokens"] / run["seconds"] for run in runs])
        latencies = sorted(1000 * seconds for run in runs for seconds in run["latency_seconds"])
        rows.append(
            [
                entry.title,
                beam,
                speed.show(),
                Spread.of([run["lines"] / run["seconds"] for run in runs]).show(digits=1),
                f"{scores.bleu:.2f}",
                f"{100 * statistics.mean(map(operator.eq, texts, reference)):.1f} %" if reference else "",
                f"{statistics.median(latencies):,.0f}",
                f"{latencies[int(0.95 * len(latencies))]:,.0f}",
                f"{runs[0]['same_alone']}/{runs[0]['alone']}",
                Spread.of([run["peak_bytes"] for run in runs]).show(2**20),
            ]
        )
        bars.append((f"{entry.key}  (BLEU {scores.bleu:.1f})", speed, entry.program.ours))
    return rows, bars, signature
