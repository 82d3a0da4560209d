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
from seq2seq.train.bad_steps import BadSteps, describe, losses_of_pairs
from seq2seq.train.checkpoint import Progress


def take(bad_steps: BadSteps, step: int, loss: float, norm: float = 1.0) -> str | None:
    """What the trainer does in a step, and then when its numbers have come back."""
    bad = bad_steps.bad(torch.tensor(loss), torch.tensor(norm))
    return bad_steps.judge(step, loss, norm, bool(bad))


def losses(count: int) -> list[float]:
    """Of a run that learns: they fall, and scatter."""
    rng = np.random.default_rng(0)
    return [float(9 * math.exp(-step / 200) + 2 + rng.normal(0, 0.1)) for step in range(count)]


@pytest.fixture
def progress() -> Progress:
    """What the bad_steps remembers."""
    return Progress()


@pytest.fixture
def bad_steps(tiny_config: Callable[..., Config], progress: Progress) -> BadSteps:
    return BadSteps(tiny_config().train, progress)


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
    loss: float, norm: float, reason: str | None, bad_steps: BadSteps
) -> None:
    """Neither comparison with a limit nor the mean may let a NaN through."""
    assert take(bad_steps, 1, loss, norm) == reason


def test_a_jump_is_bad_and_learning_is_not(bad_steps: BadSteps) -> None:
    """The steep fall at the start and the scatter later raise no alarm; a jump does, and does not make jumps normal."""
    for step, loss in enumerate(losses(1000), start=1):
        assert take(bad_steps, step, loss) is None
    for step in range(1001, 1051):
        assert take(bad_steps, step, 4.0) == "the loss jumped to 4.000 from a mean of 2.056", step
    assert take(bad_steps, 1051, 2.1) is None


def test_mean_and_variance_are_those_of_the_first_losses(bad_steps: BadSteps, progress: Progress) -> None:
    """Without a start from 0, which would take the first losses for jumps or hide them for long."""
    for step, loss in enumerate((2.0, 4.0, 6.0), start=1):
        take(bad_steps, step, loss)
    assert progress.loss_mean == pytest.approx(4.0)
    assert progress.loss_variance == pytest.approx(8 / 3)


def test_the_limit_moves_at_fixed_steps_alone(bad_steps: BadSteps, progress: Progress) -> None:
    """On a device losses come back late, and earlier where a run saves: the limit must not depend on when."""
    limits = {}
    for step, loss in enumerate(losses(150), start=1):
        take(bad_steps, step, loss)
        limits[step] = progress.loss_limit
    changed = [step for step in range(2, 151) if limits[step] != limits[step - 1]]
    assert changed == [100, 120, 140]


def test_a_continued_run_judges_as_an_undisturbed_one(tiny_config: Callable[..., Config]) -> None:
    """All that is remembered is in the progress that checkpoints keep, in the middle of a limit's steps, too."""
    progress = Progress()
    bad_steps = BadSteps(tiny_config().train, progress)
    kept = {}
    for step, loss in enumerate([*losses(300), 9.0, 2.0], start=1):
        kept[step] = copy.copy(progress)
        take(bad_steps, step, loss)
    again = kept[290]
    bad_steps = BadSteps(tiny_config().train, again)
    for step, loss in enumerate([*losses(300), 9.0, 2.0], start=1):
        if step >= 290:
            take(bad_steps, step, loss)
    assert again == progress
    assert progress.loss_limit is not None


def test_gradients_too_large_for_fp16_are_no_bad_step(bad_steps: BadSteps, progress: Progress) -> None:
    """Guards against a run that ends, or lines that are blamed, because the loss scale was too large: the loss alone
    decides."""
    infinite, nan = torch.tensor(math.inf), torch.tensor(math.nan)
    progress.loss_limit = 3.0
    assert not bad_steps.bad(torch.tensor(2.0), infinite, torch.tensor(True))
    assert not bad_steps.bad(torch.tensor(2.0), nan, torch.tensor(True))
    assert bad_steps.bad(torch.tensor(2.0), infinite, torch.tensor(False))  # the scale cannot become smaller
    assert bad_steps.bad(nan, nan, torch.tensor(True))
    assert bad_steps.bad(torch.tensor(4.0), nan, torch.tensor(True))


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
