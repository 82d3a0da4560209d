"""kill -9 at random moments of a training; continued each time by the same command, it ends as if nothing had happened.

A small real run (some epochs of the embedded corpus, subwords sampled anew for each, dropout, an average of the
weights, a test set) is made twice: undisturbed, and killed again and again. The kills are aimed at every phase: most
fall a random time after a phase has begun, some at any time; most hit the main process alone, some all processes at
once. After each kill no process may live on, and all checkpoints and model folders that are there must load. At the end
the two run folders must have the same files with the same bytes, except for clocks.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from bench.report import table
from tqdm import tqdm

from faults.small_run import ARCHITECTURES, broken_parts, differences, training, write_mixture, write_text
from faults.watched import Mark, Watched

_STEPS = 240
_LAST_STEPS = 20  # in which only what comes after them is aimed at, so that the run does not end before
_PATIENCE = 300.0  # seconds without news until a run counts as hung
_GONE_SECONDS = 20.0  # after a kill no process may be there for longer
_STARTING_SECONDS = 8.0  # about what a start takes before its first step
_STARTS = 10  # for one kill
_LONG_SECONDS = 2.0  # into a phase; sampling ahead may take an epoch
_STEPS_TO_WAIT = 30  # for what a kill is aimed at


class Kill(NamedTuple):
    """Where a kill fell."""

    phase: str
    step: int
    sampling: bool  # an epoch ahead
    everyone: bool  # all processes at once, as by the system; else the main process alone
    gone: float  # seconds until no process was left


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this attack."""
    parser.add_argument("--kills", type=int, default=50, help="default: 50")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments; default: 1")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0], help="default: transformer")
    help_ = "train on five datasets of different kinds, with weights, tags and epochs of their own"
    parser.add_argument("--mixture", action="store_true", help=help_)


def run(args: argparse.Namespace) -> list[str]:
    """Attack; returns what did not hold."""
    shutil.rmtree(args.out, ignore_errors=True)
    write_text(args.out / "text", pairs=40_000, valid=100, test=300)  # so many that several processes build the corpus
    reference, attacked = args.out / "undisturbed", args.out / "attacked"
    overrides = [f"train.max_steps={_STEPS}", *([write_mixture(args.out / "text")] if args.mixture else [])]
    start = partial(_start, architecture=args.architecture, overrides=overrides)
    print(f"an undisturbed run, in {reference} ...", flush=True)
    undisturbed = _to_end(start(reference))
    rng = random.Random(args.seed)
    kills: list[Kill] = []
    try:
        for target in (bar := tqdm(_targets(undisturbed.marks, args.kills, rng), desc="kills", unit=" kills")):
            kills.append(_kill(target, partial(start, attacked), undisturbed, rng))
            bar.set_postfix_str(f"{kills[-1].phase}, step {kills[-1].step}")
            if broken := broken_parts(attacked / "run"):
                return [f"after kill {len(kills)} ({kills[-1].phase}): {text}" for text in broken]
    finally:
        _print_table(kills)
    print("once more, to the end ...", flush=True)
    _to_end(start(attacked))
    print(f"{len(kills)} kills; is the end that of the undisturbed run?")
    return [f"different: {name}" for name in differences(attacked / "run", reference / "run")]


def _start(folder: Path, architecture: str, overrides: Sequence[str]) -> Watched:
    return Watched(training(folder, *overrides, architecture=architecture), folder, folder / "log")


def _to_end(run: Watched) -> Watched:
    status = run.wait(_PATIENCE)
    run.end_all()
    if status != 0:
        raise SystemExit(f"BROKEN: a start hung or failed (status {status}): see {run.log}")
    return run


def _targets(marks: list[Mark], kills: int, rng: random.Random) -> list[Mark | None]:
    """The beginning of a phase for each kill, of all phases in turn, or None: any time.

    They are in the order of the run, so that it comes forward between kills.
    """
    begins: dict[str, list[Mark]] = {}
    for mark in marks:
        if mark.begins and (mark.step <= _STEPS - _LAST_STEPS or mark.phase in ("test", "calibration", "curves")):
            begins.setdefault(mark.phase, []).append(mark)
    any_time = kills // 10
    phases = rng.sample(sorted(begins), len(begins))
    chosen = [rng.choice(begins[phase]) for phase in islice(cycle(phases), kills - any_time)]
    targets: list[Mark | None] = [*sorted(chosen, key=marks.index)]
    for _ in range(any_time):
        targets.insert(rng.randrange(len(targets) * 3 // 4), None)
    return targets


def _kill(target: Mark | None, start: Callable[[], Watched], undisturbed: Watched, rng: random.Random) -> Kill:
    """Start, wait for the moment, kill."""
    everyone = rng.random() < 0.25
    for _ in range(_STARTS):
        run = start()
        if target is None:
            time.sleep(rng.uniform(0, _STARTING_SECONDS))
        elif moment := run.wait_for(_moment(target, undisturbed.marks), _PATIENCE):
            time.sleep(rng.uniform(0, min(_LONG_SECONDS, 0.95 * undisturbed.seconds_of(moment.phase))))
        elif (status := run.wait(_GONE_SECONDS)) != 0:
            run.end_all()
            raise SystemExit(f"BROKEN: a start hung or failed (status {status}): see {run.log}")
        if run.process.poll() is not None:  # it came to its end first: once more
            continue
        if everyone:
            os.killpg(run.process.pid, signal.SIGKILL)
        else:
            run.process.kill()
        killed = time.monotonic()
        if run.wait(_GONE_SECONDS) is None:
            run.end_all()
            raise SystemExit(f"BROKEN: processes lived on {_GONE_SECONDS:.0f} s after their main process was killed")
        return Kill(*run.phase(), everyone, time.monotonic() - killed)
    raise SystemExit(f"BROKEN: {_STARTS} starts came to their end before they could be killed in {target}")


def _moment(target: Mark, undisturbed: list[Mark]) -> Callable[[Mark], bool]:
    """Whether a mark is the beginning of what a kill is aimed at, or of what shows that this does not come any more."""
    # In a step the same phase may begin more than once: there are several tokenizers.
    same = [mark for mark in undisturbed if mark.begins and mark.phase == target.phase and mark.step == target.step]
    passed, first_step = 0, 0

    def is_it(mark: Mark) -> bool:
        nonlocal passed, first_step
        if mark.begins and mark.phase == target.phase and mark.step >= target.step:
            passed += 1
            return passed > same.index(target)
        if not mark.begins or target.step > _STEPS - _LAST_STEPS:
            return False
        first_step = first_step or mark.step
        return mark.phase == "test" or mark.step > max(target.step, first_step) + _STEPS_TO_WAIT

    return is_it


def _print_table(kills: list[Kill]) -> None:
    """Where the kills fell."""
    alone, together = (Counter(kill.phase for kill in kills if kill.everyone == group) for group in (False, True))
    phases = [phase for phase, _ in (alone + together).most_common()]
    rows = [[phase, str(alone[phase]), str(together[phase])] for phase in phases]
    print("", table(("killed in", "main process", "all processes"), rows), sep="\n")
    print(f"of these while an epoch was being sampled: {sum(kill.sampling for kill in kills)}")
    print(f"all processes gone after at most {max((kill.gone for kill in kills), default=0):.1f} s\n")
