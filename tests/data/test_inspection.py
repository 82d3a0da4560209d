"""Promise: what is doubtful in a text is found at its line, in files that training could not even read."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from seq2seq.config import TextFiles
from seq2seq.data import inspection
from seq2seq.data.formats.pairs import PairFile
from seq2seq.data.inspection import (
    Flag,
    Place,
    examine_lines,
    inspect_parts,
    main_script,
    pair_keys,
    read_places,
    repeats,
    script_names,
    unlike_lengths,
)


def twice(text: str, read_as: str = "cp1252") -> bytes:
    """UTF-8 that was read in another encoding and encoded again."""
    return text.encode().decode(read_as).encode()


def two_files(folder: Path) -> TextFiles:
    """Files a and b in English and German."""
    src, tgt = ([str(folder / f"{name}.{language}") for name in "ab"] for language in ("en", "de"))
    return TextFiles(src=src, tgt=tgt)


@pytest.mark.parametrize(
    ("raw", "flags"),
    [
        (b"plain text", 0),
        (b"caf\xe9", Flag.INVALID),
        (b"", Flag.BLANK),
        (" \t\u3000".encode(), Flag.BLANK),
        (b"a\tb", Flag.SPACING),
        ("a\u00a0b".encode(), Flag.SPACING),
        ("a\u3000b\u00adc".encode(), Flag.SPACING | Flag.INVISIBLE),
        ("e\u0301 \u05e9\u200f".encode(), Flag.DECOMPOSED | Flag.INVISIBLE),
        ("10\u202f000\u00a0€, می\u200cخواهم".encode(), 0),
        (b"a\x00b", Flag.CONTROL),
        ("a\u2028b".encode(), Flag.CONTROL),
        ("a\ufeffb".encode(), Flag.CONTROL | Flag.INVISIBLE),
        ("lost \ufffd".encode(), Flag.REPLACED),
        (twice("über"), Flag.GARBLED),
        (twice("a “quoted” word", "latin-1"), Flag.GARBLED | Flag.CONTROL),
        (twice("你好", "latin-1"), Flag.GARBLED),
        (twice("да нет", "latin-1"), Flag.GARBLED | Flag.CONTROL),
        ("« L’été\u00a0», dit-il. “Où\u00a0?”".encode(), 0),
        ("CAFÉ», AMANHû, ESPAÑA», ÂNGULO, 5 °C ± 1".encode(), 0),
        (b"R&amp;D", Flag.MARKUP),
        ("▁das ▁Haus".encode(), Flag.SUBWORDS),
        (b"the hou@@ se .", Flag.SUBWORDS | Flag.TOKENISED),
        (b"it &apos;s", Flag.MARKUP | Flag.TOKENISED),
        ("我们 喜欢 猫".encode(), Flag.TOKENISED),
        (b"<p class='a'>text</p>", Flag.MARKUP),
        (b"AT&T; a < b, c > d; <3", 0),
    ],
)
def test_each_doubt_has_its_flag(raw: bytes, flags: int) -> None:
    """Guards against doubts that are missed, and against French spacing or Portuguese capitals taken for damage."""
    assert examine_lines([raw])["flags"].tolist() == [flags]


def test_characters_are_counted_by_kind() -> None:
    """Guards against counts that land on a neighbouring line, and against scripts told from too little."""
    lines = examine_lines(
        [
            t.encode()
            for t in [
                "Is it  7:30?",
                "",
                "你好，世界！",
                "Привет, мир",
                "ひらがなと漢字",
                "NATO 你好吗",
                "NATO 你好世界",
            ]
        ]
    )
    assert lines["chars"].tolist() == [12, 0, 6, 11, 7, 8, 9]
    assert lines["words"].tolist() == [3, 0, 1, 2, 1, 2, 2]
    assert lines["punctuation"].tolist() == [1, 0, 2, 1, 0, 0, 0]
    assert (lines["digits"].tolist(), lines["questions"].tolist()) == ([3, *[0] * 6], [1, *[0] * 6])
    assert [script_names()[i] for i in lines["script"]] == ["latin", "", "han", "cyrillic", "han", "latin", ""]
    assert script_names()[main_script(examine_lines(["你好世界".encode()] * 9 + [b"hello"]))] == "han"
    assert main_script(examine_lines(["你好世界".encode(), b"hello"])) == 0


def test_keys_see_what_matters() -> None:
    """Guards against pairs that count as repeated though their vowel signs differ, and the other way round."""
    texts = ["Hello, World!", "hello  world", "कि", "का", "...", "?!", "Ünïcode", "ünïcode."]
    keys = examine_lines([text.encode() for text in texts])["key"].tolist()
    assert keys[0] == keys[1]
    assert keys[6] == keys[7]
    assert len(set(keys)) == 6


def test_pairs_are_compared_in_numbers() -> None:
    """Guards against repeats that name the wrong line, and lengths judged by another ratio than the text's own."""
    src = examine_lines([b"a" * 40, b"b" * 50, b"a" * 40, b"c" * 60, b"A" * 40])
    tgt = examine_lines([b"x" * 80, b"y" * 20, b"x" * 80, b"z" * 120, b"x" * 80])
    again, first = repeats(pair_keys(src, tgt))
    assert (again.tolist(), first.tolist()) == ([2, 4], [0, 0])
    assert repeats(pair_keys(src, tgt, "hash"))[0].tolist() == [2]
    assert unlike_lengths(src, tgt, factor=3, least=30).tolist() == [1]
    assert unlike_lengths(src, tgt, factor=3, least=51).tolist() == []


