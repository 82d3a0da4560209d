"""Intervals and paired tests: sacreBLEU's own numbers, and sentences that say no more than the numbers do."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from seq2seq.errors import DataError, UserError
from seq2seq.evaluate import score
from seq2seq.evaluate.significance import Comparison, Measure, SystemScores, compare
from seq2seq.evaluate.table import show
from tests import toy
from tests.toy import write_lines

sys.path.insert(0, str(toy.ROOT / "scripts"))

from chance import p_values

NUM_LINES = 60


def damaged(lines: list[str], rate: float, seed: int) -> list[str]:
    """The lines with some of their words exchanged for others."""
    rng = random.Random(seed)
    words = sorted({word for line in lines for word in line.split()})
    return [
        " ".join(rng.choice(words) if rng.random() < rate else word for word in line.split()) + "." for line in lines
    ]


REF = [f"{tgt} {tgt[::-1]}." for _, tgt in toy.sentences(NUM_LINES, 3)]
GOOD, WORSE = damaged(REF, 0.1, 1), damaged(REF, 0.5, 2)
FEW = [f"{line} and more" if number < 3 else line for number, line in enumerate(GOOD)]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """All of it once, because it takes seconds."""
    return compare({"A": GOOD, "B": WORSE, "C": FEW}, [REF], "13a")


@pytest.mark.parametrize(
    ("name", "metric"),
    [("BLEU", BLEU), ("chrF2", CHRF), ("chrF2++", lambda: CHRF(word_order=2)), ("TER", TER)],
    ids=["BLEU", "chrF2", "chrF2++", "TER"],  # not those of the functions, which hold an address
)
def test_the_numbers_are_those_of_sacrebleu(comparison: Comparison, name: str, metric: Any) -> None:
    """Guards against scores, intervals or p-values of our own, also where a metric reads each system only once."""
    ours = [next(one for one in system.measures if one.name == name) for system in comparison.systems[:2]]
    for measure, lines in zip(ours, (GOOD, WORSE), strict=True):
        assert measure.score == pytest.approx(metric().corpus_score(lines, [REF]).score, abs=1e-9)
    named = [("one", GOOD), ("other", WORSE)]
    signatures, results = PairedTest(named, {name: metric()}, [REF], "bs")()
    for measure, result in zip(ours, results[name], strict=True):
        assert measure.interval == pytest.approx((result.mean - result.ci, result.mean + result.ci), abs=1e-4)
        assert measure.p_bootstrap == result.p_value
    signatures_ar, results = PairedTest(named, {name: metric()}, [REF], "ar")()
    assert [one.p_randomisation for one in ours] == [result.p_value for result in results[name]]
    for signature in (str(signatures[name]), str(signatures_ar[name])):
        assert set(signature.split("|")) <= set(str(ours[1].resampled_signature).split("|"))
    assert {"bs:1000", "ar:10000", "seed:12345"} <= set(str(ours[1].resampled_signature).split("|"))
    assert not {"bs:1000", "seed:12345"} & set(ours[1].signature.split("|"))


def test_the_numbers_are_those_of_its_command_line(comparison: Comparison, tmp_path: Path) -> None:
    """Guards against other seeds, trials or settings than the ones that everybody else's numbers have."""
    for name, lines in (("ref", REF), ("one", GOOD), ("other", WORSE)):
        write_lines(tmp_path / name, lines)

    def printed(options: str) -> Any:
        command = [sys.executable, "-m", "sacrebleu", "ref", "-w", "6", *options.split()]
        done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=toy.environment(), check=True)
        return json.loads(done.stdout)

    for theirs in printed("-i one -m bleu chrf ter --confidence"):
        ours = next(one for one in comparison.systems[0].measures if one.name == theirs["name"])
        low, high = ours.interval or (0.0, 0.0)
        assert (low + high) / 2 == pytest.approx(theirs["confidence_mean"], abs=1e-4)
        assert (high - low) / 2 == pytest.approx(theirs["confidence_var"], abs=1e-4)
    _, other = printed("-i one other -m bleu --paired-ar")
    bleu = comparison.systems[1].measures[0]
    assert bleu.p_randomisation == other["BLEU"]["p_value"]
    assert bleu.score == pytest.approx(other["BLEU"]["score"])


