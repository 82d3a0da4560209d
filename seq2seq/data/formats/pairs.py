"""Sentence pairs of datasets of any kind: which reader reads a file, and the place of every pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

from seq2seq.config import (
    CsvFiles,
    JsonlFiles,
    MosesFiles,
    ParallelText,
    ParquetFiles,
    TextFiles,
    TmxFiles,
    TsvFiles,
    XlsxFiles,
    paths_of,
)
from seq2seq.data.formats.jsonl import read_jsonl
from seq2seq.data.formats.lines import decode_line, read_lines
from seq2seq.data.formats.moses import read_moses
from seq2seq.data.formats.parquet import read_parquet
from seq2seq.data.formats.spreadsheet import read_xlsx
from seq2seq.data.formats.tables import read_csv, read_tsv
from seq2seq.data.formats.tmx import read_tmx
from seq2seq.data.formats.units import Unit
from seq2seq.errors import DataError
from seq2seq.files import checksum, checksum_file, new_checksum

Text = ParallelText | Iterable[ParallelText]  # one dataset, or several, one after the other
# Function from a file, what is computed from it, and how, to the result; it may remember results.
Recall = Callable[[Path, str, Callable[[], str]], str]


_NOT_READ = {*ParallelText.model_fields, "score", "min_score"}  # keys that do not change the text of a file


class SentencePair(NamedTuple):
    """A source sentence, its translation, their number over all files of all datasets, and that of their dataset."""

    src: str
    tgt: str
    line: int  # from 0
    part: int = 0  # from 0


@dataclass(frozen=True)
class PairFile:
    """A file of sentence pairs, or a source file with its target file."""

    dataset: ParallelText
    paths: tuple[Path, Path]  # of source and target; the same one unless they are plain files
    part: int = 0  # the number of the dataset, from 0

    def units(self) -> Iterator[Unit]:
        """All pairs in order, with their numbers as the file's users count them; raises DataError for a mistake."""
        path = self.paths[0]
        match self.dataset:
            case TsvFiles(src=src, tgt=tgt, score=score):
                return read_tsv(path, src=src, tgt=tgt, score=score)
            case CsvFiles(src=src, tgt=tgt, score=score, delimiter=delimiter):
                return read_csv(path, src=src, tgt=tgt, score=score, delimiter=delimiter)
            case XlsxFiles(src=src, tgt=tgt, score=score, sheet=sheet):
                return read_xlsx(path, src=src, tgt=tgt, score=score, sheet=sheet)
            case JsonlFiles(src=src, tgt=tgt, score=score):
                return read_jsonl(path, src=src, tgt=tgt, score=score)
            case ParquetFiles(src=src, tgt=tgt, score=score):
                return read_parquet(path, src=src, tgt=tgt, score=score)
            case TmxFiles(src_lang=src, tgt_lang=tgt, mend=mend):
                return read_tmx(path, src_lang=src, tgt_lang=tgt, mend=mend)
            case MosesFiles(src_lang=src, tgt_lang=tgt):
                return read_moses(path, src_lang=src, tgt_lang=tgt)
        return _read_plain(*self.paths)

    def lines(self, side: Literal[0, 1]) -> Iterator[tuple[int, bytes]]:
        """The text of one side, each line with its number; that of plain files may be invalid UTF-8."""
        if isinstance(self.dataset, TextFiles):
            yield from enumerate(read_lines(self.paths[side], plain=True), start=1)
            return
        for unit in self.units():
            yield unit.number, unit[side].encode()

    def place(self, side: Literal[0, 1], number: int, name: str | None = None) -> str:
        """Where a pair is, for people: ``train.en:17``, ``memory.tmx: unit 17``; ``name``: what to call the file."""
        counted = {TmxFiles: ": unit ", XlsxFiles: ": row ", ParquetFiles: ": row "}.get(type(self.dataset), ":")
        return f"{name or self.paths[side]}{counted}{number}"

    def checksums(self, recall: Recall) -> tuple[str, str]:
        """Of both sides: of the bytes of plain files; for others of the bytes that plain files with this text have."""
        if isinstance(self.dataset, TextFiles):
            src, tgt = (recall(path, "", partial(checksum_file, path)) for path in self.paths)
        else:
            src, tgt = recall(self.paths[0], self._how(), self._checksums_of_text).split()
        return src, tgt

    def count(self, recall: Recall) -> int:
        """How many pairs it has."""
        return int(recall(self.paths[0], f"pairs {self._how()}", lambda: str(sum(1 for _ in self.units()))))

    def _how(self) -> str:
        """What the text depends on except the files."""
        return self.dataset.model_dump_json(exclude=_NOT_READ)

    def _checksums_of_text(self) -> str:
        src, tgt = new_checksum(), new_checksum()
        for unit in self.units():
            src.update(unit.src.encode() + b"\n")
            tgt.update(unit.tgt.encode() + b"\n")
        return f"{src.hexdigest()} {tgt.hexdigest()}"


