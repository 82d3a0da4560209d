"""Damage to every file of a run: found out each time, never a traceback, never other numbers without a word.

A small run, sampled anew for every epoch, is stopped between two checkpoints. Then, one case at a time, a file of its
folder is damaged (bits flipped, bytes zeroed, cut, emptied, extended, exchanged, removed; in every region of
checkpoints and weights), and what a user would do next is done: the run is continued, or its best model translates. A
case ends well if

  refused      the command ended with one message that names the file or its folder, or
  passed over  the damage was named, and the run ended bit by bit as one that met none, or
  made again   the same, from text: tokenizers, corpora and sampled corpora, or
  reported     the damage was named and changed nothing that is computed: the log; settings of the search, or
  no effect    the damage was in what the command does not use, or writes anew: the results are bit by bit the same.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from bench.report import table
from tqdm import tqdm

from faults.small_run import differences, small_config, write_text
from seq2seq.data.formats.lines import read_text
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from seq2seq.report.curves import draw_curves
from seq2seq.train.checkpoint import list_checkpoints
from tests.toy import train

_STOP = 10  # checkpoints at 6 and 9, validations at 5 and 10
_PAIRS = 235  # the second epoch starts with step 12, so both sampled corpora that lie there are used
_SAMPLING = "tokenizer.sampling=0.1"
_OUTCOMES = ("refused", "passed over", "made again", "reported", "no effect")
# Written anew by the run; a mere memory; not read; the log after the checkpoint's step, which is written anew, too.
_MAY_BE_SILENT = ("last/", "config.yaml", "data/digests.json", "timing.jsonl", "metrics.jsonl")


@dataclass(frozen=True)
class Case:
    """One file damaged in one way; ``content`` None removes it."""

    path: Path  # in the run's folder
    what: str
    content: bytes | None
    translate: bool  # with the best model, instead of continuing the run


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this attack."""
    parser.add_argument("--seed", type=int, default=1, help="decides which bytes are damaged")
    parser.add_argument("--repeats", type=int, default=2, help="places in each region (default: 2, over 650 cases)")


