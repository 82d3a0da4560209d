"""Promise: JSON lines give the strings of two keys, or one line that says what is wrong where."""

import gzip
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq.data.formats.jsonl import read_jsonl
from seq2seq.errors import DataError

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PARTS = r'{"en":"a","de":"b"} { } [ ] " "" : , \ \ud800 \u0000 null 1e999 NaN "en" "de"'
DAMAGE = st.lists(st.sampled_from([*PARTS.split(), "9" * 5000, "[" * 9999, "\ufeff", " ", "\0", "\n"])).map("".join)


def write(path, data):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("data", "src", "tgt", "units"),
    [
        ('{"en": "a", "de": "b"}\r\n\n \n', "en", "de", [("a", "b", 1)]),
        ('\ufeff{"t": {"en": "a", "de": "b"}}', "t.en", "t.de", [("a", "b", 1)]),
        ('{"t.en": "a", "t": {"en": "x", "de.DE": "b"}}', "t.en", "t.de.DE", [("a", "b", 1)]),
        ('{"en": null, "de": " b "}', "en", "de", [("", " b ", 1)]),
        ('{"t": null}\n{"t": {"en": "a", "de": ""}}', "t.en", "t.de", [("", "", 1), ("a", "", 2)]),
        (r'{"en": "a\r\nb\rc\nd", "de": "\ud83d\ude00\u2028"}', "en", "de", [("a b c d", "😀\u2028", 1)]),
        ('{"en": "a", "de": "b", "n": [%s, NaN, 1e999]}' % ("9" * 9999), "en", "de", [("a", "b", 1)]),
        ("", "en", "de", []),
    ],
)
def test_json_lines(tmp_path, data, src, tgt, units):
    """Guards against dots taken the wrong way, null as the word None, and numbers too large for Python."""
    for content in (data, gzip.compress(data.encode())):
        assert [unit[:3] for unit in read_jsonl(write(tmp_path / "t", content), src=src, tgt=tgt)] == units


@QUICK
@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=5), ascii_only=st.booleans())
def test_what_the_json_module_writes_is_read(tmp_path, rows, ascii_only):
    """Guards against characters that change on their way."""
    lines = [json.dumps({"t": {"en": src}, "de": tgt}, ensure_ascii=ascii_only) + "\n" for src, tgt in rows]
    expected = [tuple(re.sub("\r\n|\r|\n", " ", text) for text in row) for row in rows]
    units = read_jsonl(write(tmp_path / "t", "".join(lines)), src="t.en", tgt="de")
    assert [(src, tgt) for src, tgt, *_ in units] == expected


@QUICK
@given(data=DAMAGE, cut=st.integers(0, 9))
def test_damage_is_one_line(tmp_path, data, cut):
    """Guards against tracebacks, whatever the bytes are."""
    message = ""
    try:
        for unit in read_jsonl(write(tmp_path / "t", data.encode()[cut:]), src="en", tgt="de"):
            unit.src.encode()
    except DataError as error:
        message = str(error)
    assert re.fullmatch(r"([^\n]+: [^\n]+; [^\n]+)?", message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"en": "a"}', r"t:1: there is no key 'de'; choose one of the keys 'en'$"),
        ('{"en": "a", "t": {"de": "b", "fr": "c"}}', r"one of the keys 'en', 't.de', 't.fr'$"),
        ("{}", r"t:1: there is no key 'en'; it has no keys$"),
        ('{"en": 12, "de": ""}', r"t:1: the value of 'en' is a number, not a string"),
        ('{"en": ["a"], "de": ""}', r"the value of 'en' is a list"),
        ('{"en": {"x": 1}, "de": ""}', r"the value of 'en' is an object"),
        ('{"en": true, "de": ""}', r"the value of 'en' is true or false"),
        (
            r'{"en": "\ud800", "de": ""}',
            r"t:1: the value of 'en' has half a character \(\\ud800 to \\udfff\); remove it",
        ),
        ('{"en": "a", "en": "b", "de": ""}', r"t:1: the key 'en' is there twice in one object; remove one"),
        ('{"en": "a", "de": "b"}\n\n\n{"en": "a", "de": "b"}', r"t:2: the line is blank; remove it"),
        ("[\n", r"t:1: .*the file is JSON, not JSON lines; convert it first: jq -c '.\[\]' FILE > FILE.jsonl$"),
        ('[{"en": "a", "de": "b"}]', r"t:1: the file is JSON, not JSON lines; .* '.\[\]' FILE"),
        ('[{"en": "a",\n', r"t:1: .*not JSON lines; .* '.\[\]' FILE"),
        ('{\n  "en": "a"\n}\n', r"t:1: .*not JSON lines; convert it first: jq -c '.' FILE > FILE.jsonl$"),
        ('{"en": "a", "de": "b"}\n{"en"\n', r"t:2: not valid JSON \(.* at column 6\); each line must be a whole JSON"),
        ('["a", "b"]', r"t:1: is a list, not an object; each line"),
        ("12", r"t:1: is a number, not an object"),
        ('"a"', r"t:1: is a string, not an object"),
        ("null", r"t:1: is null, not an object"),
        ("Hello", r"t:1: not valid JSON \(Expecting value at column 1\)"),
        ('{"en": "a", "de": "b"} {}', r"t:1: not valid JSON \(Extra data at column 24\)"),
        ('{"en": ' + "[" * 100_000, r"t:1: objects or lists are nested too deep; remove this line"),
        (b'{"en": "\xff"}', r"t:1: not valid UTF-8 \(byte 0xff at column 9\)"),
        (None, r"t: no such file"),
    ],
)
def test_mistakes(tmp_path, data, message):
    """Each mistake has its line and its remedy."""
    path = tmp_path / "t" if data is None else write(tmp_path / "t", data)
    with pytest.raises(DataError, match=message):
        list(read_jsonl(path, src="en", tgt="de"))
