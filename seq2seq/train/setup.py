"""From a config to all that a training run consists of. :mod:`seq2seq.train.trainer` does the training.

The run folder::

    config.yaml      the resolved config
    data/            tokenizer and binary corpora (unless data.cache_dir names another folder)
    initial/         the tokenizer of the model of init.from
    checkpoints/     what the run continues from: the latest few
    best/  last/     complete model folders
    metrics.jsonl    every step and validation; timing.jsonl: speed; curves.png: the picture
    samples.jsonl    translations of the same few lines in every validation
    bad_lines.jsonl  the sentence pairs of skipped steps, if there were any
    starts.jsonl     every start of the run: versions, machine, what it chose and why
    test.hyp.txt     translations of the test set; test.json: their scores; card/: all that is known of them
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import torch

from seq2seq.config import Config, dump_config
from seq2seq.data.prepare import PreparedData
from seq2seq.data.subword_epochs import Resampler
from seq2seq.decode.engine import TorchEngine
from seq2seq.device import keep_freed_memory, matmul_peak, training_dtype, why_not_compiled
from seq2seq.files import check_space, write_text
from seq2seq.model.flops import training_flops
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.loss import LossOf
from seq2seq.model_folder import CONFIG, build_model
from seq2seq.train.bad_steps import BadSteps
from seq2seq.train.checkpoint import Progress, list_checkpoints, run_space
from seq2seq.train.decide import decide
from seq2seq.train.distributed import Processes
from seq2seq.train.gradients import SequentialGradients, ThreadedGradients, gradients_for, multiplies_in_bf16
from seq2seq.train.initial import Initial, describe, freeze, start_from
from seq2seq.train.loss_scale import LossScale
from seq2seq.train.metrics import MetricsLog
from seq2seq.train.microbatches import MicroBatches, microbatches_of
from seq2seq.train.optim import MovingAverage, Optimizer
from seq2seq.train.reporter import Reporter, Speedometer
from seq2seq.train.resume import earlier_starts, record_beginning, restore
from seq2seq.train.starts import Start


@dataclass(frozen=True)
class Run:
    """A training run in one process: settings, data, model, and the state that changes with every step."""

    config: Config  # with a value in place of every "auto" that depends on data or memory
    processes: Processes
    dtype: torch.dtype  # of the computation; weights are fp32
    data: PreparedData
    resampler: Resampler | None  # makes the corpus of each epoch, with tokenizer.sampling
    model: Seq2SeqModel
    average: MovingAverage | None  # of the weights, with train.ema_decay
    engine: TorchEngine  # translates with ``evaluated`` in validations
    optimizer: Optimizer
    loss_scale: LossScale | None  # in fp16
    progress: Progress
    microbatches: MicroBatches
    gradients: SequentialGradients | ThreadedGradients
    bad_steps: BadSteps
    report: Reporter

    @property
    def evaluated(self) -> Seq2SeqModel:
        """The model that is validated, tested and kept: the average of the weights, if the run has one."""
        return self.model if self.average is None else self.average.model

    def close(self) -> None:
        """End threads and worker processes, and close the files of metrics."""
        if self.resampler is not None:
            self.resampler.close()
        self.gradients.close()
        self.report.close()


def set_up(config: Config, processes: Processes) -> Run:
    """Prepare data and model, and load the latest checkpoint if the run has one. Close the run at its end.

    Raises:
        UserError: the data cannot be used, or the run folder has a run with other settings, or models of another run.
    """
    keep_freed_memory()
    dtype = training_dtype(config.train.precision, processes.device)
    if processes.device.type == "cuda":
        _prepare_compiler(config, processes)
    earlier = earlier_starts(config.run_dir, processes.say)
    progress = Progress() if earlier.checkpoint is None else earlier.checkpoint.progress
    processes.check_same("the step to continue after", progress.step)
    decided = decide(config, processes, earlier)
    config, data = decided.config, decided.data
    if not progress.step:
        processes.say(str(decided))
    resampler = None
    if config.tokenizer.sampling:
        resampler = Resampler(data.train, data.tokenizers, config.tokenizer.sampling, config.data.max_length)
    torch.manual_seed(config.seed)
    model = build_model(config, data.tokenizers)
    if decided.initial is not None and decided.initial.weights is not None:
        start_from(decided.initial, model, data.tokenizers)
    freeze(model, config.init.freeze)
    model = model.to(processes.device).train()
    optimizer = Optimizer(model, config.optim, in_bf16=processes.all_multiply_bf16_fast())
    average = MovingAverage(model, config.train.ema_decay) if config.train.ema_decay else None
    loss_scale = LossScale(processes.device) if dtype == torch.float16 else None
    if earlier.checkpoint is not None:
        restore(earlier.checkpoint, config.run_dir, model, average, optimizer)
        if loss_scale is not None:
            loss_scale.load_tensors(earlier.checkpoint.loss_scale)
    microbatches = microbatches_of(config, data.mixture, processes)
    loss = LossOf(model, config.train.label_smoothing, dtype)
    run = Run(
        config=config,
        processes=processes,
        dtype=dtype,
        data=data,
        resampler=resampler,
        model=model,
        average=average,
        engine=TorchEngine(model if average is None else average.model, dtype),
        optimizer=optimizer,
        loss_scale=loss_scale,
        progress=progress,
        microbatches=microbatches,
        gradients=gradients_for(config, loss, processes, microbatches.accumulate, loss_scale),
        bad_steps=BadSteps(config.train, progress),
        report=_reporter(config, processes, data, model, dtype, progress.step),
    )
    if decided.initial is not None and earlier.checkpoint is None:
        _start(run, decided.initial)
    if processes.is_main:
        started = Start.now(processes, dtype, progress.step, decided.choices)
        run.report.at_first_step = partial(started.record, config.run_dir)
    _introduce(run)
    return run


def _prepare_compiler(config: Config, processes: Processes) -> None:
    """Keep compiled code beside the data, where a restarted run finds it; report if nothing can be compiled here."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((config.cache_dir / "compiled").absolute()))
    if (reason := why_not_compiled(processes.device)) is not None:
        processes.say(f"training without compiled kernels, which is slower: {reason}")


