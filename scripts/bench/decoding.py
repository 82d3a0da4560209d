"""Timing a translator: text to text, whole file, then single sentences.

All translators use the model's own tokenizer, so pieces and text mean the same everywhere; cutting text into pieces
and joining them again is part of the time. To the options of the command line a spec adds ``model`` (a model folder),
``beam_size``, ``number_format`` as the translator calls it, ``converted`` (folder of the same model in the translator's
own format), and ``settings``, the translator's own: sizes of batches, threads.
"""

from __future__ import annotations

import importlib
import time
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.process import forget_peak_memory, peak_memory_bytes, synchronise
from seq2seq.data.formats.lines import read_text
from seq2seq.data.tokenizer import TokenizerPair

_WARMUP_LINES = 16
Translate = Callable[[list[str]], list[str]]  # makes translations of lines, in order


def read_lines(files: list[str], number: int | None) -> list[str]:
    """The first lines of all files together."""
    return [line for path in files for line in read_text(Path(path))][:number]


def run(spec: Namespace, name: str, package: str = "torch") -> dict[str, Any]:
    """Job: load a translator, warm up, translate everything, then some sentences one by one.

    The module of ``name``, which uses the distribution ``package``, has ``load(spec)``, which gives two functions: to
    translate whole files, and one sentence at a time, if other settings suit that better. ``same_alone`` says how many
    of the single sentences came out as they did in the batches. Memory is the most that was held while translating;
    what loading and converting took besides is left out.
    """
    translator = importlib.import_module(f"bench.translators.{name}")
    lines = read_lines(spec.src, spec.lines)
    tokenizers = TokenizerPair.load(Path(spec.model))

    def timed(translate: Callable[[Any], Any], given: Any) -> tuple[Any, float]:
        started = time.perf_counter()
        result = translate(given)
        synchronise(spec.device)
        return result, time.perf_counter() - started

    (translate, translate_one), load_seconds = timed(translator.load, spec)
    forget_peak_memory(spec.device)
    timed(translate, lines[:_WARMUP_LINES])
    texts, seconds = timed(translate, lines)
    peak = peak_memory_bytes(spec.device)
    alone = np.linspace(0, len(lines) - 1, min(spec.latency_lines, len(lines))).astype(int).tolist()
    singles = [timed(translate_one, [lines[index]]) for index in alone]
    return {
        "seconds": seconds,
        "load_seconds": load_seconds,
        "tokens": sum(len(ids) + 1 for ids in tokenizers.tgt.encode(texts)),  # with EOS; the same count for everyone
        "lines": len(lines),
        "peak_bytes": peak,
        "latency_seconds": [single for _, single in singles],
        "same_alone": sum(text == texts[index] for index, ((text,), _) in zip(alone, singles, strict=True)),
        "alone": len(alone),
        "texts": texts,
        "versions": {package: version(package)},
    }
