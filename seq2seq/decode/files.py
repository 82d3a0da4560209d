"""Translation of a file or standard input: one output line per input line, in order, with constant memory."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn, TypeAlias

from tqdm import tqdm

from seq2seq import __version__
from seq2seq.config import DecodeConfig
from seq2seq.data.formats.lines import decode_line, read_lines
from seq2seq.decode.calibration import Calibration
from seq2seq.decode.confidence import features
from seq2seq.decode.flags import Flag, find_flags
from seq2seq.decode.input_lines import REPORTS, WHOLE, InputLines, Source, Span
from seq2seq.decode.output import OutputFile
from seq2seq.decode.review import Review
from seq2seq.decode.shards import shard_of, write_record
from seq2seq.decode.streams import is_stream, outgoing
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.decode.wanted import Prefixes, Wanted
from seq2seq.decode.windows import WINDOW_LINES
from seq2seq.errors import UserError
from seq2seq.files import read_checksum
from seq2seq.languages import writing_of

_TO_SPACES = str.maketrans("\t\r\n", "   ")  # what would end a cell or a row

Languages: TypeAlias = tuple[str | None, str | None]  # the codes of source and target
Format: TypeAlias = Literal["text", "tsv"]  # tsv: source, translation, score, and the columns of Extras


@dataclass(frozen=True)
class Extras:
    """What there is beside the translations: columns of a TSV file, and a list of lines to look at."""

    scores: bool = False  # columns: the features of seq2seq.decode.confidence
    flags: bool = False  # the last column: flags with commas between them
    review: int = 0  # how many lines to print at the end
    calibration: Calibration | None = None  # a column before the flags, and the order of the review

    def identity(self, languages: Languages) -> dict[str, object]:
        """What decides about the columns; nothing if there are none."""
        columns = [name for name in ("scores", "flags") if getattr(self, name)]
        identity: dict[str, object] = {"columns": columns} if columns else {}
        if self.flags:
            identity["languages"] = list(languages)
            identity["confidence"] = None if self.calibration is None else self.calibration.fingerprint
        return identity


class Beside(NamedTuple):
    """Files that are given beside the text to translate."""

    prefix: Path | None = None  # how the translation of each line begins
    glossary: Path | None = None


_NOTHING = Beside()


def translate_file(
    translator: Translator,
    source: Source,
    target: str,
    decode: DecodeConfig,
    invalid_bytes: Literal["replace", "blank", "fail"] = "replace",
    resume: bool = False,
    form: Format = "text",
    extras: Extras = Extras(),
    beside: Beside = _NOTHING,
    shard: tuple[int, int] | None = None,
) -> None:
    """Translate ``source`` to ``target``; "-" is standard input or output. A file appears only when it is complete.

    A target named ``*.gz`` is compressed; the same lines always give the same bytes. A link is followed. If the target
    is not a regular file, for example a pipe, each translation is written as soon as it is ready.

    With ``decode.n_best`` above 1, each line gives up to n_best output lines: number, score and translation, separated
    by tabs; as TSV, a row for each translation.

    Args:
        invalid_bytes: how to treat a line that is not UTF-8.
        resume: continue an interrupted translation; progress is saved, so this one can be continued, too.
        form: what a line of the output has. A TSV file is a dataset: ``{tsv: FILE, src: 0, tgt: 1, score: 2}``. Tabs
            and line breaks in its texts become spaces.
        extras: more columns of a TSV file, and lines to print on standard error at the end.
        beside: what the translations must have.
        shard: number and count; translate only this part of a file, to a file beside ``target`` with a record. See
            :mod:`seq2seq.decode.shards`.

    Raises:
        DataError: the input cannot be read, or it is not UTF-8 and ``invalid_bytes`` is "fail".
        UserError: the output cannot be written, or the translation to resume is a different one.
    """
    pack = partial(gzip.compress, compresslevel=6, mtime=0) if target.endswith(".gz") else bytes
    languages = translator.config.data.source_language, translator.config.data.target_language
    rows = _Rows(decode.n_best, form, extras, languages)
    if is_stream(target):
        lines = InputLines(source, invalid_bytes)
        wanted = _wanted(translator, decode, beside, source, 0)
        # A bar among the translations in a terminal would be noise, and one in a log as well.
        hidden = target == "-" and (sys.stdout.isatty() or not sys.stderr.isatty())
        with outgoing(target) as file, _bar(lines, source, hidden) as bar:
            for text in _translated(translator, lines, decode, rows, bar, wanted):
                file.write(pack(text))
                file.flush()  # a reader may be waiting for it
        _summarise(lines, decode, wanted)
        rows.show_review(lines)
        return
    run = {"version": __version__, **translator.identity(), "format": form, **extras.identity(languages)}
    run |= _identity(translator, beside)
    run |= {f"decode.{name}": value for name, value in decode.model_dump(mode="json").items()}
    part = None
    if shard is not None:
        assert isinstance(source, str)
        part = shard_of(source, invalid_bytes, *shard)
        target = str(part.file(target))
        if part.span.start == part.span.end:
            cuts = f"parts begin and end between windows of {WINDOW_LINES:,} lines"
            print(f"{target}: this part has no lines ({cuts}); fewer parts are enough", file=sys.stderr)
    span = part.span if part is not None else WHOLE
    with OutputFile(Path(os.path.realpath(target))) as output:
        kept = run if part is None else {**run, **part.identity()}
        found = _resumed(output, InputLines(source, invalid_bytes, span), kept) if resume else None
        if output.complete and found is not None:
            output.discard()
            if part is not None:
                write_record(part, run, found, output)
            print(f"{target}: this translation is already complete; nothing is left to do", file=sys.stderr)
            return
        if found is None and output.clear():
            print(f"{output.target}: an unfinished translation was deleted; starting again", file=sys.stderr)
        if part is not None:
            part.record_path(output.target).unlink(missing_ok=True)  # of an earlier output
        lines = found or InputLines(source, invalid_bytes, span)
        wanted = _wanted(translator, decode, beside, source, lines.count, span.end)
        with _bar(lines, source, hidden=False, span=span) as bar:
            for text in _translated(translator, lines, decode, rows, bar, wanted):
                output.write(pack(text))
                if resume:
                    output.keep(kept, lines.count, lines.num_problems, lines.checksum)
        if output.size == 0 and part is None:  # an empty part adds nothing to the whole
            output.write(pack(b""))
        output.finish()
        if part is not None:
            write_record(part, run, lines, output)
    _summarise(lines, decode, wanted)
    rows.show_review(lines)


def _summarise(lines: InputLines, decode: DecodeConfig, wanted: Wanted) -> None:
    """Print how many lines had problems that were not printed, and how many have what was wanted."""
    earlier = f" (without the first {lines.num_earlier:,} lines)" if lines.num_earlier else ""
    for sentence in wanted.summary():
        print(f"{lines.name}: {sentence}{earlier}", file=sys.stderr)
    if lines.short_lists:
        what = f"{lines.short_lists:,} lines have fewer than {decode.n_best} different translations"
        more = "num_samples" if decode.sample else "beam_size"
        print(f"{lines.name}: {what}; raise decode.{more} to find more", file=sys.stderr)
    if lines.num_problems > REPORTS:
        print(f"{lines.name}: {lines.num_problems - REPORTS:,} more lines have such problems", file=sys.stderr)


def _resumed(output: OutputFile, lines: InputLines, run: Mapping[str, object]) -> InputLines | None:
    """The input after the lines that are already translated; None if there is nothing to continue."""
    record = output.recall()
    if record is None:
        return None
    differences = [
        f"{name} was {record.run.get(name)}, now it is {run.get(name)}"
        for name in {**record.run, **run}
        if record.run.get(name) != run.get(name)
    ]
    fits = not differences and lines.begin_with(record)
    if output.complete:
        return lines if fits and next(iter(lines), None) is None else None
    if not fits:
        what = "; ".join(differences) or f"the first {record.num_lines:,} lines of {lines.name} have changed"
        advice = f"repeat the earlier command, or delete {output.partial} to start again"
        raise UserError(f"{output.target}: --resume cannot continue the interrupted translation: {what}; {advice}")
    output.resume(record)
    return lines


def _identity(translator: Translator, beside: Beside) -> dict[str, str]:
    """What identifies the files beside the text."""
    identity = {}
    if beside.prefix is not None and beside.prefix.is_file():
        with beside.prefix.open("rb") as file:
            identity["prefix"] = read_checksum(file, beside.prefix.stat().st_size).hexdigest()
    if beside.glossary is not None:
        identity["glossary"] = translator.read_glossary(beside.glossary).fingerprint
    return identity


def _wanted(
    translator: Translator, decode: DecodeConfig, beside: Beside, source: Source, done: int, end: int | None = None
) -> Wanted:
    """What the lines after the first ``done``, up to number ``end``, want.

    Raises UserError if prefixes and lines are not the same number.
    """
    glossary = translator.read_glossary(beside.glossary) if beside.glossary is not None else None
    path, prefixes = beside.prefix, None
    if path is not None:
        if path.is_file() and isinstance(source, str) and os.path.isfile(source):
            numbers = [sum(1 for _ in read_lines(Path(each), gzip_only=True)) for each in (path, source)]
            if numbers[0] != numbers[1]:
                raise UserError(
                    f"{path}: has {numbers[0]:,} lines, but {source} has {numbers[1]:,}; it needs a line for each"
                )
        raw = islice(enumerate(read_lines(path, gzip_only=True), start=1), done, end)
        prefixes = Prefixes((decode_line(line, path, number) for number, line in raw), str(path), done)
    return translator.wanted(decode, prefixes, glossary)


def _bar(lines: InputLines, source: Source, hidden: bool, span: Span = WHOLE) -> tqdm[NoReturn]:
    """A progress bar in lines. The lines of a file are counted first, for the time left; counting is fast."""
    total = None if span.end is None else span.end - span.start
    if total is None and not hidden and isinstance(source, str) and source != "-" and os.path.isfile(source):
        total = sum(1 for _ in read_lines(Path(source), gzip_only=True))
    done = lines.count - span.start
    return tqdm(desc="translating", unit=" lines", total=total, initial=done, disable=hidden, mininterval=0.5)


def _translated(
    translator: Translator,
    lines: InputLines,
    decode: DecodeConfig,
    rows: _Rows,
    bar: tqdm[NoReturn],
    wanted: Wanted,
) -> Iterator[bytes]:
    """The output for the remaining lines, window by window."""
    first = lines.count + 1  # of the window
    sources: list[str] = []  # of the window

    def noted() -> Iterator[str]:
        for line in lines:
            sources.append(line)
            yield line

    def on_lines(count: int) -> None:
        bar.update(count)

    windows = translator.translate_windows(
        noted(), decode, lines.report, lines.count, lines.none_is_there, wanted, rows.extras.scores, on_lines
    )
    for window in windows:
        texts = []
        for number, (source, found) in enumerate(zip(sources, window, strict=True), start=first):
            texts += rows.of_line(number, source, found)
            if len(found) < decode.n_best and decode.only_different and found[0].text:
                lines.short_lists += 1
        yield "".join(texts).encode()
        sources.clear()
        first += len(window)


class _Rows:
    """What is written of a line."""

    def __init__(self, n_best: int, form: Format, extras: Extras, languages: Languages) -> None:
        self.extras = extras
        self._n_best, self._form, self._languages = n_best, form, languages
        self._review = Review(extras.review)
        if (extras.flags or extras.review) and writing_of(languages[1]) is None:
            known = f"the script of its target language ({languages[1]})" if languages[1] else "its target language"
            print(f"the model does not say {known}; no line is flagged for its script", file=sys.stderr)

    def of_line(self, number: int, source: str, found: Sequence[Translation]) -> list[str]:
        """The rows for the translations of a line."""
        flags: list[tuple[Flag, ...]] = [()] * len(found)
        if self.extras.flags or self.extras.review:
            flags = [find_flags(source, one.text, self._languages, cut=one.cut) for one in found]
        confidence = None
        if self.extras.calibration and source.strip():
            confidence = self.extras.calibration.probability(found[0])
        if self.extras.review:
            self._review.add(number, source, found[0], flags[0], confidence)
        if self._form == "tsv":
            sure = [confidence, *[None] * (len(found) - 1)]  # it is calibrated for best translations alone
            return [self._cells(source, *row) for row in zip(found, flags, sure, strict=True)]
        if self._n_best == 1:
            return [f"{found[0].text}\n"]
        return [f"{number}\t{translation.score:.4f}\t{translation.text}\n" for translation in found]

    def _cells(self, source: str, translation: Translation, flags: Sequence[Flag], confidence: float | None) -> str:
        cells = [cell(source), cell(translation.text), f"{translation.score:.4f}"]
        if self.extras.scores:
            found = features(source, translation)
            cells += [f"{number:.4f}" for number in (found.per_token, found.lowest, found.length_ratio)]
        if self.extras.flags:
            if self.extras.calibration:
                cells.append("" if confidence is None else f"{confidence:.2f}")
            cells.append(",".join(flags))
        return "\t".join(cells) + "\n"

    def show_review(self, lines: InputLines) -> None:
        """Print the lines to look at first."""
        if self.extras.review and lines.num_earlier:
            earlier = f"lines 1 to {lines.num_earlier:,}, which an earlier process translated, are not in this list"
            print(f"{lines.name}: {earlier}", file=sys.stderr)
        for text in self._review.lines(lines.name):
            print(text, file=sys.stderr)


def cell(text: str) -> str:
    """A text as a cell of a TSV file."""
    return text.translate(_TO_SPACES)
