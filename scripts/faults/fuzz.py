"""Damaged and hostile files for every reader: each gives its content or one clear error, quickly and in little memory.

Inputs are mutated from valid files and from each other; those that reach new lines of the readers, or get a new answer,
are kept and mutated further. What each reader must do is told in
``fuzz_text.py`` and ``fuzz_folders.py``. A finding is an exception that is
no UserError, an answer that is wrong, a crash of the process, memory beyond half a gigabyte, or more than ten seconds.
It is written to the folder ``findings`` in --out: the input, one file for each of its parts, and what happened.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import random
import re
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from faults.fuzz_folders import CheckpointFile, CorpusFolder, ModelFolder
from faults.fuzz_text import ConfigFile, Target, Text, TokenizerFile
from faults.mutation import Input, Lines, Mutator
from seq2seq.errors import UserError

TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "text": Text,
    "config": ConfigFile,
    "corpus": CorpusFolder,
    "checkpoint": CheckpointFile,
    "tokenizer": TokenizerFile,
    "model": ModelFolder,
}
_MEMORY = 512 << 20  # beyond what the process has at its start
_SECONDS = 10.0
_WATCHED = 1 / 64  # of the inputs with a known answer
_ACCEPTED = "accepted"
_CRASHES = 30  # of one target, after which it is given up


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this attack."""
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only this reader; may be repeated")
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs for each reader (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed gives the same inputs (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Fuzz the readers one after the other; 1 where something was found."""
    shutil.rmtree(args.out, ignore_errors=True)
    num_findings = 0
    for name in args.target or TARGETS:
        started = time.monotonic()
        with _in_memory_folder() as folder:
            campaign = _Campaign(name, TARGETS[name](folder), args.out / name)
            campaign.run(args.inputs, args.seed)
        findings = campaign.findings()
        num_findings += len(findings)
        told = campaign.shared.read()
        print(
            f"{name}: {told.done:,} inputs in {time.monotonic() - started:.0f} s, {told.accepted:,} of them accepted; "
            f"{told.lines} lines of the readers reached, {len(campaign.kept())} inputs kept, {len(findings)} findings"
        )
        for finding in findings:
            print(f"  {finding.parent}: {finding.read_text(encoding='utf-8').splitlines()[0]}")
    return 1 if num_findings else 0


@contextmanager
def _in_memory_folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class _Told(NamedTuple):
    """How far the working process is, and the input it is at."""

    done: int = 0
    accepted: int = 0  # files that the reader found nothing wrong with
    lines: int = 0
    packed: bytes = b""


class _Shared:
    """What the working process tells, readable when it is dead."""

    _HEAD = struct.Struct("<QQQQ")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16 << 20)

    def write(self, told: _Told) -> None:
        head = self._HEAD.pack(told.done, told.accepted, told.lines, len(told.packed))
        self._memory[: len(head) + len(told.packed)] = head + told.packed

    def read(self) -> _Told:
        done, accepted, lines, size = self._HEAD.unpack(self._memory[: self._HEAD.size])
        return _Told(done, accepted, lines, self._memory[self._HEAD.size : self._HEAD.size + size])


class _Campaign:
    """One reader under attack, in processes that may die."""

    def __init__(self, name: str, target: Target, out: Path) -> None:
        self._name, self._target = name, target
        self._kept, self._findings = out / "kept", out / "findings"
        self.shared = _Shared()
        for folder in (self._kept, self._findings):
            folder.mkdir(parents=True)

    def findings(self) -> list[Path]:
        """What happened, one text each."""
        return sorted(self._findings.glob("*/what.txt"))

    def kept(self) -> list[Path]:
        """The inputs kept beside the seeds."""
        return sorted(self._kept.iterdir())

    def run(self, num_inputs: int, seed: int) -> None:
        """Try ``num_inputs`` inputs."""
        self.shared.write(_Told())
        with tqdm(total=num_inputs, desc=self._name, unit=" inputs") as bar:
            for start in range(_CRASHES):
                child = os.fork()
                if child == 0:
                    self._work(num_inputs, f"{seed} {self._name} {start}")
                while not (waited := os.waitpid(child, os.WNOHANG))[0]:
                    bar.update(self.shared.read().done - bar.n)
                    time.sleep(0.2)
                told = self.shared.read()
                bar.update(told.done - bar.n)
                status = os.waitstatus_to_exitcode(waited[1])
                if status == 0:
                    return
                name = signal.Signals(-status).name if status < 0 else str(status)
                why = f"more than {_SECONDS:.0f} seconds" if name == "SIGALRM" else f"the process died ({name})"
                self._report(f"{why}, start {start}", "", _unpack(told.packed))
                self.shared.write(told._replace(done=told.done + 1, packed=b""))

    def _work(self, num_inputs: int, seed: str) -> None:
        """In a process of its own: go on from the inputs kept so far; never returns."""
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C++ write there
            size = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
            resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            self._fuzz(num_inputs, seed)
            status = 0
        except BaseException:
            self._report("the fuzzer itself failed", traceback.format_exc(), ())
        finally:
            os._exit(status)

    def _fuzz(self, num_inputs: int, seed: str) -> None:
        """Lines are slow to watch: only where the answer is new, and now and then."""
        mutator, rng = Mutator(seed, self._target.words), random.Random(seed)
        lines, answers, kept, good = Lines(self._target.sources), set[str](), list[Input](), list[Input]()
        known = [*self._target.seeds, *(_unpack(path.read_bytes()) for path in self.kept())]
        told = self.shared.read()
        for number in range(num_inputs - told.done):
            parents = good if good and rng.random() < 0.5 else kept
            files = known[number] if number < len(known) else mutator.mutate(parents)
            told = told._replace(lines=lines.count, packed=_pack(files))
            self.shared.write(told)
            signal.setitimer(signal.ITIMER_REAL, _SECONDS)
            answer = self._try(files)
            new = not answer <= answers
            if new or rng.random() < _WATCHED:
                new = lines.new(partial(self._try, files)) or new
            signal.setitimer(signal.ITIMER_REAL, 0)
            if number < len(known):
                kept.append(files)
            elif new:
                kept.append(files)
                (self._kept / f"{len(kept):05d}").write_bytes(told.packed)
            accepted = _ACCEPTED in answer
            if accepted and kept[-1] is files:
                good.append(files)
            answers |= answer
            told = told._replace(done=told.done + 1, accepted=told.accepted + accepted)
        self.shared.write(told._replace(lines=lines.count))

    def _try(self, files: Input) -> set[str]:
        """The lines of the reader's answer without their numbers and quotations; reports what is no answer."""
        try:
            self._target.check(files)
            answer = _ACCEPTED
        except UserError as error:
            answer = str(error)
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "seq2seq" in frame.filename or "faults" in frame.filename]
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            self._report(f"{type(error).__name__} at {place}", "".join(traceback.format_exception(error)), files)
            answer = type(error).__name__
        return {re.sub(r"0x\w+|\d+|'[^']*'|\"[^\"]*\"|/\S*", "#", line)[:80] for line in answer.split("\n")}

    def _report(self, what: str, details: str, files: Input) -> None:
        """Write down what was found; the first input for each place is enough."""
        folder = self._findings / hashlib.blake2b(what.encode(), digest_size=4).hexdigest()
        if not folder.exists():
            folder.mkdir()
            for number, data in enumerate(files):
                (folder / f"part-{number}").write_bytes(data)
            message = details.strip().splitlines()[-1][:300] if details else ""
            text = f"{what}: {message}\n{details[-20_000:]}"
            (folder / "what.txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def _pack(files: Input) -> bytes:
    return b"".join(struct.pack("<I", len(data)) + data for data in files)


def _unpack(packed: bytes) -> Input:
    files, at = [], 0
    while at < len(packed):
        (size,) = struct.unpack_from("<I", packed, at)
        files.append(packed[at + 4 : at + 4 + size])
        at += 4 + size
    return tuple(files)
