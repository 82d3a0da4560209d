#!/usr/bin/env python
"""What glossaries, protected strings and other choices cost and give, beside plain beam search on the same lines.

Terms are pairs of words that often stand in the same sentence pairs. A reliable one is right in most of them: its
target word stands in at least four fifths of the pairs that have its source word. Protected strings are planted among
the words of sources, and taken out of translations before these are scored.

  python scripts/constraints.py runs/my --src test.en --ref test.de --corpus train.en train.de
"""

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from seq2seq.data.formats.lines import read_text
from seq2seq.decode.glossary import Glossary, has_term
from seq2seq.decode.translator import Translator

KINDS = ("tags", "placeholders", "urls", "emails")
STRINGS = ("<b>", "</b>", "<br/>", "{name}", "{0}", "%s", "https://example.com/a?b=1", "me@example.org")
_WORD = re.compile(r"[^\W\d_]+")
_SHORTEST = 4  # letters of the words of a term
_MOST = 0.01  # share of the sentences that have a term; what is more frequent stands in no glossary
_SIMILAR = 0.5  # Dice coefficient of the sentences that have the words of a term
_RIGHT, _FEWEST = 0.8, 10  # share of the pairs with a source word that have the target word, of at least so many pairs


@dataclass(frozen=True)
class Case:
    """Lines that are translated plainly and with something else."""

    name: str
    src: Sequence[str]
    ref: Sequence[str]
    wanted: Sequence[Sequence[str]]  # for each line, what its translation must have
    options: Mapping[str, Any]
    cleaned: Callable[[str], str] = field(default=str)  # a translation as it is scored


@dataclass(frozen=True)
class Row:
    """What a way to translate gives."""

    name: str
    lines: int
    bleu: float
    chrf: float
    there: float  # share of what is wanted
    said: int  # lines that are not reported
    kept: int  # of these: lines that have all that they must have
    speed: float  # lines per CPU second

    def __str__(self) -> str:
        scores = f"| {self.lines:,} | {self.bleu:.2f} | {self.chrf:.2f} | {self.there:.1%} "
        return f"| {self.name} {scores}| {self.kept:,} of {self.said:,} | {self.speed:.0f} |"


def terms_of(src: Sequence[str], tgt: Sequence[str]) -> dict[str, str]:
    """For words of the source text, the word that is most often in the targets of the same sentences."""
    sources, targets, both = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for line, other in zip(src, tgt, strict=True):
        ours, theirs = ({word for word in _WORD.findall(text) if len(word) >= _SHORTEST} for text in (line, other))
        ours = {word.lower() for word in ours}
        sources.update(ours)
        targets.update(theirs)
        both.update((one, another) for one in ours for another in theirs)
    best: dict[str, tuple[float, str]] = {}
    for (one, another), count in both.items():
        dice = 2 * count / (sources[one] + targets[another])
        if count > 1 and sources[one] <= _MOST * len(src) and dice >= _SIMILAR:
            best[one] = max(best.get(one, (0.0, "")), (dice, another))
    return {word: other for word, (_, other) in best.items()}


def reliable(terms: Mapping[str, str], src: Sequence[str], tgt: Sequence[str]) -> dict[str, str]:
    """The terms that most targets of enough sentences have where the source has them."""
    glossary, found, right = Glossary.of(terms), Counter[str](), Counter[str]()
    for line, other in zip(src, tgt, strict=True):
        for entry in glossary.find(line):
            found[entry.source] += 1
            right[entry.source] += has_term(other, entry.target)
    kept = {word for word, count in found.items() if count >= _FEWEST and right[word] >= _RIGHT * count}
    return {source: target for source, target in terms.items() if source in kept}


