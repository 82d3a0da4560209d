"""Promise: a run shows what its model forgets of an old text, and no model that forgot too much becomes the best."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from seq2seq.config import load_config
from seq2seq.errors import ConfigError, DataError
from seq2seq.evaluate import Scores
from seq2seq.tensors import load_tensors, read_metadata
from seq2seq.train import trainer
from seq2seq.train.checkpoint import Progress, list_checkpoints
from seq2seq.train.forgetting import Forgetting
from seq2seq.train.outcome import why_no_best
from seq2seq.train.validation import Validation, update_best
from seq2seq.whole_run import train as train_whole
from tests.toy import metrics, set_up, toy_config, train, weights, write_config, write_text_files


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_text_files(tmp_path_factory.mktemp("text"))


def guarded(text: Path, *more: str) -> list[str]:
    """Overrides of a run that is validated after each step, with a guard of five lines."""
    return [f"data.guard={{src: {text}/test.xx, tgt: {text}/test.yy}}", "train.validate_every=1", *more]


def scored(bleu: float) -> Scores:
    return Scores(bleu, "", "", bleu, "", 1)


@contextmanager
def forgetful() -> Iterator[mock.Mock]:
    """Let the guard's BLEU be ten times the validation loss, and the validation's grow as that falls: what the model
    learns of the one text, it forgets of the other. The start is near 59."""
    original = trainer.validate

    def validate(*arguments: Any) -> Validation:
        result = original(*arguments)
        assert result.guard is not None
        guard = replace(result.guard, scores=scored(10 * result.loss))
        return replace(result, scores=scored(100 - 10 * result.loss), guard=guard)

    with mock.patch.object(trainer, "validate", side_effect=validate) as patched:
        yield patched


def test_the_guard_is_measured_as_the_validation_text_is(text: Path, tmp_path: Path) -> None:
    """Guards against scores of another text, or of another model, under the name of the guard: with the two texts
    exchanged, the numbers are, from the start to the end; and the run takes the same steps as without."""
    settings = ("train.ema_decay=0.9", "train.max_steps=20")
    texts = [f"{{src: {text}/{name}.xx, tgt: {text}/{name}.yy}}" for name in ("valid", "test")]
    for name, valid, guard in (("with", *texts), ("exchanged", *reversed(texts))):
        train(toy_config(text, tmp_path / name, *settings, f"data.valid={valid}", f"data.guard={guard}"))
    train(toy_config(text, tmp_path / "without", *settings))
    ours, theirs = (
        [record for record in metrics(tmp_path / name) if "guard_bleu" in record] for name in ("with", "exchanged")
    )
    assert [record["step"] for record in ours] == [0, 5, 10, 15, 20]
    for one, other in zip(ours, theirs, strict=True):
        assert one["guard_loss"] != one["valid_loss"]
        for part, counterpart in (("valid", "guard"), ("guard", "valid")):
            for name in ("loss", "ppl", "bleu", "chrf"):
                assert one[f"{part}_{name}"] == other[f"{counterpart}_{name}"]
    plain = [record for record in metrics(tmp_path / "with") if record["step"]]
    left = [{key: value for key, value in record.items() if not key.startswith("guard")} for record in plain]
    assert left == metrics(tmp_path / "without")
    ours, theirs = (load_tensors(tmp_path / name / "last/model.safetensors")[0] for name in ("with", "without"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_only_a_model_that_keeps_enough_becomes_the_best(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a best model that knows nothing of the old text, and against a limit that counts from the model
    before: it counts from the start, which is measured once. Without the limit, the guard only reports."""
    settings = guarded(text, "train.max_steps=4")
    with forgetful() as patched:
        free = train(toy_config(text, tmp_path / "free", *settings))
        assert patched.call_count == 5
    losses = [record["valid_loss"] for record in metrics(tmp_path / "free") if "valid_loss" in record]
    assert losses == sorted(losses, reverse=True)
    assert free.progress.best_step == 4
    assert free.progress.guard_start == 10 * losses[0]
    limit = 10 * (losses[0] - losses[2]) + 0.01  # the second step is allowed, the third is not
    capsys.readouterr()
    with forgetful():
        kept = train(toy_config(text, tmp_path / "kept", *settings, f"train.max_forgetting={limit}"))
    assert kept.progress.best_step == 2
    assert kept.progress.validations_since_best == 2
    assert read_metadata(tmp_path / "kept/best/model.safetensors")["step"] == "2"
    assert weights(tmp_path / "kept", "last") == weights(tmp_path / "free", "last")
    told = capsys.readouterr().err
    assert f"before training: valid BLEU {100 - 10 * losses[0]:.2f}, guard BLEU {10 * losses[0]:.2f} (" in told
    lines = [line for line in told.splitlines() if ": validation loss" in line]
    change = 10 * (losses[3] - losses[0])
    part = (
        f"BLEU {10 * losses[3]:.2f} ({change:+.2f} since the start, more than train.max_forgetting: cannot be the best"
    )
    assert ["cannot be the best" in line for line in lines] == [False, False, True, True]
    assert part in lines[2]
    assert f"BLEU {10 * losses[1]:.2f} ({10 * (losses[1] - losses[0]):+.2f} since the start), chrF" in lines[0]


