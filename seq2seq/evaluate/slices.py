"""Where a test set is translated well or badly: flags, parts of it, kinds of words, and the worst lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from seq2seq.decode.flags import FLAGS, Flag, find_flags
from seq2seq.evaluate.by_line import ByLine
from seq2seq.evaluate.card import Example, ExampleKind, Rate, Slice, WordRecall
from seq2seq.evaluate.words import words_of
from seq2seq.languages import QUESTION_MARKS, count_words

RARE = 5  # a word is rare if it is at most so often in the training text
_LENGTHS = (5, 10, 20, 30, 50)  # the last one of each part, in words
_WORST, _WORST_OF_FLAG = 10, 5  # examples
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_CLOSING = " \t\"'”’»)]」』）】》〉"
_STOPS, _EXCLAMATIONS = ".。．।…", "!！"


@dataclass(frozen=True)
class Translated:
    """A test set and its translations, line by line."""

    sources: Sequence[str] | None  # None: not known
    translations: Sequence[str]
    references: Sequence[Sequence[str]]
    languages: tuple[str | None, str | None] = (None, None)  # codes of source and target

    @cached_property
    def flags(self) -> list[tuple[Flag, ...]]:
        """Of each translation; empty without sources."""
        return self._flags(self.translations)

    @cached_property
    def reference_flags(self) -> list[tuple[Flag, ...]]:
        """Of each line of the first reference; empty without sources."""
        return self._flags(self.references[0])

    def _flags(self, texts: Sequence[str]) -> list[tuple[Flag, ...]]:
        pairs = zip(self.sources or (), texts, strict=False)  # there may be no sources
        return [find_flags(source, text, self.languages) for source, text in pairs]

    @cached_property
    def names(self) -> list[set[str]]:
        """[lines] words that are names: capitalised in source and first reference alike, and never without capitals.

        A word that only begins sentences is none. So names that are written otherwise in the other language are not
        found; without sources there are none.
        """
        texts = [*(self.sources or ()), *self.references[0]]
        inside = {word for text in self.sources or () for word in _LETTERS.findall(text)[1:] if word[0].isupper()}
        small = {word for text in texts for word in _LETTERS.findall(text) if word[0].islower()}
        found = {word for word in inside if word.lower() not in small}
        if self.sources is None:
            return [set() for _ in self.translations]
        pairs = zip(self.sources, self.references[0], strict=True)
        return [found & {*_LETTERS.findall(source)} & {*_LETTERS.findall(text)} for source, text in pairs]


def find_rates(texts: Translated) -> tuple[Rate, ...]:
    """How many translations and references have each flag; nothing without sources."""
    if texts.sources is None:
        return ()
    counts, of_references = (Counter(f for flags in one for f in flags) for one in (texts.flags, texts.reference_flags))
    number = len(texts.translations)
    return tuple(
        Rate(flag=flag, lines=counts[flag], share=counts[flag] / number, reference_lines=of_references[flag])
        for flag in FLAGS
    )


def find_slices(texts: Translated, scores: ByLine, source_words: Counter[str] | None) -> tuple[Slice, ...]:
    """Scores of parts of the test set; nothing without sources. A kind with only one part is left out.

    ``source_words``: how often words are in the training text; None: not known.
    """
    if texts.sources is None:
        return ()
    kinds: dict[str, Sequence[str]] = {  # the parts in order
        "words in the source": [_length_name(place) for place in range(len(_LENGTHS) + 1)],
        "numbers in the source": ("with", "without"),
        "names in the source": ("with", "without"),
        "end of the source": ("full stop", "question mark", "exclamation mark", "something else"),
        "rarest word of the source in the training text": ("never", f"1 to {RARE} times", "more often"),
    }
    lines: dict[tuple[str, str], list[int]] = {}
    for line, source in enumerate(texts.sources):
        if source.strip():
            for kind_and_name in _parts(source, bool(texts.names[line]), source_words):
                lines.setdefault(kind_and_name, []).append(line)
    found = []
    for kind, names in kinds.items():
        parts = [(name, lines[kind, name]) for name in names if (kind, name) in lines]
        for name, of_part in parts if len(parts) > 1 else ():
            bleu, chrf = scores.scores(of_part)
            found.append(Slice(kind=kind, name=name, lines=len(of_part), bleu=bleu.score, chrf=chrf.score))
    return tuple(found)


def _parts(source: str, has_name: bool, source_words: Counter[str] | None) -> Iterator[tuple[str, str]]:
    """The parts of the test set that a line belongs to, by kind."""
    length = count_words(source)
    yield "words in the source", _length_name(sum(length > most for most in _LENGTHS))
    yield "numbers in the source", "with" if _NUMBER.search(source) else "without"
    yield "names in the source", "with" if has_name else "without"
    last = source.rstrip(_CLOSING)[-1:]
    ends = {"question mark": QUESTION_MARKS, "full stop": _STOPS, "exclamation mark": _EXCLAMATIONS}
    end = next((name for name, marks in ends.items() if last and last in marks), "something else")
    yield "end of the source", end
    words = [word for word in words_of(source) if not _NUMBER.search(word)]
    if source_words is not None and words:
        rarest = min(source_words[word] for word in words)
        name = "more often" if rarest > RARE else f"1 to {RARE} times" if rarest else "never"
        yield "rarest word of the source in the training text", name


def _length_name(place: int) -> str:
    edges = (0, *_LENGTHS)
    return f"over {edges[-1]}" if place == len(_LENGTHS) else f"{edges[place] + 1} to {edges[place + 1]}"


def find_recalls(texts: Translated, target_words: Counter[str] | None) -> tuple[WordRecall, ...]:
    """How many words of each kind in the first reference are in the translations. A kind without words is left out.

    ``target_words``: how often words are in the training text; None: not known.
    """
    kinds: dict[str, Callable[[int, str], list[str]]] = {
        "numbers": lambda line, text: _NUMBER.findall(text),
        "names": lambda line, text: [word for word in _LETTERS.findall(text) if word in texts.names[line]],
    }
    if target_words is not None:
        bounds = {"that are not in the training text": (0, 0)}
        bounds[f"that are there 1 to {RARE} times"] = (1, RARE)
        bounds["that are there more often"] = (RARE + 1, target_words.total())

        def within(low: int, high: int) -> Callable[[int, str], list[str]]:
            return lambda line, text: [
                word for word in words_of(text) if low <= target_words[word] <= high and not _NUMBER.search(word)
            ]

        kinds |= {f"words {name}": within(*bound) for name, bound in bounds.items()}
    return tuple(found for kind, words in kinds.items() if (found := _recall(kind, words, texts)).words)


def _recall(kind: str, words: Callable[[int, str], list[str]], texts: Translated) -> WordRecall:
    number = found = 0
    for line, (reference, translation) in enumerate(zip(texts.references[0], texts.translations, strict=True)):
        if wanted := Counter(words(line, reference)):
            number += wanted.total()
            found += (wanted & Counter(words(line, translation))).total()
    return WordRecall(kind=kind, words=number, found=found)


def find_examples(texts: Translated, scores: ByLine) -> tuple[ExampleKind, ...]:
    """The worst lines by chrF, of all lines and of those with each flag that their references do not have."""
    filled = [line for line, reference in enumerate(texts.references[0]) if reference.strip()]
    kinds: list[tuple[str, list[int], int]] = [("lowest chrF", filled, _WORST)]
    for flag in FLAGS if texts.sources is not None else ():
        flagged = [line for line in filled if flag in texts.flags[line] and flag not in texts.reference_flags[line]]
        kinds.append((flag, flagged, _WORST_OF_FLAG))
    return tuple(
        ExampleKind(kind=kind, examples=tuple(_example(line, texts, scores) for line in worst))
        for kind, lines, most in kinds
        if (worst := sorted(lines, key=scores.chrf.__getitem__)[:most])
    )


def _example(line: int, texts: Translated, scores: ByLine) -> Example:
    return Example(
        line=line + 1,
        source=texts.sources[line] if texts.sources is not None else "",
        translation=texts.translations[line],
        reference=texts.references[0][line],
        chrf=scores.chrf[line],
    )
