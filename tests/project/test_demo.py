"""The news site, and the demo that plays the experiment against it."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from example_app import create_app, partners
from example_app.chapters import (
    BACK,
    COLD,
    DEAD,
    FILLED,
    FLAKY,
    FRESH,
    HANGING,
    PLAIN,
    PUBLISHED,
    REMADE,
    SLOW,
    STALE,
    Chapter,
    Row,
    complaints,
    is_whole,
    latencies,
    summary,
)
from example_app.demo import NEW, NO_NUMBER, OLD, main
from example_app.extensions import cache
from support.servers import wait_for

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
ROW = re.compile(r" *(\d+) +([\d.]+)  ([A-Z-]+) +([\d.]+) +(\d+)  (.*)")


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "example_app.demo", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            # It stops its servers, so it is asked to; the pipes are read to their end by communicate.
            process.terminate()
            process.communicate(timeout=PATIENCE)


def urls(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return re.findall(r"http://[\d.:]+/", process.stdout.readline())


def refuses(url: str) -> bool:
    """Tell whether nobody listens there any more."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.get(url, timeout=PATIENCE)
    except requests.ConnectionError:
        return True
    return False


@pytest.fixture(scope="module")
def plays() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Two demos at once, one of which goes on to serve: they mostly wait, and have nothing in common."""
    with demo("--fast") as playing, demo("--fast", "--serve") as serving:
        yield {"playing": playing, "serving": serving}


@pytest.mark.server
def test_the_story_holds(plays: dict[str, subprocess.Popen[str]]) -> None:
    output, errors = plays["playing"].communicate(timeout=PATIENCE)
    assert (plays["playing"].returncode, errors) == (0, ""), output
    rows = [match.groups() for match in map(ROW.fullmatch, output.splitlines()) if match]
    numbers = [int(row[0]) for row in rows]
    told_in_short = {name: int(count) for name, count in re.findall(r"^    (\w+): (\d+) requests,", output, re.MULTILINE)}
    assert list(told_in_short) == ["slow", "flaky", "hanging", "dead", "back"]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == len(rows) + sum(told_in_short.values())
    statuses = " ".join(row[2] for row in rows)
    stale = "STALE( (STALE|UPDATING))*"
    front = rf"(MISS ){{10}}{stale} (HIT )+{stale} (HIT )+MISS"
    dashboard, published = "(STALE ){4}EXPIRED", "MISS( HIT){3} MISS( HIT){3} MISS MISS"
    assert re.fullmatch(f"{front} {dashboard} {published}", statuses), statuses
    values = [row[5] for row in rows]
    assert values[:11] == [NO_NUMBER] * 11
    assert len(set(values[-15:-11])) == 1, "who prefers stale gets the copy"
    assert values[-10:] == [OLD.title] * 4 + [NEW.title] * 6
    workers = [row[4] for row in rows[-10:]]
    assert [len(set(part)) for part in (workers[:4], workers[4:8], workers[8:])] == [2, 2, 2]
    last = output.splitlines()[-1]
    assert re.fullmatch(
        rf"{numbers[-1]} requests were served: 12 waited for a page to be made, the slowest of the others took [\d.]+ s\. "
        r"The slow partner was called \d+ times\.",
        last,
    )


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_stops_what_was_started(number: signal.Signals) -> None:
    with demo() as process:
        started = urls(process)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
    assert len(started) == 2
    assert all(map(refuses, started))


@pytest.mark.server
def test_serving_goes_on_until_a_signal(plays: dict[str, subprocess.Popen[str]]) -> None:
    process = plays["serving"]
    started = urls(process)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    text = "".join(iter(lambda: next(lines), f"    {started[1]}articles/the-ten-second-box\n"))
    assert f"curl --data hang  {started[0]}number/mode" in text
    assert f"curl --data gone  {started[0]}comments/mode" in text
    assert f"curl --silent --head {started[1]}\n" in text
    assert f"curl --silent --head --header 'X-Prefer-Stale: 1' {started[1]}dashboard\n" in text
    assert "Log in as ada with analytical-engine" in text
    assert not refuses(started[1])
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert all(map(refuses, started))


def rows(statuses: str, *, seconds: float = 0.01, value: str = "7", code: int | None = 200, workers: str = "1") -> list[Row]:
    """Return a row for each status; the workers, a letter each, take turns."""
    return [
        Row(number, 0.0, status, seconds, value, code, workers[number % len(workers)])
        for number, status in enumerate(statuses.split(), 1)
    ]


def calls(number: int = 0, weather: int = 0, comments: int = 0) -> dict[str, int]:
    return {"number": number, "weather": weather, "comments": comments}


@pytest.mark.parametrize(
    ("chapter", "happened", "called"),
    [
        (COLD, rows("MISS MISS", seconds=0.5), calls(1, 1, 3)),
        (FILLED, rows("UPDATING STALE"), calls()),
        (FRESH, rows("HIT HIT"), calls(0, 1, 3)),
        (STALE, rows("STALE UPDATING"), calls(1)),
        (STALE, rows("STALE STALE UPDATING STALE"), calls(1, 1, 3)),
        (SLOW.chapter, rows("STALE UPDATING STALE"), calls(1, 1, 3)),
        (FLAKY.chapter, rows("UPDATING STALE UPDATING HIT STALE"), calls(2, 2, 6)),
        (HANGING.chapter, rows("UPDATING UPDATING"), calls()),
        (DEAD.chapter, rows("UPDATING STALE"), calls(5, 5, 9)),
        (BACK.chapter, rows("UPDATING STALE HIT STALE HIT"), calls(1, 1, 3)),
        (PLAIN, rows("EXPIRED", seconds=5), calls()),
        (PUBLISHED, rows("MISS HIT HIT HIT", workers="12"), calls()),
        (REMADE, rows("MISS MISS", workers="12"), calls(1)),
    ],
)
def test_a_chapter_that_held_has_no_complaints(chapter: Chapter, happened: list[Row], called: dict[str, int]) -> None:
    assert complaints(chapter, happened, called, "7") == []


@pytest.mark.parametrize(
    ("chapter", "happened", "called", "message"),
    [
        (COLD, rows("MISS MISS"), calls(2, 1, 3), "number was called 2 times, not 1"),
        (COLD, rows("MISS MISS"), calls(1, 1, 4), "comments was called 4 times, not 3"),
        (COLD, rows("MISS", seconds=1.6), calls(1, 1, 3), "request 1 took 1.600 s"),
        (COLD, rows("MISS -", value="HTTP 500", code=500), calls(1, 1, 3), "request 1 was answered with HTTP 500"),
        (COLD, rows("MISS", value="no answer", code=None), calls(1, 1, 3), "request 1 was answered with no answer"),
        (COLD, rows("- -"), calls(1, 1, 3), "statuses were - -"),
        (FRESH, rows("HIT EXPIRED"), calls(), "statuses were HIT EXPIRED"),
        (FRESH, [], calls(), "statuses were none"),
        (FRESH, rows("HIT", value="8"), calls(), "request 1 shows 8, not 7"),
        (STALE, rows("STALE UPDATING", seconds=1.1), calls(1), "request 1 took 1.100 s"),
        (STALE, rows("UPDATING STALE"), calls(1), "statuses were UPDATING STALE"),
        (SLOW.chapter, rows("STALE MISS"), calls(1, 1, 3), "statuses were STALE MISS"),
        (HANGING.chapter, rows("STALE HIT"), calls(1, 1, 3), "statuses were STALE HIT"),
        (HANGING.chapter, rows("STALE", seconds=1.1), calls(1, 1, 3), "request 1 took 1.100 s"),
        (DEAD.chapter, rows("STALE UPDATING"), calls(6, 0, 0), "number was called 6 times, not 0 to 5"),
        (DEAD.chapter, rows("STALE UPDATING"), calls(0, 0, 10), "comments was called 10 times, not 0 to 9"),
        (BACK.chapter, rows("STALE UPDATING"), calls(1, 1, 1), "statuses were STALE UPDATING"),
        (BACK.chapter, rows("STALE HIT"), calls(1, 0, 1), "weather was called 0 times, not 1 to 20"),
        (PLAIN, rows("STALE"), calls(), "statuses were STALE"),
        (PUBLISHED, rows("MISS HIT", value="old", workers="12"), calls(), "request 2 shows old, not 7"),
        (PUBLISHED, rows("MISS HIT HIT"), calls(), "1 of the workers answered, not 2"),
        (REMADE, rows("MISS MISS", workers="12"), calls(2), "number was called 2 times, not 0 to 1"),
    ],
)
def test_what_was_wrong_is_named(chapter: Chapter, happened: list[Row], called: dict[str, int], message: str) -> None:
    assert any(message in found for found in complaints(chapter, happened, called, "7"))


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        ("3 comments | 159 | -4 °C", True),
        (f"3 comments | {NO_NUMBER} | 7 °C", False),
        ("3 comments | 159 | No report", False),
        ("comments are closed for now | 159 | 7 °C", False),
        ("nothing of it", False),
    ],
)
def test_a_row_is_whole_if_each_partner_has_said_something(value: str, whole: bool) -> None:
    row = rows("STALE", value=value)
    assert is_whole(row[0]) is whole
    assert (complaints(SLOW.chapter, row, calls(), None) == []) is whole


def test_a_manner_is_told_in_short() -> None:
    happened = [
        *rows("STALE UPDATING", value="1 comment | 2 | 3 °C"),
        *rows("UPDATING", seconds=0.25, value="1 comment | 4 | 3 °C"),
    ]
    assert latencies(HANGING, happened, calls(1, 0, 3)).splitlines() == [
        "    milliseconds: 10 10 250",
        "    statuses: 1 STALE, 2 UPDATING; calls: number 1, weather 0, comments 3; at the end: 1 comment | 4 | 3 °C",
        "    hanging: 3 requests, half of them within 0.010 s, slowest 0.250 s",
    ]


def test_the_last_line_leaves_out_errors_and_those_who_were_to_wait() -> None:
    waited, served, failed = rows("MISS", seconds=10), rows("HIT", seconds=0.25), rows("-", seconds=0.5, code=500)
    told = [(COLD, *waited), (FRESH, *served), (FRESH, *failed)]
    assert summary(told, 3) == (
        "2 requests were served: 1 waited for a page to be made, the slowest of the others took 0.500 s. "
        "The slow partner was called 3 times."
    )


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--slow"])
    assert "--slow" in capsys.readouterr().err


class Partners:
    """What the site's partners answer, and how often they were called; of each call something larger comes than of the last.

    :ivar statuses: what a partner answers instead of 200, or what it raises.
    :ivar meanwhile: done in each call.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.statuses: dict[str, int | Exception] = {}
        self.meanwhile: Callable[[], object] = lambda: None

    def get(self, url: str, *, params: Mapping[str, str] | None = None, timeout: float) -> requests.Response:
        """Stand in for ``requests.get``."""
        assert timeout > 0
        name = urlsplit(url).path.split("/")[1]
        assert params == ({"city": "Berlin"} if name == "weather" else None)
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


