"""The page, as a reader uses it in Chromium: with the keyboard, on a phone, in two languages."""

from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from seq2seq.serve.batcher import Loaded
from tests.report.conftest import browser, chromium  # noqa: F401 - fixtures
from tests.serve.running import Server
from tests.toy import sentences

SOURCE = sentences(1, seed=5)[0][0]


class Reader:
    """A reader of the page, with a window of some width."""

    def __init__(self, browser: Any, server: Server, width: int) -> None:  # noqa: F811
        from selenium.webdriver.support.ui import WebDriverWait

        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(server.url)
        browser.execute_script("localStorage.clear()")
        browser.get(server.url)
        self.browser = browser
        self._wait = WebDriverWait(browser, 20)
        self.until(lambda: self.find("#to").get_attribute("value") == "yy")

    def until(self, condition: Any) -> None:
        self._wait.until(lambda _: condition())

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [one.text for one in self.browser.find_elements("css selector", selector)]

    def type(self, text: str) -> None:
        self.find("#source").send_keys(text)

    @property
    def target(self) -> str:
        return str(self.find("#target").get_attribute("textContent"))


@pytest.mark.parametrize("width", [1100, 400])
def test_type_click_swap_and_upload(browser: Any, server: Server, model: Loaded, tmp_path: Path, width: int) -> None:  # noqa: F811
    """Guards against a page that does nothing, sends texts to the wrong model, or does not fit on a phone."""
    reader, translation = Reader(browser, server, width), model.translator.translate(SOURCE)
    reader.type(SOURCE)
    reader.until(lambda: reader.texts(".word"))
    assert reader.target == translation
    assert reader.texts(".word") == translation.split()
    assert SOURCE in reader.find("#curl").get_attribute("textContent")
    assert reader.texts("#alternatives button")
    reader.find(".word").send_keys("\n")  # a word is reached with the keyboard
    assert reader.texts("#weights")[0].split() == SOURCE.split()
    assert translation.split()[0] in reader.find("#word").text
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")

    reader.find("#alternatives button").click()
    reader.until(lambda: reader.target != translation)
    reader.find("#alternatives button").click()
    reader.until(lambda: reader.target == translation)

    reader.find("#swap").click()
    swapped = model.translator.translate(translation)
    reader.until(lambda: reader.target == swapped)
    assert [reader.find(f"#{side}").get_attribute("value") for side in ("from", "to")] == ["yy", "xx"]
    assert reader.find("#source").get_attribute("value") == translation

    (tmp_path / "a.txt").write_text(SOURCE, encoding="utf-8")
    reader.find("#file").send_keys(str(tmp_path / "a.txt"))
    reader.until(lambda: reader.find("#download").is_displayed())
    assert reader.find("#download").get_attribute("href").startswith(f"{server.url}/download_file/")
    (tmp_path / "a.csv").write_text(f"id,yy\n1,{SOURCE}\n", encoding="utf-8")
    reader.find("#file").send_keys(str(tmp_path / "a.csv"))
    reader.until(lambda: reader.find("#download").is_displayed())
    with urlopen(reader.find("#download").get_attribute("href")) as answer:
        assert answer.read().decode() == f"id,yy,xx\n1,{SOURCE},{model.translator.translate(SOURCE)}\n"
    assert ".csv" in reader.find("#file").get_attribute("accept").split(",")
    assert all(part in reader.find("#formats").text for part in (".csv", "“yy”"))


def test_language_and_colours(browser: Any, server: Server) -> None:  # noqa: F811
    """Guards against captions in another language than the rest, and a choice that is forgotten."""
    reader = Reader(browser, server, 1100)
    english = reader.find("#choose").text
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    reader.find("#interface").click()
    reader.find("#theme").click()
    assert reader.find("#choose").text != english
    assert browser.execute_script("return document.documentElement.lang") == "zh"
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != colour
    browser.get(server.url)
    reader.until(lambda: reader.find("#to").get_attribute("value") == "yy")
    assert reader.find("#interface").text == "English"
    missing = "return Object.keys(TEXTS.en).filter(name => !(name in TEXTS.zh)).length"
    assert browser.execute_script(missing) == 0


def test_text_is_never_markup(browser: Any, server: Server) -> None:  # noqa: F811
    """Guards against a text that runs as a program in the page."""
    reader = Reader(browser, server, 1100)
    reader.type("<img src=x> ka")
    reader.until(lambda: reader.target)
    assert not browser.find_elements("css selector", "main img")
