"""A browser that opens a page, and finds nothing that a page of one file must not have."""

from pathlib import Path
from typing import Any


def open_page(browser: Any, path: Path, width: int, *, dark: bool = False) -> None:
    """Open a file; it must fit into the width, ask nothing of the network, and say its language."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return document.documentElement.lang") == "en"


def visible(browser: Any) -> str:
    """What can be seen of the page."""
    return str(browser.find_element("css selector", "body").text)
