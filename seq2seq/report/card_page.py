"""The card of a translated test set as pages: ``card.html`` for a browser, ``card.md`` for any viewer of text."""

from __future__ import annotations

from pathlib import Path

from seq2seq.evaluate.card import Card
from seq2seq.files import write_text
from seq2seq.report.card_content import card_page
from seq2seq.report.markdown import page_markdown
from seq2seq.report.page import page_html

CARD_HTML, CARD_MARKDOWN = "card.html", "card.md"


def write_card_pages(card: Card, folder: Path) -> None:
    """Write both pages into a folder. The card may come from a stranger: its texts stay texts.

    Raises:
        UserError: the folder cannot be written.
    """
    page = card_page(card)
    write_text(folder / CARD_MARKDOWN, page_markdown(page))
    write_text(folder / CARD_HTML, page_html(page))
