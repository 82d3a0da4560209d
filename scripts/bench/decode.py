"""The decoding benchmark: the same weights, the same text and the same beam by every program in turn."""

from __future__ import annotations

import operator
import shutil
import statistics
from argparse import Namespace
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.decoding import DecodeSpec
from bench.meter import usage
from bench.process import run_job
from bench.programs import Program, choose
from bench.report import Bar, Spread, draw_bars, table
from seq2seq.config import load_saved_config
from seq2seq.data.formats.lines import read_text
from seq2seq.evaluate import score
from seq2seq.model_folder import CONFIG, find_model_folder

OURS = Program("ours", "seq2seq", "bench.decoding:ours", ours=True)
_BEAMS = (5, 1)
_HEADER = (
    *("translating", "beam", "tokens/s", "sentences/s", "BLEU", "as seq2seq"),
    *("one by one ms", "p95 ms", "as in batch", "memory MiB"),
)


@dataclass(frozen=True)
class Entry:
    """One row of the table: a program, a number format, a beam."""

    program: Program
    spec: DecodeSpec
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
    penalty = config.decode.length_penalty if options.length_penalty is None else options.length_penalty
    same = {key: getattr(options, key) for key in ("src", "device", "threads", "lines", "latency_lines")}
    model = str(folder.resolve())
    spec = DecodeSpec(model=model, beam_size=_BEAMS[0], length_penalty=penalty, number_format="float32", **same)
    jobs = options.out / "jobs" / "decode"
    entries, tuning, missing = _prepare(spec, options, jobs)
    rounds: list[dict[str, Any]] = []
    for number in range(1, options.rounds + 1):
        runs = {}
        for entry in entries:
            if entry.once and rounds:
                continue
            run = runs[entry.key] = run_job(entry.program.job, entry.spec, jobs)
            said = run.get("error") or f"{run['tokens'] / run['seconds']:,.0f} tokens/s"
            print(f"round {number}: {entry.key}: {said}{usage(run)}", flush=True)
        rounds.append(runs)
    references = [line for path in options.tgt for line in read_text(Path(path))][: options.lines]
    rows, bars, signature = _summarise(entries, rounds, references, config.data.target_language)
    print(f"\n{table(_HEADER, rows)}\n\nBLEU: {signature}; length penalty {penalty:g}; model {folder}")
    for line in missing:
        print(line)
    title = f"Translating, {options.device}, threads: {options.threads}"
    draw_bars(options.out / f"decode-{options.size}.png", title, "target tokens per second", bars)
    for run in (run for runs in rounds[1:] for run in runs.values()):
        run.pop("texts", None)  # the first round's translations say enough
    report = {"spec": asdict(spec), "tuning": tuning, "signature": signature}
    return {**report, "rounds": rounds, "table": rows}


def _prepare(
    spec: DecodeSpec, options: Namespace, jobs: Path
) -> tuple[list[Entry], dict[str, dict[str, Any]], list[str]]:
    """All rows in order, what was tuned for them, and lines about what cannot be measured.

    CTranslate2 gets a converted model, and is tuned for each of its rows.
    """
    others, missing = choose("translators", options.peers)
    entries: list[Entry] = []
    tuning: dict[str, dict[str, Any]] = {}
    if spec.device != "cpu":  # ours in fp32 on the CPU, whose texts all others are compared with
        cpu = replace(spec, device="cpu")
        entries += [Entry(OURS, replace(cpu, beam_size=beam_size), once=True) for beam_size in _BEAMS]
    for program in (OURS, *others):
        tuned_too = program.name == "ctranslate2"
        if tuned_too:
            spec = replace(spec, converted=str(options.out / "work" / "ctranslate2"))
            shutil.rmtree(spec.converted, ignore_errors=True)
            converted = run_job("bench.translators.convert", spec, jobs)
            if "error" in converted:
                missing.append(f"{program.title}: {converted['error']}")
                continue
        rows = [(number_format, beam_size) for number_format in formats(program, options) for beam_size in _BEAMS]
        for number_format, beam_size in rows:
            entry = Entry(program, replace(spec, number_format=number_format, beam_size=beam_size))
            if tuned_too:
                tuned = tuning[entry.key] = run_job("bench.translators.ctranslate2", entry.spec, jobs)
                if "error" in tuned:
                    missing.append(f"{entry.title}: {tuned['error']}")
                    continue
                entry = replace(entry, spec=replace(entry.spec, settings=tuned["settings"]))
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
        failed = [run["error"] for run in runs if "error" in run]
        beam = str(entry.spec.beam_size)
        if failed:
            rows.append([entry.title, beam, f"failed: {failed[0][:80]}", *[""] * (len(_HEADER) - 3)])
            continue
        texts, reference = runs[0]["texts"], ours[entry.spec.beam_size]
        scores = score(texts, [references], language=language)
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
        bars.append(Bar(f"{entry.key}  (BLEU {scores.bleu:.1f})", speed, entry.program.ours))
    return rows, bars, signature
