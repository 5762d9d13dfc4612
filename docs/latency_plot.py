"""Draws ``docs/latency.svg``: ``.venv/bin/python docs/latency_plot.py [seconds]``, by hand, when the demo has changed.

It runs the servers of the demo for two minutes (120 seconds by default). A probe calls the slow third party directly, and visitors
load the front page, which shows its number. The third party takes 2 seconds, then 6 seconds, then hangs, then answers again.
"""

from __future__ import annotations

import math
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import requests  # noqa: E402

from example_app.servers import news_site, third_party  # noqa: E402
from example_app.visits import session  # noqa: E402

#: What the third party does, one after the other and equally long: a label, its mode, and how many seconds a call takes.
PHASES = (("takes 2 s", "ok", 2.0), ("takes 6 s", "ok", 6.0), ("hangs", "hang", 6.0), ("takes 2 s again", "ok", 2.0))
SETTINGS = {"STALECACHE_MAX_AGE": 3}
TIMEOUT = 10.0
PROBE_EVERY, VISIT_EVERY = 0.5, 0.1

WIDTH, HEIGHT = 880, 360
LEFT, RIGHT, TOP, BOTTOM = 74, 16, 62, 40
LOWEST, HIGHEST = 0.001, 20.0
INK, GRID, ORIGIN, SERVED = "#333", "#ddd", "#c2410c", "#0f766e"


class Sample(NamedTuple):
    """One request: when it began, how long it took, and whether it was answered."""

    began: float
    seconds: float
    is_answered: bool


def main() -> None:
    length = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    origin, served = measure(length)
    (ROOT / "docs" / "latency.svg").write_text(draw(length, origin, served), encoding="utf-8")
    for name, samples in (("origin", origin), ("served", served)):
        times = sorted(sample.seconds for sample in samples)
        failed = sum(not sample.is_answered for sample in samples)
        print(f"{name}: {len(times)} requests, {failed} failed, median {statistics.median(times):.4f} s, longest {times[-1]:.4f} s")


def measure(length: float) -> tuple[list[Sample], list[Sample]]:
    """Run the servers of the demo, and return the requests to the third party and the visits of the page."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        partner = stack.enter_context(third_party(PHASES[0][2], folder))
        site = stack.enter_context(news_site({**SETTINGS, "THIRD_PARTY_URL": partner.url}, folder))
        warm_up(site.url)
        began = time.monotonic()
        probes = Requests(f"{partner.url}number", PROBE_EVERY, began, length)
        visits = Requests(site.url, VISIT_EVERY, began, length)
        for phase, (_, mode, seconds) in enumerate(PHASES):
            time.sleep(max(0.0, began + phase * length / len(PHASES) - time.monotonic()))
            for what, text in (("sleep", str(seconds)), ("mode", mode)):
                requests.post(f"{partner.url}number/{what}", data=text, timeout=5).raise_for_status()
        return probes.wait(), visits.wait()


def warm_up(url: str) -> None:
    """Load the page until the number is on it."""
    with session() as visitor:
        while "Still thinking" in visitor.get(url, timeout=30).text:
            time.sleep(0.2)


class Requests:
    """Sends requests at a steady pace, each in its own thread, so that a slow answer does not delay the next request."""

    def __init__(self, url: str, every: float, began: float, length: float) -> None:
        self._url, self._every, self._began, self._length = url, every, began, length
        self._samples: list[Sample] = []
        self._client = session()
        self._pace = threading.Thread(target=self._send_all)
        self._pace.start()

    def wait(self) -> list[Sample]:
        self._pace.join()
        return sorted(self._samples)

    def _send_all(self) -> None:
        threads = []
        for number in range(int(self._length / self._every)):
            time.sleep(max(0.0, self._began + number * self._every - time.monotonic()))
            threads.append(threading.Thread(target=self._send))
            threads[-1].start()
        for thread in threads:
            thread.join()
        self._client.close()

    def _send(self) -> None:
        start = time.monotonic()
        try:
            is_answered = self._client.get(self._url, timeout=TIMEOUT).ok
        except requests.RequestException:
            is_answered = False
        self._samples.append(Sample(start - self._began, time.monotonic() - start, is_answered))


# -- the drawing -------------------------------------------------------------------------------------------------------


def draw(length: float, origin: list[Sample], served: list[Sample]) -> str:
    """Return the plot as SVG: seconds of the run from left to right, latencies upwards on a logarithmic scale."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(seconds: float) -> float:
        return LEFT + seconds / length * (right - LEFT)

    def y(seconds: float) -> float:
        share = math.log10(max(seconds, LOWEST) / LOWEST) / math.log10(HIGHEST / LOWEST)
        return bottom - share * (bottom - TOP)

    def text(at_x: float, at_y: float, content: str, options: str = "") -> str:
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" {options}>{content}</text>'

    def line(x1: float, y1: float, x2: float, y2: float) -> str:
        return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{GRID}"/>'

    def dots(samples: list[Sample], color: str) -> list[str]:
        answered = "".join(f"M{x(s.began):.1f} {y(s.seconds):.1f}h0" for s in samples if s.is_answered)
        failed = "".join(f"M{x(s.began) - 3:.1f} {y(s.seconds) - 3:.1f}l6 6m0-6l-6 6" for s in samples if not s.is_answered)
        marks = f'<path d="{answered}" stroke="{color}" stroke-width="4" stroke-linecap="round" fill="none"/>'
        return [marks, f'<path d="{failed}" stroke="{color}" fill="none"/>'] if failed else [marks]

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}" role="img">',
        "<title>Latency of a slow third party, and of the cached page that shows its answer</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for seconds, label in ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s")):
        parts += [line(LEFT, y(seconds), right, y(seconds)), text(LEFT - 8, y(seconds) + 4, label, 'text-anchor="end"')]
    for phase, (label, _, _) in enumerate(PHASES):
        start = x(phase * length / len(PHASES))
        parts += [line(start, TOP - 18, start, bottom), text(start + 6, TOP - 6, label)]
    for quarter in range(5):
        moment, anchor = quarter * length / 4, "end" if quarter == 4 else "middle"
        parts.append(text(x(moment), bottom + 18, f"{moment:.0f} s", f'text-anchor="{anchor}"'))
    parts += dots(origin, ORIGIN) + dots(served, SERVED)
    legend = (
        (LEFT, ORIGIN, f"third party, called directly (✕ no answer within {TIMEOUT:.0f} s)"),
        (LEFT + 400, SERVED, "front page that shows its answer, as served to visitors"),
    )
    for start, color, label in legend:
        parts += [f'<circle cx="{start + 5}" cy="18" r="5" fill="{color}"/>', text(start + 16, 22.5, label)]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
