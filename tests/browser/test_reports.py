"""Every report in a real browser, on a phone and on a desk, in light and in dark."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium

REPORTS = ("compare", "fit", "evaluate", "check")
PHONE, DESK = 390, 1280
READABLE, READABLE_LARGE = 4.5, 3.0  # contrast ratios of WCAG 2.2 AA

# Every visible text with its contrast to the nearest painted ground, and whether it counts as large.
CONTRASTS = r"""
(() => {
  const numbers = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const painted = numbers(getComputedStyle(one).backgroundColor);
      if (painted.length === 3) return painted;
    }
    return [255, 255, 255];
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, words = walker.currentNode.data.trim();
    if (!words || !element.checkVisibility() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element), svg = element.closest("svg");
    const ink = luminance(numbers(svg ? style.fill : style.color)), paper = luminance(ground(svg ?? element));
    const size = parseFloat(style.fontSize);
    found.push({
      words,
      ratio: (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05),
      large: size >= 24 || (size >= 18.66 && style.fontWeight >= 700),
    });
  }
  return found;
})()
"""

IMAGES = r"""
Promise.all([...document.images, ...document.querySelectorAll("svg image")].map(async (image) => {
  await image.decode();
  return (image.naturalWidth ?? image.getBBox().width) > 0;
}))
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("report", REPORTS)
def test_page_looks_right(
    browser: Chromium, pages: dict[str, Path], report: str, width: int, dark: bool
) -> None:
    browser.open(pages[report], width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert all(browser.evaluate(IMAGES))
    drawings = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map((one) => one.getBoundingClientRect())"
        ".map((box) => [box.width, box.height])"
    )
    assert drawings and all(wide > 100 and high > 50 for wide, high in drawings)
    colour = browser.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(colour) < 60 if dark else min(colour) > 230
    unreadable = [
        text
        for text in browser.evaluate(CONTRASTS)
        if text["ratio"] < (READABLE_LARGE if text["large"] else READABLE)
    ]
    assert unreadable == []
    assert browser.complaints() == []


@pytest.mark.parametrize("report", REPORTS)
def test_page_can_be_read_aloud(browser: Chromium, pages: dict[str, Path], report: str) -> None:
    browser.open(pages[report], DESK)
    levels = browser.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert browser.evaluate("document.documentElement.lang") == "en"
    nameless = "[...document.querySelectorAll('{}')].filter((one) => !one.getAttribute('{}')?.trim()).length"
    assert browser.evaluate(nameless.format("figure svg", "aria-label")) == 0
    assert browser.evaluate(nameless.format("th", "scope")) == 0
    assert browser.evaluate("document.querySelectorAll('img:not([alt])').length") == 0
    wordless = (
        "[...document.querySelectorAll('figure')].filter((one) => !one.querySelector('.finding')?.innerText)"
    )
    assert browser.evaluate(f"{wordless}.length") == 0
    targets = "[...document.querySelectorAll('a')].filter((one) => !document.querySelector(one.hash)).length"
    assert browser.evaluate(targets) == 0


@pytest.mark.parametrize("report", REPORTS)
def test_tables_sort_by_mouse_and_by_keyboard(browser: Chromium, pages: dict[str, Path], report: str) -> None:
    browser.open(pages[report], DESK)
    tables = browser.evaluate("document.querySelectorAll('table.sortable').length")
    assert tables
    for table in range(tables):
        columns = browser.evaluate(f"{_table(table)}.tHead.rows[0].cells.length")
        for column in range(columns):
            before = _values(browser, table, column)
            button = f"{_table(table)}.tHead.rows[0].cells[{column}].querySelector('button')"
            browser.evaluate(f"{button}.click()")
            assert _state(browser, table, column) == "ascending"
            assert _values(browser, table, column) == _sorted(before)
            browser.evaluate(f"{button}.focus()")
            browser.press("Enter", "\r")
            assert _state(browser, table, column) == "descending"
            filled = [value for value in _sorted(before) if value != ""]
            empty = [""] * (len(before) - len(filled))
            found = _values(browser, table, column)
            assert found == [*sorted(filled, key=_key, reverse=True), *empty]
    assert browser.complaints() == []


def test_faults_would_be_seen(browser: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<body><img src='missing.png'><p style='color: #bbb'>pale</p>"
        "<script>console.error('oh'); nothing.at.all</script>"
    )
    browser.open(page, DESK)
    said = " ".join(browser.complaints())
    assert "oh" in said and "nothing is not defined" in said and "ERR_FILE_NOT_FOUND" in said
    assert [text["words"] for text in browser.evaluate(CONTRASTS) if text["ratio"] < READABLE] == ["pale"]
    with pytest.raises(RuntimeError, match="decode"):
        browser.evaluate(IMAGES)


def _table(index: int) -> str:
    return f"document.querySelectorAll('table.sortable')[{index}]"


def _values(browser: Chromium, table: int, column: int) -> list[Any]:
    """What the rows are sorted by, as numbers where they are all numbers."""
    rows = f"[...{_table(table)}.tBodies[0].rows].map((row) => row.cells[{column}].dataset.value)"
    texts = browser.evaluate(rows)
    try:
        return [float(text) if text else "" for text in texts]
    except ValueError:
        return texts


def _state(browser: Chromium, table: int, column: int) -> str:
    return browser.evaluate(f"{_table(table)}.tHead.rows[0].cells[{column}].ariaSort")


def _sorted(values: list[Any]) -> list[Any]:
    return [*sorted((value for value in values if value != ""), key=_key), *(v for v in values if v == "")]


def _key(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value
