"""The card as pages: what a reader finds first, and that texts of strangers stay texts."""

import re
from pathlib import Path
from typing import Any

import pytest

from seq2seq.report.card_page import write_card_pages
from seq2seq.report.differences import differing
from tests.report.cards import NASTY, bare_card, full_card
from tests.report.reading import open_page, visible

WIDTHS = [1200, 400]


def written(folder: Path, card: Any) -> tuple[str, str]:
    write_card_pages(card, folder)
    return (folder / "card.html").read_text(encoding="utf-8"), (folder / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_reader_finds_the_score_first(browser: Any, tmp_path: Path, width: int) -> None:
    """BLEU stood below warnings and settings; each table has headings, and nothing is wider than the screen."""
    written(tmp_path, full_card())
    open_page(browser, tmp_path / "card.html", width)
    lines = visible(browser).split("\n")
    assert lines[1] == "BLEU 31.25 [29.0, 33.5]: the meaning of most lines is there, with mistakes."
    assert lines[3] == "BLEU|nrefs:1|some text"
    assert "3 of 100 test lines (3.0%) are also in the training text" in visible(browser)
    assert "without them BLEU is 28.50" in visible(browser)
    assert "20 of 100 translations are flagged “long”" in visible(browser)
    for name in ("scores", "overlap", "flags", "parts", "words", "confidence", "examples", "origin", "training"):
        assert browser.find_elements("css selector", f"section#{name} :is(table, .texts)"), name
        assert browser.find_element("css selector", f"nav a[href='#{name}']").text
    script = "return [...document.querySelectorAll('table')].every(t => t.querySelectorAll('th[scope]').length > 0)"
    assert browser.execute_script(script)
    circles = browser.find_elements("css selector", "#confidence circle")
    assert len(circles) == 1 + 2  # of the test set, and of the calibration; an empty bin has no point
    table = browser.find_element("css selector", "#confidence table").text
    assert "this test set" in table
    assert "0.123 0.020" in table
    marks = [one.text for one in browser.find_elements("css selector", "#examples mark")]
    assert marks == ["a", "b"]


@pytest.mark.parametrize("text", NASTY)
def test_a_hostile_card_is_text(browser: Any, tmp_path: Path, text: str) -> None:
    """A card of a stranger ran a script, or its markup became a part of the page."""
    page, plain = written(tmp_path, full_card(text))
    open_page(browser, tmp_path / "card.html", 400)
    assert browser.title != "owned"
    script = "return document.querySelectorAll('script, img, iframe, object, [onload], [onerror]').length"
    assert browser.execute_script(script) == 0
    texts = browser.execute_script("return [...document.querySelectorAll('#examples dd')].map(e => e.textContent)")
    expected = text.replace("\x00", "␀").replace("\x1b", "␛").replace("\r", "␍")
    assert texts == [expected, f"a {expected}", f"b {expected}"]
    assert page.count("<style>") == 1
    assert plain.count("```") == 2
    outside = re.sub(r"`[^`\n]*`", "", re.sub(r"```.*```", "", plain, flags=re.DOTALL))
    assert not re.search(r"<(script|img|svg|/)|://|(?<!\\)\[|\n# c", outside)


def test_the_tables_of_markdown_keep_their_columns(tmp_path: Path) -> None:
    """A bar or a line break in a text cut a row in two."""
    for text in NASTY:
        _, plain = written(tmp_path, full_card(text))
        for block in re.sub(r"```.*```", "", plain, flags=re.DOTALL).split("\n\n"):
            rows = [line for line in block.split("\n") if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1, block


def test_right_to_left_text(browser: Any, tmp_path: Path) -> None:
    """Hebrew was set from left to right."""
    written(tmp_path, full_card("שלום"))
    open_page(browser, tmp_path / "card.html", 1200)
    cell = browser.find_element("css selector", "#examples dd")
    assert browser.execute_script("return getComputedStyle(arguments[0]).direction", cell) == "rtl"


def test_a_card_of_little(browser: Any, tmp_path: Path) -> None:
    """A file of translations has no model and no training text: their sections are left out."""
    _, plain = written(tmp_path, bare_card())
    open_page(browser, tmp_path / "card.html", 400)
    names = [one.get_attribute("id") for one in browser.find_elements("css selector", "section")]
    assert names == ["scores", "origin"]
    assert "hardly anything is translated" in visible(browser)
    assert not browser.find_elements("css selector", ".warning")
    assert "Warning" not in plain
    assert plain.startswith("# out.txt on ref.txt\n\n**BLEU 0.00: hardly")


def test_little_overlap_is_no_warning(tmp_path: Path) -> None:
    """A test set of which a line in a thousand is known is a usual one."""
    card = full_card(overlap=0)
    page, plain = written(tmp_path, card)
    assert "are also in the training text" not in page + plain
    assert "No test line is among the 5,000 training pairs" in page
    assert "No test line is among the 5,000 training pairs" in plain


@pytest.mark.parametrize(
    ("first", "second", "marked"),
    [
        ("a big dog .", "a black dog .", (["big"], ["black"])),
        ("a dog", "a dog", ([], [])),
        ("", "a dog", ([], ["a dog"])),
        ("the two men", "both men", (["the two"], ["both"])),
        ("我喜欢猫。", "我爱猫。", (["喜欢"], ["爱"])),
        ("हिन्दी भाषा", "हिन्दी बोली", (["भाषा"], ["बोली"])),
        ("Hund!", "Hund.", (["!"], ["."])),
    ],
)
def test_differing_words(first: str, second: str, marked: tuple[list[str], list[str]]) -> None:
    """Whole words are marked; Chinese by character, marks of vowels with their letters; texts stay as they are."""
    parts = differing(first, second)
    assert ["".join(text for text, _ in side) for side in parts] == [first, second]
    assert tuple([text for text, differs in side if differs] for side in parts) == marked


def test_differences_of_very_long_texts_take_no_time() -> None:
    """The comparison takes the square of the length: a line of a megabyte must not stop the card."""
    assert differing("a b " * 50_000, "b a " * 50_000)[0][0][1] is False