def test_a_difference_has_its_sign(comparison: Comparison) -> None:
    """Guards against a system that is called better because it needs more edits."""
    bleu, _, _, ter = comparison.systems[1].measures
    assert (bleu.difference or 0) < 0 < (ter.difference or 0)
    assert bleu.gain < 0 > ter.gain
    assert bleu.difference == bleu.score - comparison.systems[0].measures[0].score
    assert all(one.difference is None for one in comparison.systems[0].measures)
    sentence = comparison.verdict(comparison.systems[1])
    assert sentence.startswith(f"B is worse than A by {-bleu.gain:.2f} BLEU; the difference is larger than chance")


def test_few_different_lines_are_not_tested(comparison: Comparison) -> None:
    """Guards against sacreBLEU's p-value of 0.0001 for systems that differ in no line, or in three: it counts shuffles
    with a larger difference, and there are none."""
    _, results = PairedTest([("A", GOOD), ("D", list(GOOD))], {"BLEU": BLEU()}, [REF], "ar", 100)()
    assert results["BLEU"][1].p_value == pytest.approx(1 / 101)
    few = comparison.systems[2]
    assert few.num_different == 3
    assert all(one.p_randomisation is None and one.p_bootstrap is None for one in few.measures)
    assert all(one.interval is not None for one in few.measures)
    same = compare({"A": GOOD, "B": list(GOOD)}, [REF], resample=False)
    assert comparison.verdict(few) == "C differs from A in 3 of 60 lines: too few to know which is better."
    assert same.verdict(same.systems[1]) == "B has the same translations as A."


def measures(gain: float, p: float | None, chrf: float = 0.0, p_chrf: float | None = 0.5, ter: float = 0.0) -> Any:
    """Measures with these differences and p-values."""
    p_ter = 0.01 if ter else 0.5
    return (
        Measure("BLEU", 30.0, "s", difference=gain, p_randomisation=p),
        Measure("chrF2", 50.0, "s", difference=chrf, p_randomisation=p_chrf),
        Measure("TER", 50.0, "s", difference=ter, p_randomisation=p_ter),
    )


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            measures(0.8, 0.0031),
            "B is better than A by 0.80 BLEU; the difference is larger than chance would give (p = 0.003).",
        ),
        (measures(-0.8, 0.0499), "B is worse than A by 0.80 BLEU; the difference is larger than chance would give"),
        (measures(-0.8, 0.05), "B is worse than A by 0.80 BLEU; the difference could be chance (p = 0.050)."),
        (measures(9, 0.0001), "larger than chance would give (p < 0.001)."),
        (measures(0.004, 0.9), "B has the same BLEU as A; the difference could be chance (p = 0.900)."),
        (measures(0.8, None), "B is better than A by 0.80 BLEU; whether that could be chance was not tested."),
        (measures(0.8, 0.2, 1.0, 0.01, -1.0), "could be chance (p = 0.200), but it is better by chrF2, TER."),
        (measures(0.8, 0.01, -1.0, 0.01), "chance would give (p = 0.010), but it is worse by chrF2."),
        (measures(0.8, 0.01, 1.0, 0.01, 2.0), "chance would give (p = 0.010), but it is worse by TER."),
        (measures(0.8, 0.01, 1.0, 0.01, -2.0), "chance would give (p = 0.010)."),
    ],
)
def test_the_sentence(made: Any, sentence: str) -> None:
    """Guards against a sentence that says more than the test: BLEU decides, and metrics that disagree are named."""
    first = SystemScores("A", made)
    other = SystemScores("B", made, 40)
    assert sentence in Comparison((first, other), 100, None).verdict(other)


