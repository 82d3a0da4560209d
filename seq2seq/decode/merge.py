"""The translations of all parts of a file as one file, after a proof that nothing is missing, doubled or foreign."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

from tqdm import tqdm

from seq2seq.data.formats.lines import read_lines
from seq2seq.decode.shards import ShardRecord, name_of, read_record, shard_files
from seq2seq.errors import UserError
from seq2seq.files import new_checksum, unreadable, written_whole

_BLOCK = 1 << 20


def merge(target: Path) -> str:
    """Write ``target`` from the parts beside it; returns a sentence about it. Memory does not grow with the size.

    Everything is proved first or while it is copied; ``target`` appears only if all holds: each part is there once, all
    are of the same run and the same source, their line ranges follow one another from the first line to the last, and
    each file has the bytes and the number of lines that its record states.

    Raises:
        UserError: a part is missing, doubled, incomplete or of another run.
    """
    paths = _parts(target)
    records = [read_record(path) for path in paths]
    _compare(paths, records)
    whole = sum(record.size for record in records)
    for path, record in zip(paths, records, strict=True):
        _check_size(path, record)
    bar: tqdm[NoReturn] = tqdm(desc="merging", unit="B", unit_scale=True, total=whole, mininterval=0.5)
    with bar, written_whole(target) as temporary, temporary.open("wb") as output:
        for path, record in zip(paths, records, strict=True):
            _check_rows(path, record)
            _append(path, record, output, bar)
        if whole == 0 and target.name.endswith(".gz"):
            output.write(gzip.compress(b"", compresslevel=6, mtime=0))
    return f"{target}: {records[0].num_lines:,} lines from {len(records)} parts"


def _parts(target: Path) -> list[Path]:
    """The files of all parts, in order; raises UserError if one is missing."""
    found = list(shard_files(target))
    if not found:
        raise UserError(f"{target}: there is no {name_of(target.name, 1, 8)} or the like beside it; nothing to merge")
    counts = Counter(count for _, count, _ in found)
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        path = next(path for _, count, path in found if count != usual)
        raise UserError(
            f"{path}: there are also parts of {usual}, which have the same lines; remove one of both divisions"
        )
    (count,) = counts
    paths = {number: path for number, _, path in found}
    for number in range(1, count + 1):
        path = target.with_name(name_of(target.name, number, count))
        if not path.is_file():
            raise UserError(f"{path}: is missing; translate part {number} of {count} (--shard {number}/{count})")
    if len(paths) > count:
        raise UserError(f"{paths[max(paths)]}: there are only {count} parts; remove it")
    return [paths[number] for number in range(1, count + 1)]


def _compare(paths: Sequence[Path], records: Sequence[ShardRecord]) -> None:
    """Raise UserError if a part is not what its name says, not of the run of the others, or lines lack between them."""
    kinds = Counter(_origin(record) for record in records)
    usual = next(record for record in records if _origin(record) == kinds.most_common(1)[0][0])
    line = 0
    for number, (path, record) in enumerate(zip(paths, records, strict=True), start=1):
        if (record.number, record.count) != (number, len(paths)):
            is_ = f"part {record.number} of {record.count}"
            raise UserError(
                f"{path}: is {is_} under another name; translate this part again (--shard {number}/{len(paths)})"
            )
        if differences := list(_differences(record, usual)):
            raise UserError(f"{path}: is of another run: {'; '.join(differences)}; translate this part again")
        if record.first != line + 1:
            raise UserError(f"{path}: begins with line {record.first:,}, but line {line + 1:,} is next")
        line = record.last
    if line != usual.num_lines:
        raise UserError(f"{paths[-1]}: ends with line {line:,}, but the source has {usual.num_lines:,} lines")


def _origin(record: ShardRecord) -> tuple[object, ...]:
    return record.source, record.num_lines, *sorted((name, str(value)) for name, value in record.run.items())


def _differences(record: ShardRecord, usual: ShardRecord) -> list[str]:
    found = [
        f"{name} is {record.run.get(name)}, in the others it is {usual.run.get(name)}"
        for name in {**usual.run, **record.run}
        if record.run.get(name) != usual.run.get(name)
    ]
    if (record.source, record.num_lines) != (usual.source, usual.num_lines):
        found.append(f"its source has other text ({record.num_lines:,} lines, in the others {usual.num_lines:,})")
    return found


def _check_size(path: Path, record: ShardRecord) -> None:
    size = path.stat().st_size
    if size != record.size:
        what = "is truncated" if size < record.size else "is too long"
        raise UserError(f"{path}: {what}: {size:,} bytes, not {record.size:,}; copy it again, or translate it again")


def _check_rows(path: Path, record: ShardRecord) -> None:
    """Raise UserError if a part does not have a line for each line of its source."""
    if record.rows is not None and record.size:
        rows = sum(1 for _ in read_lines(path, gzip_only=True))
        if rows != record.rows or rows != record.last - record.first + 1:
            raise UserError(f"{path}: has {rows:,} lines for {record.last - record.first + 1:,} lines of its source")


def _append(path: Path, record: ShardRecord, output: BinaryIO, bar: tqdm[NoReturn]) -> None:
    """Copy a part; raise UserError if its bytes are not those that were written."""
    found = new_checksum()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
                output.write(block)
                bar.update(len(block))
    except OSError as error:
        raise unreadable(path, error) from None
    if found.hexdigest() != record.output:
        raise UserError(f"{path}: damaged: its checksum differs from that of its record; copy or translate it again")
