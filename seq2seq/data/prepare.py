"""Preparation of the data: from text files to tokenizers and corpora, which are made once and then reused.

Each is stored in the config's cache folder; its name has the fingerprint of everything it was made from. So runs with
the same text and settings can share the folder, and changed text or settings never use an old file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tqdm import tqdm

from seq2seq.config import Config, DataConfig, HeldOut, ParallelText, check_files
from seq2seq.data.checksums import ChecksumMemory
from seq2seq.data.cleaning import Cleaned, bar, clean_text
from seq2seq.data.corpus import Corpus, build_corpus, open_corpus
from seq2seq.data.extended_vocabulary import extended_pair
from seq2seq.data.formats.pairs import SentencePair, count_pairs, fingerprint_text, read_pairs
from seq2seq.data.held_out import TrainAndValid
from seq2seq.data.mixture import Mixture
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.data.unlikely import PairScorer
from seq2seq.data.vocabulary import learn_tokenizers
from seq2seq.errors import DataError
from seq2seq.files import fingerprint, write_text

_Part: TypeAlias = Literal["train", "valid", "guard"]
_FINGERPRINT = "fingerprint"  # written after the tokenizer: without this file it is incomplete
_NO_LIMIT = 2**62  # pairs
_RECIPE = 2  # raise it when the same text and settings give other ids than before


@dataclass(frozen=True)
class MeasuredText:
    """The lines of a validation or test set."""

    src: list[str]
    ref: list[str]
    parts: list[int]  # the dataset of each line, from 0
    datasets: Sequence[ParallelText]

    @property
    def tags(self) -> list[str | None]:
        """The tag of each line."""
        return [self.datasets[part].tag for part in self.parts]

    def take(self, lines: Sequence[int]) -> MeasuredText:
        """These lines alone."""
        src, ref = ([side[line] for line in lines] for side in (self.src, self.ref))
        return MeasuredText(src, ref, [self.parts[line] for line in lines], self.datasets)


@dataclass(frozen=True)
class PreparedData:
    """What training reads."""

    tokenizers: TokenizerPair
    train: Corpus
    mixture: Mixture  # what each epoch has of train
    valid: Corpus
    valid_text: MeasuredText
    test_text: MeasuredText | None
    cleaned: Cleaned | None  # which pairs of the training text were left out before all else; None if no rule is on
    guard: tuple[Corpus, MeasuredText] | None = None  # of data.guard

    @property
    def fingerprint(self) -> str:
        """Changes with the text, the tokenizer, the filters, or what epochs have of each dataset."""
        parts = [part.fingerprint for part in (self.tokenizers, self.train, self.valid, self.mixture)]
        parts += [self.guard[0].fingerprint] if self.guard else []
        return " ".join(filter(None, parts))


def _lines(name: str, read: Iterator[SentencePair], datasets: Sequence[ParallelText]) -> MeasuredText:
    """All lines of a validation or test set, which come from ``datasets``; raises DataError if no pair has text."""
    pairs = list(read)
    if not any(pair.src.strip() and pair.tgt.strip() for pair in pairs):
        what = "have no line with text on both sides" if pairs else "are empty"
        advice = "use others" if name == "valid" else f"use others, or remove data.{name}"
        raise DataError(f"data.{name}: the files {what}; {advice}")
    src, ref, parts = [pair.src for pair in pairs], [pair.tgt for pair in pairs], [pair.part for pair in pairs]
    return MeasuredText(src, ref, parts, datasets)


def open_text(config: Config, scorer: PairScorer | None = None, *, show_progress: bool = True) -> TrainAndValid:
    """The text to train on and to validate on, cleaned by the rules of ``data.clean``.

    ``scorer``: for ``data.clean.model``.

    Raises:
        ConfigError: a file is missing, or cannot be read more than once.
        DataError: the text cannot be used, or no pair of it is left.
    """
    check_files(config)
    known = known_checksums(config)
    cleaned = clean_text(config.data, config.cache_dir, known, scorer, show_progress=show_progress)
    return TrainAndValid(config.data, cleaned)


def known_checksums(config: Config) -> ChecksumMemory:
    """The checksums of the text's files that earlier commands found."""
    return ChecksumMemory(config.cache_dir / "digests.json")


