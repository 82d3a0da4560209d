"""Promise: a TMX file gives the text of its segments, whatever its encoding, and every mistake in it is one line."""

import codecs
import gzip
import re
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seq2seq.data.formats import tmx as tmx_module
from seq2seq.data.formats import xml_text
from seq2seq.data.formats.tmx import read_tmx
from seq2seq.errors import DataError

quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
ALLOWED = st.characters(
    blacklist_categories=("Cs",),
    blacklist_characters="".join(map(chr, {*range(32)} - {9, 10, 13})) + "\ufffe\uffff",
)
TEXT = st.text(ALLOWED, max_size=20) | st.text(" \t\r\n&<>]a-", max_size=12)
ENCODINGS = {
    "UTF-8": (b"", "utf-8"),
    "utf-8": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "utf-16": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "UTF-16LE": (b"", "utf-16-le"),
    "UTF-16BE": (b"", "utf-16-be"),
}


def document(body: str, encoding: str = "UTF-8") -> str:
    return (
        f'<?xml version="1.0" encoding="{encoding}"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4">\n'
        f'<header srclang="*all*"><note>no text</note></header>\n<body>\n{body}\n</body>\n</tmx>\n'
    )


def variant(language: str, seg: str) -> str:
    return f'<tuv xml:lang="{language}"><prop type="x">no text</prop><seg>{seg}</seg></tuv>'


def unit(src: str, tgt: str) -> str:
    return f"<tu>{variant('en', src)}{variant('de', tgt)}</tu>"


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, src: str = "en", tgt: str = "de", mend: bool = False) -> list[tuple[str, str]]:
    units = list(read_tmx(path, src_lang=src, tgt_lang=tgt, mend=mend))
    assert [unit.number for unit in units] == list(range(1, len(units) + 1))
    return [(unit.src, unit.tgt) for unit in units]


def message(path: Path, mend: bool = False, **languages: str) -> str:
    """The message without the folder."""
    with pytest.raises(DataError) as caught:
        list(read_tmx(path, **{"src_lang": "en", "tgt_lang": "de", **languages}, mend=mend))
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"{path.parent}/")


def one_line(text: str) -> str:
    """The rule for line breaks, said in another way: lines without indentation, joined by a space."""
    lines = re.split(r"[\r\n]", text)
    if len(lines) == 1:
        return text
    middle = [line.strip(" \t") for line in lines[1:-1]]
    return " ".join(filter(None, [lines[0].rstrip(" \t"), *middle, lines[-1].lstrip(" \t")]))


@quick
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), encoding=st.sampled_from(sorted(ENCODINGS)))
def test_what_is_written_is_read(tmp_path, pairs, encoding):
    """Guards against lost or changed characters, and against a byte order mark that is guessed wrongly or kept."""
    mark, codec = ENCODINGS[encoding]
    text = document("".join(unit(escape(src), escape(tgt)) for src, tgt in pairs), encoding)
    path = write(tmp_path / "m.tmx", mark + text.encode(codec))
    assert read(path) == [(one_line(src), one_line(tgt)) for src, tgt in pairs]


