"""Findings about the machine: a dry run of the heaviest work, memory, time per epoch, and disk space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from seq2seq.config import Config
from seq2seq.data.prepare import PreparedData
from seq2seq.doctor.report import Section, Verdict, short_path
from seq2seq.errors import OutOfMemoryError, UserError
from seq2seq.files import free_space, locked_run
from seq2seq.memory import show_bytes
from seq2seq.model_folder import build_model
from seq2seq.train.checkpoint import list_checkpoints, run_space
from seq2seq.train.distributed import Processes
from seq2seq.train.dry_run import DryRun, dry_run
from seq2seq.train.recipe import show_duration

_PLENTY = 1.2  # times the disk space that a run needs, because other files may grow during the run


def judge_machine(config: Config, data: PreparedData, processes: Processes) -> Section:
    """Findings about the run folder, the disk and a dry run.

    Args:
        config: without open keys.
    """
    verdicts = []
    if checkpoints := list_checkpoints(config.run_dir):
        text = f"{short_path(config.run_dir)} has a run with {len(checkpoints)} checkpoints; doctor does not change it"
        verdicts.append(Verdict("ok", text, "train continues this run; choose another run_dir for a new one"))
    verdicts.append(_judge_disk(config, data))
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_run(config.run_dir))
        except UserError as error:
            return Section("Dry run", [*verdicts, Verdict("not tried", str(error))])
        try:
            verdicts += _judge_dry_run(config, processes, dry_run(config, processes))
        except OutOfMemoryError as error:
            verdicts.append(Verdict("WRONG", str(error)))
        except UserError as error:
            verdicts.append(Verdict("WRONG", f"the dry run failed: {error}"))
    return Section("Dry run", verdicts)


def _judge_dry_run(config: Config, processes: Processes, found: DryRun) -> Iterator[Verdict]:
    yield Verdict("ok", f"heaviest training step on {processes.device.type}: {found.heaviest}")
    yield Verdict(
        "ok", f"validation on the heaviest lines: {found.validation_seconds:.1f} s, BLEU {found.bleu:.2f} (untrained)"
    )
    yield Verdict("ok", f"a checkpoint written, read back and compared: {found.checkpoint_seconds:.1f} s")
    yield _judge_memory(found)
    epoch, train = found.step_seconds * found.num_steps, config.train
    bounds = (
        train.max_steps and train.max_steps * found.step_seconds,
        train.max_epochs and train.max_epochs * epoch,
        train.max_minutes and train.max_minutes * 60,
    )
    longest = show_duration(min(bound for bound in bounds if bound is not None))
    text = f"an epoch: {found.num_steps:,} steps of {found.step_seconds:.2f} s, about {show_duration(epoch)}; "
    yield Verdict("ok", f"{text}the whole run: at most {longest}, plus validation")


def _judge_memory(found: DryRun) -> Verdict:
    if found.room is None:
        return Verdict("ok", "memory: enough; this system does not report how much was used")
    text = f"memory: peak {show_bytes(found.peak)} of {show_bytes(found.room)}"
    if found.fits:
        return Verdict("ok", text)
    advice = f"more than {found.usable:.0%} of the memory; lower train.batch_tokens, or raise train.accumulate"
    return Verdict("doubtful" if found.peak <= found.room else "WRONG", text, advice)


def _judge_disk(config: Config, data: PreparedData) -> Verdict:
    """Compares the most disk space that the run will need with the free space."""
    needed = run_space(config.run_dir, build_model(config, data.tokenizers), config.train)
    free = free_space(config.run_dir)
    text = f"disk: up to {show_bytes(max(0, needed))} more in {short_path(config.run_dir)}"
    if free is None:
        return Verdict("ok", f"{text}; this file system does not report its free space")
    text += f", {show_bytes(free)} are free"
    if free >= _PLENTY * needed:
        return Verdict("ok", text)
    return Verdict("doubtful" if free >= needed else "WRONG", text, "free disk space, or lower train.keep_last")
