"""Translation of a file or standard input: one output line per input line, in order, with constant memory."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NoReturn

from tqdm import tqdm

from seq2seq import __version__
from seq2seq.config import DecodeConfig
from seq2seq.data.formats.lines import read_lines
from seq2seq.decode.output import OutputFile, Record, output_file
from seq2seq.decode.streams import Arrivals, incoming_lines, is_stream, outgoing
from seq2seq.decode.translator import Translation, Translator
from seq2seq.errors import DataError, UserError
from seq2seq.files import new_checksum

_REPORTS = 20  # problems printed one by one; the rest are only counted


@dataclass(frozen=True)
class FileOptions:
    """Options to read and write files; they do not depend on the model."""

    invalid_bytes: Literal["replace", "blank", "fail"] = "replace"  # how to treat a line that is not UTF-8
    resume: bool = False  # continue an interrupted translation; progress is saved, so this one can be continued, too


class _Problems:
    """Lines that could not be translated as requested; printed to standard error."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.count = 0
        self.lines_reported = 0  # the first lines: an earlier process printed their problems, and count includes them
        self.short_lists = 0  # lines of this process with fewer different translations than n_best

    def add(self, line: int, message: str) -> None:
        if line <= self.lines_reported:
            return
        self.count += 1
        if self.count <= _REPORTS:
            tqdm.write(f"{self.source}:{line}: {message}", file=sys.stderr)

    def summarise(self, n_best: int) -> None:
        if self.short_lists:
            what = f"{self.short_lists:,} lines have fewer than {n_best} different translations"
            print(f"{self.source}: {what}; raise decode.beam_size to find more", file=sys.stderr)
        if self.count > _REPORTS:
            print(f"{self.source}: {self.count - _REPORTS:,} more lines have such problems", file=sys.stderr)


class _InputLines:
    """The lines of the input, decoded for the model; counts them and computes their checksum."""

    def __init__(self, source: str, invalid_bytes: str) -> None:
        self.count = 0
        self.problems = _Problems("stdin" if source == "-" else source)
        self._raw = incoming_lines(source)
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
        return isinstance(self._raw, Arrivals) and self._raw.none_is_there()

    @property
    def checksum(self) -> str:
        return self._checksum.hexdigest()

    def begin_with(self, record: Record) -> bool:
        """Skip the lines that ``record`` counts; False if they differ from the recorded ones."""
        self.problems.lines_reported, self.problems.count = record.num_lines, record.num_problems
        for _ in islice(self, record.num_lines):
            pass
        return (self.count, self.checksum) == (record.num_lines, record.input)

    def end_here(self) -> bool:
        """Whether no line is left; reads one line and drops it."""
        return next(iter(self), None) is None

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"not valid UTF-8 (byte 0x{raw[error.start]:02x})"
        if self._invalid_bytes == "fail":
            advice = "convert the file to UTF-8, or use --invalid-bytes replace or blank"
            raise DataError(f"{self.problems.source}:{self.count}: {what}; {advice}")
        if self._invalid_bytes == "blank":
            self.problems.add(self.count, f"{what}; its translation is left blank")
            return ""
        self.problems.add(self.count, f"{what}; invalid bytes are read as U+FFFD")
        return raw.decode("utf-8", errors="replace")