def regions(path: Path) -> dict[str, range]:
    """The parts of a file that are read by different code, as ranges of bytes."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        third = size // 3
        return {"start": range(max(1, third)), "middle": range(third, 2 * third + 1), "end": range(size)[-9:]}
    content = path.read_bytes()
    data = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:data])
    texts = content.index(b'"}', content.index(b"__metadata__"))
    found = {"length": range(8), "texts": range(8, texts), "table": range(texts, data), "tail": range(size)[-8:]}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            found.setdefault(name.split("/")[0] if "/" in name else "tensors", range(data + start, data + end))
    return found


def damages(path: Path, other: Path | None, rng: random.Random, repeats: int) -> Iterator[tuple[str, bytes | None]]:
    """All ways to damage a file, with what it then holds."""
    whole = path.read_bytes()
    for region, places in regions(path).items():
        for _ in range(repeats):
            at = rng.choice(places)
            flipped, garbled = bytearray(whole), bytearray(whole)
            flipped[at] ^= 1 << rng.randrange(8)
            garbled[at : at + 16] = bytes(len(garbled[at : at + 16]))
            yield f"{region}: bit flipped at byte {at}", bytes(flipped)
            yield f"{region}: 16 bytes zeroed at byte {at}", bytes(garbled)
            yield f"{region}: cut at byte {at}", whole[:at]
    yield "emptied", b""
    yield "all zeroed", bytes(len(whole))
    yield "extended", whole + b"\0"
    yield "removed", None
    if other is not None:
        yield f"replaced by {other.name} of {other.parent.name}", other.read_bytes()


def cases(run: Path, rng: random.Random, repeats: int) -> Iterator[Case]:
    """All cases for a stopped run."""
    checkpoints = list_checkpoints(run)
    twins = {checkpoints[-1]: checkpoints[0]}  # the earlier ones are not read while it is whole
    for file in ("model.safetensors", "tokenizer.src.model", "tokenizer.tgt.model", "config.yaml"):
        twins[run / "best" / file] = run / "last" / file
        twins[run / "last" / file] = run / "best" / file
    twins[run / "best/tokenizer.src.model"] = run / "best/tokenizer.tgt.model"
    for path in sorted(run.glob("data/train-*/*")):
        (twins[path],) = run.glob(f"data/valid-*/{path.name}")
    for path in sorted(run.glob("sampled/*/*")):
        twins[path] = run / "sampled" / ("epoch-1" if path.parent.name == "epoch-0" else "epoch-0") / path.name
    alone = [run / "metrics.jsonl", run / "timing.jsonl", run / "config.yaml", run / "data/digests.json"]
    alone += sorted(path for path in run.glob("data/*/*") if path not in twins)
    for path, other in [*twins.items(), *((path, None) for path in alone)]:
        often = repeats if path.suffix == ".safetensors" else 1
        for what, content in damages(path, other, rng, often):
            if content != path.read_bytes():
                yield Case(path.relative_to(run), what, content, translate=False)
                swapped = what.startswith("replaced") and path.suffix == ".safetensors"  # by another whole model
                if path.parent == run / "best" and not swapped:
                    yield Case(path.relative_to(run), what, content, translate=True)


def attempt(case: Case, work: Callable[[Case], list[str]]) -> str:
    """Do ``work``, which gives what came out other than it should, and judge it."""
    shown = io.StringIO()
    name = case.path.name if case.path.parent == Path() else str(case.path.parent)
    try:
        with redirect_stderr(shown), redirect_stdout(shown):
            wrong = work(case)
    except UserError as error:
        return "refused" if name in str(error) else f"WRONG: message {error}"
    except Exception:
        return f"WRONG: {traceback.format_exc()}"
    named = [line for line in shown.getvalue().splitlines() if name in line and "million" not in line]
    of_the_log = bool(named) and wrong == ["metrics.jsonl"]
    of_the_search = case.translate and "edited" in shown.getvalue()
    if wrong and not of_the_log and not of_the_search:
        return f"WRONG: other {', '.join(wrong)}; reported: {named}"
    if not named:
        gone = case.content is None and case.path.parent.name == "checkpoints"  # as if it had never been
        silent = case.translate or gone or str(case.path).startswith(_MAY_BE_SILENT)
        return "no effect" if silent else "WRONG: nothing was said"
    if wrong or case.translate or case.path.name == "metrics.jsonl":
        return "reported"
    return "made again" if case.path.parts[0] in ("data", "sampled") else "passed over"


def run(args: argparse.Namespace) -> list[str]:
    """Make the run, damage it, and count how the cases end."""
    shutil.rmtree(args.out, ignore_errors=True)
    work, stopped, undisturbed = (args.out / name for name in ("run", "stopped", "undisturbed"))
    text = write_text(args.out / "text", _PAIRS)
    config = small_config(text, work, _SAMPLING)
    time.sleep(3.5)  # digests of files that have just changed are not remembered
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        train(config)
        work.rename(undisturbed)
        train(config, stop_after=_STOP)
        list_checkpoints(work)[-1].unlink()  # as if killed before it was written
        work.rename(stopped)
    lines = read_text(text / "test.en")
    expected = Translator.load(stopped, "cpu").translate(lines)

    def resume(case: Case) -> list[str]:
        train(config)
        if case.path.name == "metrics.jsonl":
            draw_curves(work)  # takes longer than the run
        return differences(work, undisturbed)

    def translate(_: Case) -> list[str]:
        translator = Translator.load(work, "cpu")
        print(*(f"edited: {change}" for change in translator.edited))
        return ["translations"] if translator.translate(lines) != expected else []

    counts: dict[str, Counter[str]] = {}
    failures = 0
    every = list(cases(stopped, random.Random(args.seed), args.repeats))
    for case in tqdm(every, desc="cases", unit=" cases"):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(stopped, work, ignore=shutil.ignore_patterns("tensorboard"))
        if case.content is None:
            (work / case.path).unlink()
        else:
            (work / case.path).write_bytes(case.content)
        outcome = attempt(case, translate if case.translate else resume)
        kind = ("translate: " if case.translate else "continue: ") + str(case.path).split("-")[0] + case.path.suffix
        counts.setdefault(kind, Counter())[outcome.split(":")[0]] += 1
        if outcome.startswith("WRONG"):
            failures += 1
            tqdm.write(f"{case.path}, {case.what}: {outcome}")
    counts["all"] = sum(counts.values(), Counter())
    ends = (*_OUTCOMES, "WRONG")
    print(table(["", *ends], [[kind, *(str(counter[end]) for end in ends)] for kind, counter in counts.items()]))
    print(f"{len(every)} cases")
    return [f"{failures} cases ended badly, see above"] * bool(failures)
