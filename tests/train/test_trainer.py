"""Training: exact continuation, the same numbers however a step is split, and how a run ends."""

import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from seq2seq.config import Config
from seq2seq.data import mixture
from seq2seq.data.plan import step_budgets
from seq2seq.data.subword_epochs import Resampler
from seq2seq.errors import EXIT_STOPPED, ConfigError, DataError, ModelError, UserError
from seq2seq.evaluate import Scores
from seq2seq.model import loss as loss_module
from seq2seq.tensors import load_tensors, read_metadata
from seq2seq.train import decide, setup, trainer, validation
from seq2seq.train.checkpoint import list_checkpoints, load_checkpoint
from seq2seq.train.distributed import Processes
from seq2seq.train.metrics import read_metrics
from seq2seq.train.setup import Run
from seq2seq.train.validation import Validation
from tests.toy import (
    ROOT,
    environments,
    metrics,
    run_command,
    set_up,
    start_command,
    toy_config,
    train,
    weights,
    write_config,
    write_lines,
    write_text_files,
)

# Six steps an epoch and a checkpoint every four: a run that goes on does so in the middle of an epoch.
EVERY = ("train.save_every=4", "train.max_steps=14")
GUARD = "data.guard={src: TEXT/test.xx, tgt: TEXT/test.yy}"
VARIANTS = {
    "dropout": (*EVERY, "model.dropout=0.3"),
    "everything": (
        *EVERY,
        "model.dropout=0.2",
        "train.ema_decay=0.9",
        "tokenizer.sampling=0.3",
        "train.accumulate=2",
        "train.metric=loss",
        "optim.schedule=cosine",
    ),
    "separate": (*EVERY, "tokenizer.joint=false", "optim.name=muon", "optim.weight_decay=0.1"),
    "recurrent": (
        *EVERY,
        "model={architecture: recurrent, d_model: 16, encoder_layers: 2, decoder_layers: 2, cell: lstm, dropout: 0.2}",
        "optim.name=muon",
        "train.ema_decay=0.9",
    ),
    "convolutional": (
        *EVERY,
        "model={architecture: convolutional, d_model: 16, encoder_layers: 2, decoder_layers: 2, dropout: 0.2}",
        "optim.name=muon",
        "train.accumulate=2",
    ),
    "fine-tuned": (
        *EVERY,
        "init={from: OLD, freeze: [encoder, decoder.layers.0], extend_vocabulary: true}",
        "model.dropout=0.2",
        "tokenizer.vocab_size=340",
        "tokenizer.sampling=0.3",
        "data.train.tag=new",
        "data.valid.tag=new",
        "train.ema_decay=0.9",
        "optim.name=muon",
        "train.accumulate=2",
    ),
    "guard": (*EVERY, GUARD, "train.max_forgetting=0", "train.validate_every=2"),
    "patience": (*EVERY, "train.max_steps=40", "train.patience=3", "train.validate_every=3", "optim.lr=1e-6"),
}