def test_a_large_memory_with_all_traps(tmp_path):
    """Guards against a reader that knows only tidy files: each trap is in a few hundred units of one file."""
    inline = (
        'Press <bpt i="1">&lt;b&gt;</bpt><hi type="x">the <it pos="begin">{</it>red</hi><ept i="1">&lt;/b&gt;</ept> '
        '<ph x="1">[fn<sub type="note">see <ph>{2}</ph>below</sub>]</ph>but<ut>\\par</ut>ton<mrk> now</mrk>'
    )
    traps: list[tuple[str, tuple[str, str]]] = [
        (unit("a", "b"), ("a", "b")),
        (unit(inline, "<ph/>x<ph></ph>"), ("Press the red see belowbutton now", "x")),
        (
            unit("\n      two\n\t lines \r\n", "  kept  spaces\u00a0\u2028 "),
            ("two lines", "  kept  spaces\u00a0\u2028 "),
        ),
        (unit("&lt;&#x41;&#66;&amp;amp;", "<![CDATA[a & b <c>&nbsp;]]>"), ("<AB&amp;", "a & b <c>&nbsp;")),
        (unit("a<!-- & &nbsp; -->b<?p & ?>c", ""), ("abc", "")),
        (f"<tu>{variant('fr', 'x')}{variant('EN-us', 'e')}{variant('de_AT', 'd')}</tu>", ("e", "d")),
        (f"<tu>{variant('en-US', '1')}{variant('en', '2')}{variant('en', '3')}</tu>", ("2", "")),
        (f"<tu>{variant('de-DE', '1')}{variant('de-AT', '2')}</tu>", ("", "1")),
        ('<tu><tuv lang="EN"><seg>old</seg></tuv><tuv><seg>none</seg></tuv></tu>', ("old", "")),
        ("<tu><note>n</note><tuv xml:lang='de'><seg/></tuv></tu>", ("", "")),
        ("<tu/>", ("", "")),
        (f"<tu>{variant('english', 'x')}{variant('den', 'y')}</tu>", ("", "")),
    ]
    path = write(tmp_path / "m.tmx", document("\n".join(text for text, _ in traps * 30)))
    assert read(path) == [pair for _, pair in traps * 30]
    packed = write(tmp_path / "m.tmx.gz", gzip.compress(path.read_bytes()))
    assert list(read_tmx(packed, src_lang="EN", tgt_lang="DE")) == list(read_tmx(path, src_lang="en", tgt_lang="de"))


@pytest.mark.parametrize(
    ("src", "tgt", "expected"),
    [
        ("en", "de", ("1", "4")),
        ("EN_gb", "de-at", ("2", "5")),
        ("en-US", "de", ("1", "4")),
        ("en", "en-US", ("2", "1")),  # never the same text on both sides
        ("en-GB", "en", ("2", "1")),
        ("zh-Hant", "sr", ("7", "8")),
    ],
)
def test_languages(tmp_path, src, tgt, expected):
    """Guards against a near relative in place of the wanted code, and against one variant for both sides."""
    codes = ["en-US", "en-GB", "eng", "de-DE", "de-AT", "zh-Hant-TW", "zh-Hant", "sr_Latn_RS"]
    body = "".join(variant(code, str(number)) for number, code in enumerate(codes, start=1))
    assert read(write(tmp_path / "m.tmx", document(f"<tu>{body}</tu>")), src, tgt) == [expected]


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        ({"src_lang": "tlh"}, "no unit in tlh; its languages: en (2), de (1), fr (1); set src_lang to one of them"),
        ({"tgt_lang": "en-GB"}, "no unit in en-GB; its languages: en (2), de (1), fr (1); set tgt_lang to one of them"),
        (
            {"src_lang": "x", "tgt_lang": "y"},
            "no unit in x and none in y; its languages: en (2), de (1), fr (1); "
            "set src_lang and tgt_lang to one of them",
        ),
    ],
)
def test_a_language_that_no_unit_has(tmp_path, languages, expected):
    """Guards against a corpus of blank sentences because a code was misspelled."""
    path = write(tmp_path / "m.tmx", document(f"{unit('a', 'b')}<tu>{variant('en', 'c')}{variant('fr', 'd')}</tu>"))
    assert message(path, **languages) == f"m.tmx: {expected}"


def test_long_lists_of_languages_are_short(tmp_path):
    """Guards against a message of a thousand codes, and against a variant without any code."""
    variants = "<tuv><seg/></tuv>" * 2 + "".join(variant(f"x{number}", "") for number in range(30))
    found = message(write(tmp_path / "m.tmx", document(f"<tu>{variants}</tu>")))
    assert "languages: without a code (2), x0 (1), " in found
    assert ", x8 (1) and 21 more; set" in found


