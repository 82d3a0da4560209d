"""Training, from a config to a run folder with a trained model.

Read :meth:`Trainer.run` first: it is the whole loop. Every random number is drawn from a seed made of the run's seed,
the step, and the process, so a run that was stopped at any moment and started again takes the same steps as one that
was not.

The run folder::

    config.yaml      the resolved config
    data/            tokenizer and binary corpora (unless data.cache_dir says elsewhere)
    checkpoints/     what continues the run, the latest few
    best/  last/     complete model folders
    metrics.jsonl    every step and validation; timing.jsonl: speed
    bad_lines.jsonl  the sentence pairs of steps whose numbers went wrong, if any did
    test.hyp.txt     translations of the test set and, in test.json, their scores
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from seq2seq.config import Config, dump_config
from seq2seq.data.corpus import Corpus
from seq2seq.data.loader import Step, load_steps
from seq2seq.data.plan import EpochPlan, plan_epoch, step_budgets
from seq2seq.data.prepare import prepare_data, sampled_folder
from seq2seq.data.subword_epochs import Resampler
from seq2seq.decode.engine import TorchEngine
from seq2seq.decode.sentences import with_split_sentences
from seq2seq.decode.translator import Translator
from seq2seq.device import compute_dtype, keep_freed_memory, matmul_peak
from seq2seq.errors import UserError
from seq2seq.evaluate import Scores, fingerprint_lines
from seq2seq.files import is_sealed, seal, write_text
from seq2seq.memory import memory_explained
from seq2seq.model.flops import training_flops
from seq2seq.model.loss import LossOf
from seq2seq.model_folder import CONFIG, build_model, load_model_folder, load_weights, save_model_folder, unique_tensors
from seq2seq.train.budget import with_batch_tokens
from seq2seq.train.checkpoint import (
    Checkpoint,
    Progress,
    check_run_space,
    list_checkpoints,
    load_latest_checkpoint,
    save_checkpoint,
    whole_checkpoints,
)
from seq2seq.train.distributed import Processes
from seq2seq.train.gradients import SequentialGradients, ThreadedGradients
from seq2seq.train.guard import Guard, describe, losses_of_pairs
from seq2seq.train.metrics import BAD_LINES, METRICS, MetricsLog
from seq2seq.train.microbatches import at_once, microbatches_of
from seq2seq.train.optim import Optimizer, learning_rate
from seq2seq.train.reporter import Reporter, Speedometer, StepRecord
from seq2seq.train.resume import check_beginning, check_models_are_ours, check_same_run, record_beginning
from seq2seq.train.stopping import StopSignals
from seq2seq.train.validation import measured_decode, translate_and_score, update_best, validate

_SIGNAL = "stopped by a signal"


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    progress: Progress
    reason: str
    stopped: bool  # by a signal; the same command goes on
    test: Scores | None


class Trainer:
    """One run in one process. Construct it, then :meth:`run` it."""

    def __init__(self, config: Config, processes: Processes) -> None:
        """Prepare data and model, and take up the latest checkpoint if the run has one.

        Raises:
            UserError: the data cannot be used, or the run folder belongs to a run with other settings, or holds models
                that this run did not make.
        """
        check_models_are_ours(config.run_dir)
        self.config, self.processes = config, processes
        if config.train.threads is not None:
            torch.set_num_threads(config.train.threads)
        keep_freed_memory()
        self.dtype = compute_dtype(config.train.precision, processes.device)
        with _main_first(processes):
            self.data = prepare_data(config, show_progress=processes.is_main)
        self.config = config = with_batch_tokens(config, self.data.train, processes)
        self.config = config = with_split_sentences(config, self.data.train, self.data.tokenizers.src)
        self.resampler: Resampler | None = None
        if config.tokenizer.sampling:
            strength, max_length = config.tokenizer.sampling, config.data.max_length
            self.resampler = Resampler(self.data.train, self.data.tokenizers, strength, max_length)
        self.valid_texts, self.test_texts = self.data.valid_texts, self.data.test_texts
        torch.manual_seed(config.seed)
        self.model = build_model(config, self.data.tokenizers).to(processes.device).train()
        self.optimizer = Optimizer(self.model, config.optim)
        # The average of the weights, if there is one, is what validates, translates and is kept as best and last.
        self.average = copy.deepcopy(self.model).requires_grad_(False) if config.train.ema_decay else None
        self._averaged = () if self.average is None else tuple(self.average.parameters())  # to walk a model takes time
        self.progress = self._resume()
        processes.check_same("the text's fingerprint", self.data.fingerprint)
        processes.check_same("the step to continue after", self.progress.step)
        self.microbatches = microbatches_of(config, self.data.train, processes)
        self.gradients = self._make_gradients()
        self.guard = Guard(config.train, self.progress)
        log = None
        if processes.is_main:
            size = sum(parameter.nbytes for parameter in self.model.parameters())
            copies = 3 if self.average is None else 4  # the weights, two moments in the optimizer, the average
            check_run_space(config.run_dir, size, copies * size, config.train.keep_last)
            if not list_checkpoints(config.run_dir):
                record_beginning(config, self.data.fingerprint)
            write_text(config.run_dir / CONFIG, dump_config(config))
            log = MetricsLog(config.run_dir, self.progress.step)
        flops = training_flops(config.model, self.model.output_weight.size(0))
        peak = matmul_peak(processes.device, self.dtype) * processes.count
        self.report = Reporter(processes, log, self.progress.step, Speedometer(flops, peak))
        self.signals = StopSignals(self.report.say, processes.others_live)
        self._introduce()

    def _make_gradients(self) -> SequentialGradients | ThreadedGradients:
        loss = LossOf(self.model, self.config.train.label_smoothing, self.dtype)
        if self.processes.device.type == "cpu":
            return ThreadedGradients(
                loss, self.processes, at_once(torch.get_num_threads(), self.microbatches.accumulate)
            )
        return SequentialGradients(loss, self.processes)

    def _introduce(self) -> None:
        num_parameters = sum(p.numel() for p in self.model.parameters())
        train = self.data.train
        self.report.say(
            f"{self.config.run_dir}: {num_parameters / 1e6:.1f} million parameters on {self.processes.count} x "
            f"{self.processes.device.type}; {train.num_pairs:,} pairs, {train.tgt_lengths.sum():,} target tokens"
        )
        if self.progress.step:
            self.report.say(f"continuing after step {self.progress.step:,}")

    # ---------------------------------------------------------------------------------------------------- the loop

    def run(self, stop_after: int | None = None) -> Summary:
        """Train until a bound of the config is reached; then score the test set with the best model.

        A signal, or having done step ``stop_after``, ends it sooner, with no more than a checkpoint.
        """
        self._stop_after = stop_after
        try:
            with self.signals:
                reason = self._why_stop()
                while reason is None:
                    reason = self._epoch()
                if reason != _SIGNAL and self.progress.validated_step < self.progress.step:
                    self._validate()
                self._save()
                if self.processes.any(self._is_asked_to_stop()):
                    reason = _SIGNAL
            stopped = reason == _SIGNAL
            scores = self._test() if self.test_texts is not None and not stopped and self.progress.best_step else None
        finally:
            if self.resampler is not None:
                self.resampler.close()
            self.gradients.close()
            self.report.close()
        return Summary(self.progress, reason, stopped, scores)

    def _epoch(self) -> str | None:
        """The rest of the present epoch. Returns why training is over, or None where it goes on."""
        config, progress = self.config.train, self.progress
        corpus, plan = self._corpus_and_plan(progress.epoch)
        started = time.monotonic()
        for step in load_steps(corpus, plan, self.microbatches, self.processes.device, first=progress.step_in_epoch):
            with memory_explained(partial(self._describe, step)):
                self._step(step)
            progress.step_in_epoch += 1
            if self.report.is_due(progress.step) or progress.step_in_epoch == plan.num_steps:
                self._read_back(corpus)
            if progress.step_in_epoch == plan.num_steps:
                progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
            if progress.step % config.validate_every == 0:
                self._read_back(corpus)
                self._validate()
            now = time.monotonic()
            progress.seconds, started = progress.seconds + now - started, now
            self.report.expect(config, plan.num_steps, progress.step, progress.seconds)
            if reason := self._why_stop():
                self._read_back(corpus)
                return reason
            if progress.step % config.save_every == 0:
                self._read_back(corpus)
                self._save()
        return None

    def _step(self, step: Step) -> None:
        """One optimizer step, on the gradient of the mean loss per target token of all processes."""
        config, progress = self.config, self.progress
        progress.step += 1
        seed = _mixed_seed(config.seed, progress.step, self.processes.rank)
        sums = self.gradients(step.batches, step.num_labels, seed)
        norm = nn.utils.clip_grad_norm_(self.optimizer.named.values(), config.optim.clip_norm or math.inf)
        bad = self.guard.bad(sums[0] / step.num_labels, norm)
        lr = learning_rate(progress.step, config.optim, config.train.max_steps)
        self.optimizer.step(lr, bad)
        if self.average is not None:
            self._update_average()
        self.report.step(
            StepRecord(
                step=progress.step,
                epoch=progress.epoch + 1,
                lr=lr,
                tokens=step.num_labels,
                src_tokens=step.num_src,
                waited=step.waited,
                pairs=step.pairs,
                numbers=torch.cat([sums, norm.reshape(1), bad.reshape(1)]),
            )
        )

    def _describe(self, step: Step) -> str:
        """The step under way and what to change where it is too large."""
        tokens, longest = self.config.train.step_tokens, self.config.data.max_length
        return (
            f"step {self.progress.step:,}, {step.shape}: raise train.accumulate, or lower train.batch_tokens "
            f"({tokens}; auto finds what fits) or data.max_length ({longest}), all in a new run_dir; or free memory "
            "and go on with the same command"
        )

    def _read_back(self, corpus: Corpus) -> None:
        """Log the latest steps, all of this epoch's ``corpus``, and act on the bad ones among them.

        Raises:
            UserError: there were too many, or the config wants no other; every process raises it.
        """
        config = self.config.train
        for record, reason in self.report.read_back(self.guard.judge):
            if self.processes.is_main:
                losses = losses_of_pairs(self.model, corpus, record.pairs, self.dtype)
                self.report.bad_step(record.step, reason, describe(losses, corpus, self.config.data.train))
            in_a_row = self.progress.bad_in_a_row
            if config.on_bad_step == "stop" or in_a_row >= config.max_bad_steps:
                count = f" and so it went for {in_a_row} steps in a row" if in_a_row > 1 else ""
                raise UserError(
                    f"step {record.step}: {reason}{count}; nothing was saved since. If the first lines of "
                    f"{self.config.run_dir / BAD_LINES} are damaged, take them out; else lower optim.lr or raise "
                    "optim.warmup_steps; and start again in a new run_dir"
                )
            if config.on_bad_step == "rollback":
                self._roll_back()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average of the weights (Polyak & Juditsky 1992), quick to follow at the start."""
        decay = min(self.config.train.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        torch._foreach_lerp_(self._averaged, tuple(self.optimizer.named.values()), 1 - decay)

    def _corpus_and_plan(self, epoch: int) -> tuple[Corpus, EpochPlan]:
        """The training corpus as this epoch sees it, and the order of its pairs."""
        config, corpus = self.config, self.data.train
        if self.resampler is not None:
            with _main_first(self.processes):
                corpus = self.resampler.sample(sampled_folder(config, epoch), _mixed_seed(config.seed, epoch, 0))
            if self.processes.is_main:
                if epoch:
                    shutil.rmtree(sampled_folder(config, epoch - 1), ignore_errors=True)
                if config.train.max_epochs is None or epoch + 1 < config.train.max_epochs:
                    seed = _mixed_seed(config.seed, epoch + 1, 0)
                    self.resampler.sample_ahead(sampled_folder(config, epoch + 1), seed)
        train = self.data.train  # not resampled: an epoch's sampling changes no budget
        budgets = step_budgets(train.src_lengths, train.tgt_lengths, config.train.step_tokens)
        return corpus, plan_epoch(corpus.src_lengths, corpus.tgt_lengths, budgets, config.seed, epoch)

    def _why_stop(self) -> str | None:
        """The bound that is reached or what else ends this start, in words; the same in every process."""
        config, progress = self.config.train, self.progress
        if config.max_steps is not None and progress.step >= config.max_steps:
            return f"train.max_steps ({config.max_steps:,}) reached"
        if config.max_epochs is not None and progress.epoch >= config.max_epochs:
            return f"train.max_epochs ({config.max_epochs}) reached"
        if config.patience is not None and progress.validations_since_best >= config.patience:
            return f"no better {config.metric} in {config.patience} validations (train.patience)"
        if self.processes.count > 1 and not self.report.is_due(progress.step):
            return None  # to ask the others is to wait for the device
        if config.max_minutes is not None and self.processes.any(progress.seconds >= 60 * config.max_minutes):
            return f"train.max_minutes ({config.max_minutes:g}) reached"
        return _SIGNAL if self.processes.any(self._is_asked_to_stop()) else None

    def _is_asked_to_stop(self) -> bool:
        """In this process."""
        return self.signals.received is not None or (self._stop_after or math.inf) <= self.progress.step

    # ------------------------------------------------------------------------------- validation, saving, continuing

    def _validate(self) -> None:
        """Measure the model, and keep it as ``best`` if it is."""
        config, progress = self.config, self.progress
        started = time.monotonic()
        model = self.average or self.model
        result = validate(
            model, self.data.valid, self.valid_texts, self.data.tokenizers, config, self.processes, self.dtype
        )
        self.model.train()
        self.report.validation(progress.step, result.metrics(), time.monotonic() - started)
        progress.validated_step = progress.step
        self.report.notes(result.scores.notes)
        if not result.is_finite:
            self.report.say(f"step {progress.step:,}: the validation is not a finite number, so the best model stays")
        if update_best(progress, result, config.train.metric):
            self.report.best = f", best {config.train.metric} {abs(result.score(config.train.metric)):.2f}"
            self._save_model("best")

    def _save_model(self, name: str) -> None:
        if not self.processes.is_main:
            return
        model = self.average or self.model
        metadata = {"step": str(self.progress.step), "data": self.data.fingerprint}
        folder = self.config.run_dir / name
        save_model_folder(folder, model.state_dict(), self.config, self.data.tokenizers, metadata)

    def _save(self) -> None:
        """Write ``last`` and a checkpoint. The checkpoint comes last: what it continues from is then all there."""
        self.report.flush()
        self._save_model("last")
        if not self.processes.is_main:
            return
        average = self.average.state_dict() if self.average is not None else {}
        checkpoint = Checkpoint(
            progress=self.progress,
            weights=unique_tensors(self.model.state_dict()),
            average=unique_tensors(average),
            optimizer=self.optimizer.tensors(),
            config=self.config.model_dump_json(),
            data_fingerprint=self.data.fingerprint,
            metrics=seal(self.config.run_dir / METRICS),
        )
        save_checkpoint(self.config.run_dir, checkpoint, self.config.train.keep_last)

    def _resume(self) -> Progress:
        """Take up the latest whole checkpoint; a run without one starts at step 0.

        Raises:
            UserError: settings or text differ from those the run was started with, or a model is of another run.
        """
        run_dir = self.config.run_dir

        def tell(message: str) -> None:
            if self.processes.is_main:
                tqdm.write(message, file=sys.stderr)

        checkpoint = load_latest_checkpoint(run_dir, tell)
        if checkpoint is None:
            check_beginning(self.config, self.data.fingerprint)
            return Progress()
        check_same_run(self.config, self.data.fingerprint, checkpoint.config, checkpoint.data_fingerprint)
        self._restore(checkpoint)
        if checkpoint.metrics and not is_sealed(run_dir / METRICS, checkpoint.metrics):
            tell(
                f"{run_dir / METRICS}: damaged: not as it was at step {checkpoint.progress.step}; what is left is kept"
            )
        return checkpoint.progress

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take weights and optimizer from a checkpoint, and leave the progress."""
        load_weights(self.model, checkpoint.weights, self.config.run_dir)
        if self.average is not None:
            load_weights(self.average, checkpoint.average, self.config.run_dir)
        self.optimizer.load_tensors(checkpoint.optimizer)

    def _roll_back(self) -> None:
        """Go back to the weights of the last checkpoint, but not to its place in the data."""
        self.processes.wait()  # until the main process has written it
        every, now = self.config.train.save_every, self.progress.step

        def wanted(step: int) -> bool:
            # An undisturbed run has no other: those between the regular ones are there because of a signal, and later
            # ones where this start has gone on from an earlier one.
            return step % every == 0 and step < now

        checkpoint = next(whole_checkpoints(self.config.run_dir, self.report.say, wanted), None)
        if checkpoint is None:
            self.report.say("there is no regular checkpoint yet whose weights to go back to")
            return
        self._restore(checkpoint)
        self.report.say(f"went back to the weights of step {checkpoint.progress.step:,}")

    # ----------------------------------------------------------------------------------------------------- the end

    def _test(self) -> Scores:
        """Translate the test set with the best model; keep the translations, and the scores with all they rest on."""
        assert self.test_texts is not None
        run_dir = self.config.run_dir
        self.processes.wait()  # until the main process has written it
        best = load_model_folder(run_dir / "best")
        model = best.model.to(self.processes.device)
        translator = Translator(TorchEngine(model, self.dtype), self.config, self.data.tokenizers)
        hypotheses, scores = translate_and_score(translator, *self.test_texts, self.config, self.processes)
        self.report.notes(scores.notes)
        if self.processes.is_main:
            write_text(run_dir / "test.hyp.txt", "".join(f"{line}\n" for line in hypotheses))
            src, ref = (fingerprint_lines(lines) for lines in self.test_texts)
            record = {**scores.as_json(), "decode": measured_decode(self.config).model_dump(), "model": best.metadata}
            record |= {"src_blake2b": src, "ref_blake2b": ref}
            write_text(run_dir / "test.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return scores


@contextmanager
def _main_first(processes: Processes) -> Iterator[None]:
    """The block runs in the main process first, and in the others when that is done: they find its files."""
    if not processes.is_main:
        processes.wait()
    yield
    if processes.is_main:
        processes.wait()


def _mixed_seed(*numbers: int) -> int:
    """One 64-bit seed from several numbers, unlike that of any others."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
