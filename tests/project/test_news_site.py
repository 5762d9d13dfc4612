"""The news site of the demo: its pages, its editors, and its partners."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache as cache_results
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from example_app import auth, create_app, partners
from example_app.demo import NO_NUMBER, OLD
from example_app.extensions import cache
from support.servers import wait_for

PATIENCE = 60


class Partners:
    """Stands in for the site's partners, and counts their calls. Each answer has a larger number than the one before.

    :ivar statuses: the status that a partner answers instead of 200, or the exception that it raises.
    :ivar meanwhile: is called during each call.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.statuses: dict[str, int | Exception] = {}
        self.meanwhile: Callable[[], object] = lambda: None

    def get(self, url: str, *, params: Mapping[str, str] | None = None, timeout: float) -> requests.Response:
        """Stand in for ``requests.get``."""
        assert timeout > 0
        name = urlsplit(url).path.split("/")[1]
        assert (params is not None) == (name == "weather")
        self.calls[name] += 1
        count = self.calls[name]
        self.meanwhile()
        status = self.statuses.get(name, 200)
        if isinstance(status, Exception):
            raise status
        answers: dict[str, object] = {
            "number": 99 + count,
            "weather": {"degrees": count, "sky": "rain"},
            "comments": {"comments": count},
        }
        response = requests.Response()
        response.status_code = status
        response._content = json.dumps(answers[name]).encode()
        return response

    def die(self, *names: str) -> None:
        """Let partners refuse every call."""
        self.statuses.update(dict.fromkeys(names, requests.ConnectionError("refused")))


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Partners:
    others = Partners()
    monkeypatch.setattr(requests, "get", others.get)
    return others


#: Remembers its results, since hashing a password takes a tenth of a second on purpose.
check_password_hash = cache_results(auth.check_password_hash)


@pytest.fixture(autouse=True)
def _hash_each_password_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "check_password_hash", check_password_hash)


@pytest.fixture
def site(tmp_path: Path, others: Partners) -> Callable[..., Flask]:
    """``site(**settings)`` returns the app of one more worker."""
    settings = {"STALECACHE_DIR": tmp_path / "cache", "ARTICLES_DIR": tmp_path / "articles", "STALECACHE_REFRESH_WORKERS": 0}
    settings |= {"DASHBOARD_SECONDS": 0, "THIRD_PARTY_TIMEOUT": 5, "SECRET_KEY": "for tests"}
    return lambda **more: create_app({"TESTING": True, **settings, **more})


@pytest.fixture
def app(site: Callable[[], Flask]) -> Flask:
    return site()


def log_in(client: FlaskClient, username: str = "ada", **options: object) -> int:
    form = {"username": username, "password": {"ada": "analytical-engine", "grace": "compile-time"}[username]}
    with closing(client.post("/login", data=form, **options)) as response:
        return response.status_code


def visit(client: FlaskClient, path: str = "/", **headers: str) -> tuple[str, str]:
    """Return the cache status and the body; fields are given with ``_`` for ``-``."""
    with closing(client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})) as response:
        return response.headers.get("X-Cache-Status", "-"), response.text


def test_visitors_share_a_page_and_members_are_greeted_in_it(app: Flask) -> None:
    visitor, member = app.test_client(), app.test_client()
    assert visit(visitor)[0] == "MISS"
    assert log_in(member) == 302
    status, page = visit(member)
    assert status == "HIT"
    assert "Hello, Ada" in page
    assert "Ask our partners again" in page
    status, page = visit(visitor)
    assert status == "HIT"
    assert "Hello" not in page
    assert 'id="number">100<' in page
    member.post("/logout").close()
    assert visit(member) == (status, page)


def test_the_greeting_of_a_member_who_comes_first_is_not_stored(app: Flask) -> None:
    member, visitor = app.test_client(), app.test_client()
    log_in(member)
    assert "Hello, Ada" in visit(member)[1]
    status, page = visit(visitor)
    assert status == "HIT"
    assert "Hello" not in page
    assert "Ask our partners again" not in page


@pytest.mark.parametrize("path", ["/", "/dashboard", "/articles/the-ten-second-box", "/articles/none"])
def test_open_pages_are_cached(app: Flask, path: str) -> None:
    client = app.test_client()
    first, second = visit(client, path), visit(client, path)
    assert (first[0], second[0]) == ("MISS", "HIT")
    assert first[1] == second[1]


