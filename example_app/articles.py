"""The articles of the site."""

from dataclasses import dataclass
from datetime import date


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

ARTICLES = {article.slug: article for article in _ARTICLES}
