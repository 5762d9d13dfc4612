"""Takes the pictures of the dashboard: ``.venv/bin/python docs/screenshots.py [seconds]``, by hand, when the page has changed.

It runs the example app, lets visitors come for some minutes (300 seconds by default), takes the partners down in the middle, and
looks at the dashboard as an editor, in Debian's chromium.
"""

import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import requests  # noqa: E402
from playwright.sync_api import Browser  # noqa: E402

from example_app.servers import Server, news_site, third_party  # noqa: E402
from example_app.visits import EDITOR  # noqa: E402
from support.browser import browsing  # noqa: E402

PAGES = ("", "", "", "articles/the-ten-second-box", "articles/when-the-third-party-sleeps", "dashboard", "articles/none")
SETTINGS = {"DASHBOARD_SECONDS": 0.5, "STALECACHE_MAX_AGE": 8, "THIRD_PARTY_TIMEOUT": 2}
FIND_FRONT = "?by=endpoint&find=news.front#find"
WIDE, NARROW = {"width": 1040, "height": 1020}, {"width": 360, "height": 1700}
#: Name, query of the dashboard, selector of the part that is shown, and the browser's settings.
LIGHT = ("dashboard-light", "", "", {"color_scheme": "light", "viewport": {**WIDE, "height": 1130}})
DARK = ("dashboard-dark", "", "", {"color_scheme": "dark", "viewport": WIDE})
ENTRY = ("dashboard-entry", FIND_FRONT, "section:has(> .found)", {"color_scheme": "light", "viewport": WIDE})
PHONE = ("dashboard-phone", "", "", {"color_scheme": "light", "viewport": NARROW})


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    with TemporaryDirectory() as name, third_party(0.4, Path(name)) as partners:
        settings = {**SETTINGS, "THIRD_PARTY_URL": partners.url}
        with news_site(settings, Path(name)) as site, browsing() as browser, visitors(site):
            time.sleep(seconds * 0.5)
            tell(partners, "down")
            time.sleep(seconds * 0.2)
            for shot in (DARK, ENTRY, PHONE):
                take(browser, site, *shot)
            tell(partners, "ok")
            time.sleep(seconds * 0.3)
            take(browser, site, *LIGHT)


def tell(partners: Server, mode: str) -> None:
    for name in ("number", "weather", "comments"):
        requests.post(f"{partners.url}{name}/mode", data=mode, timeout=5).raise_for_status()


@contextmanager
def visitors(site: Server) -> Iterator[None]:
    """Let visitors come, at a changing rate."""
    is_over = threading.Event()

    def come() -> None:
        with requests.Session() as session:
            began = time.monotonic()
            while not is_over.wait(random.expovariate(20 + 12 * ((time.monotonic() - began) // 20 % 3))):
                session.get(site.url + random.choice(PAGES), timeout=30)

    threads = [threading.Thread(target=come) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def take(browser: Browser, site: Server, name: str, query: str, part: str, settings: dict[str, object]) -> None:
    """Log in, and take a picture of the dashboard, or of a part of it."""
    context = browser.new_context(**settings)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{site.url}login?next=/stalecache/")
    for field, value in EDITOR.items():
        page.locator(f"[name={field}]").fill(value)
    page.locator("main button").click()
    page.goto(f"{site.url}stalecache/{query}")
    page.locator(".charts canvas").first.wait_for()
    page.wait_for_load_state("networkidle")
    page.evaluate("scrollTo(0, 0)")
    path = ROOT / "docs" / f"{name}.png"
    if part:
        page.locator(part).screenshot(path=path)
    else:
        page.screenshot(path=path)
    print(f"{path.name}: {path.stat().st_size // 1024} KiB", flush=True)
    context.close()


if __name__ == "__main__":
    main()