def test_the_weather_page_is_cached_and_purged_for_one_city(app: Flask, others: Partners) -> None:
    client = app.test_client()
    assert "1 °C, rain" in visit(client, "/weather/Berlin")[1]
    assert "2 °C, rain" in visit(client, "/weather/Lima")[1]
    assert visit(client, "/weather/Atlantis")[0] == "MISS"
    assert others.calls["weather"] == 2, "no partner is asked for what visitors make up"
    with app.app_context():
        cache.purge(tag=partners.weather_tag("Lima"))
    assert "3 °C, rain" in visit(client, "/weather/Lima")[1]
    assert visit(client, "/weather/Berlin")[0] == "HIT"


def test_opening_the_login_form_leaves_a_visitor_in_the_cache(app: Flask) -> None:
    client = app.test_client()
    visit(client)
    visit(client, "/login")
    assert client.get("/members").headers["Location"] == "/login?next=%2Fmembers"
    assert visit(client)[0] == "HIT"


own_forms = pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 302),
        ({"Origin": "http://localhost"}, 302),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://behind.a.proxy"}, 302),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"}, 403),
    ],
)


@own_forms
def test_only_our_own_forms_log_in(app: Flask, headers: dict[str, str], status: int) -> None:
    assert log_in(app.test_client(), headers=headers) == status


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/members", "/members"),
        ("/members?page=2", "/members?page=2"),
        ("", "/"),
        ("//elsewhere.example", "/"),
        ("/\\elsewhere.example", "/"),
        ("/\t/elsewhere.example", "/"),
        ("https://elsewhere.example/", "/"),
    ],
)
def test_a_login_leads_to_this_site_only(app: Flask, target: str, location: str) -> None:
    form = {"username": "grace", "password": "compile-time"}
    response = app.test_client().post("/login", data=form, query_string={"next": target})
    assert response.headers["Location"] == location


ARTICLE, OTHER = f"/articles/{OLD.slug}", "/articles/when-the-third-party-sleeps"

CHANGES = {"title": "Tea & <b>cake</b>", "summary": "A summary.", "text": "One\r\nline.\r\n\r\n \r\nAnother."}


def send(client: FlaskClient, changes: dict[str, str] | None = None, path: str = ARTICLE, **options: object) -> tuple[int, str]:
    """Press the button under the form, and return status and body."""
    with closing(client.post(f"{path}/edit", data=CHANGES if changes is None else changes, **options)) as response:
        return response.status_code, response.text


def test_what_an_editor_publishes_every_worker_shows_at_its_next_request(site: Callable[[], Flask]) -> None:
    workers = [site().test_client() for _ in range(2)]
    for path in (ARTICLE, OTHER, "/", "/dashboard"):
        assert [visit(worker, path)[0] for worker in workers * 2] == ["MISS", "HIT", "HIT", "HIT"]
    editor = site().test_client()
    log_in(editor)
    assert send(editor)[0] == 302
    for path in (ARTICLE, "/", "/dashboard"):
        answers = [visit(worker, path) for worker in workers * 2]
        assert [status for status, _ in answers] == ["MISS", "HIT", "HIT", "HIT"]
        assert all("Tea &amp; &lt;b&gt;cake&lt;/b&gt;" in page and OLD.title not in page for _, page in answers)
    assert [visit(worker, OTHER)[0] for worker in workers] == ["HIT", "HIT"]
    assert "<p>One line.</p>\n  <p>Another.</p>\n</article>" in visit(workers[0], ARTICLE)[1]


def test_only_editors_see_the_button(app: Flask) -> None:
    button = f'<a class="button" href="{ARTICLE}/edit">'
    seen = {}
    for name in ("nobody", "ada", "grace"):
        client = app.test_client()
        if name != "nobody":
            log_in(client, name)
        seen[name] = button in visit(client, ARTICLE)[1]
    assert seen == {"nobody": False, "ada": True, "grace": False}


def test_the_form_holds_what_is_published(app: Flask) -> None:
    editor = app.test_client()
    log_in(editor)
    send(editor)
    page = visit(editor, f"{ARTICLE}/edit")[1]
    assert 'value="Tea &amp; &lt;b&gt;cake&lt;/b&gt;"' in page
    assert "required>\nOne line.\n\nAnother.</textarea>" in page
    assert "<button" in page
    assert "Publish</button>" in page


@pytest.mark.parametrize(
    ("name", "path", "changes", "status"),
    [
        (None, ARTICLE, CHANGES, 302),
        ("grace", ARTICLE, CHANGES, 403),
        ("ada", "/articles/none", CHANGES, 404),
        ("ada", ARTICLE, {}, 400),
        ("ada", ARTICLE, {**CHANGES, "title": "  "}, 400),
        ("ada", ARTICLE, {**CHANGES, "text": "\n\n"}, 400),
    ],
)
def test_what_is_not_published_purges_nothing(
    app: Flask, name: str | None, path: str, changes: dict[str, str], status: int
) -> None:
    visitor, client = app.test_client(), app.test_client()
    page = visit(visitor, ARTICLE)[1]
    if name is not None:
        log_in(client, name)
    answered, body = send(client, changes, path)
    assert answered == status
    assert ("must not be empty" in body) == (status == 400)
    assert visit(visitor, ARTICLE) == ("HIT", page)