def test_unreadable_files_are_told_and_the_others_read(tmp_path: Path) -> None:
    """Guards against an inspection that ends at the first broken file, or that loses what came before the break."""
    (tmp_path / "a.en").write_bytes(b"one\ntwo\n")
    (tmp_path / "a.de").write_bytes(b"eins\nzwei\ndrei\n")
    (tmp_path / "b.en").write_bytes(gzip.compress(np.random.default_rng(0).bytes(3000).hex().encode())[:-100])
    files = TextFiles(
        src=[str(tmp_path / n) for n in ("a.en", "b.en")], tgt=[str(tmp_path / n) for n in ("a.de", "b.de")]
    )
    counted: list[int] = []
    part = inspect_parts({"train": files}, counted.append)["train"]
    assert [len(facts.lines) for facts in (*part.src, *part.tgt)] == [2, 0, 3, 0]
    assert sum(counted) == 5
    assert "cannot read further" in str(part.src[1].error)
    assert "b.de: no such file" in str(part.tgt[1].error)
    assert [len(side) for side in part.pairs] == [2, 2]


def test_many_chunks_come_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against line numbers that depend on which process was first, and pairs placed in the wrong file."""
    monkeypatch.setattr(inspection, "CHUNK_LINES", 7)
    lines = [b"x" * (i % 50) for i in range(100)]
    for name in ("a.en", "a.de", "b.en", "b.de"):
        (tmp_path / name).write_bytes(b"".join(line + b"\n" for line in lines[: 100 if name[0] == "a" else 20]))
    files = TextFiles(
        src=[str(tmp_path / n) for n in ("a.en", "b.en")], tgt=[str(tmp_path / n) for n in ("a.de", "b.de")]
    )
    part = inspect_parts({"train": files})["train"]
    expected = examine_lines(lines)
    expected["number"] = range(1, 101)
    np.testing.assert_array_equal(part.src[0].lines, expected)
    shown = [part.places(pair) for pair in (0, 99, 100, 119)]
    assert [[f"{place.file.paths[place.side].name}:{place.number}" for place in both] for both in shown] == [
        ["a.en:1", "a.de:1"],
        ["a.en:100", "a.de:100"],
        ["b.en:1", "b.de:1"],
        ["b.en:20", "b.de:20"],
    ]
    a, b = part.src
    none = Place(PairFile(files, (tmp_path / "none", tmp_path / "none")), 0, 1, 2)
    cut = a.place(3)._replace(line=200)
    found = read_places([a.place(3), b.place(4), a.place(60), cut, none])
    assert found == {a.place(3): b"xxx", a.place(60): b"x" * 10, b.place(4): b"xxxx"}