def test_a_memory_without_units_is_empty(tmp_path):
    """Guards against an error about languages where there is nothing to have one."""
    assert read(write(tmp_path / "m.tmx", document(""))) == []


DECLARED = [
    ("ISO-8859-1", "é ü"),
    ("windows-1252", "é – €"),
    ("iso-8859-2", "ł"),
    ("koi8-r", "да"),
    ("shift_jis", "日本"),
    ("GB18030", "中文"),
]


@pytest.mark.parametrize(("encoding", "text"), DECLARED)
def test_declared_encodings(tmp_path, encoding, text):
    """Guards against reading every file as UTF-8, or only what the XML parser itself can decode."""
    assert read(write(tmp_path / "m.tmx", document(unit(text, text), encoding).encode(encoding))) == [(text, text)]


@pytest.mark.parametrize("declared", ["UTF-16", "utf-32", "cp037", "idna", "punycode", "undefined", "iso-8859-1"])
@pytest.mark.parametrize(
    ("mark", "codec"), [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (b"", "utf-16-be")]
)
def test_bytes_contradict_the_declaration(tmp_path, declared, mark, codec):
    """Guards against believing a declaration that the first bytes refute."""
    path = write(tmp_path / "m.tmx", mark + document(unit("é", "ü"), declared).encode(codec))
    assert read(path) == [("é", "ü")]


def test_wide_encoding_declared_in_narrow_bytes(tmp_path):
    """Guards against an error for a file that was converted to UTF-8 but still says UTF-16."""
    assert read(write(tmp_path / "m.tmx", document(unit("é", "ü"), "UTF-16"))) == [("é", "ü")]


XML = "correct this place, or export the memory again"
MEND = "correct the file, or set mend: true"
BROKEN: Sequence[tuple[bytes | str, str]] = [
    (b"", "m.tmx:1: the file ends before </tmx>; it is empty or cut short, copy it again"),
    (document(unit("a", "b"))[:-8], "m.tmx:7: the file ends before </tmx>; it is empty or cut short, copy it again"),
    (document(unit("a", "b<x"))[:-60], "m.tmx:6: unit 1: the file ends before </tmx>; it is empty or cut short, copy"),
    (
        document(unit("ä", "b")).encode().partition(b"\xa4")[0],
        "m.tmx:6: unit 1: the file ends in the middle of a character; it is cut",
    ),
    (document(unit("a", "b\x00c")), f"m.tmx:6: unit 1: the character U+0000 is not allowed in XML; {MEND}"),
    (document("\n" + unit("a", "\ufffe")), f"m.tmx:7: unit 1: the character U+FFFE is not allowed in XML; {MEND}"),
    (document(unit("<!--\n\x1f-->", "")), f"m.tmx:7: unit 1: the character U+001F is not allowed in XML; {MEND}"),
    (
        document(unit("", "") + "\n" + unit("&#1;", "")),
        f"m.tmx:7: unit 2: &#1; stands for a character that is not allowed in XML; {MEND}",
    ),
    (document(unit("&#xD800;", "")), "m.tmx:6: unit 1: &#xD800; stands for a character that is not allowed in XML"),
    (document(unit("&#99999999999;", "")), "m.tmx:6: unit 1: &#99999999999; stands for a character that is not"),
    (
        document(unit("R&D", "")),
        f'm.tmx:6: unit 1: an ampersand "&" stands alone; XML writes it as &amp;; {MEND}',
    ),
    (document(unit("&nbsp;", "")), f"m.tmx:6: unit 1: &nbsp; is an entity of HTML, not of XML; {MEND}"),
    (document(unit("&x1;", "")), "m.tmx:6: unit 1: &x1; is not an entity of XML, which writes an ampersand as &amp;"),
    (document(unit("<b>", "&")), f"m.tmx:6: unit 1: is not well-formed XML (mismatched tag); {XML}"),
    (document("<tu><tu/></tu>"), "m.tmx:6: unit 1: a <tu> is inside of another <tu>; export the memory again"),
    (document("<a>" * 1001), "m.tmx:6: more than 1,000 elements are open; export the memory again"),
    ("one line\nof text\n", "m.tmx:1: is not XML (syntax error); name a TMX file"),
    ("<!doctype html>\n<html>&nbsp;", "m.tmx:1: is not XML (syntax error); name a TMX file"),
    ("\n" + document(""), "m.tmx:2: <?xml ... ?> may stand only at the start of a file; remove what is in front of it"),
    ("<html>&nbsp;", "m.tmx:1: is a web page (<html>), not TMX; export the translations as TMX"),
    ("\n<xliff/>", "m.tmx:2: is XLIFF (<xliff>), not TMX; export the translations as TMX"),
    ("<rss/>", "m.tmx:1: is another kind of XML (<rss>), not TMX; export the translations as TMX"),
    (document("").replace('"tmx14.dtd"', '"t" [<!ENTITY a "b">]'), "m.tmx:2: declares the entity a, which could fill"),
    (document("", "klingon"), "m.tmx:1: its encoding klingon is unknown; convert the file to UTF-8"),
    (document("", "idna"), "m.tmx:1: its encoding idna is unknown; convert the file to UTF-8"),
    (document("", "base64"), "m.tmx:1: its encoding base64 is unknown; convert the file to UTF-8"),
    (
        document(unit("a", "b") + "\n" + unit("é", "")).encode("latin-1"),
        "m.tmx:7: unit 2: not valid UTF-8 (byte 0xe9); convert the file to UTF-8, or correct this line",
    ),
    (document("") + "<tmx/>", f"m.tmx:9: is not well-formed XML (junk after document element); {XML}"),
    (gzip.compress(document("").encode())[:-9], "m.tmx: cannot read further (Compressed file ended"),
]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize(("content", "expected"), BROKEN)
def test_messages(tmp_path, monkeypatch, content, expected, block):
    """Guards against a message without the place, the character or the remedy, or one that depends on blocks."""
    monkeypatch.setattr(tmx_module, "BLOCK", block)
    assert message(write(tmp_path / "m.tmx", content)).startswith(expected)


