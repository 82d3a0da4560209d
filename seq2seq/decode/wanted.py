"""What the translations of a text must have or not have, from text to pieces, and the check whether they do.

A term or a protected string is wanted from the part of a line that has it. Whether a line has all of them is decided by
the text of its translation, not by what the search was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass

from seq2seq.config import DecodeConfig
from seq2seq.decode.constraints import Beginning, Rules
from seq2seq.decode.glossary import Entry, Glossary, has_term
from seq2seq.decode.placing import Bare
from seq2seq.decode.protect import Kept, not_kept, protected, without_strings
from seq2seq.decode.speller import Speller, in_word
from seq2seq.decode.terms import Term
from seq2seq.errors import UserError
from seq2seq.languages import UNSPACED_SCRIPTS, script_of


@dataclass
class Tally:
    """How many lines had something to keep, and how many of their translations have all of it."""

    lines: int = 0
    kept: int = 0


class Prefixes:
    """How the translations of lines begin: a text for each line, blank for any beginning."""

    def __init__(self, texts: Iterable[str], name: str = "prefix", number: int = 0) -> None:
        """``name``: of the file, for messages; ``number``: of the lines that were read before."""
        self.name, self._texts, self._number = name, iter(texts), number

    def next(self, count: int) -> list[str]:
        """The texts for the next lines; raises UserError if there are too few."""
        texts: list[str] = []
        for text in self._texts:
            texts.append(text)
            if len(texts) == count:
                break
        self._number += len(texts)
        if len(texts) < count:
            raise UserError(f"{self.name}: has only {self._number:,} lines; it needs one for each line to translate")
        return texts

    def finish(self) -> None:
        """Raise UserError if there are more texts than lines."""
        if next(self._texts, None) is not None:
            raise UserError(
                f"{self.name}: has more than the {self._number:,} lines to translate; it needs one for each line"
            )


class Wanted:
    """What is wanted from the translations of a text; a blank ``Prefixes`` or no ``Glossary`` wants nothing."""

    def __init__(
        self,
        speller: Speller,
        decode: DecodeConfig,
        prefixes: Prefixes | None = None,
        glossary: Glossary | None = None,
        language: str | None = None,
    ) -> None:
        """``language``: of the translations.

        Raises UserError if the tokenizer cannot write a term of the glossary, or the search is not for terms.
        """
        if glossary is not None and decode.sample:
            raise UserError("a glossary needs beam search, and decode.sample is true; leave one of them out")
        self._speller, self._kinds = speller, decode.protect
        self._unspaced = script_of(language) in UNSPACED_SCRIPTS
        self.prefixes, self._glossary = prefixes, glossary
        self.terms_tally, self.protected_tally = Tally(), Tally()
        for entry in glossary.entries if glossary is not None else ():
            if speller.term(entry.target) is None:
                raise UserError(
                    f"{entry.place}: the model cannot write the target term {entry.target!r}, because its tokenizer "
                    "lacks a character; write it in another way, or remove the row"
                )
        self._checks = prefixes is not None or glossary is not None or bool(self._kinds)
        self.rules = Rules(speller.banned(decode.suppress), speller.table if self._checks else None)

    def beginning(self, text: str, line: int, longest: int) -> Beginning:
        """The beginning of the translation of a line; raises UserError if it cannot be written.

        Args:
            longest: tokens of the translation, with EOS.
        """
        assert self.prefixes is not None
        place = f"{self.prefixes.name}:{line}"
        found = self._speller.beginning(text)
        if found is None:
            raise UserError(f"{place}: the model cannot write {text!r}, because its tokenizer lacks a character")
        if len(found.ids) >= longest:
            raise UserError(
                f"{place}: has {len(found.ids):,} tokens, but the translation of its line has at most {longest - 1:,}; "
                "shorten it, or raise decode.max_length_ratio"
            )
        return found

    def bare(self, source: str) -> Bare:
        """A line, or a part of it, as the model reads it: numbers stay, other protected strings are put in later."""
        return without_strings(source, self._kinds)

    def terms(self, source: str) -> tuple[Term, ...]:
        """What the translation of a line, or of a part of it, must have."""
        found = [self._speller.term(entry.target) for entry in self._entries(source)]
        if self._kinds:
            found += [self._copied(source, *each) for each in protected(source, self._kinds).items()]
        return tuple(term for term in found if term is not None)

    def _copied(self, source: str, kept: Kept, places: list[int]) -> Term | None:
        """A protected string as a term, with a space before it, and no letter after it, where the source has it so."""
        spaced = {at == 0 or source[at - 1].isspace() for at in places}
        following = "".join(source[(end := at + len(kept.text)) : end + 1] for at in places)
        return self._speller.term(
            kept.text,
            len(places),
            exact=True,
            number=kept.kind == "numbers",
            starts_word=None if self._unspaced or len(spaced) > 1 else spaced.pop(),
            ends_word=not any(map(in_word, following)),
        )

    def check(self, source: str, translations: Sequence[str], prefix: str, report: Callable[[str], None]) -> None:
        """Report what one of a line's translations lacks."""
        if not self._checks:
            return
        begins = " ".join(prefix.split())
        if not all(text.startswith(begins) for text in translations):
            report("the translation does not begin with its prefix")
        entries, lacking = self._entries(source), self._lacking(source, translations)
        _count(self.terms_tally, entries, lacking)
        if lacking:
            report(f"the translation lacks {', '.join(f'{entry.target!r} ({entry.place})' for entry in lacking)}")
        if self._kinds:
            lost = self._lost(source, translations)
            _count(self.protected_tally, protected(source, self._kinds), lost)
            if lost:
                report(f"not copied exactly: {', '.join(map(repr, lost))}")

    def is_there(self, source: str, translations: Sequence[str]) -> bool:
        """Whether each translation of a line, or of a part of it, has its terms and protected strings anyway."""
        return not self._lacking(source, translations) and not self._lost(source, translations)

    def summary(self) -> Iterator[str]:
        """What was kept, in sentences."""
        for tally, what in ((self.terms_tally, "terms of the glossary"), (self.protected_tally, "protected text")):
            if tally.lines:
                yield f"lines with {what}: {tally.lines:,}; translations with all of it: {tally.kept:,}"

    def _lacking(self, source: str, translations: Sequence[str]) -> list[Entry]:
        there = self._entries(source)
        return [entry for entry in there if not all(has_term(text, entry.target) for text in translations)]

    def _lost(self, source: str, translations: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(lost for text in translations for lost in not_kept(source, text, self._kinds)))

    def _entries(self, source: str) -> list[Entry]:
        return self._glossary.find(source) if self._glossary is not None else []


def _count(tally: Tally, wanted: Sized, lacking: Sized) -> None:
    if len(wanted):
        tally.lines += 1
        tally.kept += not len(lacking)
