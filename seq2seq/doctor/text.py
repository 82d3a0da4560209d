"""Findings about the text: encodings, line counts, alignment, harmful pairs, overlap with the training text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.alignment import Alignment, check_alignment
from seq2seq.data.inspection import (
    FileFacts,
    Flag,
    PartFacts,
    main_script,
    pair_keys,
    read_places,
    repeats,
    script_names,
    unlike_lengths,
)
from seq2seq.doctor.report import NUM_EXAMPLES, Section, Spot, Verdict, judged, located, short_path, shown

_UNLIKE_FACTOR, _UNLIKE_LEAST = 3.0, 30  # three times the usual ratio, not for short sentences
_MANY_DRIFTS = 3  # shown; when the first one is corrected, the others may vanish
_POOR_FIT = 0.3  # of 4; all aligned texts that were measured are above 1
# Kinds of findings about single lines: the names of flags.
_DAMAGE = ("invalid", "blank", "control", "replaced", "garbled", "markup", "subwords", "tokenised")
_SPELLINGS = ("spacing", "invisible", "decomposed")

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
    "spacing": "white space of other kinds (no-break, thin, ideographic, tab)",
    "invisible": "soft hyphens, zero-width characters or direction marks",
    "decomposed": "characters in decomposed Unicode (not NFC)",
}


@dataclass(frozen=True)
class _Finding:
    """Cases of one kind, before the texts of its examples are read."""

    kind: str
    what: str  # with {count}
    count: int
    of: int
    examples: Sequence[tuple[Spot, str]]  # each with a note, which may be empty


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
            if broken or any((facts.lines["flags"] & Flag.INVALID).any() for facts in (src, tgt)):
                return False
    return all(len(part.pairs[0]) for part in parts.values())


# -------------------------------------------------------------------------------------------------------- whole files


def _judge_files(part: PartFacts) -> Iterator[Verdict]:
    """Findings about whole files: unreadable ones, UTF-16, line counts, sides that drift apart."""
    fits, sound = [], True
    for src, tgt in zip(part.src, part.tgt, strict=True):
        sides = (src,) if src.path == tgt.path else (src, tgt)
        verdicts = [verdict for side in sides for verdict in _unreadable(side)]
        if not verdicts:
            alignment = check_alignment(src.lines, tgt.lines)
            verdicts += _judge_alignment(src, tgt, alignment)
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


def _judge_alignment(src: FileFacts, tgt: FileFacts, found: Alignment) -> Iterator[Verdict]:
    paths = [short_path(facts.path) for facts in (src, tgt)]
    if len(src.lines) != len(tgt.lines):
        text = f"{paths[0]} has {len(src.lines):,} lines but {paths[1]} has {len(tgt.lines):,}"
        where = "; the place where they drift apart is below" if found.drifts else ""
        yield Verdict("WRONG", text, f"line n of one must translate line n of the other{where}")
    texts = read_places(src.place(drift.line) for drift in found.drifts[:_MANY_DRIFTS])
    for line, before, shift in found.drifts[:_MANY_DRIFTS]:
        number = abs(shift - before)
        what = f"{number} line{'s are' if number > 1 else ' is'} missing in {paths[shift < before]}"
        advice = "after this place the sides match again"
        if shift:
            advice = f"after this place source line n matches target line n{shift:+d}; correct it and run doctor again"
        place = src.place(line)
        text = f"the sides drift apart near {located(place)}: {what}, or too many in the other"
        yield Verdict("WRONG", text, advice, [shown((place,), texts)])
    if found.fit < _POOR_FIT:
        text = f"{paths[0]}: source and target do not look aligned (alignment score {found.fit:.1f} of 4)"
        advice = "lengths, punctuation and digits are unrelated; check the files and their line order"
        yield Verdict("doubtful", text, advice)
    elif found.unlike:
        (first, end), *others = found.unlike
        more = f", and in {len(others)} more blocks of this length" if others else ""
        text = f"{located(src.place(first))} to {end}: source and target do not look aligned here{more}"
        yield Verdict("doubtful", text, "the other lines look aligned; check these lines, or remove them on both sides")


# ------------------------------------------------------------------------------------------------------ lines and pairs


def _judge_pairs(part: PartFacts, train: PartFacts | None) -> list[Verdict]:
    lines = _flagged([*part.src, *part.tgt], _DAMAGE)
    findings = [*lines, *_lowered(part), *_pairwise(part), *_foreign(part)]
    return _judge([*findings, *_seen(part, train)] if train else findings)


def judge_characters(parts: Mapping[str, PartFacts], normalises: bool) -> Section:
    """Findings about characters that look alike: kinds of white space, invisible characters, decomposed accents.

    Args:
        normalises: whether source text is normalised for the model.
    """
    verdicts: list[Verdict] = []
    for name, part in parts.items():
        found = _judge(_flagged(part.src, _SPELLINGS, f"{name}, source: "), none=False)
        if normalises:
            note = "; tokenizer.normalise_source normalises them"
            found = [Verdict("ok", verdict.text + note, "", verdict.examples[:1]) for verdict in found]
        verdicts += found + _judge(_flagged(part.tgt, _SPELLINGS, f"{name}, target: "), none=False)
    none = [Verdict("ok", f"none: {', '.join(_NAMES[kind] for kind in _SPELLINGS)}")]
    return Section("Spelling of characters", verdicts or none)


def _judge(found: Iterable[_Finding], none: bool = True) -> list[Verdict]:
    """A verdict for each finding with cases, and with ``none`` one that names the others. Reads every file once."""
    findings = list(found)
    texts = read_places(chain.from_iterable(spot for finding in findings for spot, _ in finding.examples))
    verdicts = []
    for finding in findings:
        if finding.count:
            examples = [shown(spot, texts, note) for spot, note in finding.examples]
            verdicts.append(judged(finding.kind, finding.what, finding.count, finding.of, examples))
    absent = ", ".join(_NAMES[finding.kind] for finding in findings if not finding.count)
    return [*verdicts, Verdict("ok", f"none: {absent}")] if none and absent else verdicts


def _flagged(files: Sequence[FileFacts], kinds: Iterable[str], side: str = "") -> Iterator[_Finding]:
    """Lines with the flag of each kind."""
    for kind in kinds:
        found = [(facts, np.flatnonzero(facts.lines["flags"] & Flag[kind.upper()])) for facts in files]
        spots = [((facts.place(int(line)),), "") for facts, lines in found for line in lines[:NUM_EXAMPLES]]
        # If there are many, one example is from the last file, so from the other side.
        spots = [*spots[: NUM_EXAMPLES - 1], *spots[NUM_EXAMPLES - 1 :][-1:]]
        count, of = sum(len(lines) for _, lines in found), sum(len(facts.lines) for facts in files)
        yield _Finding(kind, f"{side}{_NAMES[kind]}: {{count}} of the lines", count, of, spots)


def _lowered(part: PartFacts) -> Iterator[_Finding]:
    """Files in a script with capitals, but without capital letters."""
    files = [*part.src, *part.tgt]
    lowered: list[tuple[Spot, str]] = []
    for facts in files:
        cased = np.flatnonzero(np.isin(facts.lines["script"], [script_names().index(name) for name in _CASED]))
        capitals = np.count_nonzero(facts.lines["capitals"][cased])
        if len(cased) >= _FEW_CASED and capitals < _FEW_CAPITALS * len(cased):
            lowered.append(((facts.place(int(cased[0])),), ""))
    yield _Finding("lowered", f"{_NAMES['lowered']}: {{count}} of the files", len(lowered), len(files), lowered)


def _pairwise(part: PartFacts) -> Iterator[_Finding]:
    """Pairs with equal sides, repeated pairs, and pairs with an unusual length ratio."""
    src, tgt = part.pairs
    pairs = np.flatnonzero(part.filled & (src["key"] == tgt["key"]))
    yield _finding(part, "identical", pairs, exact=int((src["hash"][pairs] == tgt["hash"][pairs]).sum()))
    kept = np.flatnonzero(part.filled)
    again, first = (kept[found] for found in repeats(pair_keys(src, tgt)[kept]))
    exact = len(repeats(pair_keys(src, tgt, "hash")[kept])[0])
    place_of = {
        pair: located(part.places(earlier)[0]) for pair, earlier in zip(again[:NUM_EXAMPLES], first, strict=False)
    }
    yield _finding(part, "repeated", again, lambda pair: f"repeats {place_of[pair]}", exact)
    pairs = unlike_lengths(src, tgt, _UNLIKE_FACTOR, _UNLIKE_LEAST)
    yield _finding(part, "unlike", pairs, lambda pair: f"{src['chars'][pair]} and {tgt['chars'][pair]} characters")


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
    names = [name or "?" for name in script_names()]
    pairs = np.flatnonzero(foreign & ~swapped & (src["key"] != tgt["key"]))
    yield _finding(part, "script", pairs, lambda pair: f"{names[src['script'][pair]]} | {names[tgt['script'][pair]]}")


def _seen(part: PartFacts, train: PartFacts) -> Iterator[_Finding]:
    """Pairs of a validation or test text that are in the training text, and pairs with only the source there."""
    src, tgt = part.pairs
    mine, known = pair_keys(src, tgt), pair_keys(*train.pairs)
    seen = np.isin(mine, known) & part.filled
    pairs = np.flatnonzero(seen)

    def place(pair: int) -> str:
        return f"is {located(train.places(int(np.argmax(known == mine[pair])))[0])}"

    exact = int(np.isin(pair_keys(src, tgt, "hash")[pairs], pair_keys(*train.pairs, "hash")).sum())
    yield _finding(part, "seen", pairs, place, exact)
    sources = np.isin(src["key"], train.pairs[0]["key"]) & part.filled & ~seen
    yield _finding(part, "seen source", np.flatnonzero(sources))


def _finding(
    part: PartFacts,
    kind: str,
    pairs: NDArray[np.int64],
    note: Callable[[int], str] = lambda pair: "",
    exact: int | None = None,
) -> _Finding:
    """``note``: what to add to a pair that is shown; ``exact``: the number of exact matches."""
    what = f"{_NAMES[kind]}: {{count}} of the pairs"
    if exact is not None and exact < len(pairs):
        what += f", {exact:,} of them exactly, the others except for case, spaces and punctuation"
    examples = [(part.places(pair), note(pair)) for pair in pairs[:NUM_EXAMPLES].tolist()]
    return _Finding(kind, what, len(pairs), len(part.pairs[0]), examples)
