"""What the doctor says, and from which share on a finding is doubtful or wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Mark = Literal["ok", "doubtful", "WRONG", "not tried"]
_MARK_WIDTH = 11
_WIDTH = 108  # of lines, but for examples


class Limit(NamedTuple):
    """From which share on a finding is doubtful and from which it is wrong (2: never), and why: shown with it."""

    doubtful: float
    wrong: float
    advice: str


# Shares of the lines, pairs or pieces that are looked at. "Any" is a share just above 0.
_ANY, _NEVER = 1e-12, 2.0
LIMITS = {
    # A run refuses to start with the first, whatever the share.
    "invalid": Limit(_ANY, _ANY, "convert the file to UTF-8, or remove these lines on both sides"),
    # Left out of training by themselves; many of them point to a broken export. In a reference they cost BLEU.
    "blank": Limit(0.01, 0.5, "training leaves them out; are they lost translations?"),
    # Never part of a sentence, but harmless while rare.
    "control": Limit(
        0.0001, _NEVER, "remove these characters; a line separator inside a line is often a lost line end"
    ),
    "replaced": Limit(0.0001, 0.05, "characters were lost in an earlier conversion; go back to the original files"),
    "garbled": Limit(0.0001, 0.01, "UTF-8 was read as Latin-1 and encoded again; convert the original once"),
    "markup": Limit(0.001, _NEVER, "strip tags and resolve entities on both sides, or the model writes them"),
    # Every subword is a word to the model, and BLEU counts subwords: such text was prepared for another toolkit.
    "subwords": Limit(
        0.001, 0.05, "undo the subwords (sed -r 's/(@@ )|(@@ ?$)//g'; spm_decode): seq2seq makes subwords itself"
    ),
    # Scores of it do not compare, and users do not write like that. Some lines with " ." are in every text.
    "tokenised": Limit(
        0.05,
        _NEVER,
        "detokenise both sides (sacremoses detokenize; Chinese: remove the spaces), or go back to the original",
    ),
    "lowered": Limit(
        _ANY, _NEVER, "the model learns no capitals: go back to the original, or lower-case all that it translates"
    ),
    # Spellings that look alike; the source is normalised. Where the language wants one of them, it is everywhere.
    "spacing": Limit(
        0.001, _NEVER, "where the language does not want them, write plain spaces, or the model mixes both"
    ),
    "invisible": Limit(0.0001, _NEVER, "remove them, or the model writes them; joiners with a meaning do not count"),
    "decomposed": Limit(0.0001, _NEVER, "compose them (uconv -x NFC), or the model writes two spellings of one word"),
    # Copies are the most harmful noise there is: some per cent cost several BLEU (Khayrallah & Koehn 2018).
    "identical": Limit(0.005, 0.05, "a model learns from few of them to copy its source; remove them on both sides"),
    # Trained on more often than others, harmless by themselves; web text and captions have some per cent.
    "repeated": Limit(0.01, 0.5, "they weigh more than others and memorise well; keep one of each"),
    # Short sentences aside, translations are of like lengths everywhere, up to a factor of the pair of languages.
    "unlike": Limit(0.005, 0.05, "often not translations of each other; data.max_ratio leaves the worst out"),
    # Some foreign names and quotations are in every text.
    "script": Limit(0.002, 0.05, "foreign lines, or another language than the files say; remove them on both sides"),
    "swapped": Limit(_ANY, 0.01, "the two sides have changed places here; swap them back"),
    # What is scored must not have been learnt. Short everyday sentences may recur by chance.
    "seen": Limit(0.001, 0.05, "the score would measure memory; remove these pairs from the training text"),
    "seen source": Limit(
        0.05, _NEVER, "the same sentence with another translation is in train; better to remove it there"
    ),
    # Left out of training by themselves: lost, and only a few of a real text should be.
    "too long": Limit(0.01, 0.2, "training leaves them out; raise data.max_length, or cut them at sentence ends"),
    "ratio": Limit(0.02, 0.2, "training leaves them out; raise data.max_ratio if they are translations"),
    # Lost to the model altogether; without byte_fallback every one becomes the same sign.
    "unknown": Limit(0.0001, 0.01, "set tokenizer.byte_fallback: true, or raise tokenizer.character_coverage"),
    # Three or so pieces for one character: slow and hard to learn, fine for the rare ones.
    "bytes": Limit(0.005, 0.05, "raise tokenizer.character_coverage or tokenizer.vocab_size; names and emoji are fine"),
}
# Pieces per word where words are spaced, else per character: with more, sentences are long and words hard to learn.
FERTILITY_WORDS, FERTILITY_CHARACTERS = 2.5, 1.1


@dataclass(frozen=True)
class Verdict:
    """One finding: what was seen, what to do, and where, as lines of text."""

    mark: Mark
    text: str
    advice: str = ""
    examples: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [*textwrap.wrap(self.text, _WIDTH), *textwrap.wrap(self.advice, _WIDTH)]
        lines += [f"  {example}" for example in self.examples]
        return textwrap.indent("\n".join(lines), " " * _MARK_WIDTH).replace(
            " " * _MARK_WIDTH, f"{self.mark:<{_MARK_WIDTH}}", 1
        )


@dataclass(frozen=True)
class Section:
    """Findings about one thing."""

    title: str
    verdicts: Sequence[Verdict]

    def __str__(self) -> str:
        return "\n".join([self.title, *(textwrap.indent(str(verdict), "  ") for verdict in self.verdicts)])


def judged(kind: str, what: str, count: int, of: int, examples: Sequence[str] = ()) -> Verdict:
    """The verdict on ``count`` cases of a kind of :data:`LIMITS` among ``of``; ``what`` says what they are.

    ``{count}`` in it becomes their number and share. A finding that is ok is shown with one example.
    """
    limit, share = LIMITS[kind], count / max(1, of)
    text = what.format(count=f"{count:,} ({per_cent(share)})")
    if share < limit.doubtful:
        return Verdict("ok", text, examples=examples[:1])
    return Verdict("WRONG" if share >= limit.wrong else "doubtful", text, limit.advice, examples)


def per_cent(share: float) -> str:
    """A share for people, with as many digits as it needs to differ from nothing and from all."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def summary(sections: Sequence[Section]) -> str:
    """The last line: how many findings of each mark."""
    marks = [verdict.mark for section in sections for verdict in section.verdicts]
    parts = [f"{marks.count('WRONG')} wrong", f"{marks.count('doubtful')} doubtful", f"{marks.count('ok')} fine"]
    return ", ".join(parts + ([f"{marks.count('not tried')} not tried"] if "not tried" in marks else []))
