"""Findings about the text: encodings, line counts, alignment, harmful pairs, overlap with the training text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.alignment import Drift, check_alignment
from seq2seq.data.inspection import (
    BLANK,
    CONTROL,
    GARBLED,
    INVALID,
    MARKUP,
    REPLACED,
    SUBWORDS,
    TOKENISED,
    FileFacts,
    PartFacts,
    main_script,
    pair_keys,
    printable,
    raw_lines,
    repeats,
    script_names,
    unlike_lengths,
)
from seq2seq.doctor.report import Section, Verdict, judged

_NUM_EXAMPLES = 3
_WIDTH = 60  # of an example's text, per side
_UNLIKE_FACTOR, _UNLIKE_LEAST = 3.0, 30  # three times the usual ratio, not for short sentences
_MANY_DRIFTS = 3  # shown; when the first one is corrected, the others may vanish
_POOR_FIT = 0.3  # of 4; all aligned texts that were measured are above 1

_FLAGS = {
    "invalid": INVALID,
    "blank": BLANK,
    "control": CONTROL,
    "replaced": REPLACED,
    "garbled": GARBLED,
    "markup": MARKUP,
    "subwords": SUBWORDS,
    "tokenised": TOKENISED,
}
_CASED = ("latin", "cyrillic", "greek", "armenian")
_FEW_CASED = 100  # lines; fewer may have no capitals by chance
_FEW_CAPITALS = 0.02  # of the lines
_NAMES = {
    "invalid": "invalid UTF-8",
    "blank": "blank lines",
    "control": "control characters or line separators",
    "replaced": "lost characters (U+FFFD)",
    "garbled": "double encoding",
    "markup": "HTML",
    "subwords": "marks of a subword tokenizer (@@, \u2581, ##)",
    "tokenised": "tokenised text",
    "lowered": "lower-cased text",
    "identical": "target equal to source",
    "repeated": "repeated pairs",
    "unlike": f"length ratio more than {_UNLIKE_FACTOR:g} times off the usual one",
    "swapped": "swapped sides",
    "script": "foreign script",
    "seen": "pairs of train",
    "seen source": "sources of train with another translation",
}

Spot = tuple[tuple[Path, int], ...]  # file and 0-based line, of one side or both


@dataclass
class _Finding:
    """Cases of one kind, before the example texts are read."""

    kind: str
    what: str  # with {count}
    count: int
    of: int
    spots: list[Spot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # for each spot, if any


def judge_text(parts: Mapping[str, PartFacts]) -> Iterator[Section]:
    """A section for each part of the text."""
    for name, part in parts.items():
        verdicts = list(_judge_files(part))
        if len(part.pairs[0]):
            verdicts += _judge_pairs(part, parts["train"] if name != "train" else None)
        yield Section(f"Text of {name}: {len(part.pairs[0]):,} pairs", verdicts)


def readable(parts: Mapping[str, PartFacts]) -> bool:
    """Whether training can read it: every file complete and UTF-8, equal line counts, no part without pairs."""
    for part in parts.values():
        for src, tgt in zip(part.src, part.tgt, strict=True):
            broken = src.error or tgt.error or len(src.lines) != len(tgt.lines)
            if broken or any((facts.lines["flags"] & INVALID).any() for facts in (src, tgt)):
                return False
    return all(len(part.pairs[0]) for part in parts.values())


def short_path(path: Path) -> str:
    """The shorter form of the path: relative or as given."""
    return min(str(path), os.path.relpath(path), key=len)


# -------------------------------------------------------------------------------------------------------- whole files


def _judge_files(part: PartFacts) -> Iterator[Verdict]:
    """Findings about whole files: unreadable ones, UTF-16, line counts, sides that drift apart."""
    fits, sound = [], True
    for src, tgt in zip(part.src, part.tgt, strict=True):
        verdicts = [*_unreadable(src), *_unreadable(tgt)]
        if not verdicts:
            counts = len(src.lines), len(tgt.lines)
            alignment = check_alignment(src.lines, tgt.lines)
            verdicts += _judge_counts(src.path, tgt.path, counts, bool(alignment.drifts))
            verdicts += _judge_drifts(src, tgt, alignment.drifts)
            verdicts += _judge_fit(src, alignment.fit, alignment.unlike)
            fits.append(alignment.fit)
        sound = sound and not verdicts
        yield from verdicts
    if sound:
        aligned = f"the sides look aligned (alignment score {min(fits):.1f} of 4)"
        short = any(np.isnan(fits))
        yield Verdict("ok", f"line counts match; {'too few lines to check the alignment' if short else aligned}")


def _unreadable(facts: FileFacts) -> Iterator[Verdict]:
    if facts.error:
        yield Verdict("WRONG", facts.error)
    elif not len(facts.lines):
        text = f"{short_path(facts.path)}: has no lines"
        yield Verdict("WRONG", text, "use another file, or remove it from the config")
    else:
        first = raw_lines(facts.path, [0])[0]
        if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
            path = short_path(facts.path)
            yield Verdict("WRONG", f"{path}: is UTF-16", f"convert it: iconv -f UTF-16 -t UTF-8 {path}")


def _judge_counts(src: Path, tgt: Path, counts: tuple[int, int], found: bool) -> Iterator[Verdict]:
    if counts[0] != counts[1]:
        text = f"{short_path(src)} has {counts[0]:,} lines but {short_path(tgt)} has {counts[1]:,}"
        where = "; the place where they drift apart is below" if found else ""
        yield Verdict("WRONG", text, f"line n of one must translate line n of the other{where}")


def _judge_drifts(src: FileFacts, tgt: FileFacts, drifts: Sequence[Drift]) -> Iterator[Verdict]:
    shown = drifts[:_MANY_DRIFTS]
    texts = raw_lines(src.path, [drift.line for drift in shown])
    for line, before, shift in shown:
        place, number = f"{short_path(src.path)}:{line + 1}", abs(shift - before)
        short = short_path((tgt if shift < before else src).path)
        what = f"{number} line{'s are' if number > 1 else ' is'} missing in {short}, or too many in the other"
        advice = "after this place the sides match again"
        if shift:
            advice = f"after this place source line n matches target line n{shift:+d}; correct it and run doctor again"
        example = f"{place}: {printable(texts.get(line, b''), _WIDTH)}"
        yield Verdict("WRONG", f"the sides drift apart near {place}: {what}", advice, [example])


def _judge_fit(src: FileFacts, fit: float, unlike: Sequence[tuple[int, int]]) -> Iterator[Verdict]:
    path = short_path(src.path)
    if fit < _POOR_FIT:
        text = f"{path}: source and target do not look aligned (alignment score {fit:.1f} of 4)"
        yield Verdict(
            "doubtful", text, "lengths, punctuation and digits are unrelated; check the files and their line order"
        )
    elif unlike:
        first, end = unlike[0]
        more = f", and in {len(unlike) - 1} more blocks of this length" if len(unlike) > 1 else ""
        text = f"{path}:{first + 1} to {end}: source and target do not look aligned here{more}"
        yield Verdict("doubtful", text, "the other lines look aligned; check these lines, or remove them on both sides")


# ------------------------------------------------------------------------------------------------------ lines and pairs


def _judge_pairs(part: PartFacts, train: PartFacts | None) -> list[Verdict]:
    findings = [*_flagged(part), *_lowered(part), *_pairwise(part), *_foreign(part)]
    if train is not None:
        findings += _seen(part, train)
    texts = _texts_of(chain.from_iterable(finding.spots for finding in findings))
    verdicts = []
    for finding in findings:
        if finding.count:
            what = f"{_NAMES[finding.kind]}: {finding.what}"
            verdicts.append(judged(finding.kind, what, finding.count, finding.of, _examples(finding, texts)))
    none = ", ".join(_NAMES[finding.kind] for finding in findings if not finding.count)
    return [*verdicts, Verdict("ok", f"none: {none}")] if none else verdicts


def _flagged(part: PartFacts) -> Iterator[_Finding]:
    """Lines of either side with a flag."""
    files = [*part.src, *part.tgt]
    for kind, flag in _FLAGS.items():
        finding = _Finding(kind, "{count} of the lines", 0, sum(len(facts.lines) for facts in files))
        for facts in files:
            lines = np.flatnonzero(facts.lines["flags"] & flag)
            finding.count += len(lines)
            finding.spots += [((facts.path, int(line)),) for line in lines[:_NUM_EXAMPLES]]
        # If there are many, one example is from the other side.
        finding.spots = [*finding.spots[: _NUM_EXAMPLES - 1], *finding.spots[_NUM_EXAMPLES - 1 :][-1:]]
        yield finding


def _lowered(part: PartFacts) -> Iterator[_Finding]:
    """Files in a script with capitals, but without capital letters."""
    files = [*part.src, *part.tgt]
    finding = _Finding("lowered", "{count} of the files", 0, len(files))
    for facts in files:
        cased = np.flatnonzero(np.isin(facts.lines["script"], [script_names().index(name) for name in _CASED]))
        capitals = np.count_nonzero(facts.lines["capitals"][cased])
        if len(cased) >= _FEW_CASED and capitals < _FEW_CAPITALS * len(cased):
            finding.count += 1
            finding.spots.append(((facts.path, int(cased[0])),))
    yield finding


def _pairwise(part: PartFacts) -> Iterator[_Finding]:
    """Pairs with equal sides, repeated pairs, and pairs with an unusual length ratio."""
    src, tgt = part.pairs
    filled = ((src["flags"] | tgt["flags"]) & BLANK) == 0
    pairs = np.flatnonzero(filled & (src["key"] == tgt["key"]))
    yield _finding(part, "identical", pairs, exact=int((src["hash"][pairs] == tgt["hash"][pairs]).sum()))
    kept = np.flatnonzero(filled)
    again, first = (kept[found] for found in repeats(pair_keys(src, tgt)[kept]))
    exact = len(repeats(pair_keys(src, tgt, "hash")[kept])[0])
    notes = [f"repeats line {part.place(int(pair))[1] + 1}" for pair in first[:_NUM_EXAMPLES]]
    yield _finding(part, "repeated", again, notes, exact)
    pairs = unlike_lengths(src, tgt, _UNLIKE_FACTOR, _UNLIKE_LEAST)
    notes = [f"{src['chars'][pair]} and {tgt['chars'][pair]} characters" for pair in pairs[:_NUM_EXAMPLES]]
    yield _finding(part, "unlike", pairs, notes)


def _foreign(part: PartFacts) -> Iterator[_Finding]:
    """Pairs with a side in a foreign script (except copies), and pairs with swapped sides."""
    src, tgt = part.pairs
    mains = main_script(src), main_script(tgt)
    swapped = np.zeros(len(src), bool)
    if mains[0] != mains[1] and all(mains):
        swapped = (src["script"] == mains[1]) & (tgt["script"] == mains[0])
        yield _finding(part, "swapped", np.flatnonzero(swapped))
    foreign = np.zeros(len(src), bool)
    for side, main in zip((src, tgt), mains, strict=True):
        foreign |= (side["script"] > 0) & (side["script"] != main) & (main > 0)
    names = script_names()
    pairs = np.flatnonzero(foreign & ~swapped & (src["key"] != tgt["key"]))
    notes = [" | ".join(names[side["script"][pair]] or "?" for side in (src, tgt)) for pair in pairs[:_NUM_EXAMPLES]]
    yield _finding(part, "script", pairs, notes)


def _seen(part: PartFacts, train: PartFacts) -> Iterator[_Finding]:
    """Pairs of a validation or test text that are in the training text, and pairs with only the source there."""
    src, tgt = part.pairs
    filled = ((src["flags"] | tgt["flags"]) & BLANK) == 0
    mine, known = pair_keys(src, tgt), pair_keys(*train.pairs)
    seen = np.isin(mine, known) & filled
    pairs = np.flatnonzero(seen)
    places = [train.place(int(np.flatnonzero(known == mine[pair])[0])) for pair in pairs[:_NUM_EXAMPLES]]
    notes = [f"is {short_path(train.src[number].path)}:{line + 1}" for number, line in places]
    exact = int(np.isin(pair_keys(src, tgt, "hash")[pairs], pair_keys(*train.pairs, "hash")).sum())
    yield _finding(part, "seen", pairs, notes, exact)
    yield _finding(part, "seen source", np.flatnonzero(np.isin(src["key"], train.pairs[0]["key"]) & filled & ~seen))


def _finding(
    part: PartFacts, kind: str, pairs: NDArray[np.int64], notes: Sequence[str] = (), exact: int | None = None
) -> _Finding:
    """``exact``: the number of exact matches."""
    spots: list[Spot] = []
    for pair in pairs[:_NUM_EXAMPLES]:
        number, line = part.place(int(pair))
        spots.append(((part.src[number].path, line), (part.tgt[number].path, line)))
    what = "{count} of the pairs"
    if exact is not None and exact < len(pairs):
        what += f", {exact:,} of them exactly, the others except for case, spaces and punctuation"
    return _Finding(kind, what, len(pairs), len(part.pairs[0]), spots, list(notes))


# ------------------------------------------------------------------------------------------------------------- examples


def _texts_of(spots: Iterable[Spot]) -> dict[tuple[Path, int], str]:
    wanted: dict[Path, set[int]] = {}
    for path, line in chain.from_iterable(spots):
        wanted.setdefault(path, set()).add(line)
    found = {path: raw_lines(path, lines) for path, lines in wanted.items()}
    return {(path, line): printable(raw, _WIDTH) for path, lines in found.items() for line, raw in lines.items()}


def _examples(finding: _Finding, texts: Mapping[tuple[Path, int], str]) -> list[str]:
    """``file:line: source | target (note)`` for each spot."""
    examples = []
    for number, spot in enumerate(finding.spots):
        path, line = spot[0]
        both = " | ".join(dict.fromkeys(texts.get(place, "").strip() or "(blank)" for place in spot))
        note = f" ({finding.notes[number]})" if number < len(finding.notes) else ""
        examples.append(f"{short_path(path)}:{line + 1}: {both}{note}")
    return examples
