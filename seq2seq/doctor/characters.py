"""Findings about characters that look alike: kinds of white space, invisible characters, decomposed accents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from seq2seq.data.inspection import DECOMPOSED, INVISIBLES, SPACING, FileFacts, PartFacts, printable, raw_lines
from seq2seq.doctor.report import Section, Verdict, judged
from seq2seq.doctor.text import short_path

_FLAGS = {"spacing": SPACING, "invisible": INVISIBLES, "decomposed": DECOMPOSED}
_NAMES = {
    "spacing": "white space of other kinds (no-break, thin, ideographic, tab)",
    "invisible": "soft hyphens, zero-width characters or direction marks",
    "decomposed": "characters in decomposed Unicode (not NFC)",
}
_NUM_EXAMPLES = 3
_WIDTH = 60  # of an example's text


def judge_characters(parts: Mapping[str, PartFacts], normalises: bool) -> Section:
    """Findings for each side of each part; ``normalises``: whether source text is normalised for the model."""
    verdicts: list[Verdict] = []
    for part in parts.values():
        verdicts += _judge_side(f"{part.name}, source", part.src, normalises)
        verdicts += _judge_side(f"{part.name}, target", part.tgt, normalised=False)
    none = [Verdict("ok", f"none: {', '.join(_NAMES.values())}")]
    return Section("Spelling of characters", verdicts or none)


def _judge_side(side: str, files: list[FileFacts], normalised: bool) -> Iterator[Verdict]:
    for kind, flag in _FLAGS.items():
        found = [(facts.path, np.flatnonzero(facts.lines["flags"] & flag).tolist()) for facts in files]
        count, of = sum(len(lines) for _, lines in found), sum(len(facts.lines) for facts in files)
        if not count:
            continue
        examples = []
        for path, lines in found:
            texts = raw_lines(path, lines[:_NUM_EXAMPLES])
            examples += [f"{short_path(path)}:{line + 1}: {printable(raw, _WIDTH)}" for line, raw in texts.items()]
        verdict = judged(kind, f"{side}: {_NAMES[kind]}: {{count}} of the lines", count, of, examples[:_NUM_EXAMPLES])
        if normalised:
            verdict = Verdict("ok", f"{verdict.text}; tokenizer.normalise_source normalises them", "", examples[:1])
        yield verdict
