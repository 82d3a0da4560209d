"""Promise: confidence is a probability that is right on new lines of the same kind, and nothing else is called one."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seq2seq.config import DecodeConfig
from seq2seq.decode.calibration import (
    Calibration,
    CannotCalibrateError,
    calibration_for,
    fit,
    reliability,
    save_calibration,
)
from seq2seq.decode.review import Review
from seq2seq.decode.translation import Translation
from seq2seq.errors import ModelError
from seq2seq.files import CHECKSUM
from seq2seq.model_folder import CONFIDENCE, WEIGHTS

DECODE = DecodeConfig()


def made_up(count: int, seed: int) -> tuple[list[Translation], list[float]]:
    """Translations with chrF of 80 or 20; the log-odds of 80 are 2 + 4 x mean log-probability + 0.5 x log(tokens)."""
    rng = np.random.default_rng(seed)
    translations, chrf = [], []
    for _ in range(count):
        per_token, tokens = -float(rng.gamma(2.0, 0.5)), int(rng.integers(2, 30))
        odds = math.exp(2 + 4 * per_token + 0.5 * math.log(tokens))
        translations.append(Translation("", per_token, per_token * tokens, num_tokens=tokens))
        chrf.append(80.0 if rng.random() < odds / (1 + odds) else 20.0)
    return translations, chrf


def fitted(count: int = 2000, seed: int = 1, model: str = "weights") -> Calibration:
    return fit(*made_up(count, seed), "chrF2", DECODE, model)


def test_the_fit_finds_the_regression_that_made_the_lines() -> None:
    """Guards against wrong gradients, a penalty on the constant, and weights that stay standardised."""
    weights = fitted(20_000).weights
    assert weights.per_token == pytest.approx(4, abs=0.2)
    assert weights.length == pytest.approx(0.5, abs=0.1)
    assert weights.constant == pytest.approx(2, abs=0.3)


def test_probabilities_are_right_on_new_lines() -> None:
    """Guards against probabilities that are too sure, and against a report that is better than the truth."""
    calibration = fitted()
    translations, chrf = made_up(5000, seed=2)
    found = np.array([calibration.probability(one) for one in translations])
    good = (np.array(chrf) >= 50).astype(float)
    new = reliability(found, good, np.array([one.per_token for one in translations]))
    assert new.calibration_error < 0.03
    assert calibration.cross_validation.calibration_error < 0.03
    assert new.auc == pytest.approx(calibration.cross_validation.auc, abs=0.03)
    assert new.auc > 0.8
    assert 0.01 <= found.min() < found.max() <= 0.99


def test_the_curve_of_another_text_is_of_what_is_shown() -> None:
    """Guards against the probabilities of the fit's own lines, and against a curve of lines that are all alike."""
    calibration = fitted()
    translations, chrf = made_up(500, seed=2)
    found = calibration.measure(translations, chrf)
    shown = np.array([calibration.probability(one) for one in translations])
    good = np.array([one >= 50 for one in chrf], float)
    assert found == reliability(shown, good, np.array([one.per_token for one in translations]))
    assert sum(row.lines for row in found.bins) == 500
    for alike in ([80.0] * 500, [20.0] * 500):
        assert calibration.measure(translations, alike) is None
    assert calibration.measure([], []) is None


def test_reliability_by_hand() -> None:
    """Guards against bins that lose a line of probability 1, shares that are swapped, and ties that count whole."""
    found = reliability(np.array([0.05, 0.07, 0.65, 0.65, 1.0]), np.array([0.0, 1, 1, 0, 1]), np.zeros(5))
    rows = [(row.low, row.high, row.lines, row.mean_probability, row.acceptable) for row in found.bins]
    assert rows == [(0.0, 0.1, 2, 0.06, 0.5), (0.6, 0.7, 2, 0.65, 0.5), (0.9, 1.0, 1, 1.0, 1.0)]
    assert found.calibration_error == pytest.approx((2 * 0.44 + 2 * 0.15) / 5)
    assert found.auc == pytest.approx((2 + 1 + 1.5) / 6)  # of the six pairs of a good line and another
    assert found.auc_per_token == 0.5


def test_cross_validation_does_not_see_its_lines() -> None:
    """Guards against a report on the lines that the fit has seen: on noise it would find something."""
    translations, _ = made_up(120, seed=3)
    seen = []
    for seed in range(30):
        chrf = np.random.default_rng(seed).permutation([80.0, 20.0] * 60)
        seen.append(fit(translations, chrf.tolist(), "chrF2", DECODE, "weights").cross_validation.auc)
    assert np.mean(seen) < 0.51


@pytest.mark.parametrize("separable", [True, False])
def test_extreme_lines_are_fitted(separable: bool) -> None:
    """Guards against overflow, and weights without end, where one number decides or all are the same."""
    numbers = [-0.1 - (index % 2) * separable for index in range(200)]
    translations = [Translation("", number, 5 * number, num_tokens=5) for number in numbers]
    calibration = fit(translations, [80.0, 20.0] * 100, "chrF2", DECODE, "weights")
    good, bad = (calibration.probability(one) for one in translations[:2])
    assert (good > 0.9 and bad < 0.1) if separable else good == bad == pytest.approx(0.5, abs=1e-3)
    assert calibration.probability(Translation("", -1e9, -1e9, num_tokens=1)) == (0.01 if separable else bad)


