"""Translating a file or standard input: one output line for each input line, in order, in flat memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from seq2seq.config import DecodeConfig
from seq2seq.data.bitext import read_lines, read_stream
from seq2seq.decode.translator import Translation, Translator
from seq2seq.storage import written_whole

_REPORTS = 20  # problems told one by one; of the others only the number


class _Problems:
    """Lines that could not be translated as asked, told on standard error."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.count = 0

    def add(self, line: int, message: str) -> None:
        self.count += 1
        if self.count <= _REPORTS:
            tqdm.write(f"{self.source}:{line}: {message}", file=sys.stderr)

    def summarise(self) -> None:
        if self.count > _REPORTS:
            print(f"{self.source}: {self.count - _REPORTS:,} more lines with such remarks", file=sys.stderr)


def _decode_lines(lines: Iterator[bytes], on_problem: Callable[[int, str], None]) -> Iterator[str]:
    for number, raw in enumerate(lines, start=1):
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            on_problem(number, f"not valid UTF-8 (byte 0x{raw[error.start]:02x}); read with U+FFFD in its place")
            yield raw.decode("utf-8", errors="replace")


@contextmanager
def _opened_whole(path: Path) -> Iterator[BinaryIO]:
    with written_whole(path) as temporary, temporary.open("wb") as file:
        yield file


def translate_file(translator: Translator, source: str, target: str, decode: DecodeConfig) -> None:
    """Translate ``source`` to ``target``; "-" is standard input or output. A file appears only when it is complete.

    With ``decode.n_best`` above 1 each line gives several, as number, score and translation between tabs.

    Raises:
        DataError: the input cannot be read.
        UserError: the output cannot be written.
    """
    problems = _Problems("stdin" if source == "-" else source)
    raw = read_stream(sys.stdin.buffer, "stdin") if source == "-" else read_lines(Path(source))
    lines = _decode_lines(raw, problems.add)
    opened: AbstractContextManager[BinaryIO] = (
        nullcontext(sys.stdout.buffer) if target == "-" else _opened_whole(Path(target))
    )
    bar = tqdm(desc="translating", unit=" lines", disable=None if target == "-" else False, mininterval=0.5)
    with opened as file, bar:
        for number, translations in enumerate(translator.translate_stream(lines, decode, problems.add), start=1):
            file.write(_format(number, translations, decode.n_best).encode("utf-8"))
            bar.update()
        file.flush()
    problems.summarise()


def _format(number: int, translations: list[Translation], n_best: int) -> str:
    if n_best == 1:
        return f"{translations[0].text}\n"
    return "".join(f"{number}\t{translation.score:.4f}\t{translation.text}\n" for translation in translations)
