"""The news site, and the demo that plays the experiment against it."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient

from example_app import create_app, news
from example_app.demo import COLD, DOWN, FRESH, STALE, Chapter, Row, complaints, main, summary

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60
ROW = re.compile(r" *(\d+) +([\d.]+)  ([A-Z-]+) +([\d.]+)  (.*)")


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


@pytest.mark.server
def test_the_story_holds() -> None:
    with demo("--fast") as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, ""), output
    rows = [match.groups() for match in map(ROW.fullmatch, output.splitlines()) if match]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    statuses = " ".join(row[2] for row in rows)
    stale = "STALE( (STALE|UPDATING))+"
    assert re.fullmatch(rf"(MISS ){{10}}(HIT )+{stale} (HIT )+{stale}", statuses), statuses
    assert len({row[4] for row in rows[:10]}) == 1
    last = output.splitlines()[-1]
    assert re.fullmatch(
        rf"{len(rows)} requests were served, the slowest after the first 10 took [\d.]+ s, "
        r"and the third party was called [34] times\.",
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
def test_serving_goes_on_until_a_signal() -> None:
    with demo("--fast", "--serve") as process:
        started = urls(process)
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        text = "".join(iter(lambda: next(lines), f"    curl --silent --head {started[1]}\n"))
        assert f"curl --data down {started[0]}mode" in text
        assert not refuses(started[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert all(map(refuses, started))


def rows(statuses: str, *, seconds: float = 0.01, value: str = "7", code: int | None = 200) -> list[Row]:
    return [Row(number, 0.0, status, seconds, value, code) for number, status in enumerate(statuses.split(), 1)]


@pytest.mark.parametrize(
    ("chapter", "happened", "calls"),
    [
        (COLD, rows("MISS MISS", seconds=10), 1),
        (FRESH, rows("HIT HIT"), 0),
        (STALE, rows("STALE UPDATING"), 1),
        (STALE, rows("STALE STALE UPDATING STALE"), 1),
        (DOWN, rows("STALE UPDATING STALE"), 2),
    ],
)
def test_a_chapter_that_held_has_no_complaints(chapter: Chapter, happened: list[Row], calls: int) -> None:
    assert complaints(chapter, happened, calls, "7") == []


@pytest.mark.parametrize(
    ("chapter", "happened", "calls", "message"),
    [
        (COLD, rows("MISS MISS"), 2, "called 2 times, not 1"),
        (COLD, rows("MISS -", value="HTTP 500", code=500), 1, "request 1 was answered with HTTP 500"),
        (COLD, rows("MISS", value="no answer", code=None), 1, "request 1 was answered with no answer"),
        (COLD, rows("- -"), 1, "statuses were - -"),
        (FRESH, rows("HIT EXPIRED"), 0, "statuses were HIT EXPIRED"),
        (FRESH, [], 0, "statuses were none"),
        (FRESH, rows("HIT", value="8"), 0, "request 1 shows 8, not 7"),
        (STALE, rows("STALE UPDATING", seconds=1.1), 1, "request 1 took 1.100 s"),
        (STALE, rows("STALE STALE"), 1, "statuses were STALE STALE"),
        (DOWN, rows("STALE UPDATING"), 3, "called 3 times, not 1 or 2"),
        (DOWN, rows("STALE UPDATING"), 0, "called 0 times, not 1 or 2"),
    ],
)
def test_what_was_wrong_is_named(chapter: Chapter, happened: list[Row], calls: int, message: str) -> None:
    assert any(message in found for found in complaints(chapter, happened, calls, "7"))


def test_the_last_line_leaves_out_errors_and_the_first_visitors() -> None:
    happened = [*rows("MISS", seconds=10), *rows("HIT", seconds=0.25), *rows("-", seconds=0.5, code=500)]
    assert summary(happened, 1, 3) == (
        "2 requests were served, the slowest after the first 1 took 0.500 s, and the third party was called 3 times."
    )


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--slow"])
    assert "--slow" in capsys.readouterr().err


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    numbers = iter(range(100, 200))
    monkeypatch.setattr(news, "third_party_number", lambda: next(numbers))
    settings = {"STALECACHE_DIR": tmp_path / "cache", "DASHBOARD_SECONDS": 0, "THIRD_PARTY_TIMEOUT": 5}
    return create_app({"TESTING": True, "SECRET_KEY": "for tests", **settings})


def log_in(client: FlaskClient, **options: object) -> int:
    form = {"username": "ada", "password": "analytical-engine"}
    with closing(client.post("/login", data=form, **options)) as response:
        return response.status_code


def visit(client: FlaskClient, path: str = "/") -> tuple[str, str]:
    """Return the cache status and the body."""
    with closing(client.get(path)) as response:
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("form", [{}, {"username": "ada", "password": "wrong"}, {"username": "eve", "password": "x"}])
def test_a_wrong_login_is_refused(app: Flask, form: dict[str, str]) -> None:
    response = app.test_client().post("/login", data=form)
    assert response.status_code == 401
    assert "do not belong together" in response.text


def test_a_failing_third_party_is_an_error_page_only_without_a_copy(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise requests.ConnectionError("down")

    monkeypatch.setattr(news, "third_party_number", fail)
    with closing(app.test_client().get("/")) as response:
        assert response.status_code == 502
        assert "Our partner does not answer" in response.text


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWS_STALECACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NEWS_STALECACHE_MAX_AGE", "3")
    monkeypatch.setenv("NEWS_THIRD_PARTY_URL", "http://127.0.0.1:9/")
    config = create_app({"STALECACHE_MAX_AGE": 4}).config
    assert (config["STALECACHE_MAX_AGE"], config["THIRD_PARTY_URL"]) == (4, "http://127.0.0.1:9/")
