"""Translation memories (TMX): the segments of two languages, read from XML in blocks.

The text of a segment is what a reader sees. Inline tags whose content is code of another program (bpt, ept, ph, it, ut)
go with their content; hi, sub and unknown tags go and their text stays, also that of a sub inside of code. A line
break comes from the indentation of the XML: with the white space around it, it becomes one space, and nothing at the
ends of a segment.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from seq2seq.data.formats.compression import open_bytes
from seq2seq.data.formats.lines import printable
from seq2seq.data.formats.units import Unit
from seq2seq.data.formats.xml_text import LONGEST, XmlError, checked, decoded
from seq2seq.errors import DataError

BLOCK = 1 << 20  # bytes that are read at a time

_CODE = frozenset({"bpt", "ept", "ph", "it", "ut"})
_TEXT = frozenset({"hi", "sub"})
_BREAK = re.compile(r"(?<![ \t])[ \t]*[\r\n][ \t\r\n]*")
_DEEPEST = 1_000  # elements inside each other
_MOST_LANGUAGES = 1_000  # that are counted
_SHOWN_LANGUAGES = 10
_OTHER_ROOTS = {"xliff": "XLIFF", "html": "a web page", "martif": "a term base (TBX)", "tbx": "a term base (TBX)"}
_CUT = {
    expat.errors.XML_ERROR_NO_ELEMENTS,
    expat.errors.XML_ERROR_UNCLOSED_TOKEN,
    expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    expat.errors.XML_ERROR_PARTIAL_CHAR,
}


def read_tmx(path: Path, *, src_lang: str, tgt_lang: str, mend: bool = False) -> Iterator[Unit]:
    """Stream the units of a TMX file; a unit without one of the languages has "" there.

    Args:
        src_lang, tgt_lang: language codes; upper and lower case, ``-`` and ``_`` are alike. ``en`` takes a variant
            ``en`` of the unit, else its first of ``en-US``, ``en-GB``, ... except the code of the other side.
            ``en-US`` takes only ``en-US``. Of several variants with the same code, the first is taken.
        mend: repair characters and ampersands that XML forbids, see :func:`seq2seq.data.formats.xml_text.checked`.

    Raises:
        DataError: the file cannot be read, is not well-formed XML or not TMX, declares entities, has a segment above
            16 million characters, or (at the end) has no unit in one of the languages.
    """
    memory = Memory(src_lang, tgt_lang)
    with open_bytes(path) as file:
        for found in memory.units_of(checked(decoded(iter(partial(file.read, BLOCK), b"")), mend), path):
            yield found.unit
    if problem := memory.missing_languages("src_lang", "tgt_lang"):
        raise DataError(f"{path}: {problem}")


class PlacedUnit(NamedTuple):
    """A unit and its places in the text of the file; they count bytes of UTF-8."""

    unit: Unit
    segment: tuple[int, int] | None  # of the target text: where <seg> and </seg> start (<seg/>: where it ends)
    variant: int  # where the last <tuv> starts
    end: int  # where </tu> starts


class Memory:
    """What the parser has found so far: finished units, the open unit and segment, and languages."""

    def __init__(self, *languages: str) -> None:
        self._languages = languages
        self._codes = [_normal(language) for language in languages]
        self._units: list[PlacedUnit] = []
        self._counts: Counter[str] = Counter()  # of variants, by their language code as it is written
        self._found = [False, False]  # for each side, whether any unit has its language
        self.number, self.in_unit = 0, False
        self._begun, self._depth = False, 0  # whether there was an element, and how many are open
        self._texts, self._taken = ["", ""], [0, 0]  # of the open unit: text and fit of each side
        self._fits = [0, 0]  # of the open variant
        self._opened = self._variant = 0  # where the latest segment and variant start
        self._segment: tuple[int, int] | None = None  # see PlacedUnit
        self._kept: list[bool] = []  # for the open segment and each element in it: whether its text is kept
        self._text = io.StringIO()
        # The text comes decoded, so the encoding that the file declares does not count.
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.EntityDeclHandler = self._refuse_entity

    def units_of(self, texts: Iterable[str], name: Path | str) -> Iterator[PlacedUnit]:
        """The units of a file, whose text comes in parts; raises DataError as :func:`read_tmx`, which is the reader."""
        fed = 0
        try:
            for text in texts:
                data = text.encode()
                self.parser.Parse(data, False)
                fed += len(data)
                self.check_size(fed)
                yield from self.take_units()
            self.parser.Parse(b"", True)
            yield from self.take_units()
        except (XmlError, expat.ExpatError) as error:
            line = error.line if isinstance(error, XmlError) else error.lineno
            what = error.what if isinstance(error, XmlError) else self.explain(error)
            unit = f"unit {self.number}: " if self.in_unit else ""
            raise DataError(f"{name}:{line}: {unit}{what}") from None

    def take_units(self) -> list[PlacedUnit]:
        """The units that were finished since the last call."""
        units, self._units = self._units, []
        return units

    def check_size(self, fed: int) -> None:
        """Raise XmlError if the open segment, or a tag that has not ended, is too long; ``fed``: bytes so far."""
        if self._text.tell() > LONGEST:
            raise self._fault(f"a segment has more than {LONGEST:,} characters; put one sentence in each segment")
        if fed - self.parser.CurrentByteIndex > LONGEST:
            raise self._fault(f"a tag or comment has more than {LONGEST:,} bytes; export the memory again")

    def explain(self, error: expat.ExpatError) -> str:
        """What is wrong in XML that the parser refuses, and what to do."""
        message = expat.ErrorString(error.code)
        if message in _CUT:
            return "the file ends before </tmx>; it is empty or cut short, copy it again"
        if message == expat.errors.XML_ERROR_MISPLACED_XML_PI:
            return "<?xml ... ?> may stand only at the start of a file; remove what is in front of it"
        if not self._begun:
            return f"is not XML ({message}); name a TMX file"
        return f"is not well-formed XML ({message}); correct this place, or export the memory again"

    def missing_languages(self, *keys: str) -> str | None:
        """What to say if the file has units, but none in one of the first languages, whose ``keys`` are given."""
        missing = [(one, key) for one, key, found in zip(self._languages, keys, self._found, strict=False) if not found]
        if not (self.number and missing):
            return None
        wanted = " and none in ".join(language for language, _ in missing)
        to_set = " and ".join(key for _, key in missing)
        most = self._counts.most_common(_SHOWN_LANGUAGES)
        shown = ", ".join(f"{printable(code, 20) or 'without a code'} ({count:,})" for code, count in most)
        more = f" and {len(self._counts) - len(most)} more" * (len(self._counts) > len(most))
        return f"no unit in {wanted}; its languages: {shown or 'none'}{more}; set {to_set} to one of them"

    def has(self, language: str) -> bool:
        """Whether there were variants in a language."""
        return any(_fit(_normal(code), _normal(language), self._codes[1]) for code in self._counts)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._fault(f"more than {_DEEPEST:,} elements are open; export the memory again")
        if self._kept:
            self._keep(name in _TEXT or (self._kept[-1] and name not in _CODE))
        elif not self._begun:
            self._begun = True
            if name == "tmx":
                return
            kind = _OTHER_ROOTS.get(name.lower(), "another kind of XML")
            raise self._fault(f"is {kind} (<{printable(name, 20)}>), not TMX; export the translations as TMX")
        elif name == "tu":
            if self.in_unit:
                raise self._fault("a <tu> is inside of another <tu>; export the memory again")
            self.number += 1
            self.in_unit = True
            self._texts, self._taken, self._segment = ["", ""], [0, 0], None
        elif name == "tuv" and self.in_unit:
            self._variant = self.parser.CurrentByteIndex
            self._start_variant(attributes.get("xml:lang") or attributes.get("lang") or "")
        elif name == "seg" and any(self._fits):
            self._opened = self.parser.CurrentByteIndex
            self._text = io.StringIO()
            self._keep(True)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._kept:
            self._kept.pop()
            if self._kept:
                self._collect(self._kept[-1])
            else:
                self._end_segment()
        elif name == "tuv":
            self._fits = [0, 0]
        elif name == "tu":
            self.in_unit = False
            unit = Unit(self._texts[0], self._texts[1], self.number)
            self._units.append(PlacedUnit(unit, self._segment, self._variant, self.parser.CurrentByteIndex))

    def _start_variant(self, language: str) -> None:
        language = language[:40]  # so that no file fills the memory with codes
        if language in self._counts or len(self._counts) < _MOST_LANGUAGES:
            self._counts[language] += 1
        code = _normal(language)
        src, tgt = self._codes
        self._fits = [_fit(code, src, tgt), _fit(code, tgt, src)]
        for side, fit in enumerate(self._fits):
            self._found[side] = self._found[side] or fit > 0

    def _end_segment(self) -> None:
        self._collect(False)
        self.check_size(0)
        text = self._text.getvalue()
        self._text = io.StringIO()
        if "\n" in text or "\r" in text:
            end = len(text)
            text = _BREAK.sub(lambda found: "" if found.start() == 0 or found.end() == end else " ", text)
        for side, fit in enumerate(self._fits):
            if fit > self._taken[side]:
                self._texts[side], self._taken[side] = text, fit
                if side == 1:
                    self._segment = self._opened, self.parser.CurrentByteIndex

    def _keep(self, kept: bool) -> None:
        self._kept.append(kept)
        self._collect(kept)

    def _collect(self, kept: bool) -> None:
        self.parser.CharacterDataHandler = self._text.write if kept else None

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise self._fault(
            f"declares the entity {printable(name, 20)}, which could fill the memory; remove the declarations"
        )

    def _fault(self, what: str) -> XmlError:
        return XmlError(self.parser.CurrentLineNumber, what)


def _normal(language: str) -> str:
    return language.strip().replace("_", "-").lower()


def _fit(code: str, wanted: str, other: str) -> int:
    """2 if a variant's code is the wanted one, 1 if it adds a region or script to it, else 0."""
    if code == wanted:
        return 2
    return int("-" not in wanted and code.startswith(f"{wanted}-") and code != other)
