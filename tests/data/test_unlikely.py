"""Promise: pairs that a model finds unlikely are left out, counted, and decided anew when the model changes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from seq2seq.cli.main import main
from seq2seq.config import CleanConfig, DataConfig, TextFiles, TsvFiles, load_config
from seq2seq.data.checksums import ChecksumMemory
from seq2seq.data.clean_rules import CAUSES
from seq2seq.data.cleaning import Cleaned, clean_text
from seq2seq.decode.translator import Translator
from seq2seq.errors import ConfigError
from tests.toy import sentences, toy_config, toy_model, train, write_lines

PAIRS = [("a", "-1"), ("b", "-9"), ("3 c", "-9"), ("", "-9"), ("d", "nothing"), ("a", "-1"), ("e", "-5.9")]


class Numbers:
    """A scorer whose score is the target text."""

    def __init__(self, checksum: str = "one") -> None:
        self.name, self.scored = checksum, list[tuple[str, str]]()

    def checksum(self, model: Path) -> str:
        return f"{self.name} {model}"

    def per_token(self, model: Path, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        self.scored += pairs
        return [None if tgt == "nothing" else float(tgt) for _, tgt in pairs]


def clean(folder: Path, scorer: Numbers | None, *datasets: dict[str, object], **rules: object) -> Cleaned | None:
    (folder / "t.tsv").write_text("".join(f"{src}\t{tgt}\n" for src, tgt in PAIRS), encoding="utf-8")
    write_lines(folder / "v", ["v"])
    texts = [TsvFiles(tsv=str(folder / "t.tsv"), src=0, tgt=1, **own) for own in (datasets or ({},))]  # type: ignore[arg-type]
    valid = TextFiles(src=str(folder / "v"), tgt=str(folder / "v"))
    data = DataConfig(train=tuple(texts), valid=valid, clean=CleanConfig(overlap=False, **rules))  # type: ignore[arg-type]
    return clean_text(data, folder / "cache", ChecksumMemory(folder / "known"), scorer, show_progress=False)


def causes(cleaned: Cleaned | None) -> list[str | None]:
    assert cleaned is not None
    return [cleaned.cause(pair) for pair in range(len(cleaned.codes))]


def test_unlikely_pairs_are_left_out_last(tmp_path: Path) -> None:
    """Guards against scores that belong to a neighbour, work for pairs that are gone already, and pairs without a score
    that count as bad."""
    scorer = Numbers()
    cleaned = clean(tmp_path, scorer, model="m", min_log_prob=-6, longest_word=2)
    word = "longest_word"
    assert causes(cleaned) == [None, "model", "model", None, word, None, word]
    assert scorer.scored == [pair for pair in PAIRS if pair[0] and len(pair[1]) < 3]
    cleaned = clean(tmp_path, scorer, model="m", min_log_prob=-6, repeats="pairs")
    assert causes(cleaned) == [None, "model", "model", None, None, "repeats", None]
    assert str(cleaned).endswith("left out: 1 repeated, 2 unlikely for the model")
    assert ("", "-9") not in scorer.scored
    assert CAUSES[-1] == "model"


def test_a_dataset_has_a_model_of_its_own(tmp_path: Path) -> None:
    """Guards against one model for all datasets, and pairs of another dataset."""
    cleaned = clean(tmp_path, Numbers(), {}, {"clean": CleanConfig(model=Path("m"), min_log_prob=-2, overlap=False)})
    assert causes(cleaned) == [None] * 7 + [None, "model", "model", None, None, None, "model"]


def test_the_result_is_kept_until_model_or_limit_change(tmp_path: Path) -> None:
    """Guards against the decisions of yesterday's weights, and against hours of scoring at every start."""
    first = Numbers()
    clean(tmp_path, first, model="m", min_log_prob=-6)
    assert len(first.scored) == 6
    again = Numbers()
    clean(tmp_path, again, model="m", min_log_prob=-6)
    assert again.scored == []
    for other, limit in ((Numbers("two"), -6), (Numbers(), -3)):
        clean(tmp_path, other, model="m", min_log_prob=limit)
        assert len(other.scored) == 6


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("{model: m}", "min_log_prob: is needed with model"),
        ("{min_log_prob: -6}", "has no effect without model"),
        ("{model: m, min_log_prob: 1}", "min_log_prob: must be"),
    ],
)
def test_half_a_rule_is_a_mistake(tmp_path: Path, rules: str, message: str) -> None:
    """Guards against a rule that does nothing."""
    path = tmp_path / "c.yaml"
    path.write_text(f"run_dir: r\ndata:\n  train: {{src: a, tgt: b}}\n  valid: 5\n  clean: {rules}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_train_and_clean_use_a_real_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a rule that only one of the commands knows; a model that is missing is one line."""
    monkeypatch.chdir(tmp_path)
    model = toy_model(tmp_path)
    pairs = sentences(40, seed=7)
    scores = [
        one.per_token or 0 for one in Translator.load(model, device="cpu").score(*map(list, zip(*pairs, strict=True)))
    ]
    limit = float(np.median(scores))
    write_lines(tmp_path / "text/train.xx", [src for src, _ in pairs])
    write_lines(tmp_path / "text/train.yy", [tgt for _, tgt in pairs])
    rule = f"data.clean={{overlap: false, model: {model}, min_log_prob: {limit}}}"
    config = toy_config(tmp_path / "text", tmp_path / "run", rule, "train.max_steps=1")
    assert main(["clean", "run.yaml", rule, "--output", "out"]) == 0
    unlikely = sum(score < limit for score in scores)
    expected = f"{40 - unlikely} of 40 pairs are clean; left out: {unlikely} unlikely for the model"
    assert expected in capsys.readouterr().out
    kept = (tmp_path / "out/train.xx").read_text().splitlines()
    assert kept == [src for (src, _), score in zip(pairs, scores, strict=True) if score >= limit]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["rules"][0]["model"] == str(model)
    train(config)
    assert expected in capsys.readouterr().out
    shutil.rmtree(model)
    assert main(["clean", "run.yaml", rule, "--output", "again"]) == 2
    err = capsys.readouterr().err
    assert str(model) in err
    assert err.count("\n") == 1
