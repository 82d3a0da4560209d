"""Findings about the text: encodings, line counts, alignment, harmful pairs, overlap with the training text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import CleanConfig
from seq2seq.data.alignment import Alignment, check_alignment
from seq2seq.data.inspection import (
    FileFacts,
    Flag,
    PartFacts,
    first_equal,
    main_script,
    pair_keys,
    read_places,
    repeats,
    script_names,
    unlike_lengths,
)
from seq2seq.doctor.cases import Cases, cases_of_lines, cases_of_pairs
from seq2seq.doctor.report import NUM_EXAMPLES, Section, Verdict, judged, located, short_path, shown

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
# The names in a list of all cases: other programs look for them, so they do not change.
_LISTED = {
    "invalid": "invalid UTF-8",
    "blank": "blank",
    "control": "control character",
    "replaced": "lost character",
    "garbled": "double encoding",
    "markup": "HTML",
    "subwords": "subword mark",
    "tokenised": "tokenised",
    "lowered": "",  # about whole files
    "identical": "target equal to source",
    "repeated": "repeated pair",
    "unlike": "unlike lengths",
    "swapped": "swapped sides",
    "script": "foreign script",
    "seen": "in train",
    "seen source": "source in train",
    "spacing": "other white space",
    "invisible": "invisible character",
    "decomposed": "decomposed",
}


# The rule of data.clean that takes such pairs out of the training text; "seen" are pairs of valid or test.
_CLEANED = {"identical": "identical", "repeated": "repeats", "markup": "markup", "script": "script"}
_CLEANED |= {"swapped": "script", "seen": "overlap"}


@dataclass(frozen=True)
class _Finding:
    """Cases of one kind, before the texts of its examples are read."""

    kind: str
    what: str  # with {count}
    cases: Cases
    of: int
    note: Callable[[Cases, int], str] = lambda cases, i: ""  # to add to case i, which is shown
    examples: Sequence[int] = range(NUM_EXAMPLES)  # cases to show, as far as there are so many


def judge_text(parts: Mapping[str, PartFacts], rules: Sequence[CleanConfig] = ()) -> Iterator[Section]:
    """A section for each part of the text.

    Args:
        parts: the text as it is in the files.
        rules: of each dataset of the training text. What a rule of all of them leaves out is no reason to worry.
    """
    on = {kind for kind, rule in _CLEANED.items() if rules and all(getattr(clean, rule) for clean in rules)}
    for name, part in parts.items():
        verdicts = list(_judge_files(part))
        if len(part.pairs[0]):
            cleaned = on - {"seen"} if name == "train" else on & {"seen"}
            verdicts += _judge_pairs(part, parts["train"] if name != "train" else None, cleaned)
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
    for number, (src, tgt) in enumerate(zip(part.src, part.tgt, strict=True)):
        sides = (src,) if src.path == tgt.path else (src, tgt)
        verdicts = [verdict for side in sides for verdict in _unreadable(side)]
        if not verdicts:
            alignment = check_alignment(src.lines, tgt.lines)
            verdicts += _judge_alignment(part, number, alignment)
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


def _judge_alignment(part: PartFacts, file: int, found: Alignment) -> Iterator[Verdict]:
    src, tgt = part.src[file], part.tgt[file]
    paths = [short_path(facts.path) for facts in (src, tgt)]
    if len(src.lines) != len(tgt.lines):
        text = f"{paths[0]} has {len(src.lines):,} lines but {paths[1]} has {len(tgt.lines):,}"
        where = "; the place where they drift apart is below" if found.drifts else ""
        yield Verdict("WRONG", text, f"line n of one must translate line n of the other{where}")
    texts = read_places(src.place(drift.line) for drift in found.drifts[:_MANY_DRIFTS])
    for i, (line, before, shift) in enumerate(found.drifts[:_MANY_DRIFTS]):
        number = abs(shift - before)
        what = f"{number} line{'s are' if number > 1 else ' is'} missing in {paths[shift < before]}"
        advice = "after this place the sides match again"
        if shift:
            advice = f"after this place source line n matches target line n{shift:+d}; correct it and run doctor again"
        place = src.place(line)
        text = f"the sides drift apart near {located(place)}: {what}, or too many in the other"
        cases = _starts("drift", part, file, [drift.line for drift in found.drifts]) if i == 0 else None
        yield Verdict("WRONG", text, advice, [shown((place,), texts)], cases)
    if found.fit < _POOR_FIT:
        text = f"{paths[0]}: source and target do not look aligned (alignment score {found.fit:.1f} of 4)"
        advice = "lengths, punctuation and digits are unrelated; check the files and their line order"
        yield Verdict("doubtful", text, advice)
    elif found.unlike:
        (first, end), *others = found.unlike
        more = f", and in {len(others)} more blocks of this length" if others else ""
        text = f"{located(src.place(first))} to {end}: source and target do not look aligned here{more}"
        advice = "the other lines look aligned; check these lines, or remove them on both sides"
        yield Verdict("doubtful", text, advice, (), _starts("not aligned", part, file, [at for at, _ in found.unlike]))


def _starts(name: str, part: PartFacts, file: int, lines: Sequence[int]) -> Cases:
    """The source lines of a file at which something starts, also those that the report only counts."""
    return cases_of_lines(name, part, [(file, 0, np.array(lines, np.int64))])


# ------------------------------------------------------------------------------------------------------ lines and pairs


def _judge_pairs(part: PartFacts, train: PartFacts | None, cleaned: Set[str]) -> list[Verdict]:
    lines = _flagged(part, (0, 1), _DAMAGE)
    findings = [*lines, *_lowered(part), *_pairwise(part), *_foreign(part)]
    return _judge([*findings, *_seen(part, train)] if train else findings, cleaned=cleaned)


def judge_characters(parts: Mapping[str, PartFacts], normalises: bool) -> Section:
    """Findings about characters that look alike: kinds of white space, invisible characters, decomposed accents.

    Args:
        normalises: whether source text is normalised for the model.
    """
    verdicts: list[Verdict] = []
    for name, part in parts.items():
        found = _judge(_flagged(part, (0,), _SPELLINGS, f"{name}, source: "), none=False)
        if normalises:
            note = "; tokenizer.normalise_source normalises them"
            found = [
                replace(verdict, mark="ok", text=verdict.text + note, advice="", examples=verdict.examples[:1])
                for verdict in found
            ]
        verdicts += found + _judge(_flagged(part, (1,), _SPELLINGS, f"{name}, target: "), none=False)
    none = [Verdict("ok", f"none: {', '.join(_NAMES[kind] for kind in _SPELLINGS)}")]
    return Section("Spelling of characters", verdicts or none)


def _judge(found: Iterable[_Finding], none: bool = True, cleaned: Set[str] = frozenset()) -> list[Verdict]:
    """A verdict for each finding with cases, and with ``none`` one that names the others. Reads every file once.

    Findings of the kinds ``cleaned`` are ok, because a rule of data.clean is on for them.
    """
    findings = list(found)
    cases = [[i for i in finding.examples if i < len(finding.cases)] for finding in findings]
    spots = [[finding.cases.spot(i) for i in some] for finding, some in zip(findings, cases, strict=True)]
    texts = read_places(chain.from_iterable(chain.from_iterable(spots)))
    verdicts = []
    for finding, some, places in zip(findings, cases, spots, strict=True):
        if count := len(finding.cases):
            examples = [
                shown(spot, texts, finding.note(finding.cases, i)) for i, spot in zip(some, places, strict=True)
            ]
            verdict = judged(finding.kind, finding.what, count, finding.of, examples, finding.cases)
            if finding.kind in cleaned:
                text = f"{verdict.text}; data.clean.{_CLEANED[finding.kind]} is on"
                verdict = replace(verdict, mark="ok", text=text, advice="", examples=examples[:1])
            verdicts.append(verdict)
    absent = ", ".join(_NAMES[finding.kind] for finding in findings if not len(finding.cases))
    return [*verdicts, Verdict("ok", f"none: {absent}")] if none and absent else verdicts


def _flagged(
    part: PartFacts, sides: Sequence[Literal[0, 1]], kinds: Iterable[str], title: str = ""
) -> Iterator[_Finding]:
    """Lines of these sides with the flag of each kind."""
    files = [(number, facts) for side in sides for number, facts in enumerate((part.src, part.tgt)[side])]
    for kind in kinds:
        flag = Flag[kind.upper()]
        found = [(number, facts.side, np.flatnonzero(facts.lines["flags"] & flag)) for number, facts in files]
        starts = np.cumsum([0, *(len(lines) for *_, lines in found)]).tolist()
        firsts = [i for start, end in pairwise(starts) for i in range(start, end)[:NUM_EXAMPLES]]
        # If there are many, one example is from the last file, so from the other side.
        examples = [*firsts[: NUM_EXAMPLES - 1], *firsts[NUM_EXAMPLES - 1 :][-1:]]
        what, of = f"{title}{_NAMES[kind]}: {{count}} of the lines", sum(len(facts.lines) for _, facts in files)
        yield _Finding(kind, what, cases_of_lines(_LISTED[kind], part, found), of, examples=examples)


def _lowered(part: PartFacts) -> Iterator[_Finding]:
    """Files in a script with capitals, but without capital letters."""
    files = [*enumerate(part.src), *enumerate(part.tgt)]
    found = []
    for number, facts in files:
        cased = np.flatnonzero(np.isin(facts.lines["script"], [script_names().index(name) for name in _CASED]))
        capitals = np.count_nonzero(facts.lines["capitals"][cased])
        if len(cased) >= _FEW_CASED and capitals < _FEW_CAPITALS * len(cased):
            found.append((number, facts.side, cased[:1]))
    cases = cases_of_lines(_LISTED["lowered"], part, found)
    examples = range(len(found))
    yield _Finding("lowered", f"{_NAMES['lowered']}: {{count}} of the files", cases, len(files), examples=examples)


def _pairwise(part: PartFacts) -> Iterator[_Finding]:
    """Pairs with equal sides, repeated pairs, and pairs with an unusual length ratio."""
    src, tgt = part.pairs
    pairs = np.flatnonzero(part.filled & (src["key"] == tgt["key"]))
    yield _finding(part, "identical", pairs, exact=int((src["hash"][pairs] == tgt["hash"][pairs]).sum()))
    kept = np.flatnonzero(part.filled)
    again, first = (kept[found] for found in repeats(pair_keys(src, tgt)[kept]))
    exact = len(repeats(pair_keys(src, tgt, "hash")[kept])[0])
    yield _finding(
        part, "repeated", again, lambda cases, i: f"repeats {located(cases.repeated(i))}", exact, (part, first)
    )
    off = unlike_lengths(src, tgt, _UNLIKE_FACTOR, _UNLIKE_LEAST)
    yield _finding(part, "unlike", off, lambda _, i: f"{src['chars'][off[i]]} and {tgt['chars'][off[i]]} characters")


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
    scripts = src["script"][pairs], tgt["script"][pairs]
    yield _finding(part, "script", pairs, lambda _, i: f"{names[scripts[0][i]]} | {names[scripts[1][i]]}")


def _seen(part: PartFacts, train: PartFacts) -> Iterator[_Finding]:
    """Pairs of a validation or test text that are in the training text, and pairs with only the source there."""
    src, tgt = part.pairs
    same = first_equal(pair_keys(src, tgt), pair_keys(*train.pairs))
    pairs = np.flatnonzero((same >= 0) & part.filled)
    exact = int(np.isin(pair_keys(src, tgt, "hash")[pairs], pair_keys(*train.pairs, "hash")).sum())
    earlier = (train, same[pairs])
    yield _finding(part, "seen", pairs, lambda cases, i: f"is {located(cases.repeated(i))}", exact, earlier)
    same_source = first_equal(src["key"], train.pairs[0]["key"])
    others = np.flatnonzero((same_source >= 0) & part.filled & (same < 0))
    yield _finding(part, "seen source", others, earlier=(train, same_source[others]))


def _finding(
    part: PartFacts,
    kind: str,
    pairs: NDArray[np.int64],
    note: Callable[[Cases, int], str] = lambda cases, i: "",
    exact: int | None = None,
    earlier: tuple[PartFacts, NDArray[np.int64]] | None = None,
) -> _Finding:
    """``note``: what to add to a pair that is shown; ``exact``: the number of exact matches."""
    what = f"{_NAMES[kind]}: {{count}} of the pairs"
    if exact is not None and exact < len(pairs):
        what += f", {exact:,} of them exactly, the others except for case, spaces and punctuation"
    cases = cases_of_pairs(_LISTED[kind], part, pairs, earlier=earlier)
    return _Finding(kind, what, cases, len(part.pairs[0]), note)
