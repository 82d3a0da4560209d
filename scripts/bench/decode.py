"""The decoding benchmark: the same weights, the same text and the same beam by every program in turn."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import translators
from bench.decoding import DecodeSpec
from bench.load import usage
from bench.machine import describe
from bench.options import Options, Program, choose
from bench.process import run_job
from bench.report import Bar, Spread, draw_bars, table
from seq2seq.config import DecodeConfig, load_saved_config
from seq2seq.data.formats.lines import read_text
from seq2seq.evaluate import score
from seq2seq.model_folder import CONFIG, find_model_folder

OURS = Program("seq2seq", "seq2seq", "bench.translators.ours", ours=True)
_BEAMS = (5, 1)
_HEADER = (
    "translating",
    "beam",
    "tokens/s",
    "sentences/s",
    "BLEU",
    "as seq2seq",
    "one by one ms",
    "p95 ms",
    "as in batch",
    "memory MiB",
)


@dataclass(frozen=True)
class _Entry:
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


def _formats(program: Program, options: Options) -> list[str]:
    """Number formats to measure; on the CPU the first of ours is the one whose texts the others are compared with."""
    if options.device == "cuda":
        return ["bfloat16"]
    has_int8 = program.name == "ctranslate2" or (program.ours and "quantize" in DecodeConfig.model_fields)
    return ["float32", "int8"] if has_int8 and options.int8 else ["float32"]


def _references(spec: DecodeSpec) -> list[_Entry]:
    """On CUDA: ours in fp32 on the CPU, whose texts all others are compared with."""
    if spec.device == "cpu":
        return []
    return [_Entry(OURS, replace(spec, device="cpu", beam_size=beam_size), once=True) for beam_size in _BEAMS]


def _conversion(spec: DecodeSpec) -> dict[str, Any]:
    shutil.rmtree(spec.converted, ignore_errors=True)
    return {"model": spec.model, "folder": spec.converted}


def benchmark(options: Options) -> dict[str, Any]:
    """Measure, print the table and draw the picture; returns everything for the JSON file."""
    assert options.model is not None
    folder = find_model_folder(options.model)
    config = load_saved_config(folder / CONFIG)
    penalty = config.decode.length_penalty if options.length_penalty is None else options.length_penalty
    references = [line for path in options.tgt for line in read_text(path)][: options.lines]
    spec = DecodeSpec(
        model=str(folder.resolve()),
        src=tuple(map(str, options.src)),
        beam_size=_BEAMS[0],
        length_penalty=penalty,
        number_format="float32",
        device=options.device,
        threads=options.threads,
        lines=options.lines,
        latency_lines=options.latency_lines,
    )
    jobs = options.out / "jobs" / "decode"
    others, missing = choose(translators.NAMES, options.peers, "bench.translators")
    entries, tuning = _references(spec), {}
    for program in (OURS, *others):
        tuned_too = program.name == "ctranslate2"
        if tuned_too:
            spec = replace(spec, converted=str(options.out / "work" / "ctranslate2"))
            converted = run_job("bench.translators.convert", _conversion(spec), jobs, options.threads)
            if "error" in converted:
                missing.append(f"{program.title}: {converted['error']}")
                continue
        for number_format in _formats(program, options):
            for beam_size in _BEAMS:
                entry = _Entry(program, replace(spec, number_format=number_format, beam_size=beam_size))
                if tuned_too:
                    tuned = run_job(program.module, {**asdict(entry.spec), "tune": True}, jobs, options.threads)
                    tuning[entry.key] = tuned
                    if "error" in tuned:
                        missing.append(f"{entry.title}: {tuned['error']}")
                        continue
                    entry = _Entry(program, replace(entry.spec, settings=tuned["settings"]))
                entries.append(entry)
    rounds: list[dict[str, Any]] = []
    for number in range(1, options.rounds + 1):
        runs = {}
        for entry in entries:
            if entry.once and rounds:
                continue
            run = run_job(entry.program.module, asdict(entry.spec), jobs, options.threads)
            runs[entry.key] = run
            said = run.get("error") or f"{run['tokens'] / run['seconds']:,.0f} tokens/s"
            print(f"round {number}: {entry.key}: {said}{usage(run)}", flush=True)
        rounds.append(runs)
    rows, bars, signature = _summarise(entries, rounds, references, config.data.target_language)
    print(f"\n{table(_HEADER, rows)}\n\nBLEU: {signature}; length penalty {penalty:g}; model {folder}")
    for line in missing:
        print(line)
    _draw(options, bars)
    for runs in rounds[1:]:  # the first round's translations say enough
        for run in runs.values():
            run.pop("texts", None)
    report = {"machine": describe(options.device), "spec": asdict(spec), "tuning": tuning, "signature": signature}
    return {**report, "rounds": rounds, "table": rows}


def _summarise(
    entries: list[_Entry], rounds: list[dict[str, Any]], references: list[str], language: str | None
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
        texts = runs[0]["texts"]
        scores = score(texts, [references], language=language)
        signature = scores.bleu_signature
        speed = Spread.of([run["tokens"] / run["seconds"] for run in runs])
        latencies = [1000 * seconds for run in runs for seconds in run["latency_seconds"]]
        rows.append(
            [
                entry.title,
                beam,
                speed.show(),
                Spread.of([run["lines"] / run["seconds"] for run in runs]).show(digits=1),
                f"{scores.bleu:.2f}",
                _share_equal(texts, ours[entry.spec.beam_size]),
                f"{statistics.median(latencies):,.0f}",
                f"{sorted(latencies)[int(0.95 * len(latencies))]:,.0f}",
                f"{runs[0]['same_alone']}/{runs[0]['alone']}",
                Spread.of([run["peak_bytes"] for run in runs]).show(2**20),
            ]
        )
        bars.append(Bar(f"{entry.key}  (BLEU {scores.bleu:.1f})", speed, entry.program.ours))
    return rows, bars, signature


def _share_equal(texts: list[str], ours: list[str] | None) -> str:
    if ours is None:
        return ""
    equal = sum(a == b for a, b in zip(texts, ours, strict=True))
    return f"{100 * equal / len(texts):.1f} %"


def _draw(options: Options, bars: list[Bar]) -> None:
    picture: Path = options.out / f"decode-{options.size}.png"
    title = f"Translating, {options.device}, threads: {options.threads}"
    if bars and not draw_bars(picture, title, "target tokens per second", bars):
        print("no picture: pip install matplotlib")
