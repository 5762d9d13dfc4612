"""A microblog, a forum and a Django site, walked like the magazine: every answer equals that of the site without the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.endurance import IS_SOAK
from support.real_apps.django_site import DJANGO, WSGI
from support.real_apps.flask_sites import GATEWAY, VIEW
from support.real_apps.forum import FORUM, FORUM_THAT_COUNTS
from support.real_apps.magazine import MAGAZINE
from support.real_apps.microblog import MICROBLOG
from support.real_apps.walks import RealApp, compare, walk_of

pytestmark = [pytest.mark.usefixtures("no_housekeeping"), pytest.mark.soak]

SITES = [(MICROBLOG, VIEW), (FORUM, GATEWAY), (FORUM_THAT_COUNTS, VIEW), (DJANGO, WSGI)]
SITES += [(MICROBLOG, GATEWAY), (FORUM, VIEW)] if IS_SOAK else []

#: The reasons for misses that each site may have. They are counted by endpoint; compare() checks that each miss has one.
_EVERYBODYS = {"nothing_stored", "too_old", "method"}
_PERSONAL = {"carries_cookie", "carries_session_key", "modified_session", "sets_cookie"}
TOLD = {
    "microblog": _EVERYBODYS | _PERSONAL,
    "forum": _EVERYBODYS | _PERSONAL,
    "forum that counts guests": _EVERYBODYS | _PERSONAL | {"carries_variable"},
    # Its pages vary by Cookie: of many visitors, each has a variant.
    "Django": _EVERYBODYS | {"credentials", "sets_cookie", "too_many_variants"},
}


@pytest.mark.parametrize(("app", "front"), SITES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_each_visitor_sees_what_the_site_shows_without_a_cache(
    app: RealApp, front: str, directory: Path, soak: Callable[[int, int], int]
) -> None:
    walked = compare(app, app.build(front, directory), walk_of(app, strangers=soak(50, 8), length=soak(30, 2)))
    print(walked.table())
    assert walked.total.possible > 0
    counted = {name for reasons in walked.reasons.values() for name in reasons}
    assert counted <= TOLD[app.name], walked.reasons


#: Site, front and page; a part of the first line of ``flask stalecache why``, and the change that it proposes.
ASKED = [
    (FORUM, VIEW, "/topic/1", "is cached", ""),
    (FORUM, GATEWAY, "/topic/1", "the response sets a cookie", "change the session in another view, or do not cache this one"),
    (FORUM_THAT_COUNTS, VIEW, "/feed.json", "REMOTE_ADDR", "put what the page takes from it into key="),
    (FORUM, VIEW, "/feed.json", "is cached", ""),
    (MICROBLOG, VIEW, "/explore", "is cached", ""),
    (MICROBLOG, GATEWAY, "/explore", "is cached", ""),
    (MICROBLOG, VIEW, "/user/ann", "the view modified the session", "change the session in another view"),
    (MAGAZINE, VIEW, "https://site.example/map", "is cached", ""),
    (MAGAZINE, GATEWAY, "https://site.example/map", "has a nonce that is in the body", "by hash ('sha256-...')"),
    (MAGAZINE, GATEWAY, "https://site.example/prices", "is cached", ""),
]


@pytest.mark.parametrize(("app", "front", "page", "said", "fix"), ASKED, ids=lambda value: getattr(value, "name", None))
def test_why_names_the_line_to_write(app: RealApp, front: str, page: str, said: str, fix: str, directory: Path) -> None:
    site = app.build(front, directory).wsgi
    asked = site.test_cli_runner().invoke(args=["stalecache", "why", page])  # type: ignore[attr-defined]
    assert asked.exit_code == 0, asked.output
    assert said in asked.output.splitlines()[0]
    assert fix in asked.output