class Stopped(BaseException):
    """Stands for whatever may stop a run: nothing in the package may catch it."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The tests share one core with others."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_files(tmp_path_factory.mktemp("text"))


def old_model(text: Path) -> Path:
    """A run with a model to start from; trained when it is first needed."""
    if not (text / "old").exists():
        train(toy_config(text, text / "old", "tokenizer.vocab_size=310", "train.max_steps=3"))
    return text / "old"


def variant_of(name: str, text: Path, run: Path) -> Config:
    settings = [setting.replace("TEXT", str(text)) for setting in VARIANTS[name]]
    if "OLD" in str(settings):
        settings = [setting.replace("OLD", str(old_model(text))) for setting in settings]
    return toy_config(text, run, *settings)


@pytest.fixture(scope="module")
def undisturbed(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``undisturbed(variant)``: the folder of a run that nothing stopped; made once."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(variant: str) -> Path:
        if not (folder / variant).exists():
            train(variant_of(variant, text, folder / variant))
        return folder / variant

    return run


def stopping(name: str, call: int, after: bool = False) -> Any:
    """Let the ``call``-th call of something the trainer uses raise Stopped, before it does its work or after."""
    owner: Any = next(owner for owner in (Resampler, trainer, setup, decide) if hasattr(owner, name))
    original = getattr(owner, name)
    count = 0

    def stop(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        result = original(*arguments, **options) if count != call or after else None
        if count == call:
            raise Stopped
        return result

    return mock.patch.object(owner, name, stop)


def same_end(run: Path, reference: Path) -> None:
    """Both runs ended with the same weights, metrics, and state to go on from, bit for bit."""
    assert (run / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
    assert weights(run, "last") == weights(reference, "last")
    assert weights(run, "best") == weights(reference, "best")
    assert [path.name for path in list_checkpoints(run)][-1:] == [path.name for path in list_checkpoints(reference)][
        -1:
    ]
    ours, theirs = (load_checkpoint(list_checkpoints(folder)[-1]) for folder in (run, reference))
    for group in ("weights", "average", "optimizer"):
        mine, other = getattr(ours, group), getattr(theirs, group)
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in mine), group
    ours.progress.seconds = theirs.progress.seconds = 0.0  # of the clock
    assert ours.progress == theirs.progress


@pytest.mark.parametrize(
    ("variant", "step"),
    [
        *(("everything", 2), ("everything", 7), ("dropout", 9), ("separate", 7), ("patience", 12)),
        *(("recurrent", 7), ("convolutional", 7), ("fine-tuned", 2), ("fine-tuned", 7), ("guard", 1), ("guard", 7)),
    ],
)
def test_a_stopped_run_ends_as_one_that_was_not(
    variant: str, step: int, text: Path, tmp_path: Path, undisturbed: Callable[[str], Path]
) -> None:
    """Contract 2: before the first checkpoint, mid-epoch, and right after a checkpoint; dropout, averages, sampled
    subwords, accumulation, schedules, both optimizers, the start of the guard and the state of patience all go on
    exactly."""
    config = variant_of(variant, text, tmp_path / "run")
    with stopping("train_step", step), pytest.raises(Stopped):
        train(config)
    assert len(list_checkpoints(tmp_path / "run")) == (step - 1) // 4
    train(config)
    same_end(tmp_path / "run", undisturbed(variant))


@pytest.mark.parametrize(
    ("name", "call", "after"),
    [
        ("prepare_data", 1, True),
        ("validate_run", 2, True),
        ("save_model_folder", 2, False),
        ("save_model_folder", 3, True),
        ("save_checkpoint", 1, True),
        ("save_checkpoint", 2, False),
        ("sample", 2, True),
    ],
)
def test_no_moment_is_a_bad_one_to_stop(
    name: str, call: int, after: bool, text: Path, tmp_path: Path, undisturbed: Callable[[str], Path]
) -> None:
    """What a stop leaves behind between two writes (a best or last that is ahead of the checkpoint, a checkpoint
    without later metrics, a sampled corpus) is taken up or replaced."""
    config = toy_config(text, tmp_path / "run", *VARIANTS["everything"])
    with stopping(name, call, after), pytest.raises(Stopped):
        train(config)
    train(config)
    same_end(tmp_path / "run", undisturbed("everything"))


def test_many_stops_in_one_run(text: Path, tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    """Errors of continuing do not add up: stopped again and again, the end is the same."""
    config = toy_config(text, tmp_path / "run", *VARIANTS["everything"])
    for call in (5, 5, 1, 4, 2):
        with stopping("train_step", call), pytest.raises(Stopped):
            train(config)
    train(config)
    same_end(tmp_path / "run", undisturbed("everything"))


def test_kill_9_and_the_same_command(text: Path, tmp_path: Path) -> None:
    """A killed process leaves no half-written file that the same command trips over or goes on from wrongly; one that
    is asked to end (SIGTERM) saves between two regular checkpoints, and says so with an exit code of its own."""
    run = tmp_path / "run"
    settings = ("train.max_steps=60", "train.save_every=7", "train.ema_decay=0.9", "tokenizer.sampling=0.3")
    settings += (
        "train.patience=null",
        "train.validate_every=20",
        f"data.cache_dir={tmp_path}/run/data",
    )
    train(toy_config(text, tmp_path / "reference", *settings[:-1]))
    config = write_config(text, tmp_path / "run")
    chance = random.SystemRandom()
    killed_at = chance.uniform(0, 1.0)  # seconds; it has not finished by then
    for sent in (signal.SIGKILL, signal.SIGTERM):
        before = list_checkpoints(run)
        process = start_command("train", config, *settings, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if sent == signal.SIGKILL:
            time.sleep(killed_at)
        while sent == signal.SIGTERM and process.poll() is None and list_checkpoints(run) == before:
            time.sleep(0.01)
        process.send_signal(sent)
        said, _ = process.communicate()
    assert process.returncode == EXIT_STOPPED
    assert re.search(rb"stopped by a signal; saved after step \d+; the same command continues from there", said)
    done = run_command("train", config, *settings)
    assert done.returncode == 0, (killed_at, done.stderr.decode())
    assert b"train.max_steps (60) reached" in done.stdout
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (tmp_path / "reference/metrics.jsonl").read_bytes(), (
        killed_at
    )
    for name in ("last", "best"):
        assert weights(tmp_path / "run", name) == weights(tmp_path / "reference", name), killed_at


@pytest.fixture(scope="module")
def half_done(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with checkpoints of steps 4 and 8; copy it before use."""
    run = tmp_path_factory.mktemp("half") / "run"
    train(toy_config(text, run, *EVERY, "train.max_steps=8", "train.patience=null"))
    return run


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("seed=9", "seed: 1 -> 9"),
        ("data.max_length=20", "data.max_length: 24 -> 20"),
        ("data.max_ratio=4", "data.max_ratio: null -> 4.0"),
        ("tokenizer.vocab_size=320", "tokenizer.vocab_size: 330 -> 320"),
        ("tokenizer.sampling=0.5", "tokenizer.sampling: 0.0 -> 0.5"),
        ("model.dropout=0.4", "model.dropout: 0.1 -> 0.4"),
        ("model.d_ff=48", "model.d_ff: 32 -> 48"),
        ("optim.lr=0.5", "optim.lr: 0.01 -> 0.5"),
        ("optim.name=muon", 'optim.name: "adamw" -> "muon"'),
        ("train.batch_tokens=99", "train.batch_tokens: 120 -> 99"),
        ("train.accumulate=2", "train.accumulate: null -> 2"),
        ("train.label_smoothing=0", "train.label_smoothing: 0.1 -> 0.0"),
        ("train.ema_decay=0.5", "train.ema_decay: 0.0 -> 0.5"),
        ("train.precision=bf16", 'train.precision: "auto" -> "bf16"'),
        ("train.metric=loss", 'train.metric: "bleu" -> "loss"'),
    ],
)
def test_other_settings_are_refused(change: str, told: str, text: Path, half_done: Path) -> None:
    """A setting that decides the weights (or what best means) may not change under a run; the message names the key,
    old and new, and the run folder stays as it was."""
    before = {path: path.read_bytes() for path in half_done.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as refused:
        train(toy_config(text, half_done, *EVERY, change))
    assert told in str(refused.value)
    assert str(half_done) in str(refused.value)
    assert before == {path: path.read_bytes() for path in half_done.rglob("*") if path.is_file()}


def test_the_last_step_may_not_move_under_a_schedule_that_needs_it(text: Path, tmp_path: Path) -> None:
    """A cosine to step 8 continued to step 14 would be neither run."""
    train(toy_config(text, tmp_path / "run", *EVERY, "train.max_steps=8", "optim.schedule=cosine"))
    with pytest.raises(ConfigError, match=r"train\.max_steps: 8 -> 14"):
        train(toy_config(text, tmp_path / "run", *EVERY, "optim.schedule=cosine"))


@pytest.mark.parametrize("file", ["train.xx", "train.yy", "valid.yy"])
def test_other_text_is_refused(file: str, text: Path, half_done: Path, tmp_path: Path) -> None:
    """A run does not go on with text other than that it was started with."""
    changed = tmp_path / "text"
    shutil.copytree(text, changed)
    lines = (changed / file).read_text(encoding="utf-8").splitlines()
    write_lines(changed / file, [*lines[:-1], lines[0] + " " + lines[1]])
    shutil.copytree(half_done, tmp_path / "run")
    with pytest.raises(DataError, match="text has changed"):
        train(toy_config(changed, tmp_path / "run", *EVERY))


def test_bounds_and_saving_may_change(
    text: Path, half_done: Path, tmp_path: Path, undisturbed: Callable[[str], Path]
) -> None:
    """A finished run goes on with a later bound, and takes the steps it would have taken anyway."""
    shutil.copytree(half_done, tmp_path / "run")
    changes = ("train.save_every=2", "train.keep_last=2", "train.validate_every=3", "decode.beam_size=1")
    summary = train(toy_config(text, tmp_path / "run", *EVERY, *changes))
    assert summary.progress.step == 14
    assert [path.name[5:14] for path in list_checkpoints(tmp_path / "run")] == ["000000012", "000000014"]
    train(toy_config(text, tmp_path / "straight", *EVERY))
    ours, straight = (load_tensors(tmp_path / run / "last/model.safetensors")[0] for run in ("run", "straight"))
    assert all(torch.equal(ours[name], straight[name]) for name in straight)


def test_a_first_validation_comes_before_the_others(text: Path, tmp_path: Path) -> None:
    """A run whose validations are rare shows early what it does; it takes the same steps as one without."""
    settings = ("train.max_steps=9", "train.validate_every=5", "train.ema_decay=0.9")
    for name, first in (("early", "2"), ("late", "null")):
        train(toy_config(text, tmp_path / name, *settings, f"train.first_validation={first}"))
    validated = [record["step"] for record in metrics(tmp_path / "early") if "valid_bleu" in record]
    assert validated == [2, 5, 9]
    assert losses(tmp_path / "early") == losses(tmp_path / "late")


def losses(run: Path) -> tuple[list[float], list[float], list[float]]:
    """Of every step: loss, negative log-likelihood, gradient norm."""
    steps = [record for record in metrics(run) if "loss" in record]
    return tuple([record[name] for record in steps] for name in ("loss", "nll", "grad_norm"))  # type: ignore[return-value]


@pytest.mark.parametrize("batch_tokens", [120, 14], ids=["full", "fewer-sentences-than-micro-batches"])
def test_accumulation_does_not_change_the_step(batch_tokens: int, text: Path, tmp_path: Path) -> None:
    """Contract 5: a mean per micro-batch, or a wrong number of tokens, would change loss and gradient."""
    for accumulate in (1, 2, 3):
        settings = ("model.dropout=0", f"train.accumulate={accumulate}", f"train.batch_tokens={batch_tokens}")
        train(toy_config(text, tmp_path / f"{accumulate}", *settings))
    for accumulate in (2, 3):
        for ours, theirs in zip(losses(tmp_path / f"{accumulate}"), losses(tmp_path / "1"), strict=True):
            assert ours == pytest.approx(theirs, rel=2e-5)


def test_the_sampling_of_an_epoch_changes_no_budget(text: Path, tmp_path: Path) -> None:
    """Fixed shapes are made for the corpus as it is; steps of a resampled one must fit into them, too."""
    config = toy_config(text, tmp_path / "run", "tokenizer.sampling=0.5")
    run = set_up(config)
    with mock.patch.object(mixture, "plan_epoch") as planned:
        sampled, _ = trainer.epoch_data(run)
    run.close()
    original = run.data.train
    assert sampled.src_lengths.sum() > original.src_lengths.sum()
    lengths = original.src_lengths, original.tgt_lengths
    assert planned.call_args.args[2] == step_budgets(*lengths, config.train.batch_tokens)


SHAPE = "d_model: 16, encoder_layers: 1, decoder_layers: 1, dropout: 0"


@pytest.mark.parametrize(
    "model",
    [
        ("model.dropout=0",),
        *((f"model={{architecture: {name}, {SHAPE}}}",) for name in ("recurrent", "convolutional")),
        (
            "model.dropout=0",
            "init={from: OLD, freeze: [encoder], extend_vocabulary: true}",
            "tokenizer.vocab_size=340",
        ),
    ],
    ids=["transformer", "recurrent", "convolutional", "fine-tuned"],
)
def test_two_processes_train_as_one(model: tuple[str, ...], text: Path, tmp_path: Path) -> None:
    """Contract 5 with real processes: the same steps, losses and gradients, validations shared and complete."""
    settings = [setting.replace("OLD", str(old_model(text))) for setting in model]
    settings += ["tokenizer.sampling=0.3", "train.accumulate=2", "train.ema_decay=0.5"]
    settings += [f"data.test.src={text}/test.xx", f"data.test.tgt={text}/test.yy", GUARD.replace("TEXT", str(text))]
    train(toy_config(text, tmp_path / "one", *settings))
    config = write_config(text, tmp_path / "two")
    _store, variables = environments(2)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [start_command("train", config, *settings, env=env, **pipes) for env in variables]
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert [out.count(b"done: train.max_steps (12) reached") for out, _ in told] == [1, 0]  # one process speaks
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [record.keys() for record in two] == [record.keys() for record in one]
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-8)
    hypotheses = [(tmp_path / name / "test.hyp.txt").read_text(encoding="utf-8") for name in ("two", "one")]
    assert hypotheses[0] == hypotheses[1]


