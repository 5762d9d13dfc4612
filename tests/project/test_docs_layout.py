"""Layout of the built documentation, measured in a browser: nothing needs a scroll bar to the right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.browser import browsing

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
HTML = DOCS / "_build" / "html"
#: Returns the elements that are wider than their box, the width of the page, and where its heading begins.
MEASURE = """selector => [
    [...document.querySelectorAll(selector)].filter(it => it.scrollWidth > it.clientWidth + 1).map(it => it.innerText),
    document.documentElement.scrollWidth,
    document.querySelector("h1").getBoundingClientRect().top,
]"""


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    """Build the documentation; ``make docs`` has done so before, and only changed pages are read again."""
    command = [sys.executable, "-m", "sphinx", "-q", "-d", str(HTML.with_name("doctrees")), "-b", "html", str(DOCS), str(HTML)]
    subprocess.run(command, check=True, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=300)
    return [HTML / page.relative_to(DOCS).with_suffix(".html") for page in sorted(DOCS.rglob("*.rst"))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


#: A laptop and a phone, and what has to fit.
WIDTHS = {1200: "article pre, article .table-wrapper", 390: "article .table-wrapper"}


def test_nothing_is_wider_than_the_page(pages: list[Path], browser: Browser) -> None:
    page = browser.new_page()
    wrong = {}
    for path in pages:
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        for width, selector in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 844})
            too_wide, page_width, heading = page.evaluate(MEASURE, selector)
            if too_wide or page_width > width or not 0 < heading < 300:
                wrong[path.relative_to(HTML).as_posix(), width] = (too_wide, page_width, heading)
    page.close()
    assert wrong == {}
