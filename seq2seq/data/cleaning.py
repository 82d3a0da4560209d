"""Cleaning of the training text: which pairs are left out, and why, decided once and stored in the cache folder.

The result is a folder::

    causes        why each pair is left out, over all files of all datasets (one byte a pair; 0: it is clean)
    examples.tsv  up to three pairs of each cause: cause, place, source, target
    meta.json     version, fingerprint, counts by cause, sizes and checksums of the files

Its name has the fingerprint of all that the result depends on: text, rules, validation and test text, scores.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json
from tqdm import tqdm

from seq2seq.config import Cause, CleanConfig, DataConfig, ParallelText, paths_of
from seq2seq.data.checksums import ChecksumMemory, FileRecord
from seq2seq.data.clean_rules import (
    CAUSES,
    CODE_OF,
    VERSION,
    PairKeys,
    Rules,
    first_causes,
    identifier_version,
    known_language,
    pair_keys,
    script_of_most,
)
from seq2seq.data.formats.pairs import PairFile, SentencePair, files_of, fingerprint_text, read_pairs
from seq2seq.data.formats.units import Unit
from seq2seq.data.parallel import Workers, chunks_of
from seq2seq.data.unlikely import PairScorer, mark_unlikely
from seq2seq.errors import DataError
from seq2seq.files import (
    checksum,
    fingerprint,
    put_folder_in_place,
    sealed_json,
    temporary_folder,
    unwritable,
)
from seq2seq.languages import writing_of

_CHUNK_PAIRS = 8192
_CHUNK_CHARACTERS = 1 << 21  # limits memory if lines are huge
_TO_FIND_SCRIPT = 10_000  # lines
_NUM_EXAMPLES = 3
_META, _CODES, _EXAMPLES = "meta.json", "causes", "examples.tsv"
_AGAIN = "the text is cleaned again"
bar = partial(tqdm, unit=" pairs", unit_scale=True, leave=False)
# What is wrong with the pairs of each cause, after their number.
WORDS: dict[Cause, str] = {
    "overlap": "in valid or test",
    "identical": "identical",
    "repeats": "repeated",
    "min_characters": "too short",
    "max_characters": "too long",
    "longest_word": "with a word too long",
    "min_letters": "with too few letters",
    "script": "in another script",
    "markup": "with markup",
    "numbers": "with other numbers",
    "urls": "with other addresses",
    "language": "in another language",
    "score": "with a low score",
    "model": "unlikely for the model",
}


class _Meta(BaseModel):
    """``meta.json``."""

    model_config = ConfigDict(strict=True)

    version: int
    fingerprint: str
    counts: dict[Cause, int]
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Cleaned:
    """Why pairs of the training text are left out."""

    folder: Path
    codes: memoryview  # [pairs] 0, or the number of a cause in CAUSES, from 1
    counts: dict[Cause, int]  # of the pairs that are left out

    @property
    def num_left_out(self) -> int:
        """The number of pairs that are not clean."""
        return sum(self.counts.values())

    @property
    def examples(self) -> Path:
        """The file with examples of each cause."""
        return self.folder / _EXAMPLES

    @cached_property
    def checksum(self) -> str | None:
        """Of which pairs are left out, whatever the causes; None if all are clean."""
        return checksum((np.asarray(self.codes) > 0).tobytes()) if self.num_left_out else None

    def cause(self, pair: int) -> Cause | None:
        """Why a pair is left out, by its number in the whole text; None if it is clean.

        Raises:
            DataError: the text has changed since it was cleaned.
        """
        if pair >= len(self.codes):
            raise DataError("data.train: the text has changed while it was read; run the same command again")
        code = self.codes[pair]
        return CAUSES[code - 1] if code else None

    def keep(self, pairs: Iterator[SentencePair]) -> Iterator[SentencePair]:
        """The clean ones of the training pairs."""
        return (pair for pair in pairs if self.cause(pair.line) is None) if self.num_left_out else pairs

    def __str__(self) -> str:
        number = len(self.codes)
        if not self.num_left_out:
            return f"train: all {number:,} pairs are clean"
        return f"train: {number - self.num_left_out:,} of {number:,} pairs are clean; left out: {in_words(self.counts)}"


def in_words(counts: dict[Cause, int]) -> str:
    """For example ``512 identical, 88 repeated``."""
    return ", ".join(f"{number:,} {WORDS[cause]}" for cause, number in counts.items())


def clean_text(
    data: DataConfig,
    cache_dir: Path,
    known: ChecksumMemory,
    scorer: PairScorer | None = None,
    *,
    show_progress: bool = True,
) -> Cleaned | None:
    """Find the pairs of the training text to leave out, or open what was found before; None if no rule is on.

    ``scorer``: for the rule ``model``; it must be there if that rule is on.

    Raises:
        DataError: the text cannot be used, a rule lacks something, or no pair is left.
        UserError: the cache folder cannot be written.
    """
    if not _is_on(data):
        return None
    made_from = _fingerprint(data, known, scorer)
    folder = cache_dir / f"clean-{made_from}"
    cleaned = None
    if folder.exists():
        try:
            cleaned = _open(folder, made_from, known)
        except DataError as error:
            tqdm.write(str(error), file=sys.stderr)
    if cleaned is None:
        _make(folder, made_from, data, scorer, show_progress)
        cleaned = _open(folder, made_from, known)
    if cleaned.num_left_out == len(cleaned.codes) > 0:
        worst = max(cleaned.counts, key=cleaned.counts.__getitem__)
        rule = "min_score of the dataset" if worst == "score" else f"data.clean.{worst}"
        raise DataError(
            f"data.clean: none of the {len(cleaned.codes):,} pairs is left: {in_words(cleaned.counts)}; relax {rule} "
            f"(examples: {cleaned.examples})"
        )
    return cleaned


def cleaned_before(data: DataConfig, cache_dir: Path, known: ChecksumMemory, scorer: PairScorer) -> Cleaned | None:
    """What :func:`clean_text` found before; None if no rule is on. Nothing is written but checksums of files.

    Raises:
        DataError: it is not there any more, or damaged.
        ModelError: the model of a rule is not there.
    """
    if not _is_on(data):
        return None
    made_from = _fingerprint(data, known, scorer)
    folder = cache_dir / f"clean-{made_from}"
    if not folder.exists():
        raise DataError(f"{cache_dir}: has no record of which pairs were left out")
    return _open(folder, made_from, known)


def rules_of(data: DataConfig) -> list[CleanConfig]:
    """The rules of each dataset of the training text."""
    return [dataset.clean or data.clean for dataset in data.train]


def _measured(data: DataConfig) -> list[ParallelText]:
    """The texts to validate and test with that are not part of the training text."""
    return list(data.measured.values())


def _is_on(data: DataConfig) -> bool:
    rules = rules_of(data)
    others = any(clean != CleanConfig(overlap=clean.overlap) for clean in rules)
    others = others or any(min_score_of(dataset) is not None for dataset in data.train)
    return others or (any(clean.overlap for clean in rules) and bool(_measured(data)))


def min_score_of(dataset: ParallelText) -> float | None:
    """The lowest score of a pair that is kept; None if the dataset has no scores."""
    return getattr(dataset, "min_score", None)


def _scores_of(dataset: ParallelText, known: ChecksumMemory) -> list[object] | None:
    """What the scores of a dataset depend on; None if it has none."""
    if min_score_of(dataset) is None:
        return None
    files = [known.checksum(path) for paths in paths_of(dataset).values() for path in paths]
    return [min_score_of(dataset), dataset.model_dump(mode="json", include={"score"}), files]


def _languages(data: DataConfig, dataset: ParallelText) -> tuple[str | None, str | None]:
    """As the config states them, else as the names of the dataset say."""
    src, tgt = dataset.languages
    return data.src_lang or src or data.source_language, data.tgt_lang or tgt or data.target_language


def _fingerprint(data: DataConfig, known: ChecksumMemory, scorer: PairScorer | None) -> str:
    rules = rules_of(data)
    models: dict[str, object] = {}  # nothing without them, so what earlier versions have found is still used
    if any(clean.model is not None for clean in rules):
        assert scorer is not None
        models["models"] = [
            None if clean.model is None else [clean.min_log_prob, scorer.checksum(clean.model)] for clean in rules
        ]
    measured = _measured(data) if any(clean.overlap for clean in rules) else []
    return fingerprint(
        version=VERSION,
        text=[fingerprint_text(dataset, known.recall) for dataset in data.train],
        rules=[clean.model_dump(exclude={"model", "min_log_prob"}) for clean in rules],
        **models,
        scores=[_scores_of(dataset, known) for dataset in data.train],
        languages=[_languages(data, dataset) for dataset in data.train],
        measured=[fingerprint_text(text, known.recall) for text in measured],
        identifier=identifier_version() if any(clean.language for clean in rules) else None,
    )


# ------------------------------------------------------------------------------------------------------------ deciding


def _make(folder: Path, made_from: str, data: DataConfig, scorer: PairScorer | None, show_progress: bool) -> None:
    """Write the result folder, whole or not at all."""
    codes = _decide(data, show_progress, scorer)
    examples = _examples(data, codes)
    counts = np.bincount(codes, minlength=len(CAUSES) + 1)[1:].tolist()
    content = {_CODES: codes.tobytes(), _EXAMPLES: "".join(f"{row}\n" for row in examples).encode()}
    meta = _Meta(
        version=VERSION,
        fingerprint=made_from,
        counts={cause: count for cause, count in zip(CAUSES, counts, strict=True) if count},
        files={name: FileRecord(bytes=len(part), blake2b=checksum(part)) for name, part in content.items()},
    )
    try:
        with temporary_folder(folder) as new:
            for name, part in {**content, _META: sealed_json(meta.model_dump())}.items():
                (new / name).write_bytes(part)
            put_folder_in_place(new, folder)
    except OSError as error:
        raise unwritable(folder, error) from error


def _open(folder: Path, made_from: str, known: ChecksumMemory) -> Cleaned:
    """The result in a folder; raises DataError if it is damaged."""
    try:
        sealed = (folder / _META).read_bytes()
        tree = from_json(sealed)
        if not isinstance(tree, dict) or sealed != sealed_json(tree):
            raise DataError(f"{folder / _META}: damaged, its checksum is wrong; {_AGAIN}")
        meta = _Meta.model_validate_json(sealed)
        for name, expected in meta.files.items():
            if known.checksum(folder / name) != expected.blake2b:
                raise DataError(f"{folder / name}: damaged, its checksum is wrong; {_AGAIN}")
        codes = np.memmap(folder / _CODES, np.uint8, "r") if meta.files[_CODES].bytes else np.empty(0, np.uint8)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{folder}: damaged ({type(error).__name__}); {_AGAIN}") from None
    if meta.fingerprint != made_from or codes.max(initial=0) > len(CAUSES):
        raise DataError(f"{folder}: damaged, it is of another text; {_AGAIN}")
    return Cleaned(folder, codes.data, meta.counts)


class _Work(NamedTuple):
    """Some pairs of one dataset."""

    dataset: int
    src: tuple[str, ...]
    tgt: tuple[str, ...]
    scores: tuple[float | None, ...]
    rules: Rules


class _Judged(NamedTuple):
    """What a process finds out about the pairs of a :class:`_Work`."""

    dataset: int
    codes: NDArray[np.uint8]
    keys: PairKeys


def _decide(data: DataConfig, show_progress: bool, scorer: PairScorer | None = None) -> NDArray[np.uint8]:
    """[pairs] the code of the cause of each pair."""
    rules = rules_of(data)
    measured = _keys_of_measured(data) if any(clean.overlap for clean in rules) else np.empty(0, np.uint64)
    codes, sizes = bytearray(), [0] * len(rules)
    keys = {mode: array("Q") for mode in ("pairs", "sources") if any(clean.repeats == mode for clean in rules)}
    with Workers() as workers, bar(desc="finding pairs to leave out", disable=not show_progress) as progress:
        for judged in workers.map(_judge, _work(data)):
            if rules[judged.dataset].overlap:
                judged.codes[np.isin(judged.keys.pairs, measured)] = CODE_OF["overlap"]
            codes += judged.codes.tobytes()
            sizes[judged.dataset] += len(judged.codes)
            for mode, keys_of_mode in keys.items():
                keys_of_mode.frombytes(getattr(judged.keys, mode).tobytes())
            progress.update(len(judged.codes))
    found = np.frombuffer(codes, np.uint8)
    if any(rule.model is not None for rule in rules):
        assert scorer is not None
        units = bar(read_units(data), desc="scoring pairs", total=len(found), disable=not show_progress)
        mark_unlikely(found, ((file.part, unit) for file, unit in units), rules, scorer)
    clean = found == 0  # before any repeats are marked
    for mode, keys_of_mode in keys.items():
        wanted = np.repeat([rule.repeats == mode for rule in rules], sizes)
        again = _repeats(np.frombuffer(keys_of_mode, np.uint64), clean) & wanted
        found[again & ((found == 0) | (found > CODE_OF["repeats"]))] = CODE_OF["repeats"]
    return found


def _repeats(keys: NDArray[np.uint64], clean: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[pairs] whether an earlier pair that is clean has the same key; never for the key 0."""
    chosen = np.flatnonzero(clean & (keys != 0))
    values, first = np.unique(keys[chosen], return_index=True)
    if not len(values):
        return np.zeros(len(keys), bool)
    place = np.minimum(np.searchsorted(values, keys), len(values) - 1)
    return np.asarray((values[place] == keys) & (chosen[first[place]] < np.arange(len(keys))))


