"""A dry run: the heaviest work of a run, done and measured in a separate process before the run itself begins.

The separate process leaves no trace in the run (weights, random numbers, what the allocator keeps). Its peak of memory
is exact, and if the system kills it for lack of memory, the run survives and can report it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import seq2seq
from seq2seq.config import Config
from seq2seq.data.corpus import Corpus, build_corpus
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.loader import load_steps
from seq2seq.data.packed import Indices
from seq2seq.data.plan import EpochPlan, Lengths
from seq2seq.data.prepare import MeasuredText, PreparedData
from seq2seq.errors import OutOfMemoryError, UserError
from seq2seq.memory import memory_explained, memory_room, peak_memory
from seq2seq.train.checkpoint import load_latest_checkpoint
from seq2seq.train.distributed import Processes
from seq2seq.train.validation import BATCH_TOKENS

if TYPE_CHECKING:
    from seq2seq.train.setup import Run

# The share of the available memory that a dry run may need. The rest is for what it cannot see: other programs, the
# exchange of gradients, and on the CPU, where shapes differ, fragmentation: a run of 60 steps, each of one micro-batch,
# took up to 1.4 times the memory of its dry run.
USABLE = {"cuda": 0.9, "cpu": 0.7}
_USUAL_STEPS = 3  # to time a step that is not the heaviest
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


@dataclass(frozen=True)
class DryRun:
    """What was measured. Memory is the device's on CUDA, else main memory, in bytes; None if it is not known."""

    peak: int  # the most that the process used
    room: int | None  # what it could have used
    usable: float  # the share of the room that a run may need
    heaviest: str  # the heaviest training step, in words
    num_steps: int  # of an epoch
    step_seconds: float  # of a usual step
    validation_seconds: float  # of the heaviest lines of the validation text, not of all
    bleu: float  # of that validation; the model has seen a few steps
    checkpoint_seconds: float  # to write a checkpoint, read it back and compare

    @property
    def fits(self) -> bool:
        """Whether the run may start: it leaves some memory free, as far as that is known."""
        return self.room is None or self.peak <= self.usable * self.room


