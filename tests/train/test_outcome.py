"""Promise: no finished run is called done over a model that translates nothing."""

import json
from pathlib import Path

import pytest

from seq2seq.config import Config
from seq2seq.train.checkpoint import Progress
from seq2seq.train.outcome import outcome


def config_of(folder: Path, **model: object) -> Config:
    files = {"src": "a", "tgt": "b"}
    train = {"max_minutes": 5, "max_epochs": 3, "max_steps": 1000}
    optim = {"schedule": "cosine", "warmup_steps": 10}
    tree = {
        "run_dir": str(folder),
        "data": {"train": files, "valid": files},
        "train": train,
        "optim": optim,
        "model": model,
    }
    return Config.model_validate(tree)


def sentences(
    folder: Path,
    *,
    steps: int,
    best: int,
    bleu: float,
    loss: float,
    nll: float,
    earlier: float | None = None,
    num_pairs: int = 3_000,
    ablate: tuple[str, ...] = (),
    **of_progress: float,
) -> list[str]:
    """What is said of a run with these numbers; ``earlier``: the loss of the best step, if ``loss`` is a later one."""
    records = [{"step": step, "nll": nll} for step in range(1, steps + 1)]
    records.append({"step": best, "valid_bleu": bleu, "valid_loss": loss if earlier is None else earlier})
    if earlier is not None:
        records.append({"step": steps, "valid_bleu": bleu, "valid_loss": loss})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    progress = Progress(step=steps, best_step=best, **{"seconds": 290.0, **of_progress})
    return list(outcome(config_of(folder, ablate=ablate), progress, num_pairs))


def test_a_model_that_translates_nothing_is_a_warning(tmp_path: Path) -> None:
    """The run of 86 steps that gave 500 empty lines ended with done."""
    first, help_ = sentences(tmp_path, steps=86, best=86, bleu=0.0, loss=7.0, nll=7.0, best_empty=0.9, best_looping=0.1)
    assert first == (
        "WARNING: validation BLEU 0.0: hardly anything is translated; validation lines: 90% empty, 10% looping"
    )
    assert help_ == "what would help most: many more steps than 86; 100 are the least"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"best": 1000, "bleu": 20.0, "loss": 2.0, "nll": 1.9}, "more time"),
        ({"best": 500, "bleu": 20.0, "loss": 3.0, "nll": 1.0}, "more parallel text; the model knows its training text"),
        ({"best": 500, "bleu": 30.0, "loss": 2.0, "nll": 1.9}, "more parallel text, or cleaner text"),
    ],
)
def test_the_advice_follows_from_the_losses(tmp_path: Path, numbers: dict[str, float], expected: str) -> None:
    """More time does not help a model that has memorised its text, nor more text one that is still learning."""
    first, help_ = sentences(tmp_path, steps=1000, **numbers)  # type: ignore[arg-type]
    assert not first.startswith("WARNING")
    assert expected in help_


def test_a_longer_run_is_advised_only_where_one_is_possible(tmp_path: Path) -> None:
    """A run of 3,000 pairs that had time for more than the 80 epochs that help was told to take more time; one that
    planned a sixth of its steps on a busy machine, and ended after 3 of its 20 minutes, too."""
    numbers = {"best": 990, "bleu": 20.0, "loss": 2.0, "nll": 1.9}
    *_, last = sentences(tmp_path, steps=1000, epoch=80, **numbers)  # type: ignore[arg-type]
    assert last == "what would help most: more parallel text, or cleaner text (seq2seq doctor)"
    *_, last = sentences(tmp_path, steps=1000, epoch=60, **numbers)  # type: ignore[arg-type]
    assert last == "what would help most: more time (train.max_minutes, in a new run_dir); the model was still learning"
    *_, last = sentences(tmp_path, steps=1000, epoch=10, seconds=90.0, **numbers)  # type: ignore[arg-type]
    assert last == (
        "what would help most: more steps than 1,000 (train.max_steps or max_epochs, in a new run_dir); the model was "
        "still learning, and 1.5 of its 5 minutes were used. A run plans fewer steps if other programs use the machine "
        "when it starts"
    )
    config = config_of(tmp_path)
    without = config.model_copy(update={"train": config.train.model_copy(update={"max_minutes": None})})
    *_, last = outcome(without, Progress(step=1000, best_step=990, epoch=2), 3_000)
    assert last.endswith(
        "more steps than 1,000 (train.max_steps or max_epochs, in a new run_dir); the model was still learning"
    )


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"best": 1000, "loss": 5.0, "nll": 4.9}, "more time (train.max_minutes, in a new run_dir); the model was"),
        ({"best": 1000, "loss": 5.0, "nll": 4.9, "earlier": 4.5}, "text that fits; the loss is still high (5.00)"),
        ({"best": 500, "loss": 5.0, "nll": 1.4, "earlier": 4.5}, "more text, or text that fits; the model knows"),
        ({"best": 900, "loss": 6.0, "nll": 5.9}, "text that fits; the loss is still high (6.00)"),
    ],
)
def test_a_model_that_translates_hardly_anything_is_a_warning(
    tmp_path: Path, numbers: dict[str, float], expected: str
) -> None:
    """3,000 pairs whose lines did not translate each other ended with BLEU 0.7, without a warning, and with the advice
    to find more text; and so did texts of which no line was empty, looping or copied."""
    first, help_ = sentences(tmp_path, steps=1000, bleu=0.7, **numbers)  # type: ignore[arg-type]
    assert first == "WARNING: validation BLEU 0.7: hardly anything is translated"
    assert help_.startswith(f"what would help most: {expected}")
    assert help_.endswith("lines may not translate each other: seq2seq doctor examines them")


