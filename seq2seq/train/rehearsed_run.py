"""The process that rehearses a run (:mod:`seq2seq.train.rehearsal`): a short run of all that is heaviest in it.

It is a :class:`Trainer` that differs in its steps and its lines alone, so what it measures is what the run will do.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seq2seq.config import Config
from seq2seq.data.corpus import Corpus, build_corpus
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.loader import Step
from seq2seq.data.packed import Indices
from seq2seq.data.plan import EpochPlan, plan_epoch, step_budgets
from seq2seq.errors import ModelError, OutOfMemoryError, UserError
from seq2seq.memory import memory_explained, memory_room, peak_memory
from seq2seq.model_folder import unique_tensors
from seq2seq.train.checkpoint import load_latest_checkpoint
from seq2seq.train.distributed import Processes
from seq2seq.train.metrics import METRICS, read_metrics
from seq2seq.train.rehearsal import USABLE, Rehearsal
from seq2seq.train.trainer import Trainer

_USUAL_STEPS = 3  # to time a step that is not the heaviest
_NEVER = 2**62  # steps
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def heaviest_steps(
    src_lengths: NDArray[np.integer], tgt_lengths: NDArray[np.integer], plan: EpochPlan, budgets: tuple[int, int]
) -> list[Indices]:
    """The steps that may take most memory, each for a reason of its own.

    Of the plan: those with most source tokens, target tokens, both, and most sentences. As the shuffle of another epoch
    may bring together what this one does not: the longest sentences among many, to which attention may pad them all;
    the longest targets; and the longest sources.

    Args:
        src_lengths, tgt_lengths: [pairs], tokens with EOS.
        plan: of an epoch of these pairs.
        budgets: most source and target tokens of a step.
    """
    src, tgt = src_lengths.astype(np.int64), tgt_lengths.astype(np.int64)
    src_tokens, tgt_tokens = (np.add.reduceat(lengths[plan.order], plan.starts[:-1]) for lengths in (src, tgt))
    counts = np.diff(plan.starts)
    measures = (src_tokens, tgt_tokens, src_tokens + tgt_tokens, counts)
    steps = [plan.step(number) for number in dict.fromkeys(int(np.argmax(measure)) for measure in measures)]
    by_target, by_source = np.lexsort((-src, -tgt)), np.lexsort((-tgt, -src))
    longest, most = np.unique([by_target[0], by_source[0]]), plan.step(int(np.argmax(counts)))
    for pairs in (np.concatenate([longest, np.setdiff1d(most, longest)]), by_target, by_source):
        sums = (lengths[pairs].cumsum() for lengths in (src, tgt))
        fitting = min(int(np.searchsorted(sum_, budget, "right")) for sum_, budget in zip(sums, budgets, strict=True))
        steps.append(pairs[: max(1, fitting)])
    return steps


def heaviest_lines(lengths: NDArray[np.integer], tokens: int) -> Indices:
    """The longest lines and the shortest ones, about ``tokens`` tokens of each: batches of both are heavy in search.

    The longest need most room for keys and values, the shortest come most in a batch, each with scores of the whole
    vocabulary. Blank lines (of length 0) are never searched.

    Args:
        lengths: [lines], tokens of each.
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    sums = np.cumsum(lengths[order])
    if not order.size or sums[-1] <= 2 * tokens:
        return order
    longest = int(np.searchsorted(sums, tokens)) + 1
    shortest = int(np.searchsorted(sums, sums[-1] - tokens))
    return order if longest >= shortest else np.concatenate([order[:longest], order[shortest:]])