@pytest.mark.parametrize("stops", [(1,), (2, 3)])
def test_a_limit_continues_exactly(stops: tuple[int, ...], text: Path, tmp_path: Path) -> None:
    """Contract 2: guards against a limit that counts, after a stop, from the model that the run continues with."""
    settings = guarded(text, "train.max_steps=6", "train.max_forgetting=13", "train.save_every=2")
    with forgetful():
        whole = train(toy_config(text, tmp_path / "whole", *settings))
        for stop in stops:
            train(toy_config(text, tmp_path / "parts", *settings), stop_after=stop)
        parts = train(toy_config(text, tmp_path / "parts", *settings))
    assert 0 < whole.progress.best_step < 6
    assert replace(parts.progress, seconds=0.0) == replace(whole.progress, seconds=0.0)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert weights(tmp_path / "parts", "best") == weights(tmp_path / "whole", "best")


def test_a_start_is_logged_once(text: Path, tmp_path: Path) -> None:
    """Guards against two records of step 0 after a start that was killed before its first checkpoint, and against none
    after one that was saved there."""
    config = toy_config(text, tmp_path / "run", *guarded(text, "train.max_steps=2"))
    with mock.patch.object(trainer, "train_step", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        train(config)
    assert not list_checkpoints(tmp_path / "run")
    run = set_up(config)
    trainer.measure_start(run)
    trainer.save_run(run)
    run.close()
    assert [path.stem for path in list_checkpoints(tmp_path / "run")] == ["step-000000000"]
    with forgetful() as patched:  # not measured again
        train(config)
        assert patched.call_count == 2
    assert [record["step"] for record in metrics(tmp_path / "run") if "valid_bleu" in record] == [0, 1, 2]


def test_a_run_that_forgets_too_much_says_what_to_do(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a traceback, a silent end or a test score of a model that is not allowed; the run ends as every
    other does, after patience."""
    files = [f"data.test={{src: {text}/test.xx, tgt: {text}/test.yy}}", "train.patience=3", "train.max_steps=9"]
    path = write_config(text, tmp_path / "run")
    with forgetful():
        train_whole(path, guarded(text, *files, "train.max_forgetting=0"))
    done, no_best, *more = capsys.readouterr().out.splitlines()
    assert done.startswith(
        "done: no better bleu within train.max_forgetting in 3 validations (train.patience); 3 steps"
    )
    first, second = ([r["guard_bleu"] for r in metrics(tmp_path / "run") if "guard_bleu" in r])[:2]
    assert no_best.startswith(
        f"no best model; the last model is {tmp_path}/run/last: every validation lost more than train.max_forgetting "
        f"(0) of the guard BLEU before training, {first:.2f}; the least, {first - second:.2f}, at step 1. In a new "
    )
    for advice in ("allow more", "mix old text into data.train", "lower optim.lr", "seq2seq average OLD NEW"):
        assert advice in no_best
    assert more == []
    assert not (tmp_path / "run/best").exists()
    assert not (tmp_path / "run/test.json").exists()


def test_other_reasons_for_no_best_model_stay(text: Path, tmp_path: Path) -> None:
    """Guards against advice about forgetting where the numbers were not finite."""
    config = toy_config(text, tmp_path, *guarded(text, "train.max_forgetting=1"))
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 0, "valid_loss": 1.0, "guard_bleu": 9.0}\n{"step": 3, "valid_loss": NaN, "guard_bleu": 0.0}\n'
    )
    assert why_no_best(config, Progress(guard_start=9.0)) == "no validation gave a finite number"


@pytest.mark.parametrize(
    ("start", "most", "bleu", "allowed"),
    [
        (30.0, 1.0, 29.0, True),  # at most
        (30.0, 1.0, 28.99, False),
        (30.0, 1.0, 28.996, True),  # as printed
        (30.0, 0.0, 29.999, True),
        (30.0, 0.0, 31.0, True),
        (30.0, None, 0.0, True),
        (0.0, 0.0, 0.0, True),  # random weights
        (None, 1.0, 0.0, True),  # not measured, as in a dry run
    ],
)
def test_what_may_be_lost(start: float | None, most: float | None, bleu: float, allowed: bool) -> None:
    """The limit itself is allowed, and compared as people read it."""
    assert Forgetting(start, most).allows(bleu) is allowed
    progress = Progress(step=1, guard_start=start)
    assert update_best(progress, Validation(1.0, scored(20.0), guard=Validation(1.0, scored(bleu))), "bleu", most) is (
        allowed
    )
    assert progress.validations_since_best == int(not allowed)


def test_the_guard_is_part_of_what_a_run_is(text: Path, tmp_path: Path) -> None:
    """Guards against a limit that counts from a model in the middle of the run, from another text, or that changes."""
    train(toy_config(text, tmp_path / "plain", "train.max_steps=2"))
    with pytest.raises(DataError, match=r"its text has changed.*data\.guard"):
        train(toy_config(text, tmp_path / "plain", *guarded(text)))
    train(toy_config(text, tmp_path / "run", *guarded(text, "train.max_steps=2", "train.max_forgetting=1")))
    with pytest.raises(ConfigError, match=r"train\.max_forgetting: 1\.0 -> 2\.0"):
        train(toy_config(text, tmp_path / "run", *guarded(text, "train.max_forgetting=2")))
    other = tmp_path / "other"
    shutil.copytree(text, other, ignore=shutil.ignore_patterns("cache"))
    (other / "test.yy").write_text("dor\n" * 5, encoding="utf-8")
    changed = [guarded(other)[0], *guarded(text, "train.max_forgetting=1")[1:]]
    with pytest.raises(DataError, match="its text has changed"):
        train(toy_config(text, tmp_path / "run", *changed))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.max_forgetting=1"], "train.max_forgetting: needs a text to measure it with; set data.guard"),
        (["train.max_forgetting=-1"], "train.max_forgetting: must be a number >= 0 or null, not -1"),
        (["data.guard=500"], "data.guard: must be"),
        (["data.guard={src: a.xx}"], "data.guard.tgt: missing"),
        (["data.guard={src: a.xx, tgt: a.yy, weight: 2}"], "data.guard.weight: is for training text only"),
        (["data.guard={src: a.xx, tgt: a.yy, tag: old}"], "data.guard.tag: no dataset of data.train has the tag old"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], told: str, text: Path, tmp_path: Path) -> None:
    """Guards against a guard that is not what it says, found only after the run."""
    with pytest.raises(ConfigError) as refused:
        load_config(write_config(text, tmp_path / "run"), overrides)
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
