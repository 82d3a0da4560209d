"""Calibrated confidence: the probability that a translation is acceptable.

Acceptable means that sentence chrF against the reference is at least :data:`THRESHOLD`. A logistic regression (Platt
1999) estimates how probable that is, from the mean log-probability of a token and the length of the translation. It
holds for one model (its weights), one way to search, and text like that on which it was fitted.

Other features of :mod:`seq2seq.decode.confidence` are not used: on Tatoeba and Multi30k, the lowest log-probability of
a token and the ratio of the lengths separate good lines hardly better (area under the ROC curve +0.006 at most), and
the former costs another pass over the translations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from seq2seq.config import DecodeConfig
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.errors import ModelError, UserError
from seq2seq.files import CHECKSUM, checksum, write_text
from seq2seq.model_folder import CONFIDENCE, read_beside

THRESHOLD = 50.0  # of chrF: about half of the reference's letter sequences are there, so most of its words
FEWEST_LINES, FEWEST_OF_A_KIND = 100, 10  # with fewer, the probabilities would be guesses
_FOLDS, _BINS = 10, 10
_PENALTY = 1.0  # L2, on weights of standardised inputs: hardly felt with 1,000 lines
_MOST_STEPS = 50  # Newton's; 5 to 10 are enough
# Settings that decide about other hypotheses, where a batch is computed, or only about samples.
_OTHER_SETTINGS = {
    "n_best",
    "batch_tokens",
    "engine",
    "tag",
    "sample",
    "num_samples",
    "temperature",
    "top_k",
    "top_p",
    "seed",
}

Numbers: TypeAlias = NDArray[np.float64]


class CannotCalibrateError(UserError):
    """The text is too small or too uniform for a calibration."""


class _Part(BaseModel):
    """A part of the file; the file may come from a stranger."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Weight = Annotated[float, Field(ge=-1e100, le=1e100)]  # a sum of products with log-probabilities is finite


class Bin(_Part):
    """One row of the reliability table: lines with a probability from ``low`` to ``high``."""

    low: FiniteFloat
    high: FiniteFloat
    lines: Count
    mean_probability: FiniteFloat
    acceptable: FiniteFloat  # share


class Reliability(_Part):
    """How good probabilities are; measured on lines that each fit did not see (cross-validation)."""

    calibration_error: FiniteFloat  # expected: mean distance of probability and share over the lines, by bins
    auc: FiniteFloat  # area under the ROC curve: how well the probability separates acceptable lines from others
    auc_per_token: FiniteFloat  # the same for the mean log-probability of a token
    bins: tuple[Bin, ...]  # those with lines


class Weights(_Part):
    """The regression: log-odds = per_token x mean log-probability + length x log(tokens) + constant."""

    per_token: Weight
    length: Weight
    constant: Weight

    def probabilities(self, inputs: Numbers) -> Numbers:
        """Of lines [N], from their inputs [N, 3]."""
        return _logistic(inputs @ np.array([self.per_token, self.length, self.constant]))


