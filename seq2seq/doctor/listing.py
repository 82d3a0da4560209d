"""A list of all lines and pairs with findings, as a TSV file that other programs can read.

The findings know only numbers of lines; the text is read once more while the list is written, so memory does not grow
with it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from seq2seq.data.formats.pairs import Text, files_of
from seq2seq.data.inspection import PartFacts, read_both
from seq2seq.doctor.cases import Cases
from seq2seq.doctor.report import Section, located, short_path
from seq2seq.errors import UserError
from seq2seq.files import written_whole

_COLUMNS = ("finding", "place", "other place", "source", "target")
# All that some program takes for the end of a line or of a column.
_SPACES = dict.fromkeys(map(ord, "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"), " ")


def check_target(path: Path, texts: Iterable[Text], config: Path) -> None:
    """Raise UserError if no list can be written to ``path``, or if it would replace a file that doctor reads."""
    problem = None
    if path.is_dir():
        problem = "is a folder; name a file in it"
    elif path.exists() and not path.is_file():
        problem = "is no regular file; name a new file"
    elif not path.absolute().parent.is_dir():
        problem = f"there is no folder {path.parent}; create it, or name a file in another folder"
    elif not os.access(path.absolute().parent, os.W_OK):
        problem = f"the folder {path.absolute().parent} cannot be written; name a file in another folder"
    elif path.exists():
        files = chain.from_iterable(files_of(text) for text in texts)
        used = chain([config], *(file.paths for file in files))
        if any(other.exists() and path.samefile(other) for other in used):
            problem = "would replace a file that is read here; name another file"
    if problem:
        raise UserError(f"--list {path}: {problem}")


def write_list(path: Path, parts: Mapping[str, PartFacts], sections: Sequence[Section]) -> str:
    """Write all cases of the sections' findings to ``path``; returns a line that says how many there are.

    Raises:
        UserError: the file cannot be written. It is then not changed.
    """
    verdicts = chain.from_iterable(section.verdicts for section in sections)
    found = [verdict.cases for verdict in verdicts if verdict.cases is not None and verdict.cases.name]
    found.sort(key=lambda cases: cases.name)
    # A link stays one: the file that it leads to is replaced.
    # File names need not be UTF-8.
    with (
        written_whole(path.resolve()) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        _write_row(file, _COLUMNS)
        for part in parts.values():
            for row in _rows(part, [cases for cases in found if cases.part is part]):
                _write_row(file, row)
    counts: Counter[str] = Counter()
    for cases in found:
        counts[cases.name] += len(cases)
    named = ", ".join(f"{count:,} {name}" for name, count in counts.most_common() if count)
    return f"{path}: {counts.total():,} rows{named and f': {named}'}"


def _rows(part: PartFacts, found: Sequence[Cases]) -> Iterator[tuple[str, ...]]:
    """The rows of a part by file, line, name of the finding, and side; ``found`` is sorted by name."""
    if not found:
        return
    kinds = np.repeat(np.arange(len(found)), [len(cases) for cases in found])
    numbers = np.concatenate([np.arange(len(cases)) for cases in found])
    files, lines, sides = (
        np.concatenate([getattr(cases, field) for cases in found]) for field in ("files", "lines", "sides")
    )
    order = np.lexsort((sides, kinds, lines, files))
    for file, (src, tgt) in enumerate(zip(part.src, part.tgt, strict=True)):
        here = order[files[order] == file]
        if not len(here):
            continue  # the file is not read
        names = [short_path(facts.path) for facts in (src, tgt)]
        for row, texts in zip(here.tolist(), read_both(src, tgt, lines[here]), strict=True):
            cases, i, line = found[kinds[row]], int(numbers[row]), int(lines[row])
            places = [
                facts.file.place(facts.side, int(facts.lines["number"][line]), name) if line < len(facts.lines) else ""
                for facts, name in zip((src, tgt), names, strict=True)
            ]
            place, other = reversed(places) if sides[row] == 1 else places
            if cases.earlier is not None:
                other = located(cases.repeated(i))
            # Both sides of a unit of a TMX file have one place.
            yield cases.name, place, other if other != place else "", *map(_readable, texts)


def _readable(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _write_row(file: TextIO, cells: Sequence[str]) -> None:
    file.write("\t".join(cell.translate(_SPACES) for cell in cells) + "\n")
