"""The picture of a run, and of several runs together."""

import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from seq2seq.errors import UserError
from seq2seq.report.curves import draw_curves, draw_together
from seq2seq.train.metrics import METRICS, TIMING, MetricsLog

RECORD = {"epoch": 1, "loss": 2.0, "nll": 1.0, "grad_norm": 0.5, "lr": 0.1}


@pytest.mark.parametrize("validations", [0, 1])
def test_the_picture(tmp_path: Path, validations: int) -> None:
    """Curves can be drawn in the middle of a run, before its first validation as well."""
    pytest.importorskip("matplotlib")
    log = MetricsLog(tmp_path, 0)
    for step in range(1, 4):
        log.add(METRICS, step, {**RECORD, "tokens": 9})
    for _ in range(validations):
        log.add(METRICS, 3, {"valid_loss": 1.0, "valid_ppl": 3.0, "valid_bleu": 5.0, "valid_chrf": 9.0})
    log.close()
    assert draw_curves(tmp_path) == tmp_path / "curves.png"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_guard_is_drawn_beside_the_validation(tmp_path: Path) -> None:
    """Guards against a run that forgets and whose picture does not show it; the model before training is step 0."""
    figure_module = pytest.importorskip("matplotlib.figure")
    log = MetricsLog(tmp_path, -1)
    for step in (0, 1, 2):
        if step:
            log.add(METRICS, step, {**RECORD, "tokens": 9})
        guard = {"guard_loss": 1.0 + step, "guard_bleu": 30.0 - step, "guard_chrf": 50.0 - step}
        log.add(METRICS, step, {"valid_loss": 2.0, "valid_bleu": 5.0, "valid_chrf": 9.0, **guard})
    log.close()
    figures = []
    with mock.patch.object(figure_module.Figure, "savefig", lambda figure, file, **_: figures.append(figure)):
        draw_curves(tmp_path)
    loss, scores = ({line.get_label(): line for line in axes.get_lines()} for axes in figures[0].axes[:2])
    assert [*scores] == ["BLEU", "BLEU, guard", "chrF", "chrF, guard"]
    for line, values in (
        (scores["BLEU, guard"], [30.0, 29.0, 28.0]),
        (scores["chrF, guard"], [50.0, 49.0, 48.0]),
        (loss["validation, guard"], [1.0, 2.0, 3.0]),
        (scores["BLEU"], [5.0] * 3),
    ):
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 1, 2], values)


def test_damaged_records_are_not_drawn(tmp_path: Path) -> None:
    """A traceback at the end of a long run for a bit that flipped in its log: in a name, a number, a letter."""
    pytest.importorskip("matplotlib")
    record = {"step": 1, "loss": 2.0, "nll": 1.0, "grad_norm": 0.5, "lr": 0.1}
    texts = [json.dumps({**record, "nll": "1"}), json.dumps(record).replace("nll", "oll"), json.dumps(record)]
    (tmp_path / "metrics.jsonl").write_bytes("".join(f"{text}\n" for text in texts).encode() + b'{"step": \xff}\n')
    assert draw_curves(tmp_path).exists()


def test_nothing_to_draw(tmp_path: Path) -> None:
    """An empty or wrong folder is told with the file that is missing."""
    with pytest.raises(UserError, match=r"metrics\.jsonl: no metrics to draw"):
        draw_curves(tmp_path)


def write_run(folder: Path, num_steps: int, **timed: float) -> Path:
    """A run with these steps of 1,000 tokens, of which the last one is validated; ``timed``: seconds of each."""
    log = MetricsLog(folder, 0)
    for step in range(1, num_steps + 1):
        log.add(METRICS, step, {**RECORD, "nll": 9.0 / step, "tokens": 1000})
        if timed:
            log.add(TIMING, step, {"seconds": timed["seconds"], "tokens_per_second": 9})
    log.add(METRICS, num_steps, {"valid_loss": 1.0, "valid_bleu": 30.0, "valid_chrf": 9.0})
    if timed:
        log.add(TIMING, num_steps, {"validation_seconds": timed["validation_seconds"]})
    log.close()
    return folder


