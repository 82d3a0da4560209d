"""Promise: the best model is the one that the scores show to be best, even where a score cannot tell models apart."""

from pathlib import Path

import pytest

from seq2seq.evaluate import Scores
from seq2seq.train.checkpoint import Progress
from seq2seq.train.trainer import validate_run
from seq2seq.train.validation import Validation, update_best
from tests.toy import set_up, toy_config, write_lines, write_text_files


def validated(metric: str, *numbers: tuple[float, float, float], progress: Progress | None = None) -> Progress:
    """The progress of a run after validations with these (loss, BLEU, chrF), one a step."""
    progress = progress or Progress()
    for loss, bleu, chrf in numbers:
        progress.step += 1
        update_best(progress, Validation(loss, Scores(bleu, "", "", chrf, "", 1)), metric)
    return progress


@pytest.mark.parametrize(
    ("metric", "numbers", "best"),
    [
        ("bleu", [(3, 0.0, 20), (2, 0.0, 80), (1, 0.0, 50)], 2),  # Thai under a tokenizer of words: chrF decides
        ("bleu", [(3, 0.0, 0.0), (2, 0.0, 0.0), (4, 0.0, 0.0)], 2),  # nothing but the loss decides
        ("bleu", [(3, 0.02, 20), (2, 0.04, 10)], 1),  # both are chance
        ("bleu", [(3, 0.0, 90), (2, 1.0, 10)], 2),
        ("bleu", [(3, 8.001, 20), (2, 8.004, 20), (1, 8.0, 19)], 2),  # printed as equal: the loss decides
        ("bleu", [(3, 8.0, 20), (2, 8.01, 10)], 2),
        ("bleu", [(3, 8.0, 20), (3, 8.0, 20)], 1),  # of equal ones the first
        ("chrf", [(3, 9.0, 20), (2, 1.0, 20), (1, 99.0, 19)], 2),
        ("chrf", [(3, 0.0, 0.0), (2, 0.0, 0.05)], 2),
        ("loss", [(3, 99, 99), (2, 0, 0), (2, 50, 50)], 2),
    ],
)
def test_equal_scores_are_decided(metric: str, numbers: list[tuple[float, float, float]], best: int) -> None:
    """Guards against a useless model kept as best because its BLEU of 0.00 came first."""
    progress = validated(metric, *numbers)
    assert progress.best_step == best
    loss, bleu, chrf = numbers[best - 1]
    assert progress.best_score == {"bleu": bleu, "chrf": chrf, "loss": -loss}[metric]


def test_zeros_do_not_use_up_patience_while_the_model_learns() -> None:
    """Guards against a run that ends for want of BLEU before the model can have any; and against one without an end."""
    early = [(5.0, 0.0, 4.0), (4.0, 0.0, 0.0), (3.0, 0.0, 1.0)]  # chrF by chance, and a loss that falls
    assert validated("bleu", *early).validations_since_best == 0
    assert validated("bleu", (6.0, 1.1, 5.0), *early).validations_since_best == 0
    assert validated("bleu", *early, (3.5, 0.0, 2.0), (2.9999, 0.0, 1.0)).validations_since_best == 2
    assert validated("bleu", *early, (2.0, 9.0, 9.0), (1.0, 8.0, 8.0)).validations_since_best == 1
    assert validated("chrf", (3, 0.0, 0.01), (2, 0.0, 0.0)).validations_since_best == 0
    assert validated("loss", (3, 0.0, 0.0), (4, 0.0, 0.0), (3.5, 0.0, 0.0)).validations_since_best == 2


def test_a_run_of_an_earlier_version_continues() -> None:
    """Guards against comparisons with numbers that its checkpoint does not have."""
    earlier = {"step": 9, "best_score": 8.0, "best_step": 9, "validations_since_best": 1}
    assert validated("bleu", (3, 7.9, 50), progress=Progress(**earlier)).validations_since_best == 2
    assert validated("bleu", (3, 8.0, 50), progress=Progress(**earlier)).best_step == 10
    assert validated("loss", (2, 0, 0), progress=Progress(**{**earlier, "best_score": -1.5})).best_step == 9


def test_examples_are_different_lines(tmp_path: Path) -> None:
    """Guards against the same sentence three times, where the validation text has no three; blank lines are none."""
    text = write_text_files(tmp_path / "text")
    for name, lines in (("valid.xx", ["ka to", "", "mi"]), ("valid.yy", ["dor fe", "", "gu"])):
        write_lines(text / name, lines)
    run = set_up(toy_config(text, tmp_path / "run"))
    shown = validate_run(run).examples
    run.close()
    assert sorted((src, ref) for src, _, ref in shown) == [("ka to", "dor fe"), ("mi", "gu")]