def _size(pair: Unit | SentencePair) -> int:
    return len(pair.src) + len(pair.tgt)


def _work(data: DataConfig) -> Iterator[_Work]:
    for number, (dataset, clean) in enumerate(zip(data.train, rules_of(data), strict=True)):
        rules = _needed(data, dataset, clean)
        for file in files_of(dataset):
            for chunk in chunks_of(file.units(), _size, _CHUNK_PAIRS, _CHUNK_CHARACTERS):
                src, tgt, _, scores = zip(*chunk, strict=True)  # columns pickle much faster than single pairs
                yield _Work(number, src, tgt, scores, rules)


def _needed(data: DataConfig, dataset: ParallelText, clean: CleanConfig) -> Rules:
    """The rules with what they need to know of a dataset."""
    src, tgt = _languages(data, dataset)
    scripts: list[str | None] = [None, None]
    if clean.script:
        first = list(islice(read_pairs(dataset), _TO_FIND_SCRIPT))
        scripts = [
            writing_of(language) or script_of_most((pair.src, pair.tgt)[side] for pair in first)
            for side, language in enumerate((src, tgt))
        ]
    languages = None
    if clean.language:
        languages = known_language(src, "data.src_lang"), known_language(tgt, "data.tgt_lang")
    return Rules(clean, (scripts[0], scripts[1]), languages, min_score_of(dataset))


