"""A disk that fills up: one clear message, earlier files whole, and the same command continues when there is space.

A small file system holds the run. It is filled up (by a file of no use) to various degrees while a command of its own
process works on it: building the corpus, training, drawing the picture, translating. The command has to end with exit
code 2 and one message that speaks of space, without a traceback, and without a checkpoint or model that does not load.
Then the file of no use is removed, and the same command has to end well, with the same bits as one that met none.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from faults.small_run import broken_parts, differences, write_config, write_text
from seq2seq.train.checkpoint import list_checkpoints
from tests.toy import ROOT, command, environment

_SIZE = 24 << 20
_PATIENCE = 240  # seconds for a command; one that waits for space forever has failed


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this attack."""
    parser.add_argument("--steps", type=int, default=20, help="how many fill levels each command meets (default: 20)")


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command line of the package to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(), timeout=_PATIENCE)


def fill(disk: Path, left: int) -> None:
    """Write a file of no use that leaves so many bytes free, as far as whole blocks allow."""
    (disk / "useless").unlink(missing_ok=True)
    found = os.statvfs(disk)
    with (disk / "useless").open("wb") as file:
        file.write(bytes(max(0, found.f_bavail * found.f_frsize - left)))


def judge(done: subprocess.CompletedProcess[str], damage: str | None = None) -> str:
    """How a command that met a full disk has ended, and what it damaged: "ended well", "refused", or what is wrong."""
    if done.returncode == 0:
        return "ended well"
    shown = [line for line in done.stderr.replace("\r", "\n").splitlines() if ": error: " in line]
    noise = any(word in done.stderr for word in ("Traceback", "Exception"))
    if done.returncode != 2 or len(shown) != 1 or "space" not in shown[0] or noise:
        return f"WRONG: exit code {done.returncode}: {done.stderr[-1500:]}"
    return f"WRONG: {damage}" if damage else f"refused: {shown[0].split(': error: ')[1]}"


def again(disk: Path, words: Sequence[str | Path], others: Callable[[], list[str]]) -> str:
    """Make space and repeat a command, which has to end well; ``others`` gives what then is not as it should be."""
    (disk / "useless").unlink()
    ended = judge(run_command(*words))
    wrong = others() if ended == "ended well" else [ended]
    return f"WRONG: other {', '.join(wrong)}" if wrong else ended


def what_is_wrong(run: Path) -> str | None:
    """What a command has left behind that is broken or of no use; None where there is nothing."""
    left = [f"left behind: {path.name}" for path in run.rglob("*.tmp")]
    return "; ".join((*broken_parts(run), *left)) or None


def attack_training(disk: Path, out: Path, steps: int) -> Iterator[tuple[str, str]]:
    """Train from nothing at rising levels of free space: the first meet the end in the corpus, later ones in a save."""
    text, run, config = write_text(disk / "text", pairs=20_000), disk / "run", out / "small.yaml"
    write_config(text, run, config)
    yield "undisturbed", judge(run_command("train", config))
    shutil.move(run, out / "undisturbed")
    needed = sum(path.stat().st_size for path in (out / "undisturbed").rglob("*") if path.is_file())
    for number in range(steps):
        shutil.rmtree(run, ignore_errors=True)
        left = int(needed * 1.2 * number / steps)
        fill(disk, left)
        started = time.monotonic()
        first = judge(run_command("train", config), what_is_wrong(run))
        name = f"{left / 1e3:9,.0f} kB free, {time.monotonic() - started:4.1f} s"
        yield f"train,     {name}", first
        if first.startswith("refused"):
            yield f"  resumed, {name}", again(disk, ("train", config), lambda: differences(run, out / "undisturbed"))


def attack_saving(disk: Path, out: Path, steps: int) -> Iterator[tuple[str, str]]:
    """Fill the disk while the run trains, so that the next write meets it: a checkpoint, a model, the log."""
    run, bounds = disk / "run", ("train.max_steps=300", "train.save_every=50", "train.validate_every=100")
    words = ("train", out / "small.yaml", *bounds)
    (disk / "useless").unlink(missing_ok=True)
    shutil.rmtree(run, ignore_errors=True)
    yield "undisturbed", judge(run_command(*words))
    shutil.move(run, out / "saving")
    for number in range(max(1, steps // 4)):
        (disk / "useless").unlink(missing_ok=True)
        shutil.rmtree(run, ignore_errors=True)
        child = subprocess.Popen(
            command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
        )
        deadline = time.monotonic() + _PATIENCE
        while not list_checkpoints(run) and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        left = 150_000 * (number % 4)  # a model takes less, a checkpoint more
        fill(disk, left)
        _, shown = child.communicate(timeout=_PATIENCE)
        done = subprocess.CompletedProcess(child.args, child.returncode, "", shown)
        yield f"filled after the first checkpoint, {left / 1e3:,.0f} kB left", judge(done, what_is_wrong(run))
        yield "  resumed", again(disk, words, lambda: differences(run, out / "saving"))


def attack_translation(disk: Path, out: Path, steps: int) -> Iterator[tuple[str, str]]:
    """Translate to a file on the full disk."""
    source, target, whole = out / "source.en", disk / "translated", out / "translated"
    lines = (ROOT / "data/train.en").read_bytes().splitlines(keepends=True)[:3000]
    source.write_bytes(b"".join(lines))
    (disk / "useless").unlink(missing_ok=True)
    translate = ("translate", out / "undisturbed", "--device", "cpu", "--beam-size", "1", "--input", source, "--output")
    yield "undisturbed", judge(run_command(*translate, whole))
    for number in range(max(1, steps // 4)):
        left = int(whole.stat().st_size * number / max(1, steps // 4))
        fill(disk, left)
        first = judge(run_command(*translate, target), "half an output" if target.exists() else None)
        yield f"translate, {left / 1e3:,.0f} kB free", first
        if first.startswith("refused"):
            repeat = (*translate, target)
            yield "  repeated", again(disk, repeat, lambda: ["output"] * (target.read_bytes() != whole.read_bytes()))
            target.unlink(missing_ok=True)


def run(args: argparse.Namespace) -> list[str]:
    """Meet a full disk in all commands that write."""
    disk = args.out / "disk"
    if disk.is_mount():  # of an attack that was killed
        subprocess.run(["umount", str(disk)], check=True)
    shutil.rmtree(args.out, ignore_errors=True)
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        print("this attack needs the right to mount a small file system: run it as root", file=sys.stderr)
        raise SystemExit(2)
    print(f"a tmpfs of {_SIZE >> 20} MB at {disk}")
    problems = []
    try:
        for part in (attack_training, attack_saving, attack_translation):
            for name, outcome in tqdm(part(disk, args.out, args.steps), desc=part.__name__, unit=" commands"):
                tqdm.write(f"{name}: {outcome}", file=sys.stdout)
                problems += [f"{name}: {outcome}"] * outcome.startswith("WRONG")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return problems
