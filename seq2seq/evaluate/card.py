"""The card of a translated test set: all that is known of it, as plain values for a JSON file and for pages.

Lines count from 1; shares are from 0 to 1; scores from 0 to 100.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Count = Annotated[int, Field(ge=0, lt=1 << 53)]  # a float can be made of it


class _Part(BaseModel):
    """A part of the file; the file may come from a stranger."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class MetricScore(_Part):
    """One metric of the whole test set."""

    name: str  # as sacreBLEU calls it: BLEU, chrF2, chrF2++, TER
    score: FiniteFloat
    signature: str  # names the resamples, too, if there is an interval
    details: str = ""  # of BLEU: n-gram precisions, brevity penalty, lengths
    interval: tuple[FiniteFloat, FiniteFloat] | None = None  # of 95 percent


class SystemCard(_Part):
    """What translated the test set: models that translate together, or a file of translations."""

    name: str  # as it was given: a folder, several folders with " + ", or a file
    is_model: bool
    languages: tuple[str | None, str | None] = (None, None)  # codes of source and target
    step: Count | None = None  # training steps of the model
    num_parameters: Count | None = None
    metadata: dict[str, str] = {}  # of the model file: checksums of weights, data and tokenizer
    decode: dict[str, Any] = {}  # the settings of the search, as in the config's section decode
    search: str = ""  # the same in words: "beam 5, length penalty 1.0"
    seconds: FiniteFloat | None = None  # that translating took
    device: str | None = None  # where it was translated, such as the name of a GPU or of a CPU


class TestSetCard(_Part):
    """The text that was translated."""

    name: str  # files, or the name of the dataset
    lines: Count
    src_blake2b: str | None = None  # None: only translations and references were given
    ref_blake2b: tuple[str, ...]  # one for each reference


class Overlap(_Part):
    """How much of the test set is in the training text.

    Exact: except for case, spaces and punctuation. Near: at most a quarter of the words differ from those of one
    training sentence. That is usual for short sentences: text of one kind has many that are like each other.
    """

    training_pairs: Count  # with which it was compared
    exact_pairs: Count  # test lines whose source and reference are together in the training text
    exact_sources: Count  # test lines whose source is there, with any translation
    exact_references: Count
    near_sources: Count  # test lines whose source is nearly there, and not exactly
    lines: tuple[Count, ...]  # test lines with any of these
    examples: tuple[tuple[Count, str, str], ...] = ()  # near ones: test line, its source, the training source
    without: tuple[MetricScore, ...] = ()  # scores of the lines that do not overlap; empty if all or none do
    without_exact: tuple[MetricScore, ...] = ()  # scores of the lines without exact overlap; empty as above


class Rate(_Part):
    """How many translations have a flag, beside how many references have it."""

    flag: str  # see seq2seq.decode.flags
    lines: Count
    share: FiniteFloat
    reference_lines: Count


class Slice(_Part):
    """The scores of one part of the test set."""

    kind: str  # what the test set is divided by, such as "words in the source"
    name: str  # of the part, such as "11 to 20"
    lines: Count
    bleu: FiniteFloat
    chrf: FiniteFloat


class WordRecall(_Part):
    """Of the words of one kind in the references, how many are in the translations of the same lines."""

    kind: str  # such as "rare words (1 to 5 times in the training text)"
    words: Count
    found: Count


class Example(_Part):
    """One translation to look at."""

    line: Count
    source: str
    translation: str
    reference: str
    chrf: FiniteFloat


class ExampleKind(_Part):
    """The worst lines of one kind, worst first."""

    kind: str  # a flag, or "lowest chrF"
    examples: tuple[Example, ...]


class ReliabilityBin(_Part):
    """Lines with a confidence from ``low`` to ``high``, and the share of them that is acceptable."""

    low: FiniteFloat
    high: FiniteFloat
    lines: Count
    mean_probability: FiniteFloat
    acceptable: FiniteFloat


class TestConfidence(_Part):
    """The confidence of the translations of this test set, compared with its first reference."""

    __test__: ClassVar[bool] = False  # for pytest

    lines: Count  # with text on both sides
    calibration_error: FiniteFloat  # as in ConfidenceCard
    auc: FiniteFloat
    auc_per_token: FiniteFloat
    bins: tuple[ReliabilityBin, ...]


class ConfidenceCard(_Part):
    """How the confidence of the model was calibrated, and how good it is."""

    method: str  # in words
    metric: str
    threshold: FiniteFloat  # of chrF: from here on, a translation counts as acceptable
    calibration_lines: Count
    calibration_error: FiniteFloat  # expected; by cross-validation on the text of the calibration
    auc: FiniteFloat
    auc_per_token: FiniteFloat  # of the plain log-probability per token
    bins: tuple[ReliabilityBin, ...]
    test: TestConfidence | None = None  # None: not measured, or all lines are acceptable, or none is


class TrainingText(_Part):
    """One dataset that the model learnt from."""

    name: str
    files: tuple[str, ...]
    pairs: Count | None = None
    weight: FiniteFloat = 1.0
    tag: str | None = None


class Card(_Part):
    """All of it."""

    format: Literal[1] = 1
    version: str  # of this package
    date: str  # ISO 8601, UTC
    system: SystemCard
    test: TestSetCard
    scores: tuple[MetricScore, ...]  # BLEU first
    notes: tuple[str, ...] = ()  # warnings about the scores
    overlap: Overlap | None = None  # None: the training text is not known
    rates: tuple[Rate, ...] = ()  # empty: the source is not known
    slices: tuple[Slice, ...] = ()
    recalls: tuple[WordRecall, ...] = ()
    examples: tuple[ExampleKind, ...] = ()
    confidence: ConfidenceCard | None = None
    data: tuple[TrainingText, ...] = ()
    left_out: dict[str, Count] = {}  # training pairs that cleaning left out, by cause