def drawn(*runs: Path, into: Path) -> Any:
    """The figure of several runs, as it is saved."""
    figure_module = pytest.importorskip("matplotlib.figure")
    figures = []
    save = figure_module.Figure.savefig

    def saved(figure: Any, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    with mock.patch.object(figure_module.Figure, "savefig", saved):
        assert draw_together(runs, into / "together.png") == into / "together.png"
    assert (into / "together.png").read_bytes().startswith(b"\x89PNG")
    return figures[0]


def test_runs_are_compared_by_steps_minutes_and_tokens(tmp_path: Path) -> None:
    """Each number stands where its step, its time and its tokens are; the time of validations counts, as it does for
    train.max_minutes. A run that has no timing is left out of that row alone."""
    timed = write_run(tmp_path / "timed", 10, seconds=30.0, validation_seconds=60.0)
    figure = drawn(write_run(tmp_path / "untimed", 5), timed, into=tmp_path)
    assert [axes.get_xlabel() for axes in figure.axes[::3]] == ["step", "minutes", "million target tokens"]
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "Training loss (smoothed)",
        "Validation loss",
        "Validation BLEU",
    ]
    lines = [{line.get_label(): line for line in axes.get_lines()} for axes in figure.axes]
    assert [sorted(found) for found in lines] == [["timed", "untimed"]] * 3 + [["timed"]] * 3 + [
        ["timed", "untimed"]
    ] * 3
    for row, last in enumerate((10, 6.0, 0.01)):
        training, loss, bleu = (found["timed"] for found in lines[3 * row : 3 * row + 3])
        assert training.get_xdata()[-1] == pytest.approx(last)
        assert training.get_xdata()[4] == pytest.approx((5, 2.5, 0.005)[row])
        assert list(training.get_ydata()) == [9.0 / step for step in range(1, 11)]
        assert (list(loss.get_xdata()), list(loss.get_ydata())) == ([pytest.approx(last)], [1.0])
        assert list(bleu.get_ydata()) == [30.0]


def test_the_legend_has_the_shortest_names_that_tell_runs_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against "run" and "run" for a/run and b/run, and against paths as long as the picture is wide."""
    runs = [write_run(tmp_path / name, 2) for name in ("a/run", "b/run", "b/other", "c/a/run")]
    monkeypatch.chdir(runs[0])
    figure = drawn(Path(), *runs[1:], into=tmp_path)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f"{tmp_path.name}/a/run", "b/run", "other", "c/a/run"]


def contrast(color: str, other: str) -> float:
    """The distance of two colours, as people see it who lack one kind of cones (deuteranopia; Machado et al. 2009)."""
    from matplotlib.colors import to_rgb

    matrix = ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969))
    seen = [[sum(m * part for m, part in zip(row, to_rgb(c), strict=True)) for row in matrix] for c in (color, other)]
    return math.dist(*seen)


def test_eight_runs_can_be_told_apart(tmp_path: Path) -> None:
    """Each has a colour that colour-blind people can tell from the others and from white, and a marker of its own."""
    figure = drawn(*(write_run(tmp_path / f"run{number}", 3) for number in range(8)), into=tmp_path)
    lines = figure.axes[1].get_lines()
    assert len({line.get_marker() for line in lines}) == len(lines) == 8
    colors = [line.get_color() for line in lines] + ["#FFFFFF"]
    pairs = [(one, other) for number, one in enumerate(colors) for other in colors[:number]]
    assert min(contrast(*pair) for pair in pairs) > 0.15


def test_a_run_before_its_first_validation_is_compared(tmp_path: Path) -> None:
    """Runs in progress are what one wants to compare most; also one that has a single step, or is not a number."""
    for name, numbers in (("fresh", [1.0]), ("broken", [math.nan] * 30)):
        log = MetricsLog(tmp_path / name, 0)
        for step, number in enumerate(numbers, start=1):
            log.add(METRICS, step, {**RECORD, "nll": number, "tokens": 9})
        log.close()
    drawn(tmp_path / "broken", tmp_path / "fresh", into=tmp_path)


def test_the_first_steps_do_not_press_the_curves_together(tmp_path: Path) -> None:
    """A loss that starts at 9 and ends at 1 is drawn where it can be compared; all runs fit from a tenth on."""
    figure = drawn(write_run(tmp_path / "a", 100), write_run(tmp_path / "b", 50), into=tmp_path)
    _, top = figure.axes[0].get_ylim()
    assert 9 / 6 < top < 2
