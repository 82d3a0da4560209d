"""How sure scores are, and whether two systems differ by more than chance: sacreBLEU's intervals and paired tests.

The numbers are those of ``sacrebleu.significance``. Its resamples come from one seed, which the signature names, so
they can be reproduced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sacrebleu.metrics.base import Signature
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from seq2seq.errors import DataError, UserError
from seq2seq.evaluate.learned import Learned, LearnedMetric
from seq2seq.evaluate.scores import bleu_for, check_texts, details_of, processing_notes
from seq2seq.languages import UNSPACED_SCRIPTS, script_in, script_of

LEVEL = 0.05  # a smaller p-value: the difference is larger than chance would give
# sacreBLEU counts the shuffles with a larger difference than the one found, not those with the same one. If few lines
# differ, nearly all have the same or a smaller one, and p comes out near 0. The true p is at least 2 / 2**lines.
LEAST_LINES = 10
METRICS = ("BLEU", "chrF2", "chrF2++", "TER")
_DIGITS_OF_LEARNED = 4  # many are from 0 to 1
_SEED = "SACREBLEU_SEED"  # environment variable with the seed of the resamples
_BYTES = 200_000  # for each line: 1,000 resamples of up to 24 counts, and 10,000 shuffles of two systems
_CHUNK = 50  # lines between two reports of progress


@dataclass(frozen=True)
class Measure:
    """What one metric says of one system, and of its difference from the first system."""

    name: str  # as sacreBLEU calls it: BLEU, chrF2, chrF2++, TER
    score: float
    signature: str
    details: str = ""  # of BLEU: n-gram precisions, brevity penalty, lengths
    resampled_signature: str | None = None  # that of interval and p-values, with the resamples and their seed
    interval: tuple[float, float] | None = None  # of 95 percent; None: there are no resamples
    difference: float | None = None  # None: of the first system
    p_randomisation: float | None = None  # of paired approximate randomisation; None: not tested
    p_bootstrap: float | None = None  # of the paired bootstrap
    digits: int = 2  # after the decimal point, for people

    def __str__(self) -> str:
        """The score in sacreBLEU's one-line format."""
        return f"{self.name}|{self.signature} = {self.score:.{self.digits}f} {self.details}".rstrip()

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        values = asdict(replace(self, signature=self.resampled_signature or self.signature, resampled_signature=None))
        return {
            name: value
            for name, value in values.items()
            if value is not None and value != "" and name not in ("name", "digits")
        }

    @property
    def gain(self) -> float:
        """How much better than the first system: fewer edits are better, too."""
        return (self.difference or 0.0) * (-1 if self.name == "TER" else 1)

    @property
    def is_sure(self) -> bool:
        """Whether the difference is larger than chance would give."""
        return self.p_randomisation is not None and self.p_randomisation < LEVEL


@dataclass(frozen=True)
class SystemScores:
    """All metrics of one system."""

    name: str
    measures: tuple[Measure, ...]  # BLEU first
    num_different: int = 0  # lines whose translation is not that of the first system


@dataclass(frozen=True)
class Comparison:
    """The scores of several systems on one test set; the others are compared with the first."""

    systems: tuple[SystemScores, ...]
    num_lines: int
    resampling: str | None  # the resamples and their seed, as in signatures: bs:1000|ar:10000|seed:12345
    notes: tuple[str, ...] = ()  # warnings about the scores, one line each

    def verdict(self, system: SystemScores) -> str:
        """One sentence: whether a system is better than the first one, and whether that could be chance."""
        name, first, bleu = system.name, self.systems[0].name, system.measures[0]
        if not system.num_different:
            return f"{name} has the same translations as {first}."
        if system.num_different < LEAST_LINES:
            lines = f"{system.num_different} of {self.num_lines:,} lines"
            return f"{name} differs from {first} in {lines}: too few to know which is better."
        text = f"{name} is {_word(bleu)} than {first} by {abs(bleu.gain):.2f} BLEU"
        if abs(bleu.gain) < 0.005:  # as it is printed
            text = f"{name} has the same BLEU as {first}"
        if bleu.p_randomisation is None:
            return f"{text}; whether that could be chance was not tested."
        text += "; the difference " + ("is larger than chance would give" if bleu.is_sure else "could be chance")
        text += f" (p {show_p(bleu.p_randomisation)})"
        for word in ("better", "worse"):
            others = [one.name for one in system.measures[1:] if one.is_sure and _word(one) == word]
            if others and not (bleu.is_sure and _word(bleu) == word):
                text += f", but it is {word} by {', '.join(others)}"
        return f"{text}."