class Calibration(_Part):
    """The content of :data:`CONFIDENCE` in a model folder."""

    metric: str  # what acceptable is measured with: sacreBLEU's signature of sentence chrF
    threshold: FiniteFloat
    weights: Weights
    lines: Count  # of the text it was fitted on
    acceptable: FiniteFloat  # share of these
    cross_validation: Reliability
    decode: dict[str, Any]  # the settings of the search
    model: str  # checksum of the weights

    def probability(self, translation: Translation) -> float:
        """That the best translation of a line is acceptable. It is never certain, so this is from 0.01 to 0.99."""
        return float(self.weights.probabilities(_inputs([translation]))[0].clip(0.01, 0.99))

    def measure(self, translations: Sequence[Translation], chrf: Sequence[float]) -> Reliability | None:
        """How good the probabilities are on other lines, with the sentence chrF of each.

        None if all of them are acceptable, or none is: then there is no order to measure.
        """
        acceptable = (np.array(chrf) >= self.threshold).astype(np.float64)
        if not 0 < acceptable.sum() < len(acceptable):
            return None
        probabilities = np.array([self.probability(one) for one in translations])
        return reliability(probabilities, acceptable, _inputs(translations)[:, 0])

    @property
    def fingerprint(self) -> str:
        """Changes with the probabilities."""
        return checksum(self.weights.model_dump_json().encode())

    def differences(self, decode: DecodeConfig, rerank: float | None = None) -> list[str]:
        """The settings of a search that differ from those of the calibration; ``rerank``: as for :func:`fit`."""
        defaults, now = settings_of(DecodeConfig(), None), settings_of(decode, rerank)
        return [
            f"{name} {self.decode.get(name, defaults[name])}, now {value}"
            for name, value in now.items()
            if self.decode.get(name, defaults[name]) != value
        ]

    def __str__(self) -> str:
        found = self.cross_validation
        return (
            f"{self.lines:,} lines, {self.acceptable:.0%} of them acceptable (chrF at least {self.threshold:g}); "
            f"calibration error {found.calibration_error:.3f}, area under the ROC curve {found.auc:.3f} "
            f"(log-probability per token alone: {found.auc_per_token:.3f})"
        )


def settings_of(decode: DecodeConfig, rerank: float | None) -> dict[str, Any]:
    """The settings that affect the best translation of a search, and so its confidence."""
    return {**decode.model_dump(mode="json", exclude=_OTHER_SETTINGS), "rerank_weight": rerank}


def rerank_weight(translator: Translator) -> float | None:
    """The weight of the reverse model that chooses among a translator's candidates, if there is one."""
    return None if translator.reverse is None else translator.reverse.weight


def fit(
    translations: Sequence[Translation],
    chrf: Sequence[float],
    metric: str,
    decode: DecodeConfig,
    model: str,
    rerank: float | None = None,
) -> Calibration:
    """Fit a calibration on the best translations of lines with text.

    Args:
        chrf: sentence chrF of each translation; ``metric`` is its signature.
        decode: how they were found.
        model: checksum of the weights.
        rerank: the weight of a reverse model that chose them.

    Raises:
        CannotCalibrateError: there are too few lines, or too few acceptable ones, or too few others.
    """
    num_lines, acceptable = len(translations), (np.array(chrf) >= THRESHOLD).astype(np.float64)
    count = int(acceptable.sum())
    if num_lines < FEWEST_LINES:
        raise CannotCalibrateError(f"too small: {num_lines:,} pairs with text, {FEWEST_LINES} are needed")
    if min(count, num_lines - count) < FEWEST_OF_A_KIND:
        what = f"{count:,} of {num_lines:,} translations are acceptable (chrF at least {THRESHOLD:g})"
        raise CannotCalibrateError(f"{what}; {FEWEST_OF_A_KIND} of them and {FEWEST_OF_A_KIND} others are needed")
    inputs = _inputs(translations)
    held_out, fold = np.empty(num_lines), np.arange(num_lines) % _FOLDS
    for number in range(_FOLDS):
        rest = fold != number
        held_out[~rest] = _fitted(inputs[rest], acceptable[rest]).probabilities(inputs[~rest])
    return Calibration(
        metric=metric,
        threshold=THRESHOLD,
        weights=_fitted(inputs, acceptable),
        lines=num_lines,
        acceptable=_rounded(acceptable.mean()),
        cross_validation=reliability(held_out, acceptable, inputs[:, 0]),
        decode=settings_of(decode, rerank),
        model=model,
    )


