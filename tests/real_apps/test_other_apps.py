"""A microblog, a forum and a Django site, walked like the magazine: every answer equals that of the site without the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.real_apps.django_site import DJANGO, WSGI
from support.real_apps.flask_sites import GATEWAY, VIEW
from support.real_apps.forum import FORUM, FORUM_THAT_COUNTS
from support.real_apps.microblog import MICROBLOG
from support.real_apps.walks import RealApp, compare, walk_of

pytestmark = [pytest.mark.usefixtures("no_housekeeping"), pytest.mark.soak]

SITES = [(app, front) for app in (MICROBLOG, FORUM) for front in (VIEW, GATEWAY)]
SITES += [(FORUM_THAT_COUNTS, VIEW), (DJANGO, WSGI)]


@pytest.mark.parametrize(("app", "front"), SITES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_each_visitor_sees_what_the_site_shows_without_a_cache(
    app: RealApp, front: str, directory: Path, soak: Callable[[int, int], int]
) -> None:
    walked = compare(app, app.build(front, directory), walk_of(app, strangers=soak(50, 14), length=soak(30, 4)))
    print(walked.table())
    assert walked.total.possible > 0
