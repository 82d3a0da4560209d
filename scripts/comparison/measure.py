"""What a finished run is worth: size, speed, and BLEU by the length and the kind of the source sentence."""

from __future__ import annotations

import json
import math
import re
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from bench.process import run_job
from generate import PHENOMENA

from comparison.training import Contestant
from seq2seq.config import Config
from seq2seq.data.formats.lines import read_text
from seq2seq.data.formats.pairs import read_pairs
from seq2seq.data.parallel import num_cores
from seq2seq.device import choose_device
from seq2seq.errors import UserError
from seq2seq.evaluate import score, tokenizer_for
from seq2seq.files import write_text
from seq2seq.model_folder import WEIGHTS
from seq2seq.train.metrics import METRICS, TIMING, read_metrics

BANDS = ((1, 6), (7, 9), (10, 14), (15, math.inf))  # words of a source sentence, both ends included
# Of the corpus' phenomena, those in which words that belong together stand far apart, or change places over a distance.
LONG_DISTANCE = ("relative clause", "because", "if", "although", "when, before, after")


@dataclass(frozen=True)
class TestSet:
    """The text that all models have translated, and the lines of its parts."""

    src: list[str]
    ref: list[str]
    tokenizer: str  # sacreBLEU's, for all parts alike
    parts: dict[str, list[int]]  # numbers of lines, from 0


def read_test_set(config: Config) -> TestSet:
    """The test set of a config, divided by length and by phenomenon."""
    assert config.data.test is not None
    pairs = list(read_pairs(config.data.test))
    src, ref = [pair.src for pair in pairs], [pair.tgt for pair in pairs]
    tokenizer, _ = tokenizer_for(config.data.target_language, ref)
    return TestSet(src, ref, tokenizer, {**by_length(src), **by_phenomenon(src, ref)})


def band_name(band: tuple[float, float]) -> str:
    """``7-9 words``, ``15 words or more``."""
    least, most = band
    return f"{least:g} words or more" if most == math.inf else f"{least:g}-{most:g} words"


def by_length(src: Sequence[str]) -> dict[str, list[int]]:
    """The lines in each of the bands. A blank line is in none."""
    lengths = [len(line.split()) for line in src]
    return {
        band_name((least, most)): [number for number, length in enumerate(lengths) if least <= length <= most]
        for least, most in BANDS
    }


def by_phenomenon(src: Sequence[str], ref: Sequence[str]) -> dict[str, list[int]]:
    """The lines with each long-distance phenomenon, with any of them (``long-distance``), and the ``rest``.

    A line has a phenomenon if the generator's regular expressions are found on both sides. They are for English and
    Chinese; other text is all ``rest``.
    """
    parts: dict[str, list[int]] = {}
    for name in LONG_DISTANCE:
        en, zh = PHENOMENA[name]
        pairs = enumerate(zip(src, ref, strict=True))
        parts[name] = [number for number, (one, other) in pairs if re.search(en, one) and re.search(zh, other)]
    far = sorted({number for numbers in parts.values() for number in numbers})
    rest = sorted(set(range(len(src))) - set(far))
    return {"long-distance": far, "rest": rest, **parts}


def measure(
    contestant: Contestant, test: TestSet, out: Path, earlier: Collection[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """All numbers of one model, as plain values.

    Args:
        earlier: records of an earlier start; the speed of translating is taken from there if the model is the same.

    Raises:
        UserError: a file of the run is missing or damaged, or the model cannot translate.
    """
    run_dir = contestant.config.run_dir
    scores = _read_json(run_dir / "test.json")
    hypotheses = read_text(run_dir / "test.hyp.txt")
    if len(hypotheses) != len(test.ref):
        raise UserError(f"{run_dir}: translated {len(hypotheses)} lines, but the test set has {len(test.ref)}")
    same = (record for record in earlier if record["weights"] == scores["model"]["blake2b"])
    translating = next((record["translating"] for record in same), None)
    parts = {name: bleu_of(hypotheses, test, numbers) for name, numbers in test.parts.items()}
    return {
        "model": contestant.name,
        "config": str(contestant.path),
        "run": str(run_dir),
        "weights": scores["model"]["blake2b"],
        "parameters": count_parameters(run_dir / "best" / WEIGHTS),
        "training": training_speed(run_dir),
        "translating": translating or _translating_speed(contestant, out),
        **{key: scores[key] for key in ("bleu", "bleu_signature", "chrf", "chrf_signature")},
        "parts": parts,
    }


def bleu_of(hypotheses: Sequence[str], test: TestSet, numbers: Sequence[int]) -> dict[str, Any]:
    """The number of these lines (``numbers`` from 0), and their BLEU; None if there are none."""
    if not numbers:
        return {"lines": 0, "bleu": None}
    chosen = ([side[number] for number in numbers] for side in (hypotheses, test.ref))
    translated, references = chosen
    return {"lines": len(numbers), "bleu": score(translated, [references], test.tokenizer).bleu}


def count_parameters(path: Path) -> int:
    """The numbers in a file of weights. Embeddings that are tied are in it once."""
    with safetensors.safe_open(path, framework="np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping


def training_speed(run_dir: Path) -> dict[str, float]:
    """What the records of a run say: steps, passes over the text, target tokens, seconds without validations."""
    steps = [record for record in read_metrics(run_dir / METRICS) if "tokens" in record]
    timing = [record for record in read_metrics(run_dir / TIMING) if "seconds" in record]
    if not steps or not timing:
        raise UserError(f"{run_dir}: has no records of its steps ({METRICS}, {TIMING})")
    tokens, seconds = sum(record["tokens"] for record in steps), sum(record["seconds"] for record in timing)
    return {
        "steps": len(steps),
        "epochs": steps[-1]["epoch"],
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
    }


def _translating_speed(contestant: Contestant, out: Path) -> dict[str, Any]:
    """Translate the test set once more, with a clock: target tokens with EOS, seconds, and what disturbed it."""
    config = contestant.config
    assert config.data.test is not None
    print(f"{contestant.name}: translating with a clock ...", flush=True)
    src = out / "test.src"
    write_text(src, "".join(f"{pair.src}\n" for pair in read_pairs(config.data.test)))
    spec = Namespace(
        model=str(config.run_dir / "best"),
        src=[str(src)],
        lines=None,
        latency_lines=0,
        beam_size=config.decode.beam_size,
        length_penalty=config.decode.length_penalty,
        number_format="float32",
        device=choose_device(config.train.device).type,
        threads=config.train.threads or num_cores(),
    )
    run = run_job("bench.decoding:ours", spec, out / "jobs")
    if "error" in run:
        raise UserError(f"{contestant.name}: its model cannot translate: {run['error']}")
    kept = {key: run[key] for key in ("tokens", "seconds", "disturbed")}
    return {**kept, "tokens_per_second": run["tokens"] / run["seconds"]}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path}: damaged; remove it, and the same command makes it again") from None
    return content