def obeyed(terms: Mapping[str, str], src: Sequence[str], ref: Sequence[str]) -> dict[str, str]:
    """The terms that every reference has wherever the source has them."""
    glossary, wrong = Glossary.of(terms), set[str]()
    for line, reference in zip(src, ref, strict=True):
        wrong |= {entry.source for entry in glossary.find(line) if not has_term(reference, entry.target)}
    return {source: target for source, target in terms.items() if source not in wrong}


def planted(line: str, rng: random.Random) -> tuple[str, list[str]]:
    """A line with one or two strings among its words, and these."""
    words, strings = line.split(), rng.sample(STRINGS, rng.choice([1, 1, 2]))
    for one in strings:
        words.insert(rng.randrange(max(1, len(words))), one)
    return " ".join(words), strings


def without(text: str) -> str:
    """A text without the strings."""
    text = " ".join(re.sub("|".join(map(re.escape, STRINGS)), " ", text).split())
    return re.sub(r" (?=[.,;:!?])", "", text)


def cases(src: Sequence[str], ref: Sequence[str], terms: Mapping[str, str], best: Mapping[str, str]) -> Iterator[Case]:
    """The text itself, its lines with terms, with the ``best`` of these, and all lines with strings."""
    nothing: list[list[str]] = [[] for _ in src]
    yield Case("--choose mbr", src, ref, nothing, {"choose": "mbr"})
    agreeing = obeyed(terms, src, ref)
    for name, used in (("terms of references", agreeing), ("one list of terms", terms), ("reliable terms", best)):
        glossary = Glossary.of(used)
        some = [n for n, line in enumerate(src) if glossary.find(line)]
        wanted = [[entry.target for entry in glossary.find(src[n])] for n in some]
        yield Case(name, [src[n] for n in some], [ref[n] for n in some], wanted, {"glossary": used})
    rng = random.Random(1)
    lines, strings = zip(*(planted(line, rng) for line in src), strict=True)
    yield Case("--protect", lines, ref, strings, {"protect": KINDS}, without)


def measure(case: Case, translator: Translator, plain: bool) -> Row:
    """Translate the lines of a case, plainly or not."""
    reported: set[int] = set()
    translate = translator.translate_stream
    options = {} if plain else case.options
    start = time.process_time()
    found = [some[0].text for some in translate(case.src, None, lambda line, _: reported.add(line), **options)]
    seconds = time.process_time() - start
    has = has_term if "glossary" in case.options else lambda text, string: text.count(string) == 1
    there = [[has(text, one) for one in some] for text, some in zip(found, case.wanted, strict=True)]
    flat = [one for some in there for one in some]
    said = [all(some) for line, some in enumerate(there, 1) if line not in reported]
    scored = [case.cleaned(text) for text in found]
    bleu, chrf = (metric.corpus_score(scored, [case.ref]).score for metric in (BLEU(), CHRF()))
    share = sum(flat) / len(flat) if flat else 1.0
    name = f"{case.name}: {'plain' if plain else 'with'}"
    return Row(name, len(found), bleu, chrf, share, len(said), sum(said), len(found) / seconds)


def main() -> None:
    """Print a table of all ways to translate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--src", type=Path, required=True, metavar="FILE")
    parser.add_argument("--ref", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--corpus", type=Path, nargs=2, metavar="FILE", help="source and target text that has the terms"
    )
    parser.add_argument("--lines", type=int, default=400, metavar="N", help="the first of the text")
    args = parser.parse_args()
    src, ref = (read_text(file) for file in (args.src, args.ref))
    corpus = tuple(map(read_text, args.corpus)) if args.corpus else (src, ref)
    terms = terms_of(*corpus)
    best = reliable(terms, *corpus)
    translator = Translator.load(args.model, device="cpu")
    translator.translate(src[:50])  # the first lines take longer
    print("| | lines | BLEU | chrF | wanted text is there | kept, of lines not reported | lines per CPU second |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for case in cases(src[: args.lines], ref[: args.lines], terms, best):
        for plain in (True, False):
            print(measure(case, translator, plain), flush=True)


if __name__ == "__main__":
    main()