def test_looking_at_the_form_publishes_nothing(app: Flask) -> None:
    visitor, editor = app.test_client(), app.test_client()
    page = visit(visitor, ARTICLE)[1]
    log_in(editor)
    with closing(editor.get(f"{ARTICLE}/edit", query_string=CHANGES)) as response:
        assert (response.status_code, "X-Cache-Status" in response.headers) == (200, False)
    assert visit(visitor, ARTICLE) == ("HIT", page)


@own_forms
def test_only_our_own_forms_publish_or_have_partners_asked(app: Flask, headers: dict[str, str], status: int) -> None:
    visitor, editor = app.test_client(), app.test_client()
    visit(visitor, ARTICLE)
    visit(visitor)
    log_in(editor)
    with closing(editor.post("/partners", headers=headers)) as response:
        assert response.status_code == status
    assert visit(visitor)[0] == ("STALE" if status == 302 else "HIT")
    assert send(editor, headers=headers)[0] == status
    assert visit(visitor, ARTICLE)[0] == ("MISS" if status == 302 else "HIT")


def test_an_editor_is_told_if_the_old_pages_may_still_be_there(app: Flask, tmp_path: Path) -> None:
    editor = app.test_client()
    log_in(editor)
    names = tmp_path / "cache" / "names"
    names.parent.mkdir(mode=0o700, exist_ok=True)
    names.write_text("in the way")
    status, page = send(editor)
    assert status == 500
    assert "Please publish it once more" in page
    names.unlink()
    assert send(editor)[0] == 302


@pytest.mark.parametrize(("field", "status"), [("1", "STALE"), ("0", "EXPIRED"), (None, "EXPIRED")])
def test_the_dashboard_on_the_wall_never_waits(app: Flask, clock: time_machine.Traveller, field: str | None, status: str) -> None:
    client = app.test_client()
    old = visit(client, "/dashboard")[1]
    clock.shift(7 * 86400)
    answer = visit(client, "/dashboard", **({} if field is None else {"X_Prefer_Stale": field}))
    assert (answer[0], answer[1] == old) == (status, status == "STALE")
    # The page was renewed in the background, or by that visit.
    assert visit(client, "/dashboard")[0] == "HIT"
    assert visit(client, "/dashboard")[1] != old


@pytest.mark.parametrize("form", [{}, {"username": "ada", "password": "wrong"}, {"username": "eve", "password": "x"}])
def test_a_wrong_login_is_refused(app: Flask, form: dict[str, str]) -> None:
    response = app.test_client().post("/login", data=form)
    assert response.status_code == 401
    assert "do not belong together" in response.text


# -- the partners of the front page ------------------------------------------------------------------------------------


MISSING = {"number": NO_NUMBER, "weather": "No report", "comments": "comments are closed for now"}

#: Seconds for which a value is shown after its answer: the sum of its windows.
SHOWN_FOR = {"number": 15 + 86400, "weather": 300 + 6 * 3600, "comments": 60 + 3600}


def missing(page: str) -> set[str]:
    """Return the partners without a value on a page, which has words in its place."""
    return {name for name, words in MISSING.items() if words in page}


@pytest.mark.parametrize(("dead", "status"), [("number", "STALE"), ("weather", "STALE"), ("comments", "HIT")])
def test_words_stand_in_for_a_partner_that_was_dead_from_the_start(app: Flask, others: Partners, dead: str, status: str) -> None:
    others.die(dead)
    client = app.test_client()
    first, page = visit(client)
    assert (first, missing(page)) == ("MISS", {dead})
    assert (visit(client)[0], others.calls[dead]) == (status, 3 if dead == "comments" else 1)


def test_one_that_hangs_is_waited_for_by_nobody_for_long(site: Callable[..., Flask], others: Partners) -> None:
    over = threading.Event()
    others.meanwhile = lambda: over.wait(PATIENCE)
    app = site(STALECACHE_REFRESH_WORKERS=2, STALECACHE_REFRESH_BACKOFF=(0.01, 0.01))
    client = app.test_client()
    try:
        status, page = visit(client)
        assert (status, missing(page)) == ("MISS", set(MISSING)), "while all of them still hang"
        assert (visit(client)[0], missing(visit(client)[1])) == ("STALE", set(MISSING))
        assert others.calls == {"number": 1, "weather": 1, "comments": 3}
    finally:
        over.set()
    with app.app_context():
        assert cache.drain(PATIENCE)
    wait_for(lambda: missing(visit(client)[1]) == set(), what="they are back")


