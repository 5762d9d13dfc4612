"""The articles of the site, and what editors have made of them since: files that all workers share."""

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
        """The tag of the pages that show something of it."""
        return tag_of(self.slug)


def tag_of(slug: str) -> str:
    """Return the tag of the pages that show something of an article."""
    return f"article:{slug}"


_ARTICLES = (
    Article(
        "the-ten-second-box",
        "The ten second box",
        date(2024, 3, 4),
        "One small number on the front page made every visitor wait.",
        (
            "The number comes from somebody else's server, and that server takes ten seconds to think about it. "
            "Whoever opened the front page waited with it, and a handful of visitors at once kept all workers busy.",
            "Now a visitor gets the page that is there. If it is older than it should be, it is renewed after the "
            "response has been sent, once, however many visitors came.",
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
            "Nobody has to be woken up for that, and nobody has to reload.",
        ),
    ),
    Article(
        "members-see-their-own-page",
        "Members see their own page",
        date(2024, 3, 18),
        "Why a cached page never greets you by somebody else's name.",
        (
            "The header of this page greets you if you are logged in. So a page that was made for a member is made for "
            "nobody else, and members get theirs live.",
            "Everyone else shares one copy. The site itself does nothing for this: the cache saw that the page had "
            "looked at the session.",
        ),
    ),
)

FIRST = {article.slug: article for article in _ARTICLES}


def all_articles() -> list[Article]:
    return [find(slug) or article for slug, article in FIRST.items()]


def find(slug: str) -> Article | None:
    """Return an article as it was published last, or ``None`` if there is none."""
    first = FIRST.get(slug)
    if first is None:
        return None
    try:
        changes = json.loads(_file(slug).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return first
    return replace(first, title=changes["title"], summary=changes["summary"], paragraphs=tuple(changes["paragraphs"]))


def publish(article: Article) -> None:
    """Put an article in place of what was published, for all workers at once."""
    path = _file(article.slug)
    path.parent.mkdir(parents=True, exist_ok=True)
    changes = {name: value for name, value in asdict(article).items() if name in ("title", "summary", "paragraphs")}
    beside = path.with_suffix(f".{os.urandom(8).hex()}.tmp")
    beside.write_text(json.dumps(changes), encoding="utf-8")
    beside.replace(path)


def _file(slug: str) -> Path:
    return Path(current_app.config["ARTICLES_DIR"] or Path(current_app.instance_path) / "articles") / f"{slug}.json"