def files_of(text: Text) -> list[PairFile]:
    """All files in order; raises DataError if patterns give different numbers of source and target files."""
    files = []
    for part, dataset in enumerate([text] if isinstance(text, ParallelText) else text):
        paths = list(paths_of(dataset).values())
        src, tgt = paths[0], paths[-1]
        if len(src) != len(tgt):
            raise DataError(
                f"{src[0]}, ...: the patterns match {len(src)} source files but {len(tgt)} target files; "
                "line n of both must be a pair, so name the same files on both sides"
            )
        files += [PairFile(dataset, pair, part) for pair in zip(src, tgt, strict=True)]
    return files


def read_pairs(text: Text) -> Iterator[SentencePair]:
    """Yield all pairs in order; raises DataError if a source and its target file have different line counts."""
    line = -1
    for file in files_of(text):
        for unit in file.units():
            line += 1
            yield SentencePair(unit.src, unit.tgt, line, file.part)


def places_of(lines: Sequence[int], text: Text) -> list[tuple[str, str]]:
    """The places of source and target of pairs, whose numbers count from 0 over all files of all datasets."""
    wanted, found, first = set(lines), {}, 0
    for file in files_of(text):
        count = 0
        for count, unit in enumerate(file.units(), start=1):
            if first + count - 1 in wanted:
                found[first + count - 1] = (file.place(0, unit.number), file.place(1, unit.number))
        first += count
    return [found.get(line, (f"pair {line + 1}",) * 2) for line in lines]  # else the text was cut meanwhile


def count_pairs(datasets: Sequence[ParallelText], recall: Recall = lambda path, how, compute: compute()) -> list[int]:
    """How many pairs each dataset has."""
    counts = [0] * len(datasets)
    for file in files_of(datasets):
        counts[file.part] += file.count(recall)
    return counts


def fingerprint_text(text: Text, recall: Recall = lambda path, how, compute: compute()) -> str:
    """Hex fingerprint (16 bytes) of text, sides and order; names and formats of files do not count."""
    sides = zip(*(file.checksums(recall) for file in files_of(text)), strict=True)
    return checksum("".join(map("".join, sides)).encode())  # of equal length, so no separator is needed


def _read_plain(src_path: Path, tgt_path: Path) -> Iterator[Unit]:
    number = 0
    lines = zip_longest(read_lines(src_path, plain=True), read_lines(tgt_path, plain=True))
    for number, (src, tgt) in enumerate(lines, start=1):
        if src is None or tgt is None:  # one file has ended; count the rest of the other
            counts = [number - 1, number + sum(1 for _ in lines)]
            num_src, num_tgt = counts if src is None else reversed(counts)
            raise DataError(
                f"{src_path} has {num_src} lines but {tgt_path} has {num_tgt}; "
                "line n of both must be a pair; seq2seq doctor shows where they drift apart"
            )
        yield Unit(decode_line(src, src_path, number), decode_line(tgt, tgt_path, number), number)
