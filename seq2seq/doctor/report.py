"""The doctor's verdicts, and the limits that make a finding doubtful or wrong."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from seq2seq.data.formats.lines import printable
from seq2seq.data.inspection import Place
from seq2seq.doctor.cases import Cases, Spot

Mark = Literal["ok", "doubtful", "WRONG", "not tried"]
_MARK_WIDTH = 11
_WIDTH = 108  # of lines, except examples
_SHOWN = 60  # characters of an example, for each side
NUM_EXAMPLES = 3


class Limit(NamedTuple):
    """The shares from which a finding is doubtful or wrong (2: never), and the advice to print with it."""

    doubtful: float
    wrong: float
    advice: str


# Shares of the inspected lines, pairs or pieces. "Any" is a share just above 0.
_ANY, _NEVER = 1e-12, 2.0
LIMITS = {
    # A run does not start with any such line.
    "invalid": Limit(_ANY, _ANY, "convert the file to UTF-8, or remove these lines on both sides"),
    # Training skips them. Many of them mean a broken export; in a reference they lower BLEU.
    "blank": Limit(0.01, 0.5, "training skips them; check whether translations are missing"),
    # Never part of a sentence, but harmless if rare.
    "control": Limit(
        0.0001, _NEVER, "remove these characters; a line separator inside a line often replaces a line end"
    ),
    "replaced": Limit(0.0001, 0.05, "characters were lost in an earlier conversion; use the original files"),
    "garbled": Limit(0.0001, 0.01, "UTF-8 was read as Latin-1 and encoded again; convert the original files once"),
    "markup": Limit(0.001, _NEVER, "remove tags and decode entities on both sides, or the model will write them"),
    # The text was prepared for another toolkit. The model would treat subwords as words, and BLEU would count them.
    "subwords": Limit(
        0.001, 0.05, "undo the subwords (sed -r 's/(@@ )|(@@ ?$)//g'; spm_decode): seq2seq makes subwords itself"
    ),
    # Its scores are not comparable, and users do not write such text. Every text has some lines with " .".
    "tokenised": Limit(
        0.05,
        _NEVER,
        "detokenise both sides (sacremoses detokenize; Chinese: remove the spaces), or use the original text",
    ),
    "lowered": Limit(
        _ANY, _NEVER, "the model learns no capitals: use the original text, or lower-case all text to translate"
    ),
    # Spellings that look alike; the source is normalised. If the language needs one of them, it is in most lines.
    "spacing": Limit(
        0.001, _NEVER, "replace them by plain spaces unless the language needs them, or the model will mix both"
    ),
    "invisible": Limit(0.0001, _NEVER, "remove them, or the model will write them; joiners with a meaning are allowed"),
    "decomposed": Limit(0.0001, _NEVER, "compose them (uconv -x NFC), or the model will spell words in two ways"),
    # Copies are the most harmful kind of noise: a few per cent cost several BLEU (Khayrallah & Koehn 2018).
    "identical": Limit(
        0.005, 0.05, "a few such pairs teach the model to copy; remove them (train: data.clean.identical)"
    ),
    # Seen more often in training, but harmless otherwise; web text and captions have a few per cent.
    "repeated": Limit(
        0.01, 0.5, "the model sees them more often and memorises them; keep one of each (train: data.clean.repeats)"
    ),
    # Except for short sentences, the length ratio of translations is similar for one pair of languages.
    "unlike": Limit(0.005, 0.05, "often not translations of each other; data.max_ratio filters the worst"),
    # Every text has some foreign names and quotations.
    "script": Limit(
        0.002, 0.05, "foreign lines, or the wrong language in a file; remove them (train: data.clean.script)"
    ),
    "swapped": Limit(_ANY, 0.01, "source and target are exchanged in these lines; swap them back"),
    # Test text must not be in the training text. Short everyday sentences may be in both by chance.
    "seen": Limit(0.001, 0.05, "the score would measure memory; set data.clean.overlap: true"),
    "seen source": Limit(
        0.05, _NEVER, "train has the same sentence with another translation; it is better to remove it there"
    ),
    # Training skips them, so they are lost; real text should have only a few.
    "too long": Limit(0.01, 0.2, "training skips them; raise data.max_length, or cut them at sentence ends"),
    "ratio": Limit(0.02, 0.2, "training skips them; raise data.max_ratio if they are translations"),
    # The model cannot see them; without byte_fallback all of them become the same symbol.
    "unknown": Limit(0.0001, 0.01, "set tokenizer.byte_fallback: true, or raise tokenizer.character_coverage"),
    # About three pieces for one character: slow and hard to learn, but fine for rare characters.
    "bytes": Limit(0.005, 0.05, "raise tokenizer.character_coverage or tokenizer.vocab_size; names and emoji are fine"),
}
# Pieces per word (per character in text without spaces); above it, sentences are long and words are hard to learn.
FERTILITY = {"word": 2.5, "character": 1.1}


@dataclass(frozen=True)
class Verdict:
    """One finding: a mark, what was found, what to do, examples, and all cases if it is about lines or pairs."""

    mark: Mark
    text: str
    advice: str = ""
    examples: Sequence[str] = ()
    cases: Cases | None = None

    def __str__(self) -> str:
        lines = [*textwrap.wrap(self.text, _WIDTH), *textwrap.wrap(self.advice, _WIDTH)]
        lines += [f"  {example}" for example in self.examples]
        indented = textwrap.indent("\n".join(lines), " " * _MARK_WIDTH)
        return f"{self.mark:<{_MARK_WIDTH}}{indented[_MARK_WIDTH:]}"


@dataclass(frozen=True)
class Section:
    """Findings about one topic."""

    title: str
    verdicts: Sequence[Verdict]

    def __str__(self) -> str:
        return "\n".join([self.title, *(textwrap.indent(str(verdict), "  ") for verdict in self.verdicts)])


def judged(
    kind: str, what: str, count: int, of: int, examples: Sequence[str] = (), cases: Cases | None = None
) -> Verdict:
    """The verdict on ``count`` cases among ``of``; ``kind`` is a key of :data:`LIMITS`.

    ``what`` describes the cases; ``{count}`` in it becomes their number and share. An ok finding has one example.
    """
    limit, share = LIMITS[kind], count / max(1, of)
    text = what.format(count=f"{count:,} ({per_cent(share)})")
    if share < limit.doubtful:
        return Verdict("ok", text, "", examples[:1], cases)
    return Verdict("WRONG" if share >= limit.wrong else "doubtful", text, limit.advice, examples, cases)


def shown(spot: Spot, texts: Mapping[Place, bytes], note: str = "") -> str:
    """An example, ``file:line: source | target (note)``; ``texts`` has the lines of both places."""
    first = spot[0]
    both = [_readable(texts.get(place, b"")).strip() or "(blank)" for place in spot]
    return f"{located(first)}: {' | '.join(dict.fromkeys(both))}{note and f' ({note})'}"


def located(place: Place) -> str:
    """Where a line is: ``file:line``, or what the file's users count."""
    return place.file.place(place.side, place.number, short_path(place.file.paths[place.side]))


def _readable(raw: bytes) -> str:
    """The start of a line, with escapes for invalid bytes and invisible characters."""
    return printable(raw[: 4 * _SHOWN + 4].decode("utf-8", "backslashreplace"), _SHOWN)


def short_path(path: Path) -> str:
    """The shorter form of the path: relative or as given."""
    return min(str(path), os.path.relpath(path), key=len)


def per_cent(share: float) -> str:
    """A share in per cent; small shares have more digits."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def summary(sections: Sequence[Section]) -> str:
    """The last line: the number of findings of each mark."""
    marks = [verdict.mark for section in sections for verdict in section.verdicts]
    parts = [f"{marks.count('WRONG')} wrong", f"{marks.count('doubtful')} doubtful", f"{marks.count('ok')} ok"]
    return ", ".join(parts + ([f"{marks.count('not tried')} not tried"] if "not tried" in marks else []))