def dry_run(config: Config, processes: Processes) -> DryRun:
    """Train on the heaviest steps, validate on the heaviest lines, and write and read a checkpoint.

    Each process of a run measures its own share, at the same time as the others. Afterwards the run folder is as it was
    before. The data must have been prepared.

    Args:
        config: with a number in train.batch_tokens.

    Raises:
        OutOfMemoryError: it needs more memory than there is.
        UserError: an error that the run would end with, too; or the GPU accepts no second process.
    """
    folder = config.run_dir / f"dry-run-{processes.rank}"
    tokens = -(-config.train.batch_tokens // processes.world_size)
    threads = config.train.threads or torch.get_num_threads()
    trial = config.replace("train", batch_tokens=tokens, threads=threads, keep_last=1)
    trial = trial.replace("data", cache_dir=config.cache_dir).model_copy(update={"run_dir": folder})
    package = Path(seq2seq.__file__).resolve().parents[1]  # found, even if it is not installed
    python_path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    try:
        done = subprocess.run(
            [sys.executable, "-m", "seq2seq.train.dry_run", str(processes.device)],
            input=trial.model_dump_json().encode(),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": python_path},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.returncode == -signal.SIGKILL:
        raise OutOfMemoryError("out of memory: the system killed the dry run")
    if b"busy or unavailable" in done.stderr:
        raise UserError(
            f"{processes.device.type}: the GPU accepts one process only (compute mode Exclusive_Process), or another "
            "program uses it. A dry run is a second process: set train.batch_tokens to a number, which needs no dry run"
        )
    if done.returncode != 0:
        raise RuntimeError(f"the dry run failed:\n{done.stderr.decode(errors='replace')}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise (OutOfMemoryError if answer["memory"] else UserError)(answer["error"])
    return DryRun(**answer)


def heaviest_steps(
    src_lengths: Lengths, tgt_lengths: Lengths, plan: EpochPlan, budgets: tuple[int, int]
) -> list[Indices]:
    """The steps of any epoch that may take most memory on a CPU, where sentences are padded.

    Two are of the plan: those with most tokens and most sentences. Another epoch may come near the others: the longest
    sentences among many short ones, the longest targets, and the longest sources.

    Args:
        src_lengths, tgt_lengths: [pairs], tokens with EOS.
        plan: of an epoch of these pairs.
        budgets: most source and target tokens of a step.
    """
    src, tgt = src_lengths.astype(np.int64), tgt_lengths.astype(np.int64)
    most_tokens = np.argmax(np.add.reduceat((src + tgt)[plan.order], plan.starts[:-1]))
    most_sentences = plan.step(int(np.argmax(np.diff(plan.starts))))
    by_target, by_source = np.lexsort((-src, -tgt)), np.lexsort((-tgt, -src))
    longest = np.unique([by_target[0], by_source[0]])
    steps = [plan.step(int(most_tokens)), most_sentences]
    for pairs in (np.concatenate([longest, np.setdiff1d(most_sentences, longest)]), by_target, by_source):
        fitting = (src[pairs].cumsum() <= budgets[0]) & (tgt[pairs].cumsum() <= budgets[1])
        steps.append(pairs[: max(1, int(fitting.sum()))])
    return steps


def heaviest_lines(lengths: Lengths, tokens: int) -> Indices:
    """The longest lines and the shortest ones, about ``tokens`` tokens of each.

    In a search, the longest need most memory for keys and values. The shortest make the batches with most lines, each
    with scores of the whole vocabulary. Blank lines (of length 0) are left out.

    Args:
        lengths: [lines], tokens of each.
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    before = np.cumsum(lengths[order]) - lengths[order]
    chosen: Indices = order[(before < tokens) | (before + lengths[order] > lengths.sum() - tokens)]
    return chosen


def _measure(config: Config, device: torch.device) -> DryRun:
    """Do the dry run in this process, which should end afterwards."""
    # Not at the top of the file: the set-up of a run starts dry runs.
    from seq2seq.train.setup import set_up
    from seq2seq.train.trainer import best_translator, save_run, score_test_set, validate_run

    room = memory_room(device)
    if room is not None and device.type == "cpu":  # shared with the other processes of the run on this machine
        room //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    with closing(set_up(config, Processes(0, 1, device))) as run:
        plan, heaviest, step_seconds = _train(run)
        run = replace(run, data=_heaviest_data(run))
        started = time.monotonic()
        validation = validate_run(run)
        validated = time.monotonic()
        if device.type == "cuda":
            _train(run)  # beside what the search keeps for the next validation
        saving = time.monotonic()
        save_run(run)  # reads back what it wrote, and compares
        load_latest_checkpoint(config.run_dir, on_damage=lambda message: None)
        saved = time.monotonic()
        if (translator := best_translator(run)) is not None:
            score_test_set(run, translator)
    return DryRun(
        peak=peak_memory(device),
        room=room,
        usable=USABLE[device.type],
        heaviest=heaviest,
        num_steps=plan.num_steps,
        step_seconds=step_seconds,
        validation_seconds=validated - started,
        bleu=validation.scores.bleu,
        checkpoint_seconds=saved - saving,
    )


def _train(run: Run) -> tuple[EpochPlan, str, float]:
    """Take the heaviest steps, then some usual ones.

    Returns:
        The plan of an epoch, the heaviest step in words, and the seconds of a usual step.
    """
    from seq2seq.train.trainer import read_back, train_step

    corpus, device = run.data.train, run.processes.device
    src, tgt = corpus.src_lengths, corpus.tgt_lengths
    tokens = run.config.train.batch_tokens
    budgets, plan = run.data.mixture.budgets(tokens), run.data.mixture.plan(tokens, run.config.seed, epoch=0)
    # On CUDA all steps have the same shapes, so the first one is as heavy as any.
    heaviest = heaviest_steps(src, tgt, plan, budgets) if device.type == "cpu" else [plan.step(0)]
    usual = np.linspace(0, plan.num_steps - 1, min(_USUAL_STEPS, plan.num_steps) + 2)[1:-1]
    pairs = [*heaviest, *(plan.step(round(number)) for number in usual)]
    short_plan = EpochPlan(np.concatenate(pairs), np.cumsum([0, *map(len, pairs)]).astype(np.int64))
    seconds = []
    for step in load_steps(corpus, short_plan, run.microbatches, device):
        started = time.monotonic()
        train_step(run, step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.monotonic() - started)
    read_back(run, corpus)
    most = max(heaviest, key=lambda step: int(src[step].sum() + tgt[step].sum()))
    words = (
        f"{len(most):,} sentences, {src[most].sum():,} source x {tgt[most].sum():,} target tokens, "
        f"up to {max(src[most].max(), tgt[most].max()):,} in a sentence"
    )
    return plan, words, float(np.mean(seconds[len(heaviest) :]))


def _heaviest_data(run: Run) -> PreparedData:
    """The data of the run, with the heaviest lines alone in what is validated and tested with."""
    config, data = run.config, run.data
    threads = torch.get_num_threads() if run.processes.device.type == "cpu" else 1
    tokens = max(threads * run.engine.batch_tokens(config.decode) // config.decode.beam_size, BATCH_TOKENS)

    def heaviest(name: str, corpus: Corpus, text: MeasuredText) -> tuple[Corpus, MeasuredText]:
        pairs = np.union1d(*(heaviest_lines(lengths, tokens) for lengths in (corpus.src_lengths, corpus.tgt_lengths)))
        text = text.take(corpus.lines[pairs].tolist())
        kept = map(SentencePair, text.src, text.ref, range(len(pairs)), text.parts)
        tags = [dataset.tag for dataset in text.datasets]
        return build_corpus(config.run_dir / name, kept, data.tokenizers, "dry run", tags=tags), text

    valid, valid_text = heaviest("valid", data.valid, data.valid_text)
    guard = data.guard and heaviest("guard", *data.guard)
    test_text = data.test_text
    if test_text is not None:
        lengths = np.array([len(ids) for ids in data.tokenizers.src.encode(test_text.src)])
        test_text = test_text.take(heaviest_lines(lengths, tokens).tolist())
    return replace(data, valid=valid, valid_text=valid_text, guard=guard, test_text=test_text)


def main() -> None:
    """In the separate process: read a config from standard input, and print the result as one line of JSON."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the process that started this one may be killed
        with suppress(OSError):  # if the system must kill a process to free memory, it should be this one
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    device = torch.device(sys.argv[1])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    answer: dict[str, object]
    try:
        with memory_explained(lambda: "the start, or while a checkpoint was written or read"):
            answer = asdict(_measure(Config.model_validate(json.load(sys.stdin)), device))
    except UserError as error:
        answer = {"error": str(error), "memory": isinstance(error, OutOfMemoryError)}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
