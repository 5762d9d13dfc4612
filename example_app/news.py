"""The pages of the site; all views in :data:`bp` are public and cached."""

import os
import random
import time

import requests
from flask import Blueprint, current_app, render_template

from example_app.articles import all_articles, find, tag_of
from example_app.extensions import cache
from example_app.partners import CITIES, CITY, ask_all, weather

bp = Blueprint("news", __name__)
#: The tag of the dashboard, which an editor may have recounted.
COUNTS = "counts"


@bp.get("/")
@cache.cached()
def front() -> str:
    """Show the articles and the partners' values. The windows come from the configuration, so that the demo can shorten them."""
    articles = all_articles()
    cache.tag(*(article.tag for article in articles))
    return render_template("front.html", articles=articles, city=CITY, answers=ask_all(article.slug for article in articles))


@bp.get("/dashboard")
@cache.cached(stale_while_revalidate=0)
def dashboard() -> str:
    """Show how often the articles were read, which takes long to compute.

    People who open it want today's counts and wait for them. The wall screen sends ``X-Prefer-Stale`` and never waits.
    """
    articles = all_articles()
    cache.tag(*(article.tag for article in articles), COUNTS)
    readers = list(zip(articles, counted(len(articles), current_app.config["DASHBOARD_SECONDS"]), strict=True))
    return render_template("dashboard.html", readers=readers, total=sum(count for _, count in readers), process=os.getpid())


def counted(articles: int, seconds: float) -> list[int]:
    """Count the visits of each article in an imaginary log.

    :param articles: the number of articles.
    :param seconds: the processor time that the counting takes.
    """
    until, counts = time.thread_time() + seconds, [random.randint(100, 9999) for _ in range(articles)]
    while time.thread_time() < until:
        for _ in range(1000):
            counts[random.randrange(articles)] += 1
    return counts


@bp.get("/articles/<slug>")
@cache.cached(
    max_age=300,
    stale_while_revalidate=3600,
    stale_if_error=86400,
    statuses={404: 60},
    ignored_parameters=("utm_*",),
    tags=lambda slug: [tag_of(slug)],
)
def article(slug: str) -> str | tuple[str, int]:
    """Show an article. A 404 is cached for a minute only, because the article may be written later."""
    found = find(slug)
    if found is None:
        return render_template("missing.html"), 404
    return render_template("article.html", article=found)


@bp.get("/weather/<city>")
@cache.cached(max_age=300)
def city_weather(city: str) -> str | tuple[str, int]:
    """Show the weather in one of a few cities: a partner is asked for no others, whatever a URL says."""
    if city not in CITIES:
        return render_template("missing.html"), 404
    return render_template("weather.html", city=city, report=weather(city))


@bp.app_errorhandler(404)
def missing(error: Exception) -> tuple[str, int]:
    return render_template("missing.html"), 404


@bp.app_errorhandler(requests.RequestException)
def third_party_failed(error: requests.RequestException) -> tuple[str, int]:
    """Respond if no page is stored and a partner gives a response for which there is no fallback, such as a 404."""
    current_app.logger.warning("A partner failed: %s", error)
    return render_template("unavailable.html"), 502
