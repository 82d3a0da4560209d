"""Generator of the embedded English-Chinese corpus: ``python data/generate.py --output DIR [--seed N]``.

Read four files in this order: ``lexicon.py`` (the words), ``grammar.py`` (meanings as small dataclasses, and functions
``english(meaning)`` and ``chinese(meaning)``), ``sampler.py`` (draws meanings at random), and this file, which divides
the sentences into train, valid and test so that only test has certain combinations. Nothing depends on set order or
hashing, and all random numbers are from ``Random.random()``, so a seed gives the same bytes on every Python version.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import TypeVar

from grammar import GAP, NP, Act, Be, Complex, Describe, Embed, Meaning, Pivot, chinese, english
from lexicon import ADJECTIVES, FRAMES, MOODS, NOUNS, PEOPLE
from sampler import RELATIVE, Sampler

SIZES = {"train": 20_000, "valid": 1_000, "test": 1_000}
TEST_QUOTAS = {"seen": 530, "lexical": 350, "structural": 80, "long": 40}  # kinds of test sentences, see README.md
MAX_WORDS, MAX_TEST_WORDS = 18, 21  # in train and valid; in the "long" part of test
T = TypeVar("T")


# ---------------------------------------------------------------- what only test may have
def every(items: Sequence[T], step: int) -> tuple[T, ...]:
    """Every ``step``-th item."""
    return tuple(items[step // 2 :: step])


def nouns_of(adjective: str) -> list[str]:
    """The nouns that an adjective can describe, in any of its senses."""
    kinds = [kind for a in ADJECTIVES if a.en == adjective for kind in a.kinds]
    return [key for key, noun in NOUNS.items() if key in kinds or noun.kind in kinds]


_ONE_SENSE = [a.en for a in ADJECTIVES if sum(b.en == a.en for b in ADJECTIVES) == 1 and a.en not in MOODS]
HELD_OUT = frozenset(
    [("object", f.verb, noun) for f in FRAMES if len(f.objects) >= 8 for noun in every(f.objects, 7)]
    + [("adjective", adj, noun) for adj in _ONE_SENSE if len(nouns_of(adj)) >= 6 for noun in every(nouns_of(adj), 6)]
    + [("relative", f.verb, noun) for i, f in enumerate(RELATIVE) for noun in PEOPLE[i % 6 :: 6]]
    + [("within", "because", "relative"), ("within", "so", "passive"), ("within", "although", "comparison")]
)
Combination = tuple[str, str, str]


def parts(m: Meaning | NP) -> Iterator[Meaning | NP]:
    """Yield a meaning, and all meanings and noun phrases inside it."""
    yield m
    for field in fields(m):
        inner = getattr(m, field.name)
        if isinstance(inner, (NP, Act, Be, Complex, Describe, Embed, Pivot)) and inner != GAP:
            yield from parts(inner)


def combinations(m: Meaning) -> list[Combination]:
    """Pairs of verb and object, adjective and noun, relative verb and head noun, conjunction and construction."""
    found: list[Combination] = []
    for part in parts(m):
        if isinstance(part, Act):
            target = part.subject if part.passive else part.object
            if target and target != GAP:
                found.append(("object", part.frame.verb, target.noun))
        elif isinstance(part, Describe):
            found.append(("adjective", part.adj, part.subject.noun))
        elif isinstance(part, NP):
            if part.adj:
                found.append(("adjective", part.adj, part.noun))
            if part.rel and part.rel.subject == GAP and not part.rel.passive:
                found.append(("relative", part.rel.frame.verb, part.noun))
            elif part.rel:
                found.append(("object", part.rel.frame.verb, part.noun))
        elif isinstance(part, Complex):
            for inner in parts(part):
                if isinstance(inner, NP) and inner.rel:
                    found.append(("within", part.conj, "relative"))
                elif isinstance(inner, Act) and inner.passive:
                    found.append(("within", part.conj, "passive"))
                elif isinstance(inner, Describe) and inner.other:
                    found.append(("within", part.conj, "comparison"))
    return found


# ---------------------------------------------------------------- the splits
@dataclass(frozen=True)
class Example:
    """A meaning and its two sentences. ``category`` is "seen" in train and valid; test has all categories."""

    meaning: Meaning
    en: str
    zh: str
    category: str


def build(seed: int) -> dict[str, list[Example]]:
    """Generate all splits; every English and every Chinese sentence is unique in all of them."""
    sampler = Sampler(Random(seed))
    quotas = [("test", name, size) for name, size in TEST_QUOTAS.items()]
    quotas += [("valid", "seen", SIZES["valid"]), ("train", "seen", SIZES["train"])]
    splits: dict[str, list[Example]] = {"train": [], "valid": [], "test": []}
    used: set[str] = set()
    known: dict[str, str] = {}
    for split, category, size in quotas:
        examples: list[Example] = []
        while len(examples) < size:
            draw = {"structural": sampler.rich, "long": sampler.three}.get(category, sampler.sentence)
            meaning = draw()
            en, zh = english(meaning), chinese(meaning)
            assert known.setdefault(en, zh) == zh, f"two translations of {en!r}: {known[en]} and {zh}"
            if en in used or zh in used or category_of(meaning, en) != category:
                continue
            used.update((en, zh))
            examples.append(Example(meaning, en, zh, category))
        splits[split] += examples
    for shuffled in splits.values():
        for i in range(len(shuffled) - 1, 0, -1):
            j = int(sampler.rng.random() * (i + 1))
            shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
    return splits


def category_of(meaning: Meaning, en: str) -> str:
    """The category of a sentence; train and valid have only "seen", and a sentence with "" is not used."""
    num_words = len(en.split())
    held = [c for c in combinations(meaning) if c in HELD_OUT]
    if num_words > MAX_WORDS:
        return "long" if not held and num_words <= MAX_TEST_WORDS else ""
    structures = any(kind == "within" for kind, _, _ in held)
    lexical = any(kind != "within" for kind, _, _ in held)
    return "" if structures and lexical else "structural" if structures else "lexical" if lexical else "seen"


PHENOMENA = {  # name: regular expression for the English side, and for the Chinese side
    "relative clause": (r" (who|that) ", "的"),
    "yes/no question": (r"\?$", "吗？$"),
    "wh-question": (r"^(Who|What|Which|How|Where|When|Why)\b.*\?$", "[^吗]？$"),
    "是 ... 的 question": (r"^(Where|When|How) did ", "是.*的？$"),
    "把": ("", "把(那|这|我|你|他|她|汤姆|玛丽)"),
    "被": (r" by ", "被"),
    "measure words": ("", "[一两三四五十那这][只本辆把张件条杯瓶碗位名封份顶块台部]"),
    "two is 两": (r"\btwo \w+", "两"),
    "不": (r"\bnot\b", "不"),
    "没": (r"\b(not|no)\b", "没"),
    "comparison 比": (r" than ", "比"),
    "了": ("", "了"),
    "过": (r"\b(has|have|had)\b", "过[^，]"),
    "正在": (r"\w+ing\b", "正在"),
    "着": (r" wearing ", "着"),
    "modal verb": (r"\b([Cc]an|cannot|[Mm]ust|[Ss]hould|wants?|needs?)\b", "能|会|必须|应该|想|需要|不用"),
    "existence 有": (r"\b[Tt]here\b", "有"),
    "play": (r"\bplay(s|ed|ing)?\b", "踢|打|弹|拉|下象棋"),
    "wear": (r"\b(wear|wears|wore|wearing)\b", "穿|戴"),
    "bank of a river": (r" on the bank", "河岸"),
    "bank for money": (r" (at|to) the bank", "银行"),
    "know": (r"\bknows?\b", "知道|认识"),
    "old": (r"\bold\b", "老|旧"),
    "because": (r"\b[Bb]ecause\b", "因为.*所以"),
    "if": (r"\b[Ii]f\b", "如果.*就"),
    "although": (r"\b[Aa]lthough\b", "虽然.*但是"),
    "when, before, after": (r"\b([Ww]hen|[Bb]efore|[Aa]fter)\b", "的时候，|以前，|以后，"),
}


def phenomena(examples: Sequence[Example]) -> dict[str, int]:
    """Number of sentence pairs that have each phenomenon."""
    return {
        name: sum(bool(re.search(en, e.en) and re.search(zh, e.zh)) for e in examples)
        for name, (en, zh) in PHENOMENA.items()
    }


def main() -> None:
    """Write the six files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for train.en, train.zh, valid.en, ...")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives another corpus of the same kind")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for split, examples in build(args.seed).items():
        for side in ("en", "zh"):
            text = "".join(getattr(example, side) + "\n" for example in examples)
            (args.output / f"{split}.{side}").write_bytes(text.encode("utf-8"))


if __name__ == "__main__":
    main()