def reliability(probabilities: Numbers, acceptable: Numbers, per_token: Numbers) -> Reliability:
    """How good the probabilities [N] of lines are that are acceptable (1) or not (0).

    The expected calibration error is that of Naeini et al. 2015, with ten bins of the same width.
    """
    number = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    bins, error = [], 0.0
    for index in np.unique(number):
        inside = number == index
        mean, share = probabilities[inside].mean(), acceptable[inside].mean()
        error += abs(mean - share) * inside.mean()
        edges = {"low": _rounded(index / _BINS), "high": _rounded((index + 1) / _BINS)}
        row = Bin(**edges, lines=int(inside.sum()), mean_probability=_rounded(mean), acceptable=_rounded(share))
        bins.append(row)
    aucs = (_rounded(_auc(values, acceptable)) for values in (probabilities, per_token))
    return Reliability(calibration_error=_rounded(error), auc=next(aucs), auc_per_token=next(aucs), bins=tuple(bins))


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write it into a model folder."""
    text = json.dumps(calibration.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_text(folder / CONFIDENCE, f"{text}\n")


def read_calibration(folder: Path) -> Calibration | None:
    """The calibration in a model folder, if it has one; raises ModelError if the file is damaged."""
    text = read_beside(folder, CONFIDENCE)
    try:
        return None if text is None else Calibration.model_validate_json(text)
    except ValidationError:
        damaged = f"{folder / CONFIDENCE}: damaged, or of another version"
        raise ModelError(f"{damaged}; {_again(folder)} writes a new one") from None


def _again(folder: Path) -> str:
    return f"`seq2seq calibrate {folder} --src FILE --ref FILE`"


def calibration_for(translator: Translator, decode: DecodeConfig, say: Callable[[str], None]) -> Calibration | None:
    """The calibration in the model's folder, if it holds for this search; ``say`` gets one line if it may not.

    There is none for an ensemble, whose log-probabilities are means over its models, and for samples, which are not
    the most likely translations. With another beam size, or another such setting, it holds roughly.

    Raises:
        ModelError: the file is damaged.
    """
    if len(translator.folders) > 1 or decode.sample:
        which = "of an ensemble" if len(translator.folders) > 1 else "of samples"
        say(f"no confidence: it cannot be calibrated for translations {which}")
        return None
    (folder,) = translator.folders
    calibration = read_calibration(folder)
    if calibration is None:
        say(f"no confidence: the model has no calibration; {_again(folder)} makes one")
        return None
    if calibration.model != translator.metadata.get(CHECKSUM):
        say(f"no confidence: {folder / CONFIDENCE} was made for other weights; {_again(folder)} makes a new one")
        return None
    if differences := calibration.differences(decode, rerank_weight(translator)):
        say(f"confidence was calibrated with other settings ({'; '.join(differences)}), so it may be less exact")
    return calibration


def _inputs(translations: Sequence[Translation]) -> Numbers:
    """What the regression sees of each translation, [N, 3]."""
    rows = [(one.per_token, math.log(max(1, one.num_tokens)), 1.0) for one in translations]
    return np.array(rows, dtype=np.float64)


def _fitted(inputs: Numbers, acceptable: Numbers) -> Weights:
    """The most likely logistic regression with an L2 penalty, by Newton's method, from inputs [N, 3] and labels [N]."""
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    mean[-1], scale[-1] = 0.0, 1.0  # of the constant
    scale[scale < 1e-9] = 1.0
    standardised = (inputs - mean) / scale
    penalty = np.array([_PENALTY, _PENALTY, 0.0])
    weights = np.zeros(3)
    for _ in range(_MOST_STEPS):
        probabilities = _logistic(standardised @ weights)
        gradient = standardised.T @ (probabilities - acceptable) + penalty * weights
        curvature = (standardised.T * (probabilities * (1 - probabilities))) @ standardised + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    weights /= scale
    weights[-1] -= weights[:-1] @ mean[:-1]
    per_token, length, constant = map(_rounded, weights)
    return Weights(per_token=per_token, length=length, constant=constant)


def _logistic(numbers: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-np.clip(numbers, -500, 500)))


def _auc(values: Numbers, positive: Numbers) -> float:
    """Area under the ROC curve: how often a positive line has the higher value than another; equal ones count half."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    num, others = positive.sum(), (1 - positive).sum()
    return float((rank[positive == 1].sum() - num * (num + 1) / 2) / (num * others))


def _rounded(number: float) -> float:
    """Six decimals: later ones depend on the machine."""
    return round(float(number), 6)
