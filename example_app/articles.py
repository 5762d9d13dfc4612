"""The articles of the site, and the edited versions of them: files that all workers share."""

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

from flask import current_app


@dataclass(frozen=True, slots=True)
class Article:
    slug: str
    title: str
    published: date
    summary: str
    paragraphs: tuple[str, ...]

    @property
    def day(self) -> str:
        return f"{self.published.day} {self.published:%B %Y}"

    @property
    def tag(self) -> str:
        """The tag of the pages that show a part of it."""
        return tag_of(self.slug)


def tag_of(slug: str) -> str:
    """Return the tag of the pages that show a part of an article."""
    return f"article:{slug}"


_ARTICLES = (
    Article(
        "the-ten-second-box",
        "The ten second box",
        date(2024, 3, 4),
        "One small number on the front page made every visitor wait.",
        (
            "The number comes from somebody else's server, and that server takes ten seconds to think about it. "
            "Every visitor of the front page waited for it, and a handful of them at the same time kept all workers busy.",
            "Now visitors get the stored page. If it is stale, it is refreshed after the response has been sent, once, "
            "however many visitors there are.",
        ),
    ),
    Article(
        "when-the-third-party-sleeps",
        "When the third party sleeps",
        date(2024, 3, 11),
        "What a page can do when the server behind it has gone away.",
        (
            "A number that is an hour old is better than an error page. While the third party is down the site shows "
            "what it last heard, and asks again at growing intervals.",
            "Operators can sleep, and visitors do not have to reload.",
        ),
    ),
    Article(
        "members-see-their-own-page",
        "Members see their own page",
        date(2024, 3, 18),
        "Why a cached page never greets you by another visitor's name.",
        (
            "The header of this page greets you if you are logged in. It is a hole in the page: the rest is stored once, and "
            "members share it with all other visitors.",
            "A page that shows who you are anywhere else is not stored for you. The site needs no code for this: the cache "
            "observed that the page read the session.",
        ),
    ),
)

FIRST = {article.slug: article for article in _ARTICLES}


def all_articles() -> list[Article]:
    return [find(slug) or article for slug, article in FIRST.items()]


def find(slug: str) -> Article | None:
    """Return the latest version of an article, or ``None`` for an unknown one."""
    first = FIRST.get(slug)
    if first is None:
        return None
    try:
        changes = json.loads(_file(slug).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return first
    return replace(first, title=changes["title"], summary=changes["summary"], paragraphs=tuple(changes["paragraphs"]))


def publish(article: Article) -> None:
    """Publish a new version of an article, for all workers at the same time."""
    path = _file(article.slug)
    path.parent.mkdir(parents=True, exist_ok=True)
    changes = {name: value for name, value in asdict(article).items() if name in ("title", "summary", "paragraphs")}
    beside = path.with_suffix(f".{os.urandom(8).hex()}.tmp")
    beside.write_text(json.dumps(changes), encoding="utf-8")
    beside.replace(path)


def _file(slug: str) -> Path:
    return Path(current_app.config["ARTICLES_DIR"] or Path(current_app.instance_path) / "articles") / f"{slug}.json"