def test_too_little_text_is_the_cause_that_is_named(tmp_path: Path) -> None:
    """A run of 10 pairs, whose text allows 44 steps, was told to take more steps."""
    *_, help_ = sentences(tmp_path, steps=44, best=22, bleu=0.0, loss=7.0, nll=1.0, num_pairs=10)
    assert help_.startswith("what would help most: more text; with 10 pairs a model learns words and set phrases")


def test_damaged_records_have_no_part_in_the_outcome(tmp_path: Path) -> None:
    """Guards against a traceback at the end of a run of hours."""
    sentences(tmp_path, steps=1000, best=500, bleu=20.0, loss=2.0, nll=1.9)
    path = tmp_path / "metrics.jsonl"
    for damaged in (
        '{"step": 999, "valid_loss": "x"}',
        '{"step": 999, "nll": null}',
        '{"step": 1000, "valid_loss": NaN}',
    ):
        path.write_text(f"{path.read_text()}{damaged}\n")
    progress = Progress(step=1000, best_step=500)
    assert list(outcome(config_of(tmp_path), progress, 3_000))[-1].endswith("cleaner text (seq2seq doctor)")
    path.write_text('{"step": 1, "nll": 1.0}\n{"step": 500, "valid_bleu": 20.0, "valid_loss": NaN}\n')
    assert list(outcome(config_of(tmp_path), progress, 3_000)) == []


def test_a_part_that_is_left_out_is_named(tmp_path: Path) -> None:
    """Guards against blaming the text, or a loss "this high", where the decoder sees the answer in training."""
    numbers = {"best": 900, "bleu": 0.0, "loss": 0.1, "nll": 0.1, "best_looping": 1.0}
    *_, last = sentences(tmp_path, steps=1000, ablate=("causal_mask",), **numbers)  # type: ignore[arg-type]
    assert last.endswith("the parts of the model that model.ablate leaves out (causal_mask)")
    *_, last = sentences(tmp_path, steps=1000, ablate=("scale",), best=500, bleu=60.0, loss=0.3, nll=0.3)
    assert "ablate" not in last


def test_a_run_without_a_best_model_has_no_outcome(tmp_path: Path) -> None:
    """Guards against a sentence about numbers that are not there."""
    assert list(outcome(config_of(tmp_path), Progress(), 3_000)) == []


@pytest.mark.parametrize(
    ("bound", "progress"),
    [("train.max_minutes", {"seconds": 301.0}), ("train.max_epochs", {"epoch": 3})],
)
def test_a_run_that_a_bound_cut_says_so(tmp_path: Path, bound: str, progress: dict[str, float]) -> None:
    """Guards against praise for a model whose learning rate never fell, because another program took the machine, or
    a bound was changed."""
    numbers = {"best": 700, "bleu": 20.0, "loss": 2.0, "nll": 1.9}
    *_, last = sentences(tmp_path, steps=700, **numbers, **progress)  # type: ignore[arg-type]
    assert last.startswith(f"{bound} ended the run after 700 of 1,000 steps, before the learning rate had fallen")
    *_, last = sentences(tmp_path, steps=700, seconds=100.0, epoch=2, **numbers)  # type: ignore[arg-type]
    assert "ended the run" not in last
    *_, last = sentences(tmp_path, steps=950, **numbers, **progress)  # type: ignore[arg-type]
    assert "ended the run" not in last
