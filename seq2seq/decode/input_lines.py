"""The lines of a text to translate, or of a part of it: decoded, counted, with their checksum and their problems."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

from tqdm import tqdm

from seq2seq.decode.output import Record
from seq2seq.decode.prompt import Prompt
from seq2seq.decode.streams import Arrivals, Texts, incoming_lines
from seq2seq.errors import DataError
from seq2seq.files import new_checksum

REPORTS = 20  # problems printed one by one; the rest are only counted

Source: TypeAlias = str | Texts | Prompt  # a path, "-" for standard input, or lines from elsewhere


class Span(NamedTuple):
    """Lines of a text: those after the first ``start``, up to number ``end``."""

    start: int = 0
    end: int | None = None  # None: to the end of the text


WHOLE = Span()


class InputLines:
    """The lines of the input, decoded for the model; line numbers are those of the whole text.

    A line that is not UTF-8 raises DataError if ``invalid_bytes`` is "fail"; see ``translate_file``.
    """

    def __init__(self, source: Source, invalid_bytes: str, span: Span = WHOLE, *, silent: bool = False) -> None:
        self.name = source.name if not isinstance(source, str) else "stdin" if source == "-" else source
        self.count = span.start
        self.num_problems = 0  # with those that an earlier process reported
        self.short_lists = 0  # lines of this process with fewer different translations than n_best
        self.num_earlier = span.start  # lines whose problems are not for this process to report
        self._raw = incoming_lines(source) if isinstance(source, str) else source
        if span != WHOLE:
            self._raw = islice(self._raw, *span)
        self._silent = silent
        self._invalid_bytes = invalid_bytes
        self._checksum = new_checksum()

    def __iter__(self) -> Iterator[str]:
        for raw in self._raw:
            self.count += 1
            line = self._decode(raw)
            self._checksum.update(line.encode() + b"\n")
            yield line

    def none_is_there(self) -> bool:
        """Whether a pipe or terminal has no next line yet."""
        return isinstance(self._raw, (Arrivals, Prompt)) and self._raw.none_is_there()

    @property
    def checksum(self) -> str:
        """Of the lines that were read."""
        return self._checksum.hexdigest()

    def begin_with(self, record: Record) -> bool:
        """Skip the lines that ``record`` counts; False if they differ from the recorded ones."""
        self.num_earlier, self.num_problems = record.num_lines, record.num_problems
        for _ in islice(self, max(0, record.num_lines - self.count)):
            pass
        return (self.count, self.checksum) == (record.num_lines, record.input)

    def report(self, line: int, problem: str) -> None:
        """Print why a line cannot be translated as requested, for the first few lines."""
        if line <= self.num_earlier or self._silent:
            return
        self.num_problems += 1
        if self.num_problems <= REPORTS:
            tqdm.write(f"{self.name}:{line}: {problem}", file=sys.stderr)

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"not valid UTF-8 (byte 0x{raw[error.start]:02x})"
        if self._invalid_bytes == "fail":
            advice = "convert the file to UTF-8, or use --invalid-bytes replace or blank"
            raise DataError(f"{self.name}:{self.count}: {what}; {advice}")
        if self._invalid_bytes == "blank":
            self.report(self.count, f"{what}; its translation is left blank")
            return ""
        self.report(self.count, f"{what}; invalid bytes are read as U+FFFD")
        return raw.decode("utf-8", errors="replace")
