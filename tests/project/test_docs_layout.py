"""Layout of the built documentation, measured in a browser: nothing needs a scroll bar to the right."""

from __future__ import annotations

import re
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
#: Replaces the shown page with another one, which takes a tenth of the time of loading that. Returns the texts of the elements that
#: are wider than their box, the width of the page, and the distance of its heading from the top.
MEASURE = """([text, url, selector]) => {
    const page = new DOMParser().parseFromString(text, "text/html").querySelector(".page");
    document.querySelector("base").href = url;
    document.querySelector(".page").replaceWith(page);
    return [
        [...page.querySelectorAll(selector)].filter(it => it.scrollWidth > it.clientWidth + 1).map(it => it.innerText),
        document.documentElement.scrollWidth,
        page.querySelector("h1").getBoundingClientRect().top,
    ];
}"""


#: A file elsewhere that a page includes.
INCLUDED = re.compile(r"^ *\.\. (?:literal)?include:: (\S+)$", re.MULTILINE)


def sources() -> list[Path]:
    """Everything that the documentation is made from: pages, style sheets and images, what pages include, and the package."""
    own = [path for path in DOCS.rglob("*") if path.is_file() and HTML.parent not in path.parents]
    included = [page.parent / name for page in own if page.suffix == ".rst" for name in INCLUDED.findall(page.read_text())]
    return [*own, *included, *(ROOT / "flask_stalecache").rglob("*.py")]


def is_built() -> bool:
    """Whether the built documentation is newer than its sources."""
    built = HTML / "objects.inv"
    return built.exists() and max(path.stat().st_mtime for path in sources()) < built.stat().st_mtime


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    """The pages of the documentation, which is built first unless the build is up to date."""
    if not is_built():
        build()
    return [HTML / page.relative_to(DOCS).with_suffix(".html") for page in sorted(DOCS.rglob("*.rst"))]


def build() -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-d", str(HTML.with_name("doctrees")), "-b", "html", str(DOCS), str(HTML)]
    subprocess.run(command, check=True, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=300)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


#: The widths of a laptop and of a phone, and the elements that must fit there.
WIDTHS = {1200: "article pre, article .table-wrapper", 390: "article .table-wrapper"}


def test_nothing_is_wider_than_the_page(pages: list[Path], browser: Browser) -> None:
    page = browser.new_page()
    page.goto(pages[0].as_uri())
    page.evaluate("document.head.prepend(document.createElement('base'))")
    wrong = {}
    for width, selector in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 844})
        for path in pages:
            too_wide, page_width, heading = page.evaluate(MEASURE, [path.read_text(), path.as_uri(), selector])
            if too_wide or page_width > width or not 0 < heading < 300:
                wrong[path.relative_to(HTML).as_posix(), width] = (too_wide, page_width, heading)
    page.close()
    assert wrong == {}
