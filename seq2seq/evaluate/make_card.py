"""Makes the card of a translated test set, from texts, scores, and what is known of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path

from seq2seq import __version__
from seq2seq.config import Cause, DecodeConfig, ParallelText, file_problem, load_saved_config, paths_of
from seq2seq.data.cleaning import cleaned_before
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.held_out import TrainAndValid
from seq2seq.data.mixture import names_of
from seq2seq.data.prepare import known_checksums
from seq2seq.decode.calibration import Calibration, Reliability
from seq2seq.decode.pair_scorer import ModelScorer
from seq2seq.decode.translation import Translation
from seq2seq.errors import UserError
from seq2seq.evaluate.by_line import ByLine
from seq2seq.evaluate.card import (
    Card,
    ConfidenceCard,
    MetricScore,
    Overlap,
    ReliabilityBin,
    SystemCard,
    TestConfidence,
    TestSetCard,
    TrainingText,
)
from seq2seq.evaluate.scores import fingerprint_lines, sentence_chrf, tokenizer_for
from seq2seq.evaluate.significance import Measure
from seq2seq.evaluate.slices import Translated, find_examples, find_rates, find_recalls, find_slices
from seq2seq.evaluate.training_text import Learnt, read_training_text
from seq2seq.files import write_text
from seq2seq.model_folder import CONFIG

CARD = "card.json"
_NEAR_EXAMPLES = 10


@dataclass(frozen=True)
class Training:
    """The text that a model learnt from."""

    datasets: Sequence[ParallelText]
    read: Callable[[], Iterator[SentencePair]]  # without the pairs that cleaning or holding out left out
    left_out: Mapping[Cause, int]  # pairs that cleaning left out, by cause
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluated:
    """What a card says of a test and a system beyond their texts."""

    system: SystemCard
    test: str  # name of the test set
    measures: Sequence[Measure]  # BLEU first
    tokenize: str | None = None  # of BLEU, if it was chosen
    notes: tuple[str, ...] = ()
    training: Training | None = None
    calibration: Calibration | None = None
    translations: Sequence[Translation] | None = None  # of the model that has the calibration, for each line


def make_card(texts: Translated, evaluated: Evaluated, progress: Callable[[int], object] = lambda count: None) -> Card:
    """The card of a test set. Without the training text it lacks what that would say, and a note names the reason.

    ``progress`` is called with the number of training pairs that were read since the last call.
    """
    tokenize = evaluated.tokenize or tokenizer_for(texts.languages[1], list(chain(*texts.references)))[0]
    scores = ByLine(texts.translations, texts.references, tokenize)
    notes, training, learnt = list(evaluated.notes), evaluated.training, None
    if training is not None and texts.sources is not None:
        notes += training.notes
        try:
            learnt = read_training_text(training.read(), texts.sources, texts.references, progress)
        except UserError as error:  # the card has much else to say
            notes.append(f"the training text cannot be read, so overlap and rare words are not known: {error}")
    sources = None if texts.sources is None else fingerprint_lines(texts.sources)
    return Card(
        version=__version__,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        system=evaluated.system,
        test=TestSetCard(
            name=evaluated.test,
            lines=len(texts.translations),
            src_blake2b=sources,
            ref_blake2b=tuple(map(fingerprint_lines, texts.references)),
        ),
        scores=tuple(map(_metric, evaluated.measures)),
        notes=tuple(notes),
        overlap=None if learnt is None else _overlap(texts, scores, learnt),
        rates=find_rates(texts),
        slices=find_slices(texts, scores, None if learnt is None else learnt.source_words),
        recalls=find_recalls(texts, None if learnt is None else learnt.target_words),
        examples=find_examples(texts, scores),
        confidence=None if evaluated.calibration is None else _confidence(evaluated.calibration, evaluated, texts),
        data=() if training is None else tuple(_data(training.datasets, learnt)),
        left_out={} if training is None else {str(cause): count for cause, count in training.left_out.items()},
    )


def write_card(card: Card, folder: Path) -> None:
    """Write :data:`CARD` into a folder; raises UserError if it cannot be written."""
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_text(folder / CARD, f"{text}\n")


def training_of(folder: Path) -> Training | str:
    """The training text of a model folder, as the run around it knows it; or why it is not known."""
    folder = folder.resolve()
    without = "overlap with the training text and rare words are not known"
    path = folder.parent / CONFIG
    if folder.name not in ("best", "last") or not path.is_file():
        return f"{folder.name}: no folder of a run, so {without}"
    try:
        config = load_saved_config(path)
        for dataset in config.data.train:
            for file in chain(*paths_of(dataset).values()):
                if problem := file_problem(file):
                    return f"the training text is not there ({file}: {problem}), so {without}"
    except UserError as error:
        return f"the config of the run cannot be read, so {without}: {' '.join(str(error).split())}"
    cleaned, notes = None, []
    try:
        cleaned = cleaned_before(config.data, config.cache_dir, known_checksums(config), ModelScorer("cpu"))
    except UserError as error:
        notes.append(f"pairs that cleaning left out count as training text: {error}")
    if config.init.source is not None:
        notes.append(f"what {config.init.source}, from which training started, had learnt is not known")
    training = training_with(config.data.train, TrainAndValid(config.data, cleaned))
    return Training(training.datasets, training.read, training.left_out, tuple(notes))


def training_with(datasets: Sequence[ParallelText], text: TrainAndValid) -> Training:
    """The training text of a run."""
    return Training(datasets, text.train, {} if text.cleaned is None else text.cleaned.counts)


def without_config(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a model, or of several, without the settings, which a card has in other places."""
    return {name: value for name, value in metadata.items() if name.rpartition(".")[2] != "config"}