def prepare_data(
    config: Config,
    scorer: PairScorer | None = None,
    *,
    initial: TokenizerPair | None = None,
    show_progress: bool = True,
) -> PreparedData:
    """Train the tokenizer and build the corpora, or open them if they exist.

    Validation and test text is read first, so that mistakes in it are reported before the long work.

    Args:
        scorer: for ``data.clean.model``.
        initial: the tokenizers of the model that training starts from (``config.init``).

    Raises:
        ConfigError: a file is missing, or cannot be read more than once.
        DataError: the text cannot be used; no incomplete file remains.
    """
    check_files(config)
    held_out, guard, test = isinstance(config.data.valid, HeldOut), config.data.guard, config.data.test
    datasets = _datasets(config.data, "valid")
    valid_text = None if held_out else _lines("valid", TrainAndValid(config.data).valid(), datasets)
    guard_text = _lines("guard", read_pairs(guard), [guard]) if guard else None
    test_text = _lines("test", read_pairs(test), [test]) if test else None
    text = open_text(config, scorer, show_progress=show_progress)
    if show_progress and text.cleaned is not None and text.cleaned.num_left_out:
        tqdm.write(f"{text.cleaned}; examples: {text.cleaned.examples}")
    valid_text = valid_text or _lines("valid", text.valid(), datasets)
    if show_progress and (notice := text.notice()):
        tqdm.write(notice)
    known = known_checksums(config)
    tokenizers = _prepare_tokenizers(config, text, known, initial, show_progress)
    train = _prepare_corpus("train", config, text, tokenizers, known, show_progress)
    valid = _prepare_corpus("valid", config, text, tokenizers, known, show_progress)
    guarded = None
    if guard_text is not None:
        guarded = _prepare_corpus("guard", config, text, tokenizers, known, show_progress), guard_text
    counts = count_pairs(config.data.train, known.recall) if len(config.data.train) > 1 else [_NO_LIMIT]
    mixture = Mixture(train, config.data.train, counts)
    return PreparedData(tokenizers, train, mixture, valid, valid_text, test_text, text.cleaned, guarded)


def _made_from(config: Config, text: TrainAndValid, known: ChecksumMemory, name: _Part) -> dict[str, object]:
    """What identifies a part of the text. A text of which nothing is left out is as before."""
    data, left_out = config.data, text.cleaned and text.cleaned.checksum
    whole: dict[str, object] = {"text": fingerprint_text(_datasets(data, name), known.recall)}
    if name != "guard" and isinstance(data.valid, HeldOut):
        return {**whole, "left_out": left_out, "held_out": data.valid.from_train, "rest": name == "train"}
    return {**whole, "left_out": left_out} if name == "train" else whole


def _datasets(data: DataConfig, name: _Part) -> Sequence[ParallelText]:
    """The datasets that a part of the text comes from."""
    if name == "guard":
        return [data.guard] if data.guard else []
    return data.train if name == "train" or isinstance(data.valid, HeldOut) else [data.valid]


