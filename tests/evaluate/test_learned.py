"""Scores of other metrics: read, and treated as those of sacreBLEU."""

import json
from pathlib import Path

import numpy as np
import pytest

from seq2seq.errors import UserError
from seq2seq.evaluate.learned import Learned, exchange_lines, read_learned
from seq2seq.evaluate.significance import compare
from tests.toy import write_lines

REFERENCE = [f"dor fe {number}" for number in range(40)]
WORSE = [f"dor {number}" for number in range(40)]


def test_interval_and_test_of_given_scores() -> None:
    """Guards against scores of another system, and against an interval of something else than the mean."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.8, 0.1, 40), rng.normal(0.5, 0.1, 40)
    learned = Learned("COMET", (tuple(first), tuple(second)), "0123456789abcdef" * 2)
    found = compare({"A": REFERENCE, "B": WORSE}, [REFERENCE], learned=[learned])
    one, other = (system.measures[-1] for system in found.systems)
    assert (one.name, one.score, other.score) == ("COMET", pytest.approx(first.mean()), pytest.approx(second.mean()))
    resamples = np.random.default_rng(12345).choice(40, size=(1000, 40))
    assert one.interval == pytest.approx(np.quantile(first[resamples].mean(axis=1), [0.025, 0.975]), abs=0.003)
    assert other.difference == pytest.approx(second.mean() - first.mean())
    assert other.p_randomisation is not None
    assert other.p_randomisation < 0.001
    assert other.resampled_signature == "file:0123456789abcdef|bs:1000|ar:10000|seed:12345"
    assert "COMET" not in other.as_json()
    same = compare({"A": REFERENCE, "B": WORSE}, [REFERENCE], learned=[Learned("x", (tuple(first),) * 2, "")])
    assert same.systems[1].measures[-1].p_randomisation is None  # sacreBLEU's would be 0.0001


def test_what_is_written_and_read(tmp_path: Path) -> None:
    """Numbers and objects; the order is that of the file for the other program."""
    lines = list(exchange_lines({"A": ["x", "y"], "B": ["u", "v"]}, ["s", "t"], [["r", "q"], ["p", "o"]]))
    assert [json.loads(line) for line in lines][1] == {
        "src": "t",
        "mt": "y",
        "ref": "q",
        "refs": ["q", "o"],
        "system": "A",
    }
    assert [json.loads(line)["mt"] for line in lines] == ["x", "y", "u", "v"]
    write_lines(tmp_path / "scores", ["0.5", '{"COMET": 1, "other": 3}', '{"score": -2e-1}', " 7 "])
    assert read_learned("comet", tmp_path / "scores", 2, 2).scores == ((0.5, 1.0), (-0.2, 7.0))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1", "2", "3"], "--learned M: .* has 3 scores for 2 systems with 2 lines each"),
        (["1", "2", "x", "4"], ":3: is no score"),
        (["1", "2", "NaN", "4"], ":3: is no score"),
        (["1", "2", "[3]", "4"], ":3: is no score"),
        (["1", "2", '{"a": 3}', "4"], ":3: is no score"),
        (["1", "2", "true", "4"], ":3: is no score"),
        (["1", "2", "", "4"], ":3: is no score"),
    ],
)
def test_damaged_scores(tmp_path: Path, lines: list[str], message: str) -> None:
    """Guards against scores of other lines, and a mean that is no number."""
    write_lines(tmp_path / "scores", lines)
    with pytest.raises(UserError, match=message):
        read_learned("M", tmp_path / "scores", 2, 2)
    with pytest.raises(UserError, match="cannot be read"):
        read_learned("M", tmp_path / "none", 2, 2)