def test_the_table(comparison: Comparison) -> None:
    """Guards against lines that a terminal of 100 columns breaks, and against sentences and signatures lost."""
    lines = show(comparison).splitlines()
    assert max(map(len, lines[: len(lines) - 2])) <= 100
    assert [line.split("  ")[0] for line in lines[1:6]] == ["A", "B", "B - A", "", ""]
    low, high = comparison.systems[0].measures[0].interval or (0, 0)
    assert f"{comparison.systems[0].measures[0].score:.2f} [{low:.1f}, {high:.1f}]" in lines[1]
    assert "[95 percent interval] bs:1000|ar:10000|seed:12345" in lines
    assert lines[-2:] == [comparison.verdict(system) for system in comparison.systems[1:]]


def test_perfect_scores_do_not_touch() -> None:
    """Guards against columns that run into each other at 100.00 [100.0, 100.0]."""
    perfect = Measure("BLEU", 100.0, "s", interval=(100.0, 100.0))
    table = show(Comparison((SystemScores("A", (perfect, perfect)),), 2, "bs:1000"))
    assert table.count("  100.00 [100.0, 100.0]") == 1
    assert table.count(" 100.00 [100.0, 100.0]") == 2


@pytest.mark.parametrize("seed", ["x", "", "0", "-3"])
def test_a_seed_that_is_none(seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a traceback from within sacreBLEU, and against 0, which sacreBLEU's tests take for no seed."""
    monkeypatch.setenv("SACREBLEU_SEED", seed)
    with pytest.raises(UserError, match="SACREBLEU_SEED: must be a whole number above 0, or none"):
        compare({"A": GOOD}, [REF])


def test_without_resamples() -> None:
    """The scores alone are those of ``score``, with the same signatures as in training."""
    progress: list[int] = []
    found = compare({"A": GOOD, "B": WORSE}, [REF], "13a", resample=False, progress=progress.append)
    assert sum(progress) == 4 * 2 * NUM_LINES
    bleu, chrf, *_ = found.systems[1].measures
    expected = score(WORSE, [REF], "13a")
    assert (bleu.score, bleu.signature, bleu.details) == (expected.bleu, expected.bleu_signature, expected.bleu_details)
    assert (chrf.score, chrf.signature) == (expected.chrf, expected.chrf_signature)
    assert found.resampling is bleu.interval is bleu.p_bootstrap is bleu.p_randomisation is None
    assert "interval" not in bleu.as_json()
    assert "not tested" in show(found)


def test_ter_by_script() -> None:
    """Guards against a Chinese sentence that counts as one word, and against TER of Thai without a warning."""
    zh = compare({"A": ["猫坐在垫子上。", "今天下雨。"]}, [["猫坐在那张垫子上。", "今天下雨。"]], resample=False)
    assert "asian:yes" in zh.systems[0].measures[3].signature
    assert zh.systems[0].measures[3].score < 50
    thai = compare({"A": ["สุนัขชอบบ้านวันนี้"]}, [["สุนัขชอบบ้านวันนี้"]], target_language="th", resample=False)
    assert any("thai script" in note for note in thai.notes)
    assert not compare({"A": GOOD}, [REF], resample=False).notes


def test_blank_references() -> None:
    """A reference without text is refused by its number; a few blank lines are reported with their place."""
    with pytest.raises(DataError, match="reference 2 is empty: all of its 60 lines are blank"):
        compare({"A": GOOD}, [REF, [" "] * NUM_LINES], resample=False)
    (note,) = compare({"A": GOOD}, [[*REF[:5], "", "", *REF[7:]]], resample=False).notes
    assert note.startswith("reference 1: 2 lines are blank, the first is line 6")


def test_equal_systems_are_seldom_called_different() -> None:
    """Guards against p-values that call chance a difference: these systems draw their lines from one pool.
    ``python scripts/chance.py`` measures it."""
    found = [pair["ar"] for pair in p_values([damaged(REF, 0.3, seed) for seed in range(4)], REF, 5, 20)]
    assert sum(p < 0.05 for p in found) <= 1
    assert len(set(found)) == 5
