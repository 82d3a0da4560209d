"""The training loop.

Read :func:`train` first, then the functions below it in their order. :mod:`seq2seq.train.setup` says what a run
consists of and which files it writes. Every random number comes from a seed made of the run's seed, the step, and the
process, so a run that was stopped and continued takes the same steps as one that was not.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seq2seq.data.corpus import Corpus
from seq2seq.data.loader import Step, load_steps
from seq2seq.data.plan import EpochPlan
from seq2seq.data.prepare import sampled_folder
from seq2seq.decode.calibration import CannotCalibrateError, save_calibration
from seq2seq.decode.engine import TorchEngine
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.device import device_name
from seq2seq.errors import UserError
from seq2seq.evaluate import Scores, fingerprint_lines
from seq2seq.files import seal, write_text
from seq2seq.memory import memory_explained
from seq2seq.model_folder import load_model_folder, save_model_folder
from seq2seq.train.bad_steps import describe, losses_of_pairs
from seq2seq.train.calibrate import calibrate
from seq2seq.train.checkpoint import Checkpoint, Progress, save_checkpoint, whole_checkpoints
from seq2seq.train.forgetting import Forgetting
from seq2seq.train.metrics import BAD_LINES, METRICS
from seq2seq.train.microbatches import too_large
from seq2seq.train.optim import learning_rate
from seq2seq.train.reporter import StepRecord
from seq2seq.train.resume import restore
from seq2seq.train.setup import Run
from seq2seq.train.stopping import StopSignals
from seq2seq.train.validation import (
    Validation,
    measured_decode,
    score_lines,
    translate_all,
    update_best,
    validate,
)

_SIGNAL = "stopped by a signal"


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    progress: Progress
    reason: str
    stopped: bool  # by a signal; the same command continues the run
    test: Scores | None
    translations: Sequence[Translation] = ()  # of the test set


def train(run: Run, stop_after: int | None = None, *, ends_process: bool = True) -> Summary:
    """Train until a bound of the config is reached; then test and calibrate the best model. Closes the run.

    A signal ends it early, and so does step ``stop_after``: a checkpoint is written, and nothing is tested.
    ``ends_process`` is as for :class:`StopSignals`.
    """
    progress = run.progress
    try:
        with StopSignals(run.processes.say, run.processes.others_live, ends_process=ends_process) as signals:

            def is_asked_to_stop() -> bool:
                return signals.received is not None or progress.step >= (stop_after or math.inf)

            measure_start(run)
            reason = _why_stop(run, is_asked_to_stop)
            while reason is None:
                reason = _epoch(run, is_asked_to_stop)
            if reason != _SIGNAL and progress.validated_step < progress.step:
                validate_run(run)
            save_run(run)
            if run.processes.any(is_asked_to_stop()):
                reason = _SIGNAL
        stopped = reason == _SIGNAL
        scores: Scores | None = None
        translations: Sequence[Translation] = ()
        if not stopped and (translator := best_translator(run)) is not None:
            scores, translations = score_test_set(run, translator)
            if run.processes.is_main:
                calibrate_best(run, translator)
    finally:
        run.close()
    return Summary(progress, reason, stopped, scores, translations)


def _epoch(run: Run, is_asked_to_stop: Callable[[], bool]) -> str | None:
    """Train to the end of the current epoch. Returns why training is over; None if the next epoch follows."""
    config, progress = run.config.train, run.progress
    corpus, plan = epoch_data(run)
    started = time.monotonic()
    for step in load_steps(corpus, plan, run.microbatches, run.processes.device, first=progress.step_in_epoch):
        with memory_explained(partial(_describe, run, step)):
            warmed_up = run.gradients.warm_up(step.batches[0], run.processes.say)
        if warmed_up:
            started = time.monotonic()
            run.report.restart_clock()
        train_step(run, step)
        progress.step_in_epoch += 1
        if run.report.is_due(progress.step) or progress.step_in_epoch == plan.num_steps:
            read_back(run, corpus)
        if progress.step_in_epoch == plan.num_steps:
            progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
        if progress.step % config.validate_every == 0 or progress.step == config.first_validation:
            read_back(run, corpus)
            validate_run(run)
        now = time.monotonic()
        progress.seconds, started = progress.seconds + now - started, now
        run.report.expect(config, plan.num_steps, progress)
        if reason := _why_stop(run, is_asked_to_stop):
            read_back(run, corpus)
            return reason
        if progress.step % config.save_every == 0:
            read_back(run, corpus)
            save_run(run)
    return None


def epoch_data(run: Run) -> tuple[Corpus, EpochPlan]:
    """The training corpus of the current epoch, and the plan: which of its pairs make each step."""
    config, epoch, corpus = run.config, run.progress.epoch, run.data.train
    if run.resampler is not None:
        with run.processes.main_first():
            corpus = run.resampler.sample(sampled_folder(config, epoch), _mixed_seed(config.seed, epoch, 0))
        if run.processes.is_main:
            if epoch:
                shutil.rmtree(sampled_folder(config, epoch - 1), ignore_errors=True)
            if config.train.max_epochs is None or epoch + 1 < config.train.max_epochs:
                run.resampler.sample_ahead(sampled_folder(config, epoch + 1), _mixed_seed(config.seed, epoch + 1, 0))
    return corpus, run.data.mixture.plan(config.train.batch_tokens, config.seed, epoch, sampled=corpus)


def train_step(run: Run, step: Step) -> None:
    """Take one optimizer step, on the gradient of the mean loss per target token of all processes.

    Raises:
        OutOfMemoryError: the step does not fit into memory.
    """
    config, progress = run.config, run.progress
    progress.step += 1
    with memory_explained(partial(_describe, run, step)):
        seed = _mixed_seed(config.seed, progress.step, run.processes.rank)
        sums = run.gradients(step.batches, step.num_labels, seed)
        norm = nn.utils.clip_grad_norm_(run.optimizer.named.values(), config.optim.clip_norm or math.inf)
        too_large = None if run.loss_scale is None else run.loss_scale.update(norm)
        bad = run.bad_steps.bad(sums[0] / step.num_labels, norm, too_large)
        skipped = bad if too_large is None else bad.maximum(too_large.float())
        lr = learning_rate(progress.step, config.optim, config.train.max_steps)
        run.optimizer.step(lr, skipped)
        if run.average is not None:
            run.average.update(progress.step)
        numbers = torch.cat([sums, norm.reshape(1), bad.reshape(1), skipped.reshape(1)])
        run.report.step(StepRecord(progress.step, progress.epoch + 1, lr, replace(step, batches=[]), numbers))


def _describe(run: Run, step: Step) -> str:
    """Name the current step, and what to change if it is too large."""
    return too_large(run.config, f"step {run.progress.step:,}, {step.shape}")


def read_back(run: Run, corpus: Corpus) -> None:
    """Log the steps since the last call, all on the ``corpus`` of the current epoch, and handle the bad ones.

    Raises:
        UserError: there were too many bad steps, or train.on_bad_step is stop; every process raises it.
    """
    config = run.config.train
    for record, reason in run.report.read_back(run.bad_steps.judge):
        if run.processes.is_main:
            losses = losses_of_pairs(run.model, corpus, record.work.pairs, run.dtype)
            run.report.bad_step(record.step, reason, describe(losses, corpus, run.config.data.train))
        in_a_row = run.progress.bad_in_a_row
        if config.on_bad_step == "stop" or in_a_row >= config.max_bad_steps:
            count = f", the last of {in_a_row} bad steps in a row" if in_a_row > 1 else ""
            raise UserError(
                f"step {record.step}: {reason}{count}; nothing was saved since then. Look at the first lines of "
                f"{run.config.run_dir / BAD_LINES}: if they are damaged, remove them from the text; if not, lower "
                "optim.lr or raise optim.warmup_steps. Then start again in a new run_dir"
            )
        if config.on_bad_step == "rollback":
            _roll_back(run)


def _roll_back(run: Run) -> None:
    """Go back to the weights of the last regular checkpoint, but not to its place in the data."""
    run.processes.barrier()  # until the main process has written it
    every, now = run.config.train.save_every, run.progress.step
    # Others exist only after a signal, or (later ones) if this start continued from an earlier checkpoint.
    regular = whole_checkpoints(run.config.run_dir, run.processes.say, lambda step: step % every == 0 and step < now)
    checkpoint = next(regular, None)
    if checkpoint is None:
        run.processes.say("no regular checkpoint yet, so the weights stay as they are")
        return
    restore(checkpoint, run.config.run_dir, run.model, run.average, run.optimizer)
    run.processes.say(f"went back to the weights of step {checkpoint.progress.step:,}")


def _why_stop(run: Run, is_asked_to_stop: Callable[[], bool]) -> str | None:
    """Which bound is reached, or that a signal came; None if training continues. The same in every process."""
    config, progress = run.config.train, run.progress
    if config.max_steps is not None and progress.step >= config.max_steps:
        return f"train.max_steps ({config.max_steps:,}) reached"
    if config.max_epochs is not None and progress.epoch >= config.max_epochs:
        return f"train.max_epochs ({config.max_epochs}) reached"
    if config.patience is not None and progress.validations_since_best >= config.patience:
        within = "" if config.max_forgetting is None else " within train.max_forgetting"
        return f"no better {config.metric}{within} in {config.patience} validations (train.patience)"
    if run.processes.world_size > 1 and not run.report.is_due(progress.step):
        return None  # to ask the other processes is to wait for the device
    if config.max_minutes is not None and run.processes.any(progress.seconds >= 60 * config.max_minutes):
        return f"train.max_minutes ({config.max_minutes:g}) reached"
    return _SIGNAL if run.processes.any(is_asked_to_stop()) else None


def measure_start(run: Run) -> None:
    """With data.guard: measure, once in a run, the model that it starts with, from which forgetting counts."""
    if run.data.guard is None or run.progress.guard_start is not None:
        return
    result, seconds = _measure(run)
    assert result.guard is not None
    run.report.start(result, result.guard, seconds)
    run.progress.guard_start = result.guard.scores.bleu


def _measure(run: Run) -> tuple[Validation, float]:
    """Validate the model; returns the result and the seconds that it took."""
    started = time.monotonic()
    result = validate(run.evaluated, run.engine, run.data, run.config, run.processes, run.dtype)
    run.model.train()
    return result, time.monotonic() - started


def validate_run(run: Run) -> Validation:
    """Measure the model, log the result, and save the model as ``best`` if it is."""
    config, processes, progress, report = run.config, run.processes, run.progress, run.report
    result, seconds = _measure(run)
    report.validation(progress.step, result, seconds, Forgetting(progress.guard_start, config.train.max_forgetting))
    progress.validated_step = progress.step
    if not result.is_finite:
        processes.say(f"step {progress.step:,}: the validation is not a finite number; the best model stays as it is")
    if update_best(progress, result, config.train.metric, config.train.max_forgetting):
        report.best = f", best {config.train.metric} {abs(result.score(config.train.metric)):.2f}"
        _save_model(run, "best")
    return result


def save_run(run: Run) -> None:
    """Write ``last`` and then a checkpoint. A continued run finds all that belongs to its checkpoint."""
    run.report.flush()
    _save_model(run, "last")
    if not run.processes.is_main:
        return
    checkpoint = Checkpoint(
        progress=run.progress,
        weights=dict(run.model.named_parameters()),
        average={} if run.average is None else dict(run.average.model.named_parameters()),
        optimizer=run.optimizer.tensors(),
        loss_scale={} if run.loss_scale is None else run.loss_scale.tensors(),
        config=run.config.model_dump_json(),
        data_fingerprint=run.data.fingerprint,
        metrics=seal(run.config.run_dir / METRICS),
    )
    save_checkpoint(run.config.run_dir, checkpoint, run.config.train.keep_last)


def _save_model(run: Run, name: str) -> None:
    if run.processes.is_main:
        metadata = {"step": str(run.progress.step), "data": run.data.fingerprint}
        weights = dict(run.evaluated.named_parameters())
        probe = run.data.valid_text.src
        save_model_folder(run.config.run_dir / name, weights, run.config, run.data.tokenizers, metadata, probe)


def best_translator(run: Run) -> Translator | None:
    """Load the best model of a run in every process; None if it has none."""
    if not run.progress.best_step:
        return None
    run.processes.barrier()  # until the main process has written it
    best = load_model_folder(run.config.run_dir / "best")
    engine = TorchEngine(best.model.to(run.processes.device), run.dtype)
    return Translator(engine, run.config, run.data.tokenizers, best.metadata)


def score_test_set(run: Run, translator: Translator) -> tuple[Scores | None, Sequence[Translation]]:
    """Translate the test set, if there is one; write translations, scores, and what the scores depend on."""
    text, run_dir = run.data.test_text, run.config.run_dir
    if text is None:
        return None, ()
    started = time.monotonic()
    translations = translate_all(translator, text, run.config, run.processes)
    seconds, hypotheses = time.monotonic() - started, [one.text for one in translations]
    scores = score_lines(hypotheses, text, run.config)
    run.report.notes(scores.notes)
    if run.processes.is_main:
        write_text(run_dir / "test.hyp.txt", "".join(f"{line}\n" for line in hypotheses))
        record = {**scores.as_json(), "decode": measured_decode(run.config).model_dump(), "model": translator.metadata}
        record |= {"seconds": round(seconds, 3), "device": device_name(run.processes.device)}
        record |= {f"{side}_blake2b": fingerprint_lines(getattr(text, side)) for side in ("src", "ref")}
        path = run_dir / "test.json"
        write_text(path, json.dumps(_with_earlier_time(record, path), indent=2, ensure_ascii=False) + "\n")
    return scores, translations


def _with_earlier_time(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """``record`` with the seconds in the file if nothing else differs: a finished run that is repeated changes none."""
    with suppress(OSError, ValueError):
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(earlier, dict) and "seconds" in earlier:
            same_time = {**record, "seconds": earlier["seconds"]}
            if json.loads(json.dumps(same_time)) == earlier:
                return same_time
    return record


def calibrate_best(run: Run, translator: Translator) -> None:
    """Write the calibration of the best model's confidence, fitted on the validation text, into its folder."""
    text = run.data.valid_text
    try:
        calibration = calibrate(translator, text.src, text.ref, measured_decode(run.config), text.tags)
    except CannotCalibrateError as error:
        run.processes.say(f"confidence is not calibrated: data.valid: {error}")
    else:
        save_calibration(run.config.run_dir / "best", calibration)


def _mixed_seed(*numbers: int) -> int:
    """One 64-bit seed made of several numbers; other numbers give another seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