def test_files_that_cannot_be_opened(tmp_path):
    """Guards against the traceback of a missing file or a folder."""
    assert message(tmp_path / "m.tmx").startswith("m.tmx: ")
    (tmp_path / "m.tmx").mkdir()
    assert message(tmp_path / "m.tmx").startswith("m.tmx: ")


MENDED = [
    ("R&D & &lt;AT&T&gt;&", "R&D & <AT&T>&"),
    ("a&nbsp;b&copy;&eacute;&LT;&QUOT;&NotEqualTilde;", 'a\u00a0b©é<"≂̸'),
    ("&unknown;&#;&#x;&#xyz;&;&amp &amp;amp;", "&unknown;&#;&#x;&#xyz;&;&amp &amp;"),
    ("a\x00b\x1f&#1;c&#xD800;&#xFFFE;&#x110000;\ufffed\uffff&#65;&#x42;", "abcdAB"),
    ("<![CDATA[R&D &nbsp;\x01 ]] > ]]]>&<!-- & \x02 - > &nbsp; -->", "R&D &nbsp; ]] > ]&"),
    ("<!--> & -->&<![CDATA[]]>&<![CDATA[<!--]]>&x-->", "&&<!--&x-->"),
    ('<ph x="a&b">no & &nbsp;</ph>&<hi x="&nbsp;">R&D</hi>', "&R&D"),
    ("<\x03hi\x04>&a\x05mp;</h\x06i>&a&#7;mp;", "&&amp;"),
    ("&" + "a" * 90 + ";", "&" + "a" * 90 + ";"),
]


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5, 7, 11, 23, 50, 1 << 20])
def test_mending(tmp_path, monkeypatch, block):
    """Guards against mending that depends on where blocks end, or that changes CDATA sections and comments."""
    monkeypatch.setattr(tmx_module, "BLOCK", block)
    body = "".join(unit(given, "<?a & ?>") for given, _ in MENDED)
    path = write(tmp_path / "m.tmx", "\x1f" + document(body).replace("type=", "ty\x00pe=") + "\x1a\x00")
    assert read(path, mend=True) == [(expected, "") for _, expected in MENDED]


