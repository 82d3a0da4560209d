"""Promise: a bad step is found, by the same rule in an undisturbed run and a continued one, and its lines are named."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from seq2seq.config import Config, TextFiles
from seq2seq.data.corpus import build_corpus, open_corpus
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.packed import pack_pairs
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.model.loss import LossOf
from seq2seq.model_folder import build_model
from seq2seq.train.checkpoint import Progress
from seq2seq.train.guard import Guard, describe, losses_of_pairs


def take(guard: Guard, step: int, loss: float, norm: float = 1.0) -> str | None:
    """What the trainer does in a step, and then when its numbers have come back."""
    bad = guard.bad(torch.tensor(loss), torch.tensor(norm))
    return guard.judge(step, loss, norm, bool(bad))


def losses(count: int) -> list[float]:
    """Of a run that learns: they fall, and scatter."""
    rng = np.random.default_rng(0)
    return [float(9 * math.exp(-step / 200) + 2 + rng.normal(0, 0.1)) for step in range(count)]


@pytest.fixture
def progress() -> Progress:
    """What the guard remembers."""
    return Progress()


@pytest.fixture
def guard(tiny_config: Callable[..., Config], progress: Progress) -> Guard:
    return Guard(tiny_config().train, progress)


@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [
        (math.nan, 1.0, "the loss is nan"),
        (math.inf, 1.0, "the loss is inf"),
        (2.0, math.nan, "the gradient norm is nan"),
        (2.0, math.inf, "the gradient norm is inf"),
        (2.0, 1e9, None),
    ],
)
def test_what_is_no_number_is_bad_from_the_first_step_on(
    loss: float, norm: float, reason: str | None, guard: Guard
) -> None:
    """Neither comparison with a limit nor the mean may let a NaN through."""
    assert take(guard, 1, loss, norm) == reason


def test_a_jump_is_bad_and_learning_is_not(guard: Guard) -> None:
    """The steep fall at the start and the scatter later raise no alarm; a jump does, and does not make jumps normal."""
    for step, loss in enumerate(losses(1000), start=1):
        assert take(guard, step, loss) is None
    for step in range(1001, 1051):
        assert take(guard, step, 4.0) == "the loss jumped to 4.000 from a mean of 2.056", step
    assert take(guard, 1051, 2.1) is None


def test_mean_and_variance_are_those_of_the_first_losses(guard: Guard, progress: Progress) -> None:
    """Without a start from 0, which would take the first losses for jumps or hide them for long."""
    for step, loss in enumerate((2.0, 4.0, 6.0), start=1):
        take(guard, step, loss)
    assert progress.loss_mean == pytest.approx(4.0)
    assert progress.loss_variance == pytest.approx(8 / 3)


def test_the_limit_moves_at_fixed_steps_alone(guard: Guard, progress: Progress) -> None:
    """On a device losses come back late, and earlier where a run saves: the limit must not depend on when."""
    limits = {}
    for step, loss in enumerate(losses(150), start=1):
        take(guard, step, loss)
        limits[step] = progress.loss_limit
    changed = [step for step in range(2, 151) if limits[step] != limits[step - 1]]
    assert changed == [100, 120, 140]


def test_a_continued_run_judges_as_an_undisturbed_one(tiny_config: Callable[..., Config]) -> None:
    """All that the guard remembers is in the progress that checkpoints keep, in the middle of a limit's steps, too."""
    progress = Progress()
    guard = Guard(tiny_config().train, progress)
    kept = {}
    for step, loss in enumerate([*losses(300), 9.0, 2.0], start=1):
        kept[step] = copy.copy(progress)
        take(guard, step, loss)
    again = kept[290]
    guard = Guard(tiny_config().train, again)
    for step, loss in enumerate([*losses(300), 9.0, 2.0], start=1):
        if step >= 290:
            take(guard, step, loss)
    assert again == progress
    assert progress.loss_limit is not None


