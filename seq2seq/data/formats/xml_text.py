"""The text of an XML file: its encoding, and the characters and ampersands that XML forbids, found or mended.

The first bytes decide the encoding: a byte order mark, or how wide a character is. If they leave it open, the XML
declaration does, and UTF-8 is the default. A declaration that contradicts the bytes is wrong and does not count: a
program that converts a file often leaves it as it was.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from html.entities import html5
from itertools import chain

LONGEST = 16 << 20  # characters of a segment, bytes of a tag or a comment: more is no text and could fill the memory

_HEAD = 512  # bytes; the declaration, which ends with the first ">", is shorter
# Longer marks first: that of UTF-16 is the start of that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
# XML starts with ASCII characters: two of them in each encoding with wide characters.
_WIDE = (
    (re.compile(rb"[^\0]\0\0\0[^\0]\0\0\0"), "utf-32-le"),
    (re.compile(rb"\0\0\0[^\0]\0\0\0[^\0]"), "utf-32-be"),
    (re.compile(rb"[^\0]\0[^\0]\0"), "utf-16-le"),
    (re.compile(rb"\0[^\0]\0[^\0]"), "utf-16-be"),
)
# Encodings of Python for names and source code; they decode ASCII, but they are not for text.
_NO_TEXT = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r"))
_DECLARED = re.compile(rb"\s*<\?xml\s[^>]*?encoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# What is copied whole, because an ampersand in it is an ordinary character; what a block may end with in the middle (it
# then waits for the next block); references to check, and ampersands alone. A reference of more than 64 characters is
# none. Each branch starts with a letter of its own, which lets ``re`` skip all text without them.
_MARKUP = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>"
    r"|<(?:(?:!--|!\[CDATA\[|\?).*|(?:!-?|!\[C?D?A?T?A?)?\Z)(?P<unfinished>)"
    r"|&(?:[#A-Za-z0-9]{0,64}\Z)(?P<cut>)"
    r"|&(?!(?:amp|lt|gt|quot|apos);)(?:[#A-Za-z0-9]{1,64};)?(?P<reference>)",
    re.DOTALL,
)
_NUMBER = re.compile(r"&#(?:([0-9]+)|x([0-9A-Fa-f]+));")
_REMEDY = "correct the file, or set mend: true"


class XmlError(Exception):
    """A mistake in an XML file; the reader, who knows the path, makes a DataError of it."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line, self.what = line, what


def decoded(blocks: Iterator[bytes]) -> Iterator[str]:
    """The text of an XML file that comes in blocks of any size.

    Raises XmlError for an unknown encoding, a file that is not text, and bytes that are invalid in the encoding; before
    it, all text in front of these bytes is given.
    """
    head = b""
    for block in blocks:
        head += block
        if len(head) >= _HEAD or b">" in head:
            break
    encoding, size_of_mark = encoding_of(head)
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    for block in chain([head[size_of_mark:]], blocks, [b""]):
        try:
            text = decoder.decode(block, not block)  # the end is an empty block
        except UnicodeDecodeError as error:
            valid = error.object[: error.start].decode(encoding, "replace")
            yield valid
            byte = f"0x{error.object[error.start]:02x}"
            what = f"not valid {encoding.upper()} (byte {byte}); convert the file to UTF-8, or correct this line"
            if not block:
                what = "the file ends in the middle of a character; it is cut short, copy it again"
            raise XmlError(line + valid.count("\n"), what) from None
        line += text.count("\n")
        yield text


def checked(texts: Iterable[str], mend: bool) -> Iterator[str]:
    """The same text, without characters that XML forbids and with an entity of XML for each ampersand.

    Args:
        texts: the whole text of a file, in parts of any size.
        mend: remove forbidden characters and references to them, put the characters of HTML in the place of its
            entities (``&nbsp;``), and write ``&amp;`` for any other ampersand that starts no reference. Comments, CDATA
            sections and processing instructions lose only forbidden characters. Otherwise the first of these faults
            raises XmlError, after all text in front of it is given.
    """
    line, held = 1, ""
    for text in texts:
        forbidden = _FORBIDDEN.search(text)
        if forbidden and mend:
            text = _FORBIDDEN.sub("", text)
        elif forbidden:
            text = text[: forbidden.start()]
        text = held + text
        parts, done, held = [], 0, ""
        for found in _MARKUP.finditer(text):
            if found.lastgroup in ("unfinished", "cut"):
                held = found[0]
                break
            if found.lastgroup == "reference" and (fault := _fault(found[0])):
                what, mended = fault
                parts.append(text[done : found.start()])
                if not mend:
                    yield parts[0]
                    raise XmlError(line + parts[0].count("\n"), f"{what}; {_REMEDY}")
                parts.append(mended)
                done = found.end()
        end = len(text) - len(held)
        parts.append(text[done:end])
        line += text.count("\n", 0, end)
        yield "".join(parts)
        if forbidden and not mend:
            name = f"U+{ord(forbidden[0]):04X}"
            raise XmlError(line + held.count("\n"), f"the character {name} is not allowed in XML; {_REMEDY}")
        if len(held) > LONGEST:
            raise XmlError(line, f"a comment or CDATA section has more than {LONGEST:,} characters; remove it")
    yield held  # the file is cut here, or something follows its last element; the parser says so


def _fault(reference: str) -> tuple[str, str] | None:
    """What is wrong with a reference or with an ampersand alone, and what to put in its place; None if it is right."""
    if number := _NUMBER.fullmatch(reference):
        code = int(number[1]) if number[1] else int(number[2], 16)
        if code <= 0x10FFFF and not _FORBIDDEN.match(chr(code)):
            return None
        return f"{reference} stands for a character that is not allowed in XML", ""
    if characters := html5.get(reference[1:]):
        return f"{reference} is an entity of HTML, not of XML", "".join(f"&#{ord(c)};" for c in characters)
    if reference == "&":
        return 'an ampersand "&" stands alone; XML writes it as &amp;', "&amp;"
    return f"{reference} is not an entity of XML, which writes an ampersand as &amp;", "&amp;" + reference[1:]


def encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding of a file that starts with ``head``, and the length of its byte order mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    for start, encoding in _WIDE:
        if start.match(head):
            return encoding, 0
    declared = _DECLARED.match(head.translate(None, _CONTROLS))
    if not declared:
        return "utf-8", 0
    name = declared[1].decode("ascii")
    try:
        if codecs.lookup(name).name in _NO_TEXT:
            raise LookupError
        codecs.getincrementaldecoder(name)
        fits = declared[0].decode(name) == declared[0].decode("ascii")
    except LookupError:
        raise XmlError(1, f"its encoding {name[:40]} is unknown; convert the file to UTF-8") from None
    except UnicodeError:
        fits = False
    return name if fits else "utf-8", 0
