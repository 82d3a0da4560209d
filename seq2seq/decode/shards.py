"""Parts of a file that several machines translate, and the record of each: what :mod:`seq2seq.decode.merge` proves.

A part is a range of lines. It begins and ends between the windows that one process would translate together, so the
batches are those of one process: on the same kind of machine, with the same number of threads, translations and scores
are equal to the last bit. Line numbers and random numbers are those of the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from seq2seq.decode.input_lines import InputLines, Span
from seq2seq.decode.output import OutputFile
from seq2seq.decode.windows import windows_of
from seq2seq.errors import DataError, UserError
from seq2seq.files import CHECKSUM, sealed_json, write_bytes

_NAME = re.compile(r"\.shard-([0-9]+)-of-([0-9]+)")


@dataclass(frozen=True)
class Shard:
    """Which part of a file this is, and of which file."""

    number: int  # from 1
    count: int
    span: Span
    num_lines: int  # of the whole file
    source: str  # checksum of the whole file

    def file(self, target: str) -> str:
        """The file for the translation of this part, where ``target`` is that for the whole."""
        return name_of(target, self.number, self.count)

    def identity(self) -> dict[str, object]:
        """What this part is a part of."""
        return {"shard": f"{self.number}/{self.count}", "source": self.source}

    @staticmethod
    def record_path(target: Path) -> Path:
        """The record beside the translation of a part."""
        return target.with_name(f"{target.name}.json")


@dataclass(frozen=True)
class ShardRecord:
    """What is known of the translation of a part."""

    number: int
    count: int
    run: Mapping[str, object]  # everything that affects the output, except the source
    num_lines: int  # of the whole source
    source: str  # checksum of the whole source
    first: int  # its first line, counted from 1
    last: int
    input: str  # checksum of these lines
    rows: int | None  # lines of the output; None: several translations of a line
    size: int  # of the output, in bytes
    output: str  # checksum of these bytes


def name_of(target: str, number: int, count: int) -> str:
    """The name for part ``number`` of ``count``."""
    return f"{target}.shard-{number}-of-{count}"


def shard_files(target: Path) -> Iterator[tuple[int, int, Path]]:
    """Number, count and path of the parts beside ``target``, and of those of which only the record is there."""
    found = {}
    for path in sorted(target.parent.iterdir()) if target.parent.is_dir() else ():
        if path.name.startswith(target.name):
            match = _NAME.fullmatch(path.name[len(target.name) :].removesuffix(".json"))
            if match:
                number, count = map(int, match.groups())
                found[count, number] = path.with_name(name_of(target.name, number, count))
    for (count, number), path in sorted(found.items()):
        yield number, count, path


def parse_shard(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """Number and count from ``3/8``; from ``auto`` or ``auto/8``, the number that a scheduler gave this process.

    ``auto/8`` takes the number of a Slurm array (numbered from 1) or of a Kubernetes job (which counts from 0). A part
    of an array may be started again, so the size of the array says nothing; ``auto`` alone is for a whole Slurm array.

    Raises:
        UserError: it is something else, or there is no such number.
    """
    forms = "--shard: give 3/8 (part 3 of 8), auto/8 or auto"
    match = re.fullmatch(r"(auto|[0-9]+)(?:/([0-9]+))?", text)
    if match is None or (match[1] != "auto" and match[2] is None):
        raise UserError(f"{forms}, not {text!r}")
    number, count, place = match[1], match[2], "--shard"
    if number == "auto":
        number, count, place = _scheduled(count, environment)
    if not 1 <= int(number) <= int(count):
        advice = "; number the array from 1: --array=1-" + count if place.startswith("SLURM") else ""
        raise UserError(f"{place}: part {number} of {count} does not exist; parts are 1 to {count}{advice}")
    return int(number), int(count)


def _scheduled(count: str | None, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Number, count and the variable that has the number."""
    slurm, kubernetes = "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"
    found = [name for name in (slurm, kubernetes) if environment.get(name)]
    if len(found) != 1:
        what = f"both {slurm} and {kubernetes} are set" if found else f"neither {slurm} nor {kubernetes} is set"
        raise UserError(f"--shard auto: {what}; give the part itself, for example 3/8")
    (name,) = found
    values = {key: environment.get(key, "") for key in (name, *(f"SLURM_ARRAY_TASK_{of}" for of in ("MIN", "COUNT")))}
    if count is not None:
        wrong = [name] if not values[name].isdecimal() else []
    elif name == kubernetes:
        raise UserError(f"--shard auto: {kubernetes} does not say how many parts there are; give auto/N")
    else:
        wrong = [key for key, value in values.items() if not value.isdecimal()]
    if wrong:
        problem = f"is {values[wrong[0]]!r}, not a number" if wrong[0] in environment else "is not set"
        raise UserError(f"--shard auto: {wrong[0]} {problem}; give the part itself")
    if name == kubernetes:
        return str(int(values[name]) + 1), str(count), name
    if count is None:
        count, least = values["SLURM_ARRAY_TASK_COUNT"], int(values["SLURM_ARRAY_TASK_MIN"])
        highest = environment.get("SLURM_ARRAY_TASK_MAX", str(least + int(count) - 1))
        if highest != str(least + int(count) - 1):
            raise UserError("--shard auto: the array has gaps; give auto/N and number the array from 1 to N")
        return str(int(values[name]) - least + 1), count, name
    return values[name], count, name


def shard_of(source: str, invalid_bytes: str, number: int, count: int) -> Shard:
    """Part ``number`` of ``count`` of a file; see :func:`shards_of`."""
    return shards_of(source, invalid_bytes, count)[number - 1]


def shards_of(source: str, invalid_bytes: str, count: int) -> list[Shard]:
    """All ``count`` parts of a file, which is read once to find them.

    Raises DataError if the file cannot be read.
    """
    lines, ends = InputLines(source, invalid_bytes, silent=True), [0]
    with tqdm(desc="counting", unit=" lines", mininterval=0.5, leave=False) as bar:
        for window in windows_of(lines):
            ends.append(ends[-1] + len(window))
            bar.update(len(window))
    cuts = [ends[(len(ends) - 1) * number // count] for number in range(count + 1)]
    return [
        Shard(number, count, Span(*span), lines.count, lines.checksum)
        for number, span in enumerate(pairwise(cuts), start=1)
    ]


def write_record(shard: Shard, run: Mapping[str, object], lines: InputLines, output: OutputFile) -> None:
    """Write the record of a complete part.

    Raises DataError if the source has become shorter meanwhile.
    """
    start, end = shard.span
    if lines.count != end:
        raise DataError(f"{lines.name}: has changed while it was translated: line {lines.count + 1:,} is gone")
    rows = lines.count - start if run["decode.n_best"] == 1 else None
    record = ShardRecord(
        shard.number,
        shard.count,
        run,
        shard.num_lines,
        shard.source,
        start + 1,
        lines.count,
        lines.checksum,
        rows,
        output.size,
        output.checksum,
    )
    write_bytes(shard.record_path(output.target), sealed_json(asdict(record)) + b"\n")


def read_record(path: Path) -> ShardRecord:
    """The record of a part whose translation is ``path``; raises UserError if there is none, or it is damaged."""
    place = Shard.record_path(path)
    try:
        data = place.read_bytes()
        tree = json.loads(data)
        if not isinstance(tree, dict) or sealed_json(tree) + b"\n" != data:
            raise ValueError
        del tree[CHECKSUM]
        return ShardRecord(**tree)
    except FileNotFoundError:
        raise UserError(f"{place}: is missing; copy it here, or translate this part again") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{place}: damaged, or not a record of a part; translate this part again") from None