def _prepare_tokenizers(
    config: Config, text: TrainAndValid, known: ChecksumMemory, initial: TokenizerPair | None, show_progress: bool
) -> TokenizerPair:
    learns = initial is None or config.init.extend_vocabulary
    if initial is not None and not learns and initial.src.tags.keys() >= set(config.data.tags):
        return initial
    max_length, max_ratio = config.data.max_length, config.data.max_ratio
    settings = {"kind", "vocab_size", "character_coverage", "byte_fallback", "joint", "normalise_source"}
    values = {**config.tokenizer.model_dump(include=settings), "max_length": max_length, "max_ratio": max_ratio}
    if config.data.tags:
        values["tags"] = config.data.tags
    if initial is not None:
        values |= {"initial": initial.fingerprint, "extended": learns}
    made_from = fingerprint(recipe=_RECIPE, **_made_from(config, text, known, "train"), **values)
    folder = config.cache_dir / f"tokenizer-{made_from}"
    if folder.exists():
        try:
            return _load_complete(folder)
        except DataError as error:  # training is deterministic, so the result is the same
            tqdm.write(f"{error} (seq2seq trains it again now)", file=sys.stderr)
    if initial is None:
        tokenizers = _learn_tokenizers(config, text, config.data.tags, show_progress)
    else:
        learned = _learn_tokenizers(config, text, (), show_progress) if learns else None
        bpe, shared = config.tokenizer.kind == "bpe", config.model.tie_embeddings == "all"
        tokenizers = extended_pair(initial, learned, config.data.tags, bpe=bpe, shared=shared)
    tokenizers.save(folder)
    write_text(folder / _FINGERPRINT, tokenizers.fingerprint)
    return tokenizers


def _learn_tokenizers(config: Config, text: TrainAndValid, tags: Sequence[str], show_progress: bool) -> TokenizerPair:
    pairs = bar(text.train(), desc="reading text for the tokenizer", disable=not show_progress)
    max_length, max_ratio = config.data.max_length, config.data.max_ratio
    tokenizers, notices = learn_tokenizers(
        pairs, config.tokenizer, tags=tags, max_length=max_length, max_ratio=max_ratio
    )
    if show_progress:
        for notice in notices:
            tqdm.write(f"tokenizer: {notice}")
    return tokenizers


def _load_complete(folder: Path) -> TokenizerPair:
    tokenizers = TokenizerPair.load(folder)
    try:
        complete = (folder / _FINGERPRINT).read_text(encoding="ascii") == tokenizers.fingerprint
    except (OSError, ValueError):
        complete = False
    if not complete:
        raise DataError(f"{folder}: the tokenizer is incomplete or damaged")
    return tokenizers


def _prepare_corpus(
    name: _Part,
    config: Config,
    text: TrainAndValid,
    tokenizers: TokenizerPair,
    known: ChecksumMemory,
    show_progress: bool,
) -> Corpus:
    """The corpus of the training text, or of all pairs to validate with that the model can take."""
    data = config.data
    bounded = name == "train" or config.model.bounds_length
    max_length, max_ratio = data.max_length if bounded else None, data.max_ratio if name == "train" else None
    sources = {**_made_from(config, text, known, name), "tokenizers": tokenizers.fingerprint}
    tags = [text.tag for text in _datasets(data, name)]
    if any(tags):
        sources |= {"tags": tags, "counts": count_pairs(_datasets(data, name), known.recall)}
    made_from = fingerprint(recipe=_RECIPE, **sources, max_length=max_length, max_ratio=max_ratio)
    folder = config.cache_dir / f"{name}-{made_from}"
    if folder.exists():
        try:
            return open_corpus(folder, made_from, verify=True, checksum=known.checksum)
        except DataError as error:
            tqdm.write(f"{error} (seq2seq does this now)", file=sys.stderr)
    read = {"train": text.train, "valid": text.valid, "guard": lambda: read_pairs(_datasets(data, "guard"))}[name]()
    pairs = bar(read, desc=f"building the {name} corpus", disable=not show_progress)
    corpus = build_corpus(folder, pairs, tokenizers, made_from, max_length=max_length, max_ratio=max_ratio, tags=tags)
    if show_progress:
        tqdm.write(f"{name}: {corpus.counts}")
    return corpus


def sampled_folder(config: Config, epoch: int) -> Path:
    """The folder, in the run's own folder, of the training corpus that is sampled for ``epoch``."""
    return config.run_dir / "sampled" / f"epoch-{epoch}"
