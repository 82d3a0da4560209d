"""Promise: a glossary finds its terms as whole words in any script; what is wrong with its file is said in one line."""

from pathlib import Path

import pytest

from seq2seq.decode.glossary import Glossary, has_term
from seq2seq.errors import DataError


@pytest.mark.parametrize(
    ("terms", "text", "expected"),
    [
        ({"house": "Haus"}, "The house, a House and a HOUSE.", ["Haus"]),
        ({"house": "Haus"}, "Houses, greenhouse, house2 and house_", []),
        ({"US": "USA"}, "They told us.", []),
        ({"US": "USA", "us": "uns"}, "The US told us.", ["USA", "uns"]),
        ({"York": "York", "New York": "Neu York"}, "York and New  York", ["York", "Neu York"]),
        ({"new york": "NY"}, "New\u00a0York's", ["NY"]),
        ({"café": "Kaffee"}, "Cafe\u0301!", ["Kaffee"]),
        ({"C++": "C plus plus"}, "I like C++.", ["C plus plus"]),
        (
            {"北京": "Peking", "北京大学": "Universität Peking"},
            "我在北京大学,不在北京。",
            ["Universität Peking", "Peking"],
        ),
        ({"a b": "x", "b c": "y"}, "a b c", ["x"]),
        ({"İstanbul": "Istanbul"}, "İİ İstanbul", ["Istanbul"]),
    ],
)
def test_terms_are_found(terms: dict[str, str], text: str, expected: list[str]) -> None:
    """Guards against parts of words, other cases than the rule says, shorter terms inside longer ones, forms of Unicode
    that the model reads as the same, and places that move when a text becomes lower case."""
    assert [entry.target for entry in Glossary.of(terms).find(text)] == expected


def test_a_term_is_there_as_a_word() -> None:
    """Guards against a target term that is counted inside another word."""
    assert has_term("Das Hauses-Haus.", "Haus")
    assert not has_term("Hauses Bauhaus", "Haus")
    assert has_term("我在北京大学", "北京")
    assert has_term("x<b>y", "<b>")


@pytest.mark.parametrize(
    "content",
    [
        b"house,Haus\ncat,Katze\n",
        b"\xef\xbb\xbfsource,target\r\nhouse,Haus\r\n\r\ncat,Katze",
        b'en,de\n"house","Haus"\n"cat", Katze \n',
        b"Source Term;Target Term\nhouse;Haus\ncat;Katze\n",
        b"house\tHaus\ncat\tKatze\ncat\tKatze\n",
    ],
)
def test_files_of_other_programs_are_read(content: bytes, tmp_path: Path) -> None:
    """Guards against a header taken for a term, and quotes, spaces or a byte order mark that become part of one."""
    path = tmp_path / "terms.csv"
    path.write_bytes(content)
    glossary = Glossary.read(path, ("en", "de"))
    assert [(entry.source, entry.target) for entry in glossary.entries] == [("house", "Haus"), ("cat", "Katze")]
    assert glossary.fingerprint == Glossary.of({"house": "Haus", "cat": "Katze"}).fingerprint
    assert glossary.fingerprint != Glossary.of({"house": "Haus", "cat": "Hund"}).fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"house\n", "1: a glossary has rows of two cells, source term,target term, not 'house'"),
        (b"a,b\nhouse\n", "2: has 1 cell; a row of a glossary has two, source term,target term"),
        (
            b"a,b\nh,H,x\n",
            "2: has 3 cells; a row of a glossary has two, source term,target term (a term with ',' needs",
        ),
        (b"source,target\nhouse,\n", "2: the target term is blank; complete the row"),
        (b"a,b\n , Haus\n", "2: the source term is blank; complete the row"),
        (b"house,Haus\nhouse,Heim\n", "2: 'house' has another translation in {path}:1; a term has only one"),
        (b"house,Haus\ncat,\xe9\n", "2: not valid UTF-8 (byte 0xe9 at column 5)"),
        (b'house,Haus\n"cat,Katze\n', "2: a quote opens a cell in this row and is never closed"),
    ],
)
def test_mistakes_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    """Guards against a glossary that is silently another one than its author thinks."""
    path = tmp_path / "terms.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Glossary.read(path)
    assert str(caught.value).startswith(f"{path}:{message.format(path=path)}")
    assert "\n" not in str(caught.value)
