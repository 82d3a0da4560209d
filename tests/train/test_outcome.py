"""Promise: no finished run is called done over a model that translates nothing."""

import json
from pathlib import Path

import pytest

from seq2seq.config import Config
from seq2seq.train.checkpoint import Progress
from seq2seq.train.outcome import outcome


def config_of(folder: Path, **model: object) -> Config:
    files = {"src": "a", "tgt": "b"}
    train = {"max_minutes": 5, "max_steps": 1000}
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
    ablate: tuple[str, ...] = (),
    **faults: float,
) -> list[str]:
    """What is said of a run with these numbers."""
    records = [{"step": step, "nll": nll} for step in range(1, steps + 1)]
    records.append({"step": best, "valid_bleu": bleu, "valid_loss": loss})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return list(outcome(config_of(folder, ablate=ablate), Progress(step=steps, best_step=best, **faults)))


def test_a_model_that_translates_nothing_is_a_warning(tmp_path: Path) -> None:
    """The run of 86 steps that gave 500 empty lines ended with done."""
    first, help_ = sentences(tmp_path, steps=86, best=86, bleu=0.0, loss=7.0, nll=7.0, best_empty=0.9, best_looping=0.1)
    assert first == (
        "WARNING: validation BLEU 0.0: hardly anything is translated; validation lines: 90% empty, 10% looping"
    )
    assert help_ == "what would help most: more steps; 86 are very few"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"best": 1000, "bleu": 20.0, "loss": 2.0, "nll": 1.9}, "more time"),
        ({"best": 500, "bleu": 20.0, "loss": 3.0, "nll": 1.0}, "more parallel text; the model knows its training text"),
        ({"best": 900, "bleu": 1.0, "loss": 6.0, "nll": 5.9}, "text that fits"),
        ({"best": 500, "bleu": 30.0, "loss": 2.0, "nll": 1.9}, "more parallel text, or cleaner text"),
    ],
)
def test_the_advice_follows_from_the_losses(tmp_path: Path, numbers: dict[str, float], expected: str) -> None:
    """More time does not help a model that has memorised its text, nor more text one that is still learning."""
    first, help_ = sentences(tmp_path, steps=1000, **numbers)  # type: ignore[arg-type]
    assert not first.startswith("WARNING")
    assert expected in help_


def test_a_part_that_is_left_out_is_named(tmp_path: Path) -> None:
    """Guards against blaming the text, or a loss "this high", where the decoder sees the answer in training."""
    numbers = {"best": 900, "bleu": 0.0, "loss": 0.1, "nll": 0.1, "best_looping": 1.0}
    *_, last = sentences(tmp_path, steps=1000, ablate=("causal_mask",), **numbers)  # type: ignore[arg-type]
    assert last.endswith("the parts of the model that model.ablate leaves out (causal_mask)")
    *_, last = sentences(tmp_path, steps=1000, ablate=("scale",), best=500, bleu=60.0, loss=0.3, nll=0.3)
    assert "ablate" not in last


def test_a_run_without_a_best_model_has_no_outcome(tmp_path: Path) -> None:
    """Guards against a sentence about numbers that are not there."""
    assert list(outcome(config_of(tmp_path), Progress())) == []


def test_a_run_that_ran_out_of_time_says_so(tmp_path: Path) -> None:
    """Guards against praise for a model whose learning rate never fell, because another program took the machine."""
    numbers = {"best": 700, "bleu": 20.0, "loss": 2.0, "nll": 1.9}
    *_, last = sentences(tmp_path, steps=700, seconds=301.0, **numbers)  # type: ignore[arg-type]
    assert last.startswith("the time was over after 700 of 1,000 steps, before the learning rate had fallen")
    *_, last = sentences(tmp_path, steps=700, seconds=100.0, **numbers)  # type: ignore[arg-type]
    assert "time was over" not in last
