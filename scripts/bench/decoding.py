"""Timing a translator: text to text, whole file, then single sentences.

All translators use the model's own tokenizer, so pieces and text mean the same everywhere; cutting text into pieces
and joining them again is part of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.meter import forget_peak_memory, peak_memory_bytes, synchronise, versions
from seq2seq.data.formats.lines import read_text
from seq2seq.data.tokenizer import TokenizerPair

_WARMUP_LINES = 16


@dataclass(frozen=True)
class DecodeSpec:
    """One decoding job; travels as JSON."""

    model: str  # a model folder
    src: tuple[str, ...]
    beam_size: int
    length_penalty: float
    number_format: str  # as the translator calls it, such as float32 or int8
    device: str
    threads: int
    lines: int | None = None  # only the first ones
    latency_lines: int = 50
    converted: str = ""  # folder of the same model in the translator's own format
    settings: dict[str, int] = field(default_factory=dict)  # the translator's own: sizes of batches, threads

    def read(self) -> list[str]:
        """The lines to translate."""
        lines = [line for path in self.src for line in read_text(Path(path))]
        return lines[: self.lines]


# Makes translations of lines, in order.
Translate = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class Loaded:
    """A translator: for whole files, and for one sentence at a time if other settings suit that better."""

    translate: Translate
    translate_one: Translate


def measure(values: dict[str, Any], load: Callable[[DecodeSpec], Loaded], package: str) -> dict[str, Any]:
    """Run a job: load, warm up, translate everything, then some sentences one by one.

    ``same_alone`` tells how many of the latter came out as they did in the batches. Memory is the most that was held
    while translating; what loading and converting took besides is left out.
    """
    values.pop("started")
    spec = DecodeSpec(**values)
    lines = spec.read()
    tokenizers = TokenizerPair.load(Path(spec.model))
    started = time.perf_counter()
    loaded = load(spec)
    load_seconds = time.perf_counter() - started
    forget_peak_memory(spec.device)
    loaded.translate(lines[:_WARMUP_LINES])
    synchronise(spec.device)
    started = time.perf_counter()
    texts = loaded.translate(lines)
    synchronise(spec.device)
    seconds = time.perf_counter() - started
    peak = peak_memory_bytes(spec.device)
    alone = np.linspace(0, len(lines) - 1, min(spec.latency_lines, len(lines))).astype(int).tolist()
    latencies, same = [], 0
    for index in alone:
        started = time.perf_counter()
        (text,) = loaded.translate_one([lines[index]])
        synchronise(spec.device)
        latencies.append(time.perf_counter() - started)
        same += text == texts[index]
    return {
        "seconds": seconds,
        "load_seconds": load_seconds,
        "tokens": sum(len(ids) + 1 for ids in tokenizers.tgt.encode(texts)),  # with EOS; the same count for everyone
        "lines": len(lines),
        "peak_bytes": peak,
        "latency_seconds": latencies,
        "same_alone": same,
        "alone": len(alone),
        "texts": texts,
        "versions": versions("torch", package),
    }