def _reporter(
    config: Config, processes: Processes, data: PreparedData, model: Seq2SeqModel, dtype: torch.dtype, step: int
) -> Reporter:
    """What writes the metrics; the main process also checks the disk space, and writes the config."""
    log = None
    if processes.is_main:
        check_space(config.run_dir, run_space(config.run_dir, model, config.train))
        if not list_checkpoints(config.run_dir):
            record_beginning(config, data.fingerprint)
        write_text(config.run_dir / CONFIG, dump_config(config))
        log = MetricsLog(config.run_dir, step if list_checkpoints(config.run_dir) else -1)  # step 0 is before training
    multiplied = torch.bfloat16 if multiplies_in_bf16(config, processes) else dtype
    peak = matmul_peak(processes.device, multiplied) * processes.world_size
    flops = training_flops(config.model, model.output_weight.size(0))
    return Reporter(processes, log, step, Speedometer(flops, peak))


def _start(run: Run, initial: Initial) -> None:
    """Say what the run starts from, and keep what it needs of it."""
    if run.processes.is_main:
        initial.keep(run.config.run_dir)
    for sentence in describe(initial, run.model, run.data, run.config):
        run.processes.say(sentence)


def _introduce(run: Run) -> None:
    num_parameters = sum(p.numel() for p in run.model.parameters())
    train, processes = run.data.train, run.processes
    processes.say(
        f"{run.config.run_dir}: {num_parameters / 1e6:.1f} million parameters on {processes.world_size} x "
        f"{processes.device.type}; {train.num_pairs:,} pairs, {train.tgt_lengths.sum():,} target tokens"
    )
    if text := str(run.data.mixture):
        processes.say(f"an epoch has {text}")
    if run.progress.step:
        processes.say(f"continuing after step {run.progress.step:,}")