def search_in_words(decode: DecodeConfig) -> str:
    """How the search was done, for people."""
    words = f"beam {decode.beam_size}, length penalty {decode.length_penalty}"
    if decode.sample:
        words = f"sampling, temperature {decode.temperature}, seed {decode.seed}"
    words += f", {decode.quantize}" if decode.quantize else ""
    return words + (", minimum Bayes risk" if decode.choose == "mbr" else "")


def _metric(measure: Measure) -> MetricScore:
    return MetricScore(
        name=measure.name,
        score=measure.score,
        signature=measure.resampled_signature or measure.signature,
        details=measure.details,
        interval=measure.interval,
    )


def _overlap(texts: Translated, scores: ByLine, learnt: Learnt) -> Overlap:
    matches, sources = learnt.matches, texts.sources or ()
    near = {line: found for line, found in (matches.near or {}).items() if line not in matches.sources}
    exact = matches.sources | matches.references
    lines = exact | near.keys()

    def without(overlapping: Set[int]) -> tuple[MetricScore, ...]:
        others = [line for line in range(len(texts.translations)) if line not in overlapping]
        return scores.scores(others) if overlapping and others else ()

    nearest = sorted(near, key=lambda line: (near[line].different, line))[:_NEAR_EXAMPLES]
    return Overlap(
        training_pairs=learnt.pairs.total(),
        exact_pairs=len(matches.pairs),
        exact_sources=len(matches.sources),
        exact_references=len(matches.references),
        near_sources=len(near),
        lines=tuple(line + 1 for line in sorted(lines)),
        examples=tuple((line + 1, sources[line], near[line].text) for line in nearest),
        without=without(lines),
        without_exact=without(exact),
    )


def _confidence(calibration: Calibration, evaluated: Evaluated, texts: Translated) -> ConfidenceCard:
    found = calibration.cross_validation
    return ConfidenceCard(
        method="logistic regression on the mean log-probability of a token and the length",
        metric=calibration.metric,
        threshold=calibration.threshold,
        calibration_lines=calibration.lines,
        calibration_error=found.calibration_error,
        auc=found.auc,
        auc_per_token=found.auc_per_token,
        bins=_bins(found),
        test=None if evaluated.translations is None else _measured(calibration, evaluated.translations, texts),
    )


def _measured(
    calibration: Calibration, translations: Sequence[Translation], texts: Translated
) -> TestConfidence | None:
    """The confidence on the lines with text, as those that the calibration was fitted on."""
    sides = enumerate(zip(texts.sources or (), texts.references[0], strict=True))
    lines = [line for line, (source, reference) in sides if source.strip() and reference.strip()]
    chrf, _ = sentence_chrf([translations[line].text for line in lines], [texts.references[0][line] for line in lines])
    found = calibration.measure([translations[line] for line in lines], chrf)
    if found is None:
        return None
    return TestConfidence(
        lines=len(lines),
        calibration_error=found.calibration_error,
        auc=found.auc,
        auc_per_token=found.auc_per_token,
        bins=_bins(found),
    )


def _bins(found: Reliability) -> tuple[ReliabilityBin, ...]:
    return tuple(ReliabilityBin(**one.model_dump()) for one in found.bins)


def _data(datasets: Sequence[ParallelText], learnt: Learnt | None) -> Iterator[TrainingText]:
    for number, (name, dataset) in enumerate(zip(names_of(datasets), datasets, strict=True)):
        yield TrainingText(
            name=name,
            files=tuple(str(path) for path in chain(*paths_of(dataset).values())),
            pairs=None if learnt is None else learnt.pairs[number],
            weight=dataset.weight,
            tag=dataset.tag,
        )