@pytest.mark.parametrize(
    "content",
    [
        document(unit("a", "b"))[:-10],
        document(unit("a", "&")) + "&",
        document(unit("a", "b<x>")),
        document("").replace('"tmx14.dtd"', '"t" [<!ENTITY a "b">]'),
        document(unit("a", "<![CDATA[")),
        "text & more",
    ],
)
def test_other_faults_are_not_mended(tmp_path, content):
    """Guards against mending that guesses, or that makes a cut file look whole."""
    message(write(tmp_path / "m.tmx", content), mend=True)


MARKUP = [
    "&",
    "amp;",
    "&amp;",
    "&nbsp;",
    "&#1;",
    "&#x41;",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?",
    "?>",
    "<ph>",
    "</ph>",
]
PIECES = st.lists(
    st.sampled_from([*MARKUP, "<sub>", "</sub>", "<hi/>", "</seg>"])
    | st.sampled_from(["x", "é", "日", "\x01", " ", "\n", "\r", "#", ";", "-", "]", ">"]),
    max_size=12,
).map("".join)


@quick
@given(
    src=PIECES,
    tgt=PIECES,
    block=st.integers(1, 50),
    mend=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-be"]),
)
@example(src="<!--x--\n>&-->", tgt="\r\n&", block=1, mend=True, encoding="utf-8")
def test_blocks_never_matter(tmp_path, monkeypatch, src, tgt, block, mend, encoding):
    """Guards against a character, reference, comment or line ending that is lost or doubled where a block ends."""
    path = write(tmp_path / "m.tmx", document(unit(src, tgt) + unit("x", "y")).encode(encoding))

    def result() -> object:
        try:
            return read(path, mend=mend)
        except DataError as error:
            return str(error)

    whole = result()
    with monkeypatch.context() as patch:
        patch.setattr(tmx_module, "BLOCK", block)
        assert result() == whole


@quick
@given(data=st.data(), mend=st.booleans())
def test_damage_is_one_line(tmp_path, data, mend):
    """Guards against any other exception, whatever the bytes are."""
    mark, codec = data.draw(st.sampled_from(sorted(ENCODINGS.values())))
    content = bytearray(mark + document(unit("a&amp;b", "é<ph/>") * 2).encode(codec))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
    with suppress(DataError):
        read(write(tmp_path / "m.tmx", bytes(content)), mend=mend)


@pytest.mark.parametrize("start", ["<seg>", "<seg><![CDATA[", "<!--", '<seg x="', "<seg>a</seg><"])
def test_endless_text_does_not_fill_the_memory(tmp_path, monkeypatch, start):
    """Guards against a small gzip file with a segment, comment or attribute that never ends."""
    for module in (tmx_module, xml_text):
        monkeypatch.setattr(module, "LONGEST", 1 << 14)
    monkeypatch.setattr(tmx_module, "BLOCK", 1 << 12)
    content = f'<tmx><tu><tuv xml:lang="en">{start}{"text" * (1 << 13)}'
    assert "unit 1: a" in (found := message(write(tmp_path / "m.tmx", content)))
    assert " has more than 16,384 " in found


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    """Guards against a reader that keeps elements, units or the text."""
    monkeypatch.setattr(tmx_module, "BLOCK", 1 << 12)

    def peak(num_units: int) -> int:
        path = write(tmp_path / "m.tmx", document(unit("a sentence of the source", "its translation") * num_units))
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_tmx(path, src_lang="en", tgt_lang="de")) == num_units
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(2_000) < peak(200) + 50_000