def test_gradients_too_large_for_fp16_are_no_bad_step(guard: Guard, progress: Progress) -> None:
    """Guards against a run that ends, or lines that are blamed, because the loss scale was too large: the loss alone
    decides."""
    infinite, nan = torch.tensor(math.inf), torch.tensor(math.nan)
    progress.loss_limit = 3.0
    assert not guard.bad(torch.tensor(2.0), infinite, torch.tensor(True))
    assert not guard.bad(torch.tensor(2.0), nan, torch.tensor(True))
    assert guard.bad(torch.tensor(2.0), infinite, torch.tensor(False))  # the scale cannot become smaller
    assert guard.bad(nan, nan, torch.tensor(True))
    assert guard.bad(torch.tensor(4.0), nan, torch.tensor(True))


def test_one_broken_sentence_does_not_spoil_others(
    tmp_path: Path, tiny_tokenizers: TokenizerPair, tiny_config: Callable[..., Config]
) -> None:
    """Guards against NaN in the losses of sentences that share the batch; the lines to blame would be hidden."""
    words = ["ka", "to ka", "sol ka ka ka", "ren ka ka"]
    build_corpus(tmp_path / "c", [SentencePair(line, line, i) for i, line in enumerate(words)], tiny_tokenizers, "")
    corpus = open_corpus(tmp_path / "c")
    model = build_model(tiny_config(), tiny_tokenizers)
    ids = [set(corpus.take("src", [pair])[0].tolist()) for pair in range(4)]
    own = min(ids[2] - ids[0] - ids[1] - ids[3])

    def spoil(_: object, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((inputs[0] == own)[:, None], math.nan)

    model.src_embedding.register_forward_hook(spoil)
    found = losses_of_pairs(model, corpus, np.array([3, 2, 1, 0]), torch.float32)
    assert [pair for pair, loss in found if not math.isfinite(loss)] == [2]
    assert found[0][0] == 2


def test_the_worst_line_comes_first(
    tmp_path: Path, tiny_tokenizers: TokenizerPair, tiny_config: Callable[..., Config]
) -> None:
    """Lines are found again through the filter and over several files, each by file and line."""
    lines = {"a": ["ka to", "", "mi ren"], "b": ["sol ka", "to"]}
    for name, text in lines.items():
        for side in ("xx", "yy"):
            (tmp_path / f"{name}.{side}").write_text("".join(f"{line}\n" for line in text))
    pairs = [SentencePair(line, line, i) for i, line in enumerate([*lines["a"], *lines["b"]])]
    build_corpus(tmp_path / "corpus", pairs, tiny_tokenizers, "")
    corpus = open_corpus(tmp_path / "corpus")
    torch.manual_seed(0)
    model = build_model(tiny_config(), tiny_tokenizers).train()
    found = losses_of_pairs(model, corpus, np.arange(4), torch.float32)
    assert model.training
    assert [loss for _, loss in found] == sorted((loss for _, loss in found), reverse=True)
    together = pack_pairs(*corpus.take("src", np.arange(4)), *corpus.take("tgt", np.arange(4)))
    _, nll = LossOf(model.eval(), 0.0, torch.float32)(together)
    assert sum(loss * corpus.tgt_lengths[pair] for pair, loss in found) == pytest.approx(nll.item(), rel=1e-5)
    alone = [
        float(LossOf(model, 0.0, torch.float32)(pack_pairs(*corpus.take("src", [i]), *corpus.take("tgt", [i])))[1])
        / int(corpus.tgt_lengths[i])
        for i in range(4)
    ]
    assert dict(found) == pytest.approx(dict(enumerate(alone)), rel=1e-5)
    text = TextFiles(src=[str(tmp_path / f"{n}.xx") for n in "ab"], tgt=[str(tmp_path / f"{n}.yy") for n in "ab"])
    places = [
        (Path(str(record["src"])).name, Path(str(record["tgt"])).name) for record in describe(found, corpus, text)
    ]
    assert sorted(places) == [("a.xx:1", "a.yy:1"), ("a.xx:3", "a.yy:3"), ("b.xx:1", "b.yy:1"), ("b.xx:2", "b.yy:2")]