@pytest.mark.parametrize(
    ("chrf", "message"),
    [
        ([80.0, 20.0] * 49, "too small: 98 pairs with text, 100 are needed"),
        ([80.0] * 9 + [20.0] * 91, "9 of 100 translations are acceptable (chrF at least 50); 10 of them and 10 others"),
        ([50.0] * 91 + [49.9] * 9, "91 of 100 translations are acceptable (chrF at least 50); 10 of them and 10 other"),
    ],
)
def test_guesses_are_refused(chrf: list[float], message: str) -> None:
    """Guards against probabilities from a handful of lines."""
    translations, _ = made_up(len(chrf), seed=4)
    with pytest.raises(CannotCalibrateError) as refused:
        fit(translations, chrf, "chrF2", DECODE, "weights")
    assert str(refused.value).startswith(message)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder, as far as calibrations look at it."""
    (tmp_path / WEIGHTS).touch()
    save_calibration(tmp_path, fitted())
    return tmp_path


def loaded(folder: Path, model: str = "weights", copies: int = 1, rerank: float | None = None) -> Any:
    reverse = None if rerank is None else SimpleNamespace(weight=rerank)
    return SimpleNamespace(folders=(folder,) * copies, metadata={CHECKSUM: model}, reverse=reverse)


def test_what_is_saved_is_loaded(folder: Path) -> None:
    """Guards against numbers that change on disk; other batches and tags are no other search."""
    said: list[str] = []
    decode = DECODE.model_copy(update={"batch_tokens": 100, "n_best": 3, "tag": "new"})
    assert calibration_for(loaded(folder), decode, said.append) == fitted()
    assert said == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / CONFIDENCE).unlink(), "no confidence: the model has no calibration"),
        (lambda folder: save_calibration(folder, fitted(model="old")), "was made for other weights"),
    ],
)
def test_nothing_is_shown_uncalibrated(folder: Path, change: Callable[[Path], object], message: str) -> None:
    """Guards against the calibration of another model."""
    said: list[str] = []
    change(folder)
    assert calibration_for(loaded(folder), DECODE, said.append) is None
    assert len(said) == 1
    assert message in said[0]
    assert f"`seq2seq calibrate {folder} --src FILE --ref FILE`" in said[0]


def test_ensembles_and_samples_have_no_confidence(folder: Path) -> None:
    """Guards against the calibration of one model, or of beam search, for something else."""
    said: list[str] = []
    assert calibration_for(loaded(folder, copies=2), DECODE, said.append) is None
    assert calibration_for(loaded(folder), DECODE.model_copy(update={"sample": True}), said.append) is None
    assert said == [
        f"no confidence: it cannot be calibrated for translations of {x}" for x in ("an ensemble", "samples")
    ]


def test_another_search_is_named(folder: Path) -> None:
    """Guards against probabilities that seem as exact as those of the search that they were calibrated for."""
    said: list[str] = []
    decode = DECODE.model_copy(update={"beam_size": 1, "quantize": "int8"})
    assert calibration_for(loaded(folder), decode, said.append) == fitted()
    what = "beam_size 5, now 1; quantize None, now int8"
    assert said == [f"confidence was calibrated with other settings ({what}), so it may be less exact"]


def test_reranking_is_another_search(folder: Path) -> None:
    """Guards against a confidence for translations that a reverse model chose, or did not choose, without a word."""
    said: list[str] = []
    assert calibration_for(loaded(folder, rerank=0.25), DECODE, said.append) == fitted()
    save_calibration(folder, fit(*made_up(2000, 1), "chrF2", DECODE, "weights", rerank=0.25))
    calibration_for(loaded(folder, rerank=0.25), DECODE, said.append)
    calibration_for(loaded(folder), DECODE, said.append)
    whats = ["rerank_weight None, now 0.25", "rerank_weight 0.25, now None"]
    assert said == [f"confidence was calibrated with other settings ({x}), so it may be less exact" for x in whats]


@pytest.mark.parametrize("text", ["", "{}", "[1]", "nan", '{"metric": 1}'])
def test_a_damaged_file_is_one_line(folder: Path, text: str) -> None:
    """Guards against a traceback, and against weights that are not numbers."""
    whole = (folder / CONFIDENCE).read_text()
    for damaged in (text, whole.replace('"per_token": ', '"per_token": NaN, "x": ', 1), whole[:-9]):
        (folder / CONFIDENCE).write_text(damaged)
        with pytest.raises(ModelError, match=r"confidence.json: damaged, or of another version"):
            calibration_for(loaded(folder), DECODE, lambda text: None)


def test_a_review_goes_by_confidence() -> None:
    """Guards against an order by log-probability where there is something better."""
    review = Review(3)
    for line, (per_token, flags, confidence) in enumerate(
        [(-9, (), 0.9), (-1, (), 0.2), (-1, ("long",), 0.8)], start=1
    ):
        review.add(line, "a", Translation("b", per_token, per_token, num_tokens=1), flags, confidence)
    assert list(review.lines("x")) == [
        "x:3: long; confidence 0.80: a -> b",
        "x:2: no flag; confidence 0.20: a -> b",
        "x:1: no flag; confidence 0.90: a -> b",
    ]
