"""Scoring of two files line by line: one output line for each pair, in order, with constant memory."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from tqdm import tqdm

from seq2seq.config import DecodeConfig
from seq2seq.data.formats.lines import decode_line, read_lines
from seq2seq.decode.files import cell
from seq2seq.decode.input_lines import REPORTS
from seq2seq.decode.likelihood import TargetScore
from seq2seq.decode.output import OutputFile
from seq2seq.decode.streams import incoming_lines, is_stream, outgoing
from seq2seq.decode.translator import Translator
from seq2seq.decode.windows import windows_of_pairs
from seq2seq.errors import DataError

ScoreFormat: TypeAlias = Literal["text", "tsv", "jsonl"]
Pair: TypeAlias = tuple[str, str]


@dataclass
class ScoringModel:
    """A model with its options, and the sums of what it has scored."""

    name: str
    translator: Translator
    decode: DecodeConfig
    num_lines: int = 0  # with a score
    num_tokens: int = 0
    num_words: int = 0
    log_prob: float = 0.0

    def add(self, score: TargetScore) -> None:
        """Count a line."""
        if score.log_prob is not None:
            self.num_lines += 1
            self.num_tokens += len(score.tokens)
            self.num_words += score.num_words
            self.log_prob += score.log_prob

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.num_lines:,} lines, log-probability {self.log_prob:.4f}; "
            f"{self.log_prob / max(1, self.num_tokens):.4f} per token ({self.num_tokens:,} tokens), "
            f"{self.log_prob / max(1, self.num_words):.4f} per word ({self.num_words:,} words)"
        )


def score_files(models: Sequence[ScoringModel], source: str, target: str, output: str, form: ScoreFormat) -> None:
    """Score every line of ``target`` as a translation of that line of ``source``; "-" is standard input or output.

    The models do not work together: each has its own numbers. A file named ``*.gz`` is compressed; it appears only when
    it is complete. The sums are printed on standard error.

    Args:
        form: text: for each model the log-probability in total, per token and per word; tsv: source and target before
            them; jsonl: an object with both texts and each model's tokens. A pair without a score has nan, or null.

    Raises:
        DataError: a file cannot be read, is empty or is not UTF-8, or their line counts differ.
        UserError: the output cannot be written.
    """
    num_lines = _check(source, target)
    for model in models:
        model.translator.score_stream((), model.decode)  # a wrong tag is an error before the work begins
    pack = partial(gzip.compress, compresslevel=6, mtime=0) if output.endswith(".gz") else bytes
    hidden = output == "-" and not sys.stderr.isatty()
    bar = tqdm(desc="scoring", unit=" lines", total=num_lines, disable=hidden, mininterval=0.5)
    with ExitStack() as opened:
        if is_stream(output):
            stream = opened.enter_context(outgoing(output))
            opened.enter_context(bar)
            for text in _scored(models, source, target, form, bar):
                stream.write(pack(text))
                stream.flush()  # a reader may be waiting for it
        else:
            file = opened.enter_context(OutputFile(Path(os.path.realpath(output))))
            file.clear()
            opened.enter_context(bar)
            for text in _scored(models, source, target, form, bar):
                file.write(pack(text))
            file.finish()
    for model in models:
        print(model, file=sys.stderr)


def _check(source: str, target: str) -> int | None:
    """Find mistakes in files before the work begins; returns their number of lines, or None if one is a stream."""
    counts = []
    for name in (source, target):
        if name == "-" or not os.path.isfile(name):
            continue
        number = 0
        for number, raw in enumerate(read_lines(Path(name), gzip_only=True), start=1):
            decode_line(raw, name, number)
        counts.append(number)
    if len(counts) < 2:
        return None
    _compare(source, target, *counts)
    return counts[0]


def _shown(name: str) -> str:
    return "stdin" if name == "-" else name


def _compare(source: str, target: str, num_src: int, num_tgt: int) -> None:
    source, target = _shown(source), _shown(target)
    if num_src != num_tgt:
        raise DataError(f"{source} has {num_src:,} lines but {target} has {num_tgt:,}; line n of both must be a pair")
    if num_src == 0:
        raise DataError(f"{source} and {target} are empty; there is nothing to score")


def _pairs(source: str, target: str) -> Iterator[Pair]:
    """The lines of both; raises DataError if one ends before the other."""
    number = 0
    lines = zip_longest(incoming_lines(source), incoming_lines(target))
    for number, (src, tgt) in enumerate(lines, start=1):
        if src is None or tgt is None:
            counts = number - 1, number + sum(1 for _ in lines)
            _compare(source, target, *(counts if src is None else counts[::-1]))
        else:
            yield decode_line(src, _shown(source), number), decode_line(tgt, _shown(target), number)
    _compare(source, target, number, number)


def _scored(
    models: Sequence[ScoringModel], source: str, target: str, form: ScoreFormat, bar: tqdm[NoReturn]
) -> Iterator[bytes]:
    """The output, window by window."""
    first, num_problems = 1, 0

    def report(line: int, message: str, name: str) -> None:
        nonlocal num_problems
        num_problems += 1
        if num_problems <= REPORTS:
            whose = f"{name}: " if len(models) > 1 else ""
            tqdm.write(f"{_shown(source)}:{first + line - 1}: {whose}{message}", file=sys.stderr)

    pairs = _pairs(source, target)
    for window in windows_of_pairs(pairs):
        columns = []
        for model in models:
            found = model.translator.score_stream(window, model.decode, partial(report, name=model.name))
            columns.append(list(found))
            for score in columns[-1]:
                model.add(score)
        rows = zip(window, zip(*columns, strict=True), strict=True)
        if form == "jsonl":
            names = [model.name for model in models]
            texts = [_record(first + index, names, *row) for index, row in enumerate(rows)]
        else:
            texts = ["\t".join([*(map(cell, pair) if form == "tsv" else ()), *_numbers(row)]) for pair, row in rows]
        yield "".join(f"{text}\n" for text in texts).encode()
        first += len(window)
        bar.update(len(window))
    if num_problems > REPORTS:
        print(f"{_shown(source)}: {num_problems - REPORTS:,} more lines were not scored", file=sys.stderr)


def _numbers(row: Sequence[TargetScore]) -> Iterator[str]:
    for score in row:
        for number in (score.log_prob, score.per_token, score.per_word):
            yield "nan" if number is None else f"{number:.4f}"


def _record(line: int, names: Sequence[str], pair: Pair, row: Sequence[TargetScore]) -> str:
    def rounded(number: float | None) -> float | None:
        return None if number is None else round(number, 6)

    scores = [
        {
            "model": name,
            "log_prob": rounded(score.log_prob),
            "per_token": rounded(score.per_token),
            "per_word": rounded(score.per_word),
            "tokens": [[piece, rounded(log_prob)] for piece, log_prob in score.tokens],
        }
        for name, score in zip(names, row, strict=True)
    ]
    return json.dumps({"line": line, "source": pair[0], "target": pair[1], "scores": scores}, ensure_ascii=False)