class RehearsedRun(Trainer):
    """A run of the heaviest steps and lines of another one."""

    def __init__(self, config: Config, processes: Processes) -> None:
        """``config``: of the other run, but for a run folder of its own."""
        endless = {"max_steps": _NEVER, "max_epochs": 1, "max_minutes": None, "patience": None}
        rare = {"validate_every": _NEVER, "save_every": _NEVER, "keep_last": 1}
        super().__init__(config.model_copy(update={"train": config.train.model_copy(update=endless | rare)}), processes)
        train, seed = self.data.train, config.seed
        lengths = train.src_lengths, train.tgt_lengths
        budgets = step_budgets(*lengths, config.train.step_tokens)
        self.usual = plan_epoch(*lengths, budgets, seed, epoch=0)
        self.heaviest = heaviest_steps(*lengths, self.usual, budgets)
        self.step_seconds: list[float] = []
        self.seconds = {"validation": 0.0, "checkpoint": 0.0}
        self._keep_heaviest_lines()

    def _keep_heaviest_lines(self) -> None:
        """Validate on the pairs that are heaviest for the loss and the lines that are heaviest for the search."""
        config, valid = self.config, self.data.valid
        lengths = valid.src_lengths, valid.tgt_lengths
        budgets = step_budgets(*lengths, config.train.step_tokens)
        plan = plan_epoch(*lengths, budgets, seed=0, epoch=0)
        pairs = np.unique(np.concatenate(heaviest_steps(*lengths, plan, budgets)))
        src, tgt = self.valid_texts
        kept = (SentencePair(src[i], tgt[i], number) for number, i in enumerate(valid.lines[pairs]))
        folder = config.run_dir / "valid"
        self.data = replace(self.data, valid=build_corpus(folder, kept, self.data.tokenizers, "rehearsal"))
        self.valid_texts = self._heaviest_texts(self.valid_texts)
        if self.test_texts is not None:
            self.test_texts = self._heaviest_texts(self.test_texts)

    def _heaviest_texts(self, texts: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
        decode = self.config.decode
        at_once = torch.get_num_threads() if self.processes.device.type == "cpu" else 1
        encoded = self.data.tokenizers.src.encode(texts[0])
        lengths = np.array([min(len(ids), self.config.data.max_length) for ids in encoded])
        chosen = heaviest_lines(lengths, at_once * decode.batch_tokens // decode.beam_size)
        src, ref = ([side[i] for i in chosen] for side in texts)
        return src, ref

    def _corpus_and_plan(self, epoch: int) -> tuple[Corpus, EpochPlan]:
        """The heaviest steps, then some usual ones."""
        number = min(_USUAL_STEPS, self.usual.num_steps)
        spread = np.linspace(0, self.usual.num_steps - 1, number + 2)[1:-1]
        steps = [*self.heaviest, *(self.usual.step(round(at)) for at in spread)]
        starts = np.cumsum([0, *map(len, steps)]).astype(np.int64)
        return self.data.train, EpochPlan(np.concatenate(steps), starts)

    def _step(self, step: Step) -> None:
        started = time.monotonic()
        super()._step(step)
        if self.processes.device.type == "cuda":
            torch.cuda.synchronize(self.processes.device)
        self.step_seconds.append(time.monotonic() - started)

    def _validate(self) -> None:
        self._time("validation", super()._validate)

    def _save(self) -> None:
        self._time("checkpoint", self._save_and_read_back)

    def _save_and_read_back(self) -> None:
        super()._save()
        read = load_latest_checkpoint(self.config.run_dir, on_damage=lambda message: None)
        written = unique_tensors(self.model.state_dict())
        if read is None or not all(torch.equal(read.weights[name], x.cpu()) for name, x in written.items()):
            raise ModelError(f"{self.config.run_dir}: a checkpoint read back there differs from what was written")

    def _time(self, what: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        work()
        self.seconds[what] += time.monotonic() - started

    def _draw(self) -> None:
        """No picture of a rehearsal."""

    def describe_heaviest(self) -> str:
        """Shape of the step with most tokens."""
        src, tgt = self.data.train.src_lengths, self.data.train.tgt_lengths
        step = max(self.heaviest, key=lambda pairs: int(src[pairs].sum() + tgt[pairs].sum()))
        return (
            f"{len(step):,} sentences, {src[step].sum():,} source x {tgt[step].sum():,} target tokens, "
            f"up to {max(src[step].max(), tgt[step].max()):,} in a sentence"
        )


def rehearse_here(config: Config, processes: Processes, neighbours: int) -> Rehearsal:
    """Rehearse in this process, which should end then. ``neighbours``: processes that share the memory."""
    room = memory_room(processes.device)
    if room is not None and processes.device.type == "cpu":
        room //= neighbours
    run = RehearsedRun(config, processes)
    run.run()
    return Rehearsal(
        peak=peak_memory(processes.device),
        room=room,
        usable=USABLE[processes.device.type],
        heaviest=run.describe_heaviest(),
        num_steps=run.usual.num_steps,
        step_seconds=float(np.mean(run.step_seconds[len(run.heaviest) :])),
        validation_seconds=run.seconds["validation"],
        bleu=next(r["valid_bleu"] for r in read_metrics(run.config.run_dir / METRICS) if "valid_bleu" in r),
        checkpoint_seconds=run.seconds["checkpoint"],
    )


def main() -> None:
    """Read what to rehearse from standard input; print what came of it as one line of JSON."""
    script: dict[str, Any] = json.load(sys.stdin)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever asked for this may be killed
        with suppress(OSError):  # if the system must kill a process for its memory, then this one
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    torch.set_num_threads(script["threads"])
    device = torch.device(script["device"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    given = Config.model_validate(script["config"])
    tokens = -(-given.train.step_tokens // script["processes"])
    train = given.train.model_copy(update={"batch_tokens": tokens})
    data = given.data.model_copy(update={"cache_dir": given.cache_dir})
    config = given.model_copy(update={"run_dir": Path(script["folder"]), "data": data, "train": train})
    answer: dict[str, object]
    try:
        with memory_explained(lambda: "the start, or at writing or reading a checkpoint"):
            answer = asdict(rehearse_here(config, Processes(0, 1, device), script["neighbours"]))
    except OutOfMemoryError as error:
        answer = {"out_of_memory": str(error)}
    except UserError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