def show_p(p: float) -> str:
    """A p-value for people: ``= 0.034``."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _word(measure: Measure) -> str:
    return "better" if measure.gain > 0 else "worse"


def memory_needed(num_lines: int) -> int:
    """About how many bytes intervals and tests take."""
    return num_lines * _BYTES


def compare(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[Sequence[str]],
    tokenize: str | None = None,
    target_language: str | None = None,
    *,
    learned: Sequence[Learned] = (),
    resample: bool = True,
    progress: Callable[[int], object] = lambda count: None,
) -> Comparison:
    """BLEU, chrF2, chrF2++ and TER of every system, their intervals, and tests of the others against the first.

    Args:
        systems: their translations by name, at least one.
        references: one or several texts.
        tokenize: as for :func:`seq2seq.score`, and ``target_language``, too.
        learned: scores of other metrics, which follow these.
        resample: compute intervals and p-values, not the scores alone.
        progress: called with the number of lines that one metric has read of one system; it reads all lines once.

    Raises:
        DataError: line counts differ, there are no lines, or a reference has only blank lines.
        UserError: the tokenizer cannot be used, or the seed of sacreBLEU is set to no number.
    """
    if resample:
        check_seed()
    translations = [list(lines) for lines in systems.values()]
    for lines in translations:
        references = check_texts(lines, references)
    blank = notes_of_blanks(references)
    bleu, notes = bleu_for(references, tokenize, target_language)
    notes += [*processing_notes(references, translations), *blank]
    script = script_in([line for reference in references for line in reference], script_of(target_language))
    asian = script in ("han", "kana")  # TER counts words, and the characters of these scripts
    if script in UNSPACED_SCRIPTS and not asian:
        notes.append(f"TER and chrF2++ count words, which text in {script} script does not separate: go by chrF2")
    metrics: list[Any] = [bleu, CHRF(), CHRF(word_order=2), TER(normalized=asian, asian_support=asian)]
    metrics += (LearnedMetric(one, translations) for one in learned)
    different = [sum(map(str.__ne__, translations[0], lines)) for lines in translations]
    columns, resampling = [], None
    for metric in metrics:
        if not isinstance(metric, LearnedMetric):
            _remember_statistics(metric, translations, references, progress)
        measures = [_measure(metric, lines, references) for lines in translations]
        others = (replace(one, difference=one.score - measures[0].score) for one in measures[1:])
        measures = [measures[0], *others]
        if resample:
            counts = metric.num_different if isinstance(metric, LearnedMetric) else different
            to_test = [number for number, count in enumerate(counts) if count >= LEAST_LINES]
            measures, resampling = _resampled(metric, measures, translations, references, to_test)
        columns.append(measures)
    rows = zip(systems, zip(*columns, strict=True), different, strict=True)
    scored = tuple(SystemScores(name, measures, count) for name, measures, count in rows)
    return Comparison(scored, len(translations[0]), resampling, tuple(notes))


def check_seed() -> None:
    """Raise UserError if the seed that sacreBLEU takes from the environment is no number; 0 would not be fixed."""
    seed = os.environ.get(_SEED, "12345")
    if seed.lower() != "none" and not (seed.isdecimal() and int(seed)):
        raise UserError(f"{_SEED}: must be a whole number above 0, or none, not {seed!r}; unset it for the usual seed")


def notes_of_blanks(references: Sequence[Sequence[str]]) -> list[str]:
    """Notes about references with blank lines; raises DataError for one that has no others."""
    notes = []
    for number, reference in enumerate(references, start=1):
        blank = [line for line, text in enumerate(reference, start=1) if not text.strip()]
        if blank and len(blank) == len(reference):
            raise DataError(f"reference {number} is empty: all of its {len(reference):,} lines are blank")
        if blank:
            lines = f"{len(blank):,} lines are blank, the first is line {blank[0]}"
            lines = lines if len(blank) > 1 else f"line {blank[0]} is blank"
            notes.append(f"reference {number}: {lines}; no translation of them can be right")
    return notes


def _remember_statistics(
    metric: Any,
    translations: Sequence[list[str]],
    references: Sequence[Sequence[str]],
    progress: Callable[[int], object],
) -> None:
    """Let a metric read every system once; its score and sacreBLEU's tests would each read all of it again.

    TER takes seconds for a hundred long lines; resampling what was counted takes a second for all.
    """
    found = {}
    for lines in translations:
        statistics: list[Any] = []
        for first in range(0, len(lines), _CHUNK):
            part = slice(first, first + _CHUNK)
            statistics += metric._extract_corpus_statistics(lines[part], [reference[part] for reference in references])
            progress(len(lines[part]))
        found[id(lines)] = statistics
    metric._extract_corpus_statistics = lambda hypotheses, references: found[id(hypotheses)]


def _measure(metric: Any, lines: list[str], references: Sequence[Sequence[str]]) -> Measure:
    score = metric.corpus_score(lines, references)
    details = details_of(score) if score.name == "BLEU" else ""
    digits = _DIGITS_OF_LEARNED if isinstance(metric, LearnedMetric) else 2
    return Measure(score.name, float(score.score), str(metric.get_signature()), details, digits=digits)


def _resampled(
    metric: Any,
    measures: Sequence[Measure],
    translations: Sequence[list[str]],
    references: Sequence[Sequence[str]],
    to_test: Sequence[int],
) -> tuple[list[Measure], str]:
    """The measures with their intervals, those of the systems ``to_test`` also with p-values; and what the signatures
    say of the resamples."""
    named: list[tuple[str, Sequence[str]]] = [(str(number), lines) for number, lines in enumerate(translations)]
    signatures, results = PairedTest(named, {"": metric}, references, "bs")()
    name = measures[0].name
    signature: Signature = signatures[name]
    bootstrap: list[Any] = results[name]
    p_values: dict[int, float] = {}
    if to_test:
        compared = [named[0], *(named[number] for number in to_test)]
        of_shuffles, results = PairedTest(compared, {"": metric}, references, "ar")()
        signature.update("ar", of_shuffles[name].info["ar"])
        shuffled: list[Any] = results[name]
        p_values = {number: result.p_value for number, result in zip(to_test, shuffled[1:], strict=True)}
    resampled = [
        replace(
            one,
            resampled_signature=str(signature),
            interval=(float(result.mean - result.ci), float(result.mean + result.ci)),
            p_randomisation=p_values.get(number),
            p_bootstrap=result.p_value if number in p_values else None,
        )
        for number, (one, result) in enumerate(zip(measures, bootstrap, strict=True))
    ]
    kinds = ((kind, signature.info[kind]) for kind in ("bs", "ar", "seed"))
    return resampled, "|".join(f"{kind}:{value}" for kind, value in kinds if value is not None)