def translate_file(
    translator: Translator, source: str, target: str, decode: DecodeConfig, options: FileOptions | None = None
) -> None:
    """Translate ``source`` to ``target``; "-" is standard input or output. A file appears only when it is complete.

    A target named ``*.gz`` is compressed; the same lines always give the same bytes. With ``decode.n_best`` above 1,
    each line gives up to n_best output lines: number, score and translation, separated by tabs. A link is followed.
    If the target is not a regular file, for example a pipe, each translation is written as soon as it is ready.

    Raises:
        DataError: the input cannot be read, or it is not UTF-8 and ``options.invalid_bytes`` is "fail".
        UserError: the output cannot be written, or the translation to resume is a different one.
    """
    options = options or FileOptions()
    pack: Callable[[bytes], bytes] = _gzipped if target.endswith(".gz") else bytes
    if is_stream(target):
        lines = _InputLines(source, options.invalid_bytes)
        with outgoing(target) as file, _bar(lines, source, hidden=target == "-" and not sys.stderr.isatty()) as bar:
            for text in _translated(translator, lines, decode, bar):
                file.write(pack(text))
                file.flush()  # a reader may be waiting for it
        lines.problems.summarise(decode.n_best)
        return
    run = {"version": __version__, **translator.identity()}
    run |= {f"decode.{name}": value for name, value in decode.model_dump(mode="json").items()}
    with output_file(Path(os.path.realpath(target))) as output:
        found = _begin(output, source, run, options)
        if found is None:
            print(f"{target}: this translation is already complete; nothing is left to do", file=sys.stderr)
            return
        lines = found
        with _bar(lines, source, hidden=False) as bar:
            for text in _translated(translator, lines, decode, bar):
                output.write(pack(text))
                if options.resume:
                    output.keep(run, lines.count, lines.problems.count, lines.checksum)
        if output.size == 0:
            output.write(pack(b""))
        output.finish()
    lines.problems.summarise(decode.n_best)


def _begin(output: OutputFile, source: str, run: Mapping[str, object], options: FileOptions) -> _InputLines | None:
    """The input, without the lines that are already translated; None if nothing is left to do."""
    lines = _InputLines(source, options.invalid_bytes)
    record = output.recall() if options.resume else None
    if record is not None:
        differences = [
            f"{name} was {record.run.get(name)}, now it is {run.get(name)}"
            for name in {**record.run, **run}
            if record.run.get(name) != run.get(name)
        ]
        fits = not differences and lines.begin_with(record)
        if fits and not output.complete:
            output.resume(record)
            return lines
        if fits and lines.end_here():
            output.discard()
            return None
        if not output.complete:
            what = "; ".join(differences) or f"the first {record.num_lines:,} lines of {source} have changed"
            advice = f"repeat the earlier command, or delete {output.partial} to start again"
            raise UserError(f"{output.target}: --resume cannot continue the interrupted translation: {what}; {advice}")
        lines = _InputLines(source, options.invalid_bytes)
    if output.clear():
        print(f"{output.target}: an unfinished translation was deleted; starting again", file=sys.stderr)
    return lines


def _bar(lines: _InputLines, source: str, hidden: bool) -> tqdm[NoReturn]:
    """A progress bar in lines. The lines of a file are counted first, for the time left; counting is fast."""
    known = source != "-" and os.path.isfile(source)
    total = sum(1 for _ in read_lines(Path(source))) if known and not hidden else None
    return tqdm(desc="translating", unit=" lines", total=total, initial=lines.count, disable=hidden, mininterval=0.5)


def _translated(
    translator: Translator, lines: _InputLines, decode: DecodeConfig, bar: tqdm[NoReturn]
) -> Iterator[bytes]:
    """The output for the remaining lines, window by window."""
    first = lines.count + 1
    done, none_is_there = lines.count, lines.none_is_there
    for window in translator.translate_windows(lines, decode, lines.problems.add, done, none_is_there):
        if not decode.sample:
            lines.problems.short_lists += sum(len(found) < decode.n_best and found[0].text != "" for found in window)
        numbered = enumerate(window, start=first)
        yield "".join(_format(number, found, decode.n_best) for number, found in numbered).encode()
        first += len(window)
        bar.update(len(window))


def _format(number: int, translations: list[Translation], n_best: int) -> str:
    if n_best == 1:
        return f"{translations[0].text}\n"
    return "".join(f"{number}\t{translation.score:.4f}\t{translation.text}\n" for translation in translations)


def _gzipped(text: bytes) -> bytes:
    return gzip.compress(text, compresslevel=6, mtime=0)
