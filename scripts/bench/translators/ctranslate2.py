"""CTranslate2 with our weights, which ``bench.translators.convert`` has written for it; without PyTorch.

What it does otherwise than this package: with ``length_penalty`` alpha a hypothesis' score is divided by
length ** alpha, here by ((5 + length) / 6) ** alpha, so that beams with alpha > 0 may rank otherwise; greedy search and
alpha = 0 are the same. The longest output is one number for all lines, here that of the longest line: translations that
run into a loop become longer than ours.
"""

from __future__ import annotations

import functools
import itertools
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.decoding import Translate, read_lines
from seq2seq.config import load_saved_config
from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.data.tokenizer import TokenizerPair

_TUNING_LINES = 200
_SPECIAL = {PAD_ID: "<pad>", UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}


def pieces(size: int) -> list[str]:
    """Names of the ids: the ids themselves, since our tokenizer does the cutting."""
    return [_SPECIAL.get(i, str(i)) for i in range(size)]


def candidates(threads: int) -> Iterator[dict[str, int]]:
    """Settings worth trying: from one translation on all threads to one on each, with small and large batches."""
    inters = sorted({1, max(1, threads // 2), threads})
    for inter, batch_tokens in itertools.product(inters, (512, 2048, 8192)):
        yield {"inter_threads": inter, "intra_threads": threads // inter, "batch_tokens": batch_tokens}


def _translator(spec: Namespace, settings: dict[str, int]) -> Translate:
    """Text to text with the converted model, and with tokenizers and limits of the original."""
    import ctranslate2

    tokenizers = TokenizerPair.load(Path(spec.model))
    limits = load_saved_config(Path(spec.model) / "config.yaml").decode
    longest = max(map(len, tokenizers.src.encode(read_lines(spec.src, spec.lines)))) + 1
    threads = {key: settings[key] for key in ("inter_threads", "intra_threads")}
    theirs = ctranslate2.Translator(spec.converted, device=spec.device, compute_type=spec.number_format, **threads)

    def translate(lines: list[str]) -> list[str]:
        """It sorts by length and cuts into batches itself."""
        ids = tokenizers.src.encode(lines)
        filled = [i for i, sentence in enumerate(ids) if sentence]
        results = theirs.translate_batch(
            [list(map(str, ids[i])) for i in filled],
            beam_size=spec.beam_size,
            length_penalty=spec.length_penalty,
            max_batch_size=settings["batch_tokens"],
            batch_type="tokens",
            max_input_length=0,  # no limit
            max_decoding_length=int(longest * limits.max_length_ratio) + limits.max_length_offset,
        )
        texts = [""] * len(lines)
        hypotheses = [[int(piece) for piece in result.hypotheses[0] if piece.isdigit()] for result in results]
        for i, text in zip(filled, tokenizers.tgt.decode_batch(hypotheses), strict=True):
            texts[i] = text
        return texts

    return translate


def load(spec: Namespace) -> tuple[Translate, Translate]:
    """The converted model with the tuned settings; for one sentence with all threads on it, which is fastest."""
    translate = _translator(spec, spec.settings)
    if spec.settings["inter_threads"] == 1:
        return translate, translate
    one = {"inter_threads": 1, "intra_threads": spec.threads, "batch_tokens": 8192}
    alone = functools.cache(lambda: _translator(spec, one))  # loaded when it is first needed, which costs memory
    return translate, lambda lines: alone()(lines)


def run(spec: Namespace) -> dict[str, Any]:
    """Job: try settings on part of the text; returns the fastest and what each took."""
    lines = read_lines(spec.src, spec.lines)[:_TUNING_LINES]
    tried: list[dict[str, Any]] = []
    for settings in candidates(spec.threads):
        translate = _translator(spec, settings)
        translate(lines[:8])
        started = time.perf_counter()
        translate(lines)
        tried.append({"settings": settings, "seconds": time.perf_counter() - started})
    return {"tried": tried, "settings": min(tried, key=lambda one: one["seconds"])["settings"]}