def test_all_are_asked_at_the_same_time(app: Flask, others: Partners) -> None:
    all_there = threading.Barrier(5)
    others.meanwhile = lambda: all_there.wait(PATIENCE)
    assert missing(visit(app.test_client())[1]) == set()


@pytest.mark.parametrize("name", SHOWN_FOR)
def test_what_a_dead_partner_said_last_is_shown_until_its_windows_are_over(
    app: Flask, others: Partners, clock: time_machine.Traveller, name: str
) -> None:
    client = app.test_client()
    # The queries make these three pages, none of which is stored when it is requested.
    assert missing(visit(client, "/?1")[1]) == set()
    others.die(name)
    clock.shift(SHOWN_FOR[name] * 0.9)
    assert missing(visit(client, "/?2")[1]) == set()
    clock.shift(SHOWN_FOR[name] * 0.1 + 1)
    assert missing(visit(client, "/?3")[1]) == {name}


def test_a_page_does_not_freeze_with_comments_that_are_dead_for_good(
    app: Flask, others: Partners, clock: time_machine.Traveller
) -> None:
    client = app.test_client()
    visit(client)
    others.die("comments")
    for number in (101, 102):
        clock.shift(2 * 3600)
        assert visit(client)[0] == "EXPIRED"
        status, page = visit(client)
        assert (status, missing(page)) == ("HIT", {"comments"})
        assert f'id="number">{number}<' in page


def test_comments_that_fail_for_all_articles_are_left_alone_for_all(
    app: Flask, others: Partners, clock: time_machine.Traveller
) -> None:
    others.die("comments")
    with app.app_context():
        assert [partners.comments(f"article {number}") for number in range(8)] == [None] * 8
        assert others.calls["comments"] == 6
        clock.shift(2.9)
        assert partners.comments("one more") is None
        assert others.calls["comments"] == 6
        others.statuses.clear()
        clock.shift(0.2)
        assert (partners.comments("one more"), partners.comments("and one")) == (7, 8)


@pytest.mark.parametrize("status", [404, 410])
def test_that_there_are_no_comments_any_more_is_an_answer(app: Flask, others: Partners, status: int) -> None:
    others.statuses["comments"] = status
    with app.app_context():
        assert [partners.comments("one") for _ in range(3)] == [None] * 3
    assert others.calls["comments"] == 1


def test_an_answer_that_no_fallback_is_for_is_an_error_page_only_without_a_copy(
    app: Flask, others: Partners, clock: time_machine.Traveller
) -> None:
    others.statuses["number"] = 404
    client = app.test_client()
    with closing(client.get("/")) as response:
        assert response.status_code == 502
        assert "Our partner does not answer" in response.text
    others.statuses.clear()
    clock.shift(60)
    status, page = visit(client)
    assert (status, missing(page)) == ("MISS", set())
    others.statuses["number"] = 404
    for status in ("STALE", "UPDATING"):
        clock.shift(60 if status == "STALE" else 0)
        assert visit(client) == (status, page)


def test_an_editor_has_the_partners_asked_again_and_nobody_waits(app: Flask) -> None:
    visitor, editor = app.test_client(), app.test_client()
    page = visit(visitor)[1]
    log_in(editor)
    assert 'action="/partners"' in visit(editor)[1]
    assert 'action="/partners"' not in page
    with closing(editor.post("/partners")) as response:
        assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert visit(visitor) == ("STALE", page)
    status, page = visit(visitor)
    assert status == "HIT"
    assert 'id="number">101<' in page
    assert 'id="degrees">2 °C<' in page
    assert '<span class="comments">1 comment<' not in page


@pytest.mark.parametrize(("name", "status"), [(None, 302), ("grace", 403)])
def test_nobody_else_has_them_asked(app: Flask, name: str | None, status: int) -> None:
    visitor, client = app.test_client(), app.test_client()
    visit(visitor)
    if name is not None:
        log_in(client, name)
    with closing(client.post("/partners")) as response:
        assert response.status_code == status
    assert visit(visitor)[0] == "HIT"


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWS_STALECACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NEWS_STALECACHE_MAX_AGE", "3")
    monkeypatch.setenv("NEWS_THIRD_PARTY_URL", "http://127.0.0.1:9/")
    config = create_app({"STALECACHE_MAX_AGE": 4}).config
    assert (config["STALECACHE_MAX_AGE"], config["THIRD_PARTY_URL"]) == (4, "http://127.0.0.1:9/")
