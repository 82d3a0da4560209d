"""Files that are not plain text: their first bytes, and how to read each kind or convert it to text."""

import re

HEAD = 512  # number of first bytes that are needed

_unpack = "unpack it first: {} FILE > text.txt".format
_EXPORT = "export it as plain text in UTF-8, one sentence per line"
_recode = "convert it first: iconv -f {} -t utf-8 FILE > text.txt".format

# Regular expression for the start of a file, what the file is, and what to do.
_BINARY = [
    (rb"\x04\x22\x4d\x18", "compressed with lz4", _unpack("lz4 -dc")),
    (rb"\x5d\x00\x00.[\x00-\x0f](\xff{8}|.{5}\x00{3})", "compressed with lzma", _unpack("xz --format=lzma -dc")),
    (rb"LZIP\x01", "compressed with lzip", _unpack("lzip -dc")),
    (rb"\x1f[\x9d\xa0]", "compressed with compress", _unpack("gzip -dc")),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08).{0,500}?(word/|xl/|ppt/|mimetype|\[Content_Types\])", "an Office file", _EXPORT),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive (or an Office file)", _unpack("unzip -p")),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _unpack("7z x -so")),
    (rb"Rar!\x1a\x07", "a rar archive", _unpack("unrar p -inul")),
    (rb".{257}ustar", "a tar archive", _unpack("tar -xOf")),
    (rb"%PDF-", "a PDF", "extract its text: pdftotext FILE text.txt"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file", _EXPORT),
    (rb"\{\\rtf", "an RTF document", _EXPORT),
    (rb"PAR1[\x00-\x1f]", "a Parquet table", _EXPORT),
    (rb"ARROW1\x00\x00|FEA1\x00|\xff\xff\xff\xff..\x00\x00", "an Arrow table", _EXPORT),
    (rb"Obj\x01", "an Avro table", _EXPORT),
    (rb"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (rb"\x89HDF\r\n|\x93NUMPY", "an array file (HDF5 or NumPy)", _EXPORT),
    (rb"\x80[\x02-\x05](\x95|\}|\]|c|\()", "a Python pickle", _EXPORT),
    (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|II\*\x00|MM\x00\*|RIFF....(WAVE|WEBP|AVI )", "an image or sound", _EXPORT),
    (rb"\x7fELF|MZ.\x00.{0,4}\x00", "a program", _EXPORT),
]

_instead = "write {{{}}} in place of src and tgt".format
# The same for files that hold parallel text in another form than lines; what to do is a line of the config.
_STRUCTURED = [
    (rb"(<[?!].*)?<tmx\b", "a TMX file", _instead("tmx: FILE, src_lang: en, tgt_lang: de")),
    (rb"<(\?xml|xliff|(?i:!doctype|html))\b", "XML or HTML", "convert it to TMX, or put one sentence on each line"),
    (rb"(\[\s*)?\{\s*\"[^\"]*\"\s*:", "JSON", _instead("jsonl: FILE, src: KEY, tgt: KEY")),
    (rb"PAR1[\x00-\x1f]", "a Parquet table", _instead("parquet: FILE, src: COLUMN, tgt: COLUMN")),
    (
        rb"PK\x03\x04(?!.*(word/|ppt/|mimetype)).*(xl/|\[Content_Types\]|docProps/|_rels/)",
        "an Excel file (or another Office file)",
        _instead("xlsx: FILE, src: COLUMN, tgt: COLUMN"),
    ),
    (rb"PK\x03\x04(?!.*(word/|ppt/|mimetype))", "a zip archive", _instead("moses: FILE, src_lang: en, tgt_lang: de")),
]


def structured(head: bytes) -> str | None:
    """Message for data that start with ``head`` and are TMX, JSON, a table or an archive; None for all others.

    Ordinary text may begin in the same way: ask only about a file of a dataset that is read as plain lines.
    """
    start = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")  # of UTF-8 and UTF-16
    return _message(_STRUCTURED, start, "plain lines")


def binary(head: bytes) -> str | None:
    """Message for data that start with ``head`` and are not text in any encoding; None if they can be."""
    return _message(_BINARY, head, "text")


def not_text(head: bytes) -> str | None:
    """Message for data that start with ``head`` and are not UTF-8 text; None if they can be.

    Text may contain NUL. The caller handles compression.
    """
    if (message := binary(head)) is not None:
        return message
    code = _wide_code(head)
    return code and f"is {code.upper()}, not UTF-8; {_recode(code)}"


def _message(kinds: list[tuple[bytes, str, str]], head: bytes, expected: str) -> str | None:
    for pattern, what, advice in kinds:
        if re.match(pattern, head, re.DOTALL):  # re keeps the compiled patterns
            return f"is {what}, not {expected}; {advice}"
    return None


def _wide_code(head: bytes) -> str | None:
    """Detect UTF-16 or UTF-32, with or without a byte order mark.

    Most text is in one small part of Unicode, which shows in the upper bytes of its characters. In ASCII most upper
    bytes are 0 and the lower bytes are letters. In another alphabet there are two or three different upper bytes, one
    of them 0 (from spaces). Lower bytes are rarely 0.
    """
    for code, marks in (("utf-32", (b"\xff\xfe\0\0", b"\0\0\xfe\xff")), ("utf-16", (b"\xff\xfe", b"\xfe\xff"))):
        if head.startswith(marks):
            return code
    wide = {"utf-32le": (0, (2, 3), 4), "utf-32be": (3, (0, 1), 4), "utf-16le": (0, (1,), 2), "utf-16be": (1, (0,), 2)}
    for code, (low, high, width) in wide.items():
        lower, upper = head[low::width], b"".join(head[place::width] for place in high)
        letters = {byte for byte in lower if chr(byte).isalpha() and byte < 128}
        ascii_text = 2 * upper.count(0) > len(upper) and len(letters) >= 3
        other_text = len(lower) >= 32 and len(set(upper)) <= 3 and 0 in upper and len(set(lower)) > 3
        if (ascii_text or other_text) and 8 * lower.count(0) < len(lower):
            return code
    return None
