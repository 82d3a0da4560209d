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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from faults.small_run import broken_parts, differences, training, write_text
from faults.watched import Mark, Watched

_STEPS = 240
_PATIENCE = 300.0  # seconds without news until a run counts as hung
_GONE_SECONDS = 20.0  # after a kill no process may be there for longer
_STARTING_SECONDS = 8.0  # about what a start takes before its first step
_STARTS = 10  # for one kill
_LONG_SECONDS = 2.0  # into a phase; sampling ahead may take an epoch
_STEPS_TO_WAIT = 30  # for what a kill is aimed at
_STEPS_TO_PASS = 10  # at most, since the start, so that kills do not all fall right after checkpoints
_AT_ANY_TIME = "any time"


@dataclass(frozen=True)
class Kill:
    """What a kill is aimed at, and where it fell."""

    aim: str
    step: int  # not before this step
    everyone: bool  # all processes at once, as by the system; else the main process alone
    skipped: int = 0  # beginnings of what it is aimed at that it lets pass
    phase: str = ""
    at: int = 0  # step
    sampling: bool = False
    gone: float = 0.0  # seconds until no process was left


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this attack."""
    parser.add_argument("--kills", type=int, default=50, help="default: 50")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments; default: 1")


def run(args: argparse.Namespace) -> int:
    """Attack; returns 0 if the promise held."""
    shutil.rmtree(args.out, ignore_errors=True)
    write_text(args.out / "text", pairs=40_000, valid=100, test=300)  # so many that several processes build the corpus
    reference, attacked = args.out / "undisturbed", args.out / "attacked"
    print(f"an undisturbed run, in {reference} ...", flush=True)
    undisturbed = _start(reference)
    if not _ends_well(undisturbed):
        print(f"it failed: see {reference / 'log'}")
        return 1
    rng = random.Random(args.seed)
    done: list[Kill] = []
    problems: list[str] = []
    bar = tqdm(_aims(args.kills, rng), desc="kills", unit=" kills")
    for kill in bar:
        fallen = _kill_once(kill, attacked, undisturbed, rng, problems)
        if fallen is None:
            break
        done.append(fallen)
        bar.set_postfix_str(f"{fallen.phase}, step {fallen.at}")
        problems += [f"after kill {len(done)} ({fallen.phase}): {text}" for text in broken_parts(attacked / "run")]
        if problems:
            break
    _print_table(done)
    if not problems:
        print("once more, to the end ...", flush=True)
        if _ends_well(_start(attacked)):
            problems += [f"different: {name}" for name in differences(attacked / "run", reference / "run")]
        else:
            problems.append(f"the last start failed or hung: see {attacked / 'log'}")
    for problem in problems:
        print(f"BROKEN: {problem}")
    if not problems:
        print(f"{len(done)} kills; every checkpoint and model was whole; the end is that of the undisturbed run")
    return 1 if problems or len(done) < args.kills else 0


def _start(folder: Path) -> Watched:
    return Watched(training(folder, f"train.max_steps={_STEPS}"), folder, folder / "log")


def _ends_well(run: Watched) -> bool:
    status = run.wait(_PATIENCE)
    run.end_all()
    return status == 0


def _aims(kills: int, rng: random.Random) -> list[Kill]:
    """What each kill is aimed at, in the order of a run, so that it comes forward between kills."""
    few = max(1, kills // 12)
    early = [Kill("tokenizer", 0, False, skipped=i % 2) for i in range(few)]  # there is one for each side
    early += [Kill("corpus", 0, False)] * few
    late = [Kill("test", _STEPS, False)] * few + [Kill("curves", _STEPS, False)] * (few // 2)
    middle = max(0, kills - len(early) - len(late))
    cycle = ("step", "checkpoint", "validation", "model", "sampling", _AT_ANY_TIME)
    phases = [cycle[i % len(cycle)] for i in range(middle)]
    rng.shuffle(phases)
    aims = [Kill(phase, i * (_STEPS - 20) // max(1, middle), False) for i, phase in enumerate(phases)]
    return [replace(kill, everyone=rng.random() < 0.25) for kill in [*early, *aims, *late][:kills]]


def _kill_once(kill: Kill, folder: Path, undisturbed: Watched, rng: random.Random, problems: list[str]) -> Kill | None:
    """Start, wait for the moment, kill; None where the run hangs or fails by itself."""
    for _ in range(_STARTS):
        run = _start(folder)
        if kill.aim == _AT_ANY_TIME:
            time.sleep(rng.uniform(0, _STARTING_SECONDS))
        else:
            moment = run.wait_for(_moment(kill, rng), _PATIENCE)
            if moment is not None:
                time.sleep(rng.uniform(0, min(_LONG_SECONDS, 0.95 * undisturbed.seconds_of(moment.phase))))
            elif (status := run.wait(_GONE_SECONDS)) != 0:
                run.end_all()
                problems.append(f"a start hung or failed (status {status}): see {folder / 'log'}")
                return None
        if run.process.poll() is not None:  # it came to its end first: once more
            continue
        if kill.everyone:
            os.killpg(run.process.pid, signal.SIGKILL)
        else:
            run.process.kill()
        killed = time.monotonic()
        if run.wait(_GONE_SECONDS) is None:
            problems.append(f"processes lived on {_GONE_SECONDS:.0f} s after their main process was killed")
            run.end_all()
        phase, step, sampling = run.phase()
        return replace(kill, phase=phase, at=step, sampling=sampling, gone=time.monotonic() - killed)
    problems.append(f"{_STARTS} starts came to their end before they could be killed in {kill.aim}")
    return None


def _moment(kill: Kill, rng: random.Random) -> Callable[[Mark], bool]:
    """Whether a mark is the beginning of what a kill is aimed at, or of what shows that this does not come any more."""
    skipped, passed, to_pass = 0, 0, rng.randrange(_STEPS_TO_PASS)

    def is_it(mark: Mark) -> bool:
        nonlocal skipped, passed
        if not mark.begins:
            return False
        passed += mark.phase == "step"
        soon = kill.aim == "sampling" or kill.step in (0, _STEPS)
        if mark.phase == kill.aim and mark.step >= kill.step and (soon or passed > to_pass):
            skipped += 1
            return skipped > kill.skipped
        if kill.step == _STEPS:
            return False
        late = mark.step >= kill.step + (_STEPS_TO_WAIT if kill.step else 0)
        return mark.phase == "test" or (mark.phase == "step" and late and passed > to_pass)

    return is_it


def _print_table(kills: list[Kill]) -> None:
    """Where the kills fell."""
    alone, together = (Counter(kill.phase for kill in kills if kill.everyone == group) for group in (False, True))
    print(f"\n{'killed in':<14}{'main process':>14}{'all processes':>15}")
    for phase in sorted({kill.phase for kill in kills}, key=lambda name: -alone[name] - together[name]):
        print(f"{phase:<14}{alone[phase]:>14}{together[phase]:>15}")
    print(f"of these while an epoch was being sampled: {sum(kill.sampling for kill in kills)}")
    print(f"all processes gone after at most {max((kill.gone for kill in kills), default=0):.1f} s\n")
