"""Values from three partners for the front page. One is slow, one fails now and then, and one may be gone tomorrow.

Each function is written as if its partner were reliable, and its decorator defines what happens when it is not.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

import requests
from flask import current_app

from example_app.articles import tag_of
from example_app.extensions import cache

#: Tag of all values that come from a partner, and of the pages that use them.
TAG = "partners"
#: The same for the number alone.
NUMBER = "number"
CITIES = ("Berlin", "Lagos", "Lima", "Oslo")
#: The city whose weather the front page shows.
CITY = CITIES[0]
#: The longest time that a visitor waits for any of them, in seconds.
LONGEST_WAIT = 0.5


@dataclass(frozen=True, slots=True)
class Weather:
    degrees: int
    sky: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The values of the partners; ``None`` is the fallback.

    :ivar comments: number of comments by article.
    """

    number: int | None
    weather: Weather | None
    comments: dict[str, int | None]


def weather_tag(city: str) -> str:
    """Return the tag of the weather in a city, and of the pages that show it."""
    return f"weather:{city}"


# Its freshness comes from the configuration, so that the demo can shorten it. A call takes ten seconds, too long for a visitor.
# There is only one key, so one call at a time, and two threads are enough, even if one hangs for longer than its client's timeout.
@cache.memoize(
    stale_while_revalidate=3600, stale_if_error=86400, wait=LONGEST_WAIT, fallback=None, max_concurrency=2, tags=[TAG, NUMBER]
)
def number() -> int | None:
    """Ask the slow partner for its number."""
    answer = requests.get(_url("number"), timeout=current_app.config["THIRD_PARTY_TIMEOUT"])
    answer.raise_for_status()
    return int(answer.text)


# It fails now and then and recovers immediately, which visitors need not notice. This morning's weather is better than none,
# yesterday's is not.
@cache.memoize(
    max_age=300,
    stale_while_revalidate=3600,
    stale_if_error=6 * 3600,
    wait=0.3,
    fallback=None,
    max_concurrency=4,
    tags=lambda city: [TAG, weather_tag(city)],
)
def weather(city: str) -> Weather | None:
    """Ask the flaky partner for the weather in a city."""
    answer = requests.get(_url("weather"), params={"city": city}, timeout=5)
    answer.raise_for_status()
    return Weather(**answer.json())


# It may be gone tomorrow, for all articles at the same time, so all its calls are suspended together. The page can do without it,
# so it inherits nothing (inherit=False): it is fresh without the comments, and is still refreshed for its other content.
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
    """Ask the partner that may disappear for the number of comments of an article. Return ``None`` if it says that it is gone."""
    answer = requests.get(_url(f"comments/{slug}"), timeout=5)
    if answer.status_code in (404, 410):
        return None
    answer.raise_for_status()
    return int(answer.json()["comments"])


def ask_all(slugs: Iterable[str]) -> Answers:
    """Ask all partners concurrently, so that a visitor without stored values waits once, not for one partner after the other.

    :param slugs: the articles whose comments are counted.
    """
    slugs = list(slugs)
    with ThreadPoolExecutor(2 + len(slugs)) as threads:
        # In a copy of the context, the functions have the app, and the page inherits from the values.
        first: Future[int | None] = threads.submit(copy_context().run, number)
        second: Future[Weather | None] = threads.submit(copy_context().run, weather, CITY)
        counts = [threads.submit(copy_context().run, comments, slug) for slug in slugs]
        found = {slug: count.result() for slug, count in zip(slugs, counts, strict=True)}
        return Answers(first.result(), second.result(), found)


def _url(path: str) -> str:
    return f"{current_app.config['THIRD_PARTY_URL']}{path}"
