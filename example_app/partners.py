"""What the front page has from others: one of them is slow, one fails every now and then, and one may be gone tomorrow.

Each function is written as if nothing could go wrong, and says beside it what happens when it does.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

import requests
from flask import current_app

from example_app.articles import tag_of
from example_app.extensions import cache

#: Tag of everything that comes from a partner, and of the pages that are made of it.
TAG = "partners"
CITY = "Berlin"
#: The longest that a visitor waits for any of them, in seconds.
LONGEST_WAIT = 0.5


@dataclass(frozen=True, slots=True)
class Weather:
    degrees: int
    sky: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What the partners say, or what stands in for it: nothing.

    :ivar comments: how many there are, by article.
    """

    number: int | None
    weather: Weather | None
    comments: dict[str, int | None]


# Fresh for as long as the site is configured, so that the demo can shorten it. It takes ten seconds, which nobody can wait for. It
# is one value, so that one call at a time is made of it, and two threads are plenty: also if one hangs for longer than its client.
@cache.memoize(stale_while_revalidate=3600, stale_if_error=86400, wait=LONGEST_WAIT, fallback=None, max_concurrency=2, tags=[TAG])
def number() -> int | None:
    """Ask the slow partner for its number."""
    answer = requests.get(_url("number"), timeout=current_app.config["THIRD_PARTY_TIMEOUT"])
    answer.raise_for_status()
    return int(answer.text)


# It fails every now and then and is back at once: of that nobody needs to know. The weather of this morning is better than none,
# that of yesterday is not.
@cache.memoize(
    max_age=300,
    stale_while_revalidate=3600,
    stale_if_error=6 * 3600,
    wait=0.3,
    fallback=None,
    max_concurrency=4,
    tags=[TAG],
)
def weather(city: str) -> Weather | None:
    """Ask the flaky partner for the weather in a city."""
    answer = requests.get(_url("weather"), params={"city": city}, timeout=5)
    answer.raise_for_status()
    return Weather(**answer.json())


# It may be gone tomorrow, for all articles at once: so the calls for all of them stop together. The page can do without it, so it
# takes over nothing (inherit=False): without the comments it is fresh too, and still renewed for what else is on it.
@cache.memoize(
    max_age=60,
    stale_while_revalidate=600,
    stale_if_error=3600,
    wait=0.3,
    fallback=None,
    max_concurrency=6,
    suspend_after=6,
    suspend_for=3,
    inherit=False,
    tags=lambda slug: [TAG, tag_of(slug)],
)
def comments(slug: str) -> int | None:
    """Ask the partner that may die for good how many comments an article has; none, if it says that it is gone."""
    answer = requests.get(_url(f"comments/{slug}"), timeout=5)
    if answer.status_code in (404, 410):
        return None
    answer.raise_for_status()
    return int(answer.json()["comments"])


def ask_all(slugs: Iterable[str]) -> Answers:
    """Ask all of them at the same time: where nothing is stored yet, who waits does so once, not for one after the other.

    :param slugs: the articles whose comments are counted.
    """
    slugs = list(slugs)
    with ThreadPoolExecutor(2 + len(slugs)) as threads:
        # In a copy of the context the functions know the app, and the page what it is made of.
        first: Future[int | None] = threads.submit(copy_context().run, number)
        second: Future[Weather | None] = threads.submit(copy_context().run, weather, CITY)
        counts = [threads.submit(copy_context().run, comments, slug) for slug in slugs]
        found = {slug: count.result() for slug, count in zip(slugs, counts, strict=True)}
        return Answers(first.result(), second.result(), found)


def _url(path: str) -> str:
    return f"{current_app.config['THIRD_PARTY_URL']}{path}"