@pytest.fixture
def site(tmp_path: Path, others: Partners) -> Callable[..., Flask]:
    """``site(**settings)``: the site as one more worker has it."""
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


def test_anonymous_visitors_share_a_page_and_members_get_their_own(app: Flask) -> None:
    visitor, member = app.test_client(), app.test_client()
    assert visit(visitor)[0] == "MISS"
    assert log_in(member) == 302
    status, page = visit(member)
    assert status == "BYPASS"
    assert "Hello, Ada" in page
    status, page = visit(visitor)
    assert status == "HIT"
    assert "Hello" not in page
    assert 'id="number">100<' in page
    member.post("/logout").close()
    assert visit(member) == (status, page)


def test_a_member_who_comes_first_is_not_stored(app: Flask) -> None:
    member, visitor = app.test_client(), app.test_client()
    log_in(member)
    assert "Hello, Ada" in visit(member)[1]
    status, page = visit(visitor)
    assert status == "MISS"
    assert "Hello" not in page


@pytest.mark.parametrize("path", ["/", "/dashboard", "/articles/the-ten-second-box", "/articles/none"])
def test_open_pages_are_cached(app: Flask, path: str) -> None:
    client = app.test_client()
    first, second = visit(client, path), visit(client, path)
    assert (first[0], second[0]) == ("MISS", "HIT")
    assert first[1] == second[1]


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
    # Renewed behind, or by that visit.
    assert visit(client, "/dashboard")[0] == "HIT"
    assert visit(client, "/dashboard")[1] != old


@pytest.mark.parametrize("form", [{}, {"username": "ada", "password": "wrong"}, {"username": "eve", "password": "x"}])
def test_a_wrong_login_is_refused(app: Flask, form: dict[str, str]) -> None:
    response = app.test_client().post("/login", data=form)
    assert response.status_code == 401
    assert "do not belong together" in response.text


# -- the partners of the front page ------------------------------------------------------------------------------------

MISSING = {"number": NO_NUMBER, "weather": "No report", "comments": "comments are closed for now"}
#: The windows of their values together: how long after an answer they are still shown.
SHOWN_FOR = {"number": 15 + 86400, "weather": 300 + 6 * 3600, "comments": 60 + 3600}


def missing(page: str) -> set[str]:
    """Return the partners in place of whose values there are words."""
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
    member = app.test_client()
    log_in(member)
    assert missing(visit(member)[1]) == set()
    others.die(name)
    clock.shift(SHOWN_FOR[name] * 0.9)
    assert missing(visit(member)[1]) == set()
    clock.shift(SHOWN_FOR[name] * 0.1 + 1)
    assert missing(visit(member)[1]) == {name}


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
