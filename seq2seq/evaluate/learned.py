"""Exchange with metrics that are computed elsewhere, such as COMET, which needs an environment of its own.

Out: a JSON object a line with source, translation and reference (``src``, ``mt``, ``ref``), all lines of the first
system, then those of the others. In: a score a line, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sacrebleu.metrics.base import Metric, Score, Signature

from seq2seq.errors import UserError
from seq2seq.files import checksum, unreadable

_LARGEST = 1e100  # sums of it are finite
_DIGITS = 16  # of a checksum in a signature


@dataclass(frozen=True)
class Learned:
    """The scores of a metric that was computed elsewhere."""

    name: str
    scores: tuple[tuple[float, ...], ...]  # [systems, lines]
    checksum: str  # of the file


def exchange_lines(
    systems: Mapping[str, Sequence[str]], sources: Sequence[str], references: Sequence[Sequence[str]]
) -> Iterator[str]:
    """The lines of the file for the other program. Further references are in ``refs``, with the first one."""
    for name, translations in systems.items():
        for source, translation, *every in zip(sources, translations, *references, strict=True):
            more = {"refs": every} if len(every) > 1 else {}
            record = {"src": source, "mt": translation, "ref": every[0], **more, "system": name}
            yield json.dumps(record, ensure_ascii=False) + "\n"


def read_learned(name: str, path: Path, num_systems: int, num_lines: int) -> Learned:
    """Read the scores of all systems: a number a line, or a JSON object with a key ``score`` or one like the name.

    Raises:
        UserError: the file cannot be read, a line has no finite number, or there are too few or too many.
    """
    try:
        content = path.read_bytes()
        lines = content.decode().split("\n")
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise UserError(f"{path}: is no text in UTF-8; give a file with a score in every line") from None
    lines = lines[:-1] if lines[-1] == "" else lines
    if len(lines) != num_systems * num_lines:
        of = f"{num_systems} systems with {num_lines:,} lines each" if num_systems > 1 else f"{num_lines:,} lines"
        raise UserError(f"--learned {name}: {path} has {len(lines):,} scores for {of}; score the file of --exchange")
    scores = [_score(name, line, path, number) for number, line in enumerate(lines, start=1)]
    of_systems = (tuple(scores[first : first + num_lines]) for first in range(0, len(scores), num_lines))
    return Learned(name, tuple(of_systems), checksum(content))


def _score(name: str, line: str, path: Path, number: int) -> float:
    value: Any = None
    try:
        value = json.loads(line)
        if isinstance(value, dict):
            value = next((value[key] for key in value if key.lower() in ("score", name.lower())), None)
    except (ValueError, RecursionError):
        pass
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_LARGEST < value < _LARGEST:
        raise UserError(f"{path}:{number}: is no score; a line is a number, or a JSON object with the key score")
    return float(value)


class LearnedMetric(Metric):
    """A metric of sacreBLEU's whose counts are given: so intervals and tests are those of the other metrics."""

    def __init__(self, learned: Learned, translations: Sequence[Sequence[str]]) -> None:
        """``translations`` of the systems, in the order of their scores: the lists that will be scored."""
        super().__init__()
        self.num_refs = 1
        self._learned = learned
        self._of = {id(lines): scores for lines, scores in zip(translations, learned.scores, strict=True)}

    @property
    def num_different(self) -> list[int]:
        """For each system, how many of its lines have another score than those of the first one."""
        first = self._learned.scores[0]
        return [sum(map(float.__ne__, first, scores)) for scores in self._learned.scores]

    def _extract_corpus_statistics(self, hypotheses: Any, references: Any) -> list[list[float]]:
        return [[score, 1.0] for score in self._of[id(hypotheses)]]

    def _aggregate_and_compute(self, stats: list[list[float]]) -> Score:
        return self._compute_score_from_stats([sum(column) for column in zip(*stats, strict=True)])

    def _compute_score_from_stats(self, stats: Any) -> Score:
        return Score(self._learned.name, float(stats[0] / stats[1]))

    def get_signature(self) -> Signature:
        """The start of the checksum of the file (``b2sum -l 128``), and the resamples."""
        signature = Signature(self.__dict__)
        signature.info = {"file": self._learned.checksum[:_DIGITS], **signature.info, "version": None, "nrefs": None}
        return signature

    def _preprocess_segment(self, sent: str) -> str:
        raise AssertionError("nothing is computed here")

    def _extract_reference_info(self, refs: Any) -> dict[str, Any]:
        raise AssertionError("nothing is computed here")

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: Any) -> list[float]:
        raise AssertionError("nothing is computed here")
