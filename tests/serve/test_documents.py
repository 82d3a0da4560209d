"""Promise: a table, JSON lines or a memory comes back as a dataset of pairs, with all else that it had."""

import codecs
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq.data.formats.jsonl import read_jsonl
from seq2seq.data.formats.tables import read_csv, read_tsv
from seq2seq.data.formats.tmx import read_tmx
from seq2seq.errors import DataError
from seq2seq.serve.documents import ENDINGS, Limits, read_document

LARGE = Limits(1 << 24, 10_000)
Translate = Callable[[str], str]


def shout(text: str) -> str:
    return text.upper()


def translated(
    content: bytes | str, ending: str, *sources: str, target: str = "de", translate: Translate = shout
) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    document = read_document(raw, ending, sources or ("en",), target, LARGE)
    assert all(text.strip() for text in document.texts)
    return document.filled(map(translate, document.texts))


def problem(content: bytes | str, ending: str, *sources: str, limits: Limits = LARGE) -> str:
    raw = content.encode() if isinstance(content, str) else content
    with pytest.raises(DataError) as caught:
        read_document(raw, ending, sources or ("en",), "de", limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saved(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


TABLES = {
    # what is uploaded, what comes back
    "one column without a name": ("hello\n\nword\n", "hello\tHELLO\n\nword\tWORD\n"),
    "one column with a name": ("en\nhello\n", "en\tde\nhello\tHELLO\n"),
    "names of languages": ("English\tid\nhello\t1\n", "English\tid\tGerman\nhello\t1\tHELLO\n"),
    "a region": ("id\ten-US\n1\thello\n", "id\ten-US\tde\n1\thello\tHELLO\n"),
    "words": ("Source\tnote\nhello\tx\n", "Source\tnote\ttarget\nhello\tx\tHELLO\n"),
    "a code comes before a word": ("source\ten\nweb\thello\n", "source\ten\tde\nweb\thello\tHELLO\n"),
    "the exact code comes first": ("en-GB\ten\ncolour\tcolor\n", "en-GB\ten\tde\ncolour\tcolor\tCOLOR\n"),
    "a target in front": ("de\ten\tx\n\thello\t1\n", "de\ten\tx\nHELLO\thello\t1\n"),
    "translations stay": ("en\tde\na\tHallo\nb\t \nc\t\n", "en\tde\na\tHallo\nb\tB\nc\tC\n"),
    "short rows": ("en\tde\nhello\nid\t\n", "en\tde\nhello\tHELLO\nid\tID\n"),
    "blank cells stay": ("id\ten\n1\t\n2\t  \n3\ta\n", "id\ten\tde\n1\t\t\n2\t  \t\n3\ta\tA\n"),
    "a name alone": ("en\n", "en\tde\n"),
    "a name alone, without an end": ("en\tde", "en\tde\n"),
    "nothing": ("", ""),
    "Windows": ("\ufeffen\r\nhello\r\n", "\ufeffen\tde\r\nhello\tHELLO\r\n"),
    "quotes": ('en\n"he" said\n', 'en\tde\n"he" said\t"HE" SAID\n'),
    "characters": ("en\n你好\u2028\0\n", "en\tde\n你好\u2028\0\t你好\u2028\0\n"),
    "right to left": ("en\nשלום\n", "en\tde\nשלום\tשלום\n"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_in_tsv(case: str) -> None:
    """Guards against a wrong column, lost rows and cells, translations that are overwritten, and other line ends."""
    before, after = TABLES[case]
    assert translated(before, ".tsv") == after.encode()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_in_csv(delimiter: str, tmp_path: Path) -> None:
    """Guards against quotes, delimiters and line breaks in cells that end a cell or a row."""
    rows = ['id,en,"a ""note"""', '1,"hello, w;|\tx\n""hi""\n\nyou",x', '"2",,"\n"', "", '3,"日本語","שלום"']
    before = "\ufeff" + "\r\n".join(rows).replace(",", delimiter) + "\r\n"
    content = translated(before, ".csv")
    assert content.startswith(codecs.BOM_UTF8)
    assert content.count(b"\r\n") == len(rows)
    units = list(read_csv(saved(tmp_path, content), src="en", tgt="de", delimiter=delimiter))
    text = 'hello, w;|\tx\n"hi"\n\nyou'.replace(",", delimiter)
    assert [(unit.src, unit.tgt) for unit in units] == [
        (text.replace("\n", " "), text.upper().replace("\n", " ")),
        ("", ""),
        ("", ""),
        ("日本語", "日本語"),
    ]
    again = translated(content, ".csv", translate=lambda text: "not again")
    assert again == content
    notes = list(read_csv(saved(tmp_path, content), src='a "note"', tgt="id", delimiter=delimiter))
    assert [(unit.src, unit.tgt) for unit in notes] == [("x", "1"), (" ", "2"), ("", ""), ("שלום", "3")]


def test_translations_that_would_end_a_cell(tmp_path: Path) -> None:
    """Guards against a translation whose characters shift the cells behind it."""
    nasty = 'a\tb\r"c",\n;d'
    content = translated("en\tid\nx\t1\n", ".tsv", translate=lambda _: nasty)
    assert content == b'en\tid\tde\nx\t1\ta b "c", ;d\n'
    content = translated("en,id\nx,1\n", ".csv", translate=lambda _: nasty)
    (unit,) = read_csv(saved(tmp_path, content), src="id", tgt="de")
    assert (unit.src, unit.tgt) == ("1", nasty.replace("\r", " ").replace("\n", " "))
    line = translated('{"en": "x", "n": 1}', ".jsonl", translate=lambda _: nasty + "\0\\")
    assert json.loads(line) == {"en": "x", "n": 1, "de": nasty + "\0\\"}
    content = translated(memory(unit_of(en="x")), ".tmx", translate=lambda _: "<b>&amp;\0]]>")
    assert pairs_of(content, tmp_path) == [("x", "<b>&amp;]]>")]


def test_ten_thousand_rows(tmp_path: Path) -> None:
    """Guards against rows out of order, and against time that grows with the square of the rows."""
    texts = [f"text {n}" if n % 7 else "" for n in range(10_000)]
    expected = [(text, text.upper()) for text in texts]
    table = translated("id\ten\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(texts)), ".tsv")
    assert [unit[:2] for unit in read_tsv(saved(tmp_path, table), src="en", tgt="de")] == expected
    lines = translated("".join(json.dumps({"en": text, "n": n}) + "\n" for n, text in enumerate(texts)), ".jsonl")
    filled = [pair if pair[0] else ("", "") for pair in expected]
    read = [json.loads(line) for line in lines.splitlines()]
    assert [(one["en"], one.get("de", "")) for one in read] == filled
    units = translated(memory("".join(unit_of(en=text) for text in texts)), ".tmx")
    assert pairs_of(units, tmp_path) == expected


RECORDS = {
    '{"en": "a", "de": null, "n": 1.10}': '{"en": "a", "de": "A", "n": 1.10}',
    '{"n":1e999,"de":"","en":"a"}': '{"n":1e999,"de":"A","en":"a"}',
    '{"en":"a"}': '{"en":"a", "de": "A"}',
    '{"en": "a", "de": "Hallo"}': '{"en": "a", "de": "Hallo"}',
    '{"en": "", "de": "  "}': '{"en": "", "de": "  "}',
    '{"id": 12345678901234567890123, "translation": {"en": "a", "x": [{"de": 1}]}, "z": "\\ud83d"}': (
        '{"id": 12345678901234567890123, "translation": {"en": "a", "x": [{"de": 1}], "translation.de": 0}, "z": ""}'
    ),
    '{"text": "a \\" } b", "meta": {"source": "web"}}': (
        '{"text": "a \\" } b", "meta": {"source": "web"}, "translation": "A \\" } B"}'
    ),
    '{"sentence": "a\\nb"}': '{"sentence": "a\\nb", "de": "A\\nB"}',
    '{"text.en": "a", "text": 1}': '{"text.en": "a", "text": 1, "text.de": "A"}',
    '{"en": null}': '{"en": null, "de": ""}',
    '{"t": {"en": "a", "de": "b"}, "t.en": "c", "t.de": ""}': '{"t": {"en": "a", "de": "b"}, "t.en": "c", "t.de": "C"}',
}
RECORDS[next(record for record in RECORDS if "translation" in record and "id" in record)] = (
    '{"id": 12345678901234567890123, "translation": {"en": "a", "x": [{"de": 1}], "de": "A"}, "z": "\\ud83d"}'
)


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_keeps_everything_else(record: str) -> None:
    """Guards against numbers, escapes and keys that are written otherwise than they were."""
    assert translated(record + "\r\n", ".jsonl") == RECORDS[record].encode() + b"\r\n"


def test_records_that_are_not_alike(tmp_path: Path) -> None:
    """Guards against an answer that the reader of datasets cannot read, because some records lack the target."""
    lines = ['{"en": "a"}', '{"de": "", "en": "你好"}', '{"en": null}', '{"en": " ", "de": null}']
    content = translated("\n".join(lines), ".jsonl")
    units = [unit[:2] for unit in read_jsonl(saved(tmp_path, content), src="en", tgt="de")]
    assert units == [("a", "A"), ("你好", "你好"), ("", ""), (" ", "")]


def unit_of(**segments: str) -> str:
    variants = [f'<tuv xml:lang="{code.replace("_", "-")}"><seg>{seg}</seg></tuv>' for code, seg in segments.items()]
    return f'<tu tuid="1"><note>n</note>\n  {"".join(variants)}\n</tu>\n'


def memory(units: str, encoding: str = "UTF-8") -> str:
    head = f'<?xml version="1.0" encoding="{encoding}"?>\r\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<!-- < & -->'
    return f'{head}<tmx version="1.4"><header srclang="en"/><body>\n{units}</body></tmx>\n'


def pairs_of(content: bytes, tmp_path: Path) -> list[tuple[str, str]]:
    return [unit[:2] for unit in read_tmx(saved(tmp_path, content), src_lang="en", tgt_lang="de")]


def test_a_memory_keeps_everything_else(tmp_path: Path) -> None:
    """Guards against lost notes, comments and variants, and against a second variant of the target."""
    before = memory(
        unit_of(en_US="a &amp; <bpt i='1'>&lt;b></bpt>b<ept i='1'/>", fr="un")
        + unit_of(en="stays", de="bleibt")
        + unit_of(en="c", de="")
        + '<tu><tuv xml:lang="de"><prop type="x"/><seg/></tuv><tuv xml:lang="en"><seg>d</seg></tuv></tu>'
        + "<tu>\n\t<tuv xml:lang='DE-at'><seg >\n </seg ></tuv>\n\t"
        + "<tuv xml:lang='en'><seg>שלום &#x1F600;</seg></tuv></tu>"
        + unit_of(fr="no English")
        + unit_of(en=" ")
        + "<tu>\r\n\t<tuv xml:lang='en'>\r\n\t\t<seg>e</seg>\r\n\t</tuv>\r\n</tu>"
    )
    content = translated(before, ".tmx")
    text = content.decode()
    assert pairs_of(content, tmp_path) == [
        ("a & b", "A & B"),
        ("stays", "bleibt"),
        ("c", "C"),
        ("d", "D"),
        ("שלום 😀", "שלום 😀"),
        ("", ""),
        (" ", ""),
        ("e", "E"),
    ]
    shorter = text.replace('</tuv><tuv xml:lang="de"><seg>A &amp; B</seg></tuv>', "</tuv>", 1)
    shorter = shorter.replace('\r\n\t<tuv xml:lang="de"><seg>E</seg></tuv>\r\n</tu>', "\r\n</tu>", 1)
    for new, old in (("C", "<seg></seg>"), ("D", "<seg/>"), ("שלום 😀", "<seg >\n </seg >")):
        shorter = shorter.replace(f"<seg>{new}</seg>", old, 1)
    assert shorter == before
    assert translated(content, ".tmx", translate=lambda text: "not again") == content


@pytest.mark.parametrize(
    ("mark", "codec"),
    [(codecs.BOM_UTF16_LE, "utf-16-le"), (b"", "utf-16-be"), (codecs.BOM_UTF8, "utf-8"), (b"", "iso-8859-1")],
)
def test_the_encoding_of_a_memory(mark: bytes, codec: str, tmp_path: Path) -> None:
    """Guards against a file whose declaration is no longer true, and against characters that its encoding lacks."""
    name = "UTF-16" if codec.startswith("utf-16") else codec
    content = translated(mark + memory(unit_of(en="é"), name).encode(codec), ".tmx", translate=lambda _: "Ω")
    assert content.startswith(mark)
    assert "<note>n</note>" in content.decode(codec)
    assert pairs_of(content, tmp_path) == [("é", "Ω")]


def test_the_file_says_its_language() -> None:
    """Guards against a guess where a column, a key or a memory has the name of a language."""
    for content, ending in (
        ("fr\tde\nun\t\n", ".tsv"),
        ("x,French\n1,un\n", ".csv"),
        ('{"id": 1, "t.fr": "un"}', ".jsonl"),
        (memory(unit_of(fr_CA="un")), ".tmx"),
    ):
        document = read_document(content.encode(), ending, ["en", "fr"], "de", LARGE)
        assert (document.texts, document.source) == (["un"], "fr"), ending
    assert read_document(b"un\n", ".tsv", ["en", "fr"], "de", LARGE).source is None
    assert translated("en\na\n", ".tsv", target="en-GB") == b"en\ten-GB\na\tA\n"  # not its own target
    some = memory(unit_of(zh_CN="a", de="b") + unit_of(zh_CN="c"))
    other = read_document(some.encode(), ".tmx", ["zh_Hans"], "de", LARGE)
    assert (other.texts, other.source) == (["c"], "zh")
    assert read_document(b"zh-CN\tde\na\tb\nc\t\n", ".tsv", ["zh_Hans"], "de", LARGE).texts == ["c"]


BOMB = '<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>\n<tmx><body><tu/></body></tmx>'
EXTERNAL = '<!DOCTYPE tmx [<!ENTITY a SYSTEM "file:///etc/passwd">]>\n<tmx><body><tu/></body></tmx>'
MISTAKES = [
    ("a\tb\n", ".tsv", "the file:1: no column is named 'en', 'English', 'source', 'src' or 'text'; give the column"),
    ("a\nb\tc\n", ".tsv", "the file:1: no column is named"),
    ("en\ten\nx\ty\n", ".tsv", "the file:1: two columns are named 'en'"),
    ("en\tde\tde\nx\n", ".tsv", "the file:1: two columns are named 'de'"),
    ("id\ten\n1\tx\n2\n", ".tsv", "the file:3: has 1 cell, but column 1"),
    ("en,de\nhello, world,x\n", ".csv", "the file:2: has 3 cells, but the first row has 2; a cell with ',' in it"),
    ("en\nx\ty\n", ".tsv", "the file:2: has 2 cells, but the first row has 1"),
    ('en\n"a\nb\n', ".csv", "the file:2: a quote opens a cell"),
    ("en\na\0\n", ".csv", "the file:2: has a NUL"),
    (b"en\n\xff\n", ".csv", "the file:2: not valid UTF-8"),
    (b"en\n\xff\n", ".tsv", "the file:2: not valid UTF-8"),
    (b"\xff\xfee\0n\0\n\0", ".csv", "the file: is UTF-16, not UTF-8"),
    (b"PK\x03\x04\x14\0xl/workbook.xml", ".csv", "the file: is an Office file"),
    ("\t" * 9_000 + "\nen\n" * 9_000, ".tsv", "the file:1: has 9,001 columns; the limit is 100"),
    (json.dumps({str(n): "x" for n in range(101)}), ".jsonl", "the file:1: has 101 keys; the limit is 100"),
    ('{"en": "a"}\n{"fr": "b"}\n', ".jsonl", "the file:2: there is no key 'en'"),
    ('{"en": "a", "en": "b"}\n', ".jsonl", "the file:1: the key 'en' is there twice"),
    ('{"en": 1, "x": 2}\n', ".jsonl", "the file:1: the value of 'en' is a number"),
    ('{"en": "a", "de": 1}\n', ".jsonl", "the file:1: the value of 'de' is a number"),
    ('{"en": "\\ud800"}\n', ".jsonl", "the file:1: the value of 'en' has half a character"),
    ('{"a": "x", "b": "y"}\n', ".jsonl", "the file:1: no key is named 'en', 'English'"),
    ('[{"en": "a"}]', ".jsonl", "the file:1: the file is JSON, not JSON lines"),
    ('{"en": "a"}\n\n{"en": "a"}', ".jsonl", "the file:2: the line is blank"),
    ('{"en": ' + "[" * 100_000, ".jsonl", "the file:1: "),
    ("[" * 100_000, ".jsonl", "the file:1: "),
    ("", ".tmx", "the file:1: the file ends before </tmx>"),
    ("<tmx><body><tu></tmx>", ".tmx", "the file:1: unit 1: is not well-formed XML"),
    (memory(unit_of(fr="x")), ".tmx", "the file: no unit in en; its languages: fr (1); set source to one of them"),
    (BOMB, ".tmx", "the file:1: declares the entity a, which could fill the memory"),
    (EXTERNAL, ".tmx", "the file:1: declares the entity a"),
    ("<tmx>" + "<a>" * 5000, ".tmx", "the file:1: more than 1,000 elements are open"),
    (gzip.compress(b"en\na\n", mtime=0)[:-9], ".tsv", "the file: cannot read further"),
]


@pytest.mark.parametrize(("content", "ending", "message"), MISTAKES)
def test_a_mistake_is_one_line_with_its_row(content: bytes | str, ending: str, message: str) -> None:
    """Guards against mistakes that are translated, shift cells, fill the memory, or end as a bug of the server."""
    assert problem(content, ending).startswith(message)


@pytest.mark.parametrize("ending", ENDINGS)
def test_too_many_texts(ending: str) -> None:
    """Guards against a file with so many short texts that what is noted of them fills the memory."""
    one = {".jsonl": '{"en": "a"}\n', ".tmx": unit_of(en="a")}.get(ending, "a\n")
    content = memory(one * 3) if ending == ".tmx" else one * 3
    assert len(read_document(content.encode(), ending, ["en"], "de", Limits(9999, 3)).texts) == 3
    message = "the file has more than 2 texts to translate; send it in parts"
    assert problem(content, ending, limits=Limits(9999, 2)) == message


def test_short_rows_do_not_multiply() -> None:
    """Guards against a small file that comes back as one that fills the memory."""
    content = "\ten" + "\tx" * 90 + "\n" + "a\t\n" * 5000
    assert problem(content, ".tsv", limits=Limits(400_000, 9)).startswith("the file: its rows lack 450,000 cells")


@pytest.mark.parametrize("ending", ENDINGS)
def test_compressed_files(ending: str) -> None:
    """Guards against a small file that unpacks to one that fills the memory."""
    content = {".jsonl": '{"en": "a"}\n', ".tmx": memory(unit_of(en="a"))}.get(ending, "en\na\n").encode()
    assert translated(gzip.compress(content, mtime=0), ending) == translated(content, ending)
    bomb = gzip.compress(b"a" * 1_000_000, mtime=0)
    assert problem(bomb, ending, limits=Limits(99_999, 1)).startswith("the file has more than 99,999 bytes")
    assert "twice" in problem(gzip.compress(gzip.compress(content, mtime=0)), ending)


CELL = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=8)
CELL |= st.text(' ",;\n\ta\\{}', max_size=6)
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@quick
@given(rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=6), end=st.sampled_from(["\n", "\r\n"]))
def test_any_table_comes_back_whole(rows: list[tuple[str, str, str]], end: str, tmp_path: Path) -> None:
    """Guards against cells that change, and rows that cannot be read again, whatever characters they have."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows([("id", "en", "de"), *rows])
    content = translated(written.getvalue().replace("\r\n", end), ".csv", translate="<{}>".format)
    found = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))[1:]
    assert [cells[:2] for cells in found] == [[first, second] for first, second, _ in rows]
    for (_, text, before), (_, _, after) in zip(rows, found, strict=True):
        assert after == (before if before.strip() or not text.strip() else f"<{text}>")
    units = list(read_csv(saved(tmp_path, content), src="en", tgt="de"))
    assert len(units) == len(rows)


@quick
@given(record=st.dictionaries(CELL, CELL | st.integers() | st.lists(CELL), max_size=4), text=CELL, spaces=st.booleans())
def test_any_record_comes_back_whole(record: dict[str, object], text: str, spaces: bool) -> None:
    """Guards against a translation that lands inside of another value."""
    whole = {"first": 1, **record, "xx": text}
    line = json.dumps(whole, indent=" \t" if spaces else None, ensure_ascii=spaces).replace("\n", " ")
    found = json.loads(translated(line, ".jsonl", "xx", target="yy", translate="<{}>".format))
    assert found == {**whole, "yy": f"<{text}>" if text.strip() else ""}