@pytest.mark.parametrize(
    ("settings", "reason", "steps"),
    [
        (("train.max_steps=3",), "train.max_steps (3) reached", 3),
        (("train.max_steps=null", "train.max_epochs=2"), "train.max_epochs (2) reached", 10),
        (
            ("train.patience=2", "train.validate_every=1", "optim.lr=1e-9"),
            "no better bleu in 2 validations (train.patience)",
            3,
        ),
        (("train.max_minutes=0.00001",), "train.max_minutes (1e-05) reached", 1),
    ],
)
def test_every_bound_ends_the_run(
    settings: tuple[str, ...], reason: str, steps: int, text: Path, tmp_path: Path
) -> None:
    """The first bound reached ends the run and is named; the end is validated, saved and continued from."""
    summary = train(toy_config(text, tmp_path / "run", *settings))
    assert (summary.reason, summary.progress.step) == (reason, steps)
    assert summary.progress.validated_step == steps
    assert [path.name for path in list_checkpoints(tmp_path / "run")][-1] == f"step-{steps:09d}.safetensors"
    assert read_metadata(tmp_path / "run/last/model.safetensors")["step"] == str(steps)


@pytest.mark.parametrize("decay", [0, 0.9])
def test_validations_share_an_engine(decay: float, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against graphs that every validation captures anew, and against a translation with earlier weights."""
    updated: list[int] = []
    settings = ("train.max_steps=6", "train.validate_every=2", f"train.ema_decay={decay}")
    run = set_up(toy_config(text, tmp_path / "run", *settings))
    assert run.engine.model is run.evaluated
    engines, update = mock.Mock(side_effect=AssertionError), run.engine.update
    monkeypatch.setattr(run.engine, "update", lambda: updated.append(run.progress.step) or update())
    monkeypatch.setattr(trainer, "best_translator", lambda run: None)  # what follows the training has its own
    with mock.patch.object(validation, "TorchEngine", engines), mock.patch.object(trainer, "TorchEngine", engines):
        trainer.train(run)
    assert updated == [2, 4, 6]


@pytest.mark.parametrize(("metric", "best"), [("loss", 2), ("bleu", 3), ("chrf", 3)])
def test_the_best_is_kept_by_the_chosen_metric(metric: str, best: int, text: Path, tmp_path: Path) -> None:
    """Lower loss but higher BLEU and chrF are better; best holds the weights of that very step."""
    told = iter([(3.0, 1.0, 9.0), (1.0, 2.0, 5.0), (2.0, 8.0, 9.0), (1.0, 8.0, 7.0)])

    def validate(*_: object) -> Validation:
        loss, bleu, chrf = next(told)
        return Validation(loss, Scores(bleu, "", "", chrf, "", 1))

    settings = ("train.validate_every=1", "train.save_every=1", "train.max_steps=4", f"train.metric={metric}")
    with mock.patch.object(trainer, "validate", validate):
        summary = train(toy_config(text, tmp_path / "run", *settings))
    assert summary.progress.best_step == best
    kept, metadata = load_tensors(tmp_path / "run/best/model.safetensors")
    assert metadata["step"] == str(best)
    there = load_checkpoint(tmp_path / f"run/checkpoints/step-{best:09d}.safetensors").weights
    assert all(torch.equal(kept[name], there[name]) for name in there)


def test_notes_on_the_scores_are_printed_once(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against sacreBLEU's advice at every validation: it names a parameter that does not exist here."""
    write_lines(tmp_path / "valid.xx", ["ka to"] * 120)
    write_lines(tmp_path / "valid.yy", ["สุนัขชอบบ้าน ."] * 120)
    files = (f"data.valid.src={tmp_path}/valid.xx", f"data.valid.tgt={tmp_path}/valid.yy")
    train(toy_config(text, tmp_path / "run", "train.max_steps=4", "train.validate_every=2", *files))
    printed = capsys.readouterr().err
    assert printed.count("step 2: validation loss") == printed.count("step 4: validation loss") == 1
    assert printed.count("note: the references look tokenised") == 1
    assert printed.count("note: the target language is yy, but the references are in Thai script") == 1
    assert printed.count("note: ") == 2
    assert not caplog.records


@pytest.mark.parametrize("metric", ["loss", "bleu"])
def test_a_validation_that_is_no_number_is_no_improvement(
    metric: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a good best model replaced after one NaN; it counts for patience and is reported in one line."""
    nan = float("nan")
    told = iter([(nan, 0.0), (3.0, 5.0), (nan, 9.0), (nan, 9.0), (1.0, 9.0)])

    def validate(*_: object) -> Validation:
        loss, bleu = next(told)
        return Validation(loss, Scores(bleu, "", "", bleu, "", 1))

    settings = ("train.validate_every=1", "train.max_steps=5", f"train.metric={metric}", "train.patience=2")
    with mock.patch.object(trainer, "validate", validate):
        summary = train(toy_config(text, tmp_path / "run", *settings))
    assert (summary.progress.step, summary.progress.best_step) == (4, 2)
    assert read_metadata(tmp_path / "run/best/model.safetensors")["step"] == "2"
    assert capsys.readouterr().err.count("the validation is not a finite number") == 3


def test_a_run_without_a_finite_validation_ends_well(text: Path, tmp_path: Path) -> None:
    """Guards against a traceback at the test set, where no model was ever the best."""
    scores = Validation(float("nan"), Scores(0.0, "", "", 0.0, "", 1))
    settings = (f"data.test.src={text}/test.xx", f"data.test.tgt={text}/test.yy", "train.max_steps=3")
    with mock.patch.object(trainer, "validate", return_value=scores):
        summary = train(toy_config(text, tmp_path / "run", *settings))
    assert (summary.test, summary.progress.best_step) == (None, 0)


@contextmanager
def bad_steps(*steps: int, broken: str = "loss") -> Iterator[None]:
    """Let the loss or the gradient of these steps be no number; a step is one micro-batch."""
    original = trainer.train_step
    now = 0

    def step(run: Run, work: Any) -> None:
        nonlocal now
        now = run.progress.step + 1
        original(run, work)

    plain = loss_module.smoothed_cross_entropy

    def cross_entropy(hidden: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, nll = plain(hidden, *rest)
        if now not in steps or not hidden.requires_grad:
            return loss, nll
        if broken == "loss":
            return loss * float("nan"), nll
        return loss + 0 * (hidden * 0).sum().sqrt(), nll  # the slope of a root at 0 is infinite

    with mock.patch.object(trainer, "train_step", step):
        with mock.patch.object(loss_module, "smoothed_cross_entropy", cross_entropy):
            yield


def state_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights and optimizer state in a checkpoint."""
    checkpoint = load_checkpoint(run / f"checkpoints/step-{step:09d}.safetensors")
    return {**checkpoint.weights, **checkpoint.optimizer}


NO_VALIDATION = ("train.validate_every=100", "train.keep_last=20")


def test_muon_is_in_bf16_where_all_processes_multiply_it_fast(text: Path, tmp_path: Path) -> None:
    """Guards against a step of the optimizer that takes twice as long as it could."""
    for fast in (True, False):
        config = toy_config(text, tmp_path / str(fast), *EVERY, "train.max_steps=2", "optim.name=muon")
        with mock.patch.object(Processes, "all_multiply_bf16_fast", return_value=fast):
            train(config)
    assert weights(tmp_path / "True") != weights(tmp_path / "False")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_bad_step_is_left_out(broken: str, optimizer: str, text: Path, tmp_path: Path) -> None:
    """A NaN never reaches the weights or the optimizer, never vanishes from the log, and its lines are named."""
    run = tmp_path / "run"
    with bad_steps(6, broken=broken):
        train(toy_config(text, run, *NO_VALIDATION, "train.save_every=1", f"optim.name={optimizer}"))
    before, after, later = (state_of(run, step) for step in (5, 6, 7))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(torch.equal(before[name], later[name]) for name in before)
    assert {record["step"]: record["bad"] for record in metrics(run) if "bad" in record}.keys() == {6}
    lines = read_metrics(run / "bad_lines.jsonl")
    assert {line["step"] for line in lines} == {6}
    src, number = lines[0]["src"].rsplit(":", 1)
    assert src == f"{text}/train.xx"
    assert lines[0]["tgt"] == f"{text}/train.yy:{number}"
    assert [line["loss"] for line in lines] == sorted((line["loss"] for line in lines), reverse=True)


def test_a_bad_step_can_end_the_run_and_many_always_do(text: Path, tmp_path: Path) -> None:
    """Nothing is saved after it, and the message says what to do; the same run may go on with on_bad_step=skip."""
    run = tmp_path / "run"
    settings = ("train.save_every=2", "train.validate_every=100")
    with bad_steps(6), pytest.raises(UserError, match=r"step 6: the loss is nan; .*bad_lines\.jsonl.*optim\.lr"):
        train(toy_config(text, run, *settings, "train.on_bad_step=stop"))
    assert [path.name[5:14] for path in list_checkpoints(run)] == ["000000002", "000000004"]
    assert read_metadata(run / "last/model.safetensors")["step"] == "4"
    assert [record["step"] for record in metrics(run)] == [1, 2, 3, 4, 5, 6]
    with bad_steps(6, 8, 9, 10), pytest.raises(UserError, match=r"step 10: .*, the last of 3 bad steps in a row"):
        train(toy_config(text, run, *settings, "train.max_bad_steps=3"))
    assert [line["step"] for line in read_metrics(run / "bad_lines.jsonl")].count(6) > 0  # once, not from both starts
    assert len({(line["step"], line["src"]) for line in read_metrics(run / "bad_lines.jsonl")}) == len(
        read_metrics(run / "bad_lines.jsonl")
    )


def test_rolling_back_is_to_the_weights_of_a_regular_checkpoint(text: Path, tmp_path: Path) -> None:
    """Also where the run was stopped by a signal in between: it ends as an undisturbed one."""
    settings = (*NO_VALIDATION, "train.save_every=4", "train.on_bad_step=rollback")
    with bad_steps(7):
        train(toy_config(text, tmp_path / "reference", *settings))
        config = toy_config(text, tmp_path / "run", *settings)
        assert train(config, stop_after=6).stopped
        train(config, stop_after=7)
        train(config)
    fourth, seventh = (state_of(tmp_path / "run", step) for step in (4, 7))
    assert all(torch.equal(fourth[name], seventh[name]) for name in fourth)
    assert weights(tmp_path / "run", "last") == weights(tmp_path / "reference", "last")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "reference")


def test_rolling_back_never_leads_into_the_future(text: Path, tmp_path: Path) -> None:
    """Guards against weights of a later step: where the best model is lost, a run goes on from an earlier checkpoint,
    and those of later steps are still there."""
    settings = (*NO_VALIDATION, "train.save_every=2", "train.on_bad_step=rollback")
    config = toy_config(text, tmp_path / "run", *settings)
    with bad_steps(4):
        train(config)
        expected = state_of(tmp_path / "run", 4)
        shutil.rmtree(tmp_path / "run/best")  # of step 12
        for path in list_checkpoints(tmp_path / "run")[1:-1]:
            path.unlink()
        assert train(config, stop_after=4).progress.step == 4
    again = state_of(tmp_path / "run", 4)
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_an_unregular_checkpoint_is_not_rolled_back_to(text: Path, tmp_path: Path) -> None:
    """Guards against a stopped run that ends otherwise than an undisturbed one, before the first regular checkpoint."""
    settings = (*NO_VALIDATION, "train.save_every=8", "train.on_bad_step=rollback")
    with bad_steps(4):
        train(toy_config(text, tmp_path / "reference", *settings))
        config = toy_config(text, tmp_path / "run", *settings)
        train(config, stop_after=2)
        train(config)
    assert weights(tmp_path / "run", "last") == weights(tmp_path / "reference", "last")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_passed_over(
    damage: str, text: Path, tmp_path: Path, undisturbed: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Contract 6: a checkpoint with a wrong bit is named and the one before it taken; the end is the same."""
    config = toy_config(text, tmp_path / "run", *VARIANTS["dropout"])
    with stopping("train_step", 11), pytest.raises(Stopped):
        train(config)
    path = list_checkpoints(tmp_path / "run")[-1]
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes({"cut": data[:-100], "flipped": data, "empty": b""}[damage])
    train(config)
    assert str(path) in capsys.readouterr().err
    same_end(tmp_path / "run", undisturbed("dropout"))


def test_a_damaged_log_is_named(
    text: Path, half_done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another history than the run had, after one flipped digit; the run itself goes on."""
    for changed in (False, True):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(half_done, tmp_path / "run")
        log = tmp_path / "run/metrics.jsonl"
        log.write_text(log.read_text().replace('"nll": ', '"nll": 1', int(changed)))
        capsys.readouterr()
        assert train(toy_config(text, tmp_path / "run", *EVERY)).progress.step == 14
        assert (f"{log}: damaged: it differs from the file at step 8" in capsys.readouterr().err) == changed


def test_only_damaged_checkpoints_are_an_error(text: Path, half_done: Path, tmp_path: Path) -> None:
    """Starting from step 0 over a run whose checkpoints are all damaged would destroy it silently."""
    shutil.copytree(half_done, tmp_path / "run")
    for path in list_checkpoints(tmp_path / "run"):
        path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(ModelError, match="every checkpoint is damaged"):
        train(toy_config(text, tmp_path / "run", *EVERY))
    assert len(metrics(tmp_path / "run")) > 8


def test_a_finished_run_takes_no_step(text: Path, tmp_path: Path) -> None:
    """The command of a finished run repeated changes nothing, and says again what came out."""
    settings = (f"data.test.src={text}/test.xx", f"data.test.tgt={text}/test.yy")
    first = train(toy_config(text, tmp_path / "run", *settings))
    before = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "tensorboard" not in str(path)
    }
    with mock.patch.object(trainer, "train_step", side_effect=AssertionError):
        again = train(toy_config(text, tmp_path / "run", *settings))
    assert again == first
    assert before == {path: path.read_bytes() for path in before}
    assert len((tmp_path / "run/test.hyp.txt").read_text(encoding="utf-8").split("\n")) == 6


def test_the_packages_root_is_this_checkout() -> None:
    """Processes started by these tests run the code under test, not an installed copy."""
    assert Path(trainer.__file__).is_relative_to(ROOT)