def _judge(work: _Work) -> _Judged:
    keys = pair_keys(work.src, work.tgt)
    return _Judged(work.dataset, first_causes(work.src, work.tgt, work.scores, keys, work.rules), keys)


def _keys_of_measured(data: DataConfig) -> NDArray[np.uint64]:
    """The keys of the pairs with text of validation and test."""
    pairs = (pair for text in _measured(data) for pair in read_pairs(text) if pair.src.strip() and pair.tgt.strip())
    chunks = chunks_of(pairs, _size, _CHUNK_PAIRS, _CHUNK_CHARACTERS)
    found = [pair_keys([pair.src for pair in chunk], [pair.tgt for pair in chunk]).pairs for chunk in chunks]
    return np.concatenate([np.empty(0, np.uint64), *found])


# ------------------------------------------------------------------------------------------------------------- showing


def read_units(data: DataConfig) -> Iterator[tuple[PairFile, Unit]]:
    """All training pairs in order, each with its file."""
    for file in files_of(data.train):
        for unit in file.units():
            yield file, unit


def table_row(cause: Cause, file: PairFile, unit: Unit) -> str:
    """A row for people: cause, place, source, target. Tabs in a text become spaces."""
    texts = (text.replace("\t", " ") for text in (unit.src, unit.tgt))
    return "\t".join([cause, file.place(0, unit.number), *texts])


def _examples(data: DataConfig, codes: NDArray[np.uint8]) -> Iterator[str]:
    """Rows for the first pairs of each cause."""
    wanted = {
        int(pair): (code, cause)
        for code, cause in enumerate(CAUSES, start=1)
        for pair in np.flatnonzero(codes == code)[:_NUM_EXAMPLES]
    }
    units = islice(read_units(data), max(wanted, default=-1) + 1)
    rows = [
        (wanted[number][0], table_row(wanted[number][1], *found))
        for number, found in enumerate(units)
        if number in wanted
    ]
    return (row for _, row in sorted(rows, key=itemgetter(0)))
