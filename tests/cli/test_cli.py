"""``flask stalecache``: what each command prints, what it changes, and how it ends.

Covers ``cli.commands``, ``cli.context``, ``cli.listing``, ``cli.maintenance``, ``cli.selectors``,
``cli.settings``, ``cli.show`` and ``cli.stats``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import time_machine
from click.testing import Result
from flask import Flask
from flask.cli import FlaskGroup

from flask_stalecache import FileStore, StaleCache
from support.client import visit

BASE = "http://shop.example"


class Shop(NamedTuple):
    """An app with pages and values.

    :ivar visit: requests a path as a visitor would, and returns ``X-Cache-Status``.
    :ivar run: runs ``flask stalecache`` with some arguments.
    :ivar stored: returns the titles of the stored entries, in order.
    :ivar calls: how often each page or value was made. A test may add a set ``broken``: making these raises.
    """

    app: Flask
    visit: Callable[..., str]
    run: Callable[..., Result]
    stored: Callable[[], list[str]]
    calls: dict[str, int]


@pytest.fixture
def shop(make_app: Callable[..., tuple[Flask, StaleCache]]) -> Shop:
    app, cache = make_app(BASE_URL=BASE)
    calls: dict[str, int] = {}

    def made(what: str) -> str:
        calls[what] = calls.get(what, 0) + 1
        if what in calls.get("broken", ()):  # type: ignore[operator]
            raise RuntimeError("no")
        return f"{what} {calls[what]}"

    @app.get("/articles/<number>")
    @cache.cached(60, 600, 86400, jitter=0, tags=lambda number: [f"article:{number}"], vary=["Accept-Language"])
    def article(number: str) -> str:
        return made(f"article {number}") + "x" * int(number) * 1000

    @app.get("/news")
    @cache.cached(10, jitter=0)
    def news() -> str:
        return made("news")

    @cache.memoize(60, jitter=0)
    def rate(base: str) -> str:
        return made(base)

    @app.get("/rates/<base>")
    def rates(base: str) -> str:
        return rate(base)

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    def visit(path: str, **options: Any) -> str:
        with app.test_client().get(path, base_url=BASE, **options) as response:
            return response.headers.get("X-Cache-Status", "")

    def run(*args: str, **options: Any) -> Result:
        return app.test_cli_runner().invoke(args=["stalecache", *args], **options)

    def stored() -> list[str]:
        return sorted(item["title"] for item in json.loads(run("list", "--json").stdout))

    return Shop(app, visit, run, stored, calls)


def lines(result: Result) -> list[str]:
    return result.stdout.splitlines()


# -- list and show ---------------------------------------------------------------------------------------------------


def test_a_list_has_a_line_for_each_entry(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.visit("/articles/1")
    shop.visit("/rates/EUR")
    clock.shift(90)
    shop.visit("/news")
    result = shop.run("list", "--sort", "title")
    assert result.exit_code == 0
    head, *rows = (" ".join(line.split()) for line in lines(result))
    assert head == "STATE AGE LEFT USED SIZE STATUS WHAT"
    assert rows == [
        f"stale 90 s -30 s 90 s 4.0 KiB 200 {BASE}/articles/1",
        f"fresh 0 s 10 s 0 s 4.0 KiB 200 {BASE}/news",
        f"stale 90 s -30 s 90 s 4.0 KiB 200 {__name__}.shop.<locals>.rate('EUR')",
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), ["/articles/1", "/articles/2", "/news", "EUR"]),
        (("--tag", "article:2"), ["/articles/2"]),
        (("--endpoint", "article"), ["/articles/1", "/articles/2"]),
        (("--prefix", "/articles/"), ["/articles/1", "/articles/2"]),
        (("--prefix", f"{BASE}/n"), ["/news"]),
        (("--prefix", "http://other.example/n"), []),
        (("--endpoint", "article", "--tag", "article:1"), ["/articles/1"]),
        (("--endpoint", "news", "--tag", "article:1"), []),
        (("--state", "stale"), ["/news"]),
        (("--state", "fresh"), ["/articles/1", "/articles/2", "EUR"]),
        (("--state", "failing"), []),
        (("--state", "fresh", "--endpoint", "article", "--sort", "size", "--reverse", "--limit", "1"), ["/articles/2"]),
        (("--sort", "age", "--limit", "1", "--endpoint", "article"), ["/articles/2"]),
    ],
)
def test_filters_hold_together(shop: Shop, clock: time_machine.Traveller, options: tuple[str, ...], found: list[str]) -> None:
    shop.visit("/news")
    clock.shift(11)
    shop.visit("/articles/1")
    shop.visit("/rates/EUR")
    clock.shift(1)
    shop.visit("/articles/2")
    result = shop.run("list", "--json", *options)
    titles = [item["title"].removeprefix(BASE) for item in json.loads(result.stdout)]
    assert sorted("EUR" if "EUR" in title else title for title in titles) == found
    assert result.exit_code == (0 if found else 1)
    assert ("nothing stored matches" in result.stderr) is not bool(found)


def test_a_function_is_a_filter_too(shop: Shop) -> None:
    shop.visit("/news")
    shop.visit("/rates/EUR")
    (entry,) = json.loads(shop.run("list", "--json", "--function", f"{__name__}.shop.<locals>.rate").stdout)
    assert entry["title"].endswith("rate('EUR')")


def test_what_fails_is_in_the_list_as_failing(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.visit("/news")
    shop.calls["broken"] = {"news"}  # type: ignore[assignment]
    clock.shift(11)
    shop.visit("/news")
    with shop.app.app_context():
        assert StaleCache().drain(10)
    assert [item["failing"] for item in json.loads(shop.run("list", "--json", "--state", "failing").stdout)] == [True]
    assert "the origin failed once" in shop.run("show", "/news").stdout


def test_an_entry_is_shown_with_all_its_variants(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.visit("/articles/1")
    shop.visit("/articles/1", headers={"Accept-Language": "de"})
    clock.shift(70)
    result = shop.run("show", "/articles/1")
    assert result.exit_code == 0
    blocks = result.stdout.split("\n\n")
    assert len(blocks) == 2
    for block in blocks:
        assert block.startswith(f"{BASE}/articles/1\n")
        for said in (
            "STALE: stale for 10 s, since it was fresh for 60 s",
            "served at once for another 9.83 min (stale-while-revalidate)",
            "max_age 60 s, stale_while_revalidate 10 min, stale_if_error 24 h",
            "article:1",
        ):
            assert said in block
    assert sum("variant    Accept-Language: de" in block for block in blocks) == 1
    assert sum("variant    Accept-Language: (absent)" in block for block in blocks) == 1


def test_an_entry_is_shown_as_data(shop: Shop, clock: time_machine.Traveller) -> None:
    shop.visit("/news")
    clock.shift(4)
    (entry,) = json.loads(shop.run("show", f"{BASE}/news", "--json").stdout)
    expected = {
        "title": f"{BASE}/news",
        "state": "fresh",
        "served_as": "HIT",
        "why": ["fresh for another 6 s"],
        "endpoint": "news",
        "age": 4.0,
        "max_age": 10.0,
        "status": 200,
        "failures": 0,
    }
    assert {name: entry[name] for name in expected} == expected


def test_what_a_view_says_of_its_pages_counts(
    make_app: Callable[..., tuple[Flask, StaleCache]], clock: time_machine.Traveller
) -> None:
    app, cache = make_app(STALE_IF_ERROR=0)

    def passing(view: Callable[[], str]) -> Callable[[], str]:
        return functools.wraps(view)(lambda: view())

    @app.get("/old")
    @passing
    @cache.cached(60, 0, jitter=0, prefer_stale=True)
    def old() -> str:
        return "old"

    @app.get("/ahead")
    @cache.cached(60, jitter=0, refresh_ahead=20)
    def ahead() -> str:
        return "ahead"

    for path in ("/old", "/ahead"):
        app.test_client().get(path)
    clock.shift(50)
    run = app.test_cli_runner().invoke
    assert "renewed ahead of time (refresh_ahead)" in run(args=["stalecache", "show", "/ahead"]).stdout
    clock.shift(3600)
    shown = run(args=["stalecache", "show", "/old"]).stdout
    assert "served as  STALE: stale for 59.8 min" in shown
    assert "served at once however old, since stale is preferred" in shown
    assert "past its windows: the origin is called" in run(args=["stalecache", "show", "/ahead"]).stdout


def test_a_call_is_shown_by_what_the_list_calls_it(shop: Shop) -> None:
    shop.visit("/rates/EUR")
    (title,) = shop.stored()
    assert "function" in shop.run("show", title).stdout


def test_a_url_of_nothing_is_not_shown(shop: Shop) -> None:
    shop.visit("/news")
    result = shop.run("show", "/nowhere")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "nothing is stored for /nowhere\n")


def test_what_visitors_choose_moves_no_cursor(shop: Shop) -> None:
    shop.visit("/articles/1?x=%1b[2J", headers={"Accept-Language": "\x1b[31mred"})
    shown = shop.run("list").stdout + shop.run("show", "/articles/1?x=%1b[2J").stdout
    assert "\x1b" not in shown


# -- what changes what is stored ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (("/articles/1",), ["/articles/2", "/news"]),
        ((f"{BASE}/articles/1",), ["/articles/2", "/news"]),
        (("--tag", "article:2"), ["/articles/1", "/news"]),
        (("--endpoint", "article"), ["/news"]),
        (("--prefix", "/articles/"), ["/news"]),
        (("--all",), []),
    ],
)
def test_a_purge_is_of_what_was_selected(shop: Shop, options: tuple[str, ...], left: list[str]) -> None:
    for path in ("/articles/1", "/articles/2", "/news"):
        shop.visit(path)
    result = shop.run("purge", *options)
    assert result.exit_code == 0, result.output
    assert shop.stored() == [f"{BASE}{path}" for path in left]


def test_a_soft_purge_leaves_it_stale(shop: Shop) -> None:
    shop.visit("/news")
    assert shop.run("purge", "/news", "--soft").exit_code == 0
    assert "a soft purge ended its freshness" in shop.run("show", "/news").stdout


@pytest.mark.parametrize("command", ["purge", "refresh", "publish"])
@pytest.mark.parametrize("options", [("/nowhere",), ("--tag", "nobody"), ("--prefix", "/nowhere/"), ("--endpoint", "news")])
def test_where_nothing_matches_nothing_changes(shop: Shop, directory: Path, command: str, options: tuple[str, ...]) -> None:
    shop.visit("/articles/1")
    before = content_of(directory)
    result = shop.run(command, *options)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "nothing stored matches\n")
    assert content_of(directory) == before


def content_of(directory: Path) -> dict[str, bytes]:
    """Return the contents of all files but those of the statistics, which change with each request."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and "stats" not in path.parts}


def test_a_refresh_renews_what_is_fresh_and_says_so(shop: Shop) -> None:
    shop.visit("/articles/1")
    shop.visit("/rates/EUR")
    result = shop.run("refresh", "--all")
    assert result.exit_code == 0, result.output
    assert shop.calls == {"article 1": 2, "EUR": 2}
    assert lines(result)[-1] == "2 found: 2 done, 0 failed, 0 skipped"
    assert sorted(line.split()[0] for line in lines(result)[:-1]) == ["stored", "stored"]


def test_what_fails_to_be_renewed_is_told_and_kept(shop: Shop) -> None:
    shop.visit("/news")
    shop.calls["broken"] = {"news"}  # type: ignore[assignment]
    result = shop.run("refresh", "/news")
    assert result.exit_code == 1
    assert "RuntimeError('no')" in result.stdout
    assert lines(result)[-1] == "1 found: 0 done, 1 failed, 0 skipped"
    assert shop.stored() == [f"{BASE}/news"]


def test_a_publish_is_renewed_for_the_next_visitor(shop: Shop) -> None:
    shop.visit("/articles/1")
    assert shop.run("publish", "--tag", "article:1").exit_code == 0
    assert shop.calls == {"article 1": 2}
    assert shop.visit("/articles/1") == "HIT"


def test_warming_fills_and_is_not_done_twice(shop: Shop, tmp_path: Path) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text(f"/news\n\n# the front\n  # and below it\n  {BASE}/articles/3\n")
    first, second = shop.run("warm", str(urls), "/articles/1"), shop.run("warm", str(urls), "/articles/1")
    assert (first.exit_code, lines(first)[-1]) == (0, "3 found: 3 done, 0 failed, 0 skipped"), first.output
    assert (second.exit_code, lines(second)[-1]) == (0, "3 found: 0 done, 0 failed, 3 skipped"), second.output
    assert [shop.visit(path) for path in ("/news", "/articles/3", "/articles/1")] == ["HIT"] * 3
    forced = shop.run("warm", "/news", "--force")
    assert (forced.exit_code, shop.calls["news"]) == (0, 2)


def test_warming_takes_urls_from_standard_input(shop: Shop) -> None:
    result = shop.run("warm", "-", input="/news\n")
    assert result.exit_code == 0, result.output
    assert shop.visit("/news") == "HIT"


def test_warming_takes_a_sitemap(shop: Shop, tmp_path: Path) -> None:
    sitemap = tmp_path / "sitemap.xml"
    sitemap.write_text(
        '<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        f"<url><loc>{BASE}/news</loc></url></urlset>"
    )
    assert shop.run("warm", str(sitemap)).exit_code == 0
    assert shop.visit("/news") == "HIT"


def test_warming_sends_the_fields_that_pages_depend_on(shop: Shop) -> None:
    assert shop.run("warm", "/articles/1", "--header", "Accept-Language: de").exit_code == 0
    assert shop.visit("/articles/1", headers={"Accept-Language": "de"}) == "HIT"
    assert shop.visit("/articles/1") == "MISS"


def test_what_is_not_stored_is_no_success(shop: Shop) -> None:
    result = shop.run("warm", "/plain", "/news")
    assert result.exit_code == 3
    assert "not stored" in lines(result)[-1]
    assert shop.run("warm", "/news").exit_code == 0


def test_a_failure_counts_for_more_than_what_is_not_stored(shop: Shop) -> None:
    shop.calls["broken"] = {"news"}  # type: ignore[assignment]
    result = shop.run("warm", "/plain", "/news")
    assert (result.exit_code, lines(result)[-1]) == (1, "2 found: 1 done, 1 failed, 0 skipped, 1 not stored")


@pytest.mark.parametrize("command", ["refresh", "publish"])
def test_a_page_that_is_no_longer_stored_has_the_code_too(make_app: Callable[..., tuple[Flask, StaleCache]], command: str) -> None:
    app, cache = make_app()
    calls: list[str] = []

    @app.get("/")
    @cache.cached(60)
    def index() -> str:
        calls.append("")
        if len(calls) > 1:
            cache.no_store()
        return "page"

    app.test_client().get("/")
    result = app.test_cli_runner().invoke(args=["stalecache", command, "/"])
    assert (result.exit_code, lines(result)[-1]) == (3, "1 found: 1 done, 0 failed, 0 skipped, 1 not stored"), result.output


# -- care ------------------------------------------------------------------------------------------------------------


def entry_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("??/*") if len(path.name) == 40]


def test_broken_entries_are_found_and_removed(shop: Shop, directory: Path) -> None:
    shop.visit("/news")
    shop.visit("/articles/1")
    assert shop.run("verify").stdout == "2 sound, 0 broken\n"
    broken = entry_files(directory)[0]
    broken.write_bytes(broken.read_bytes()[:-1] + b"\0")
    found = shop.run("verify")
    assert (found.exit_code, lines(found)[-1]) == (1, "1 sound, 1 broken")
    assert str(broken) in found.stdout
    fixed = shop.run("verify", "--fix")
    assert (fixed.exit_code, lines(fixed)[-1]) == (0, "1 sound, 1 broken and removed")
    assert shop.run("verify").stdout == "1 sound, 0 broken\n"


def test_pruning_removes_what_was_purged(shop: Shop, directory: Path) -> None:
    shop.visit("/news")
    shop.visit("/articles/1")
    shop.run("purge", "/news")
    assert len(entry_files(directory)) == 2
    result = shop.run("prune")
    assert (result.exit_code, len(entry_files(directory))) == (0, 1)
    assert result.stdout.startswith("freed 4.0 KiB: 1 purged")
    assert shop.run("prune").stdout == "freed 0 bytes, nothing was to be removed\n"


def test_the_configuration_is_told_with_where_it_comes_from(
    make_app: Callable[..., tuple[Flask, StaleCache]], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_STALECACHE_LOCK_TIMEOUT", "5")
    app, _ = make_app(MAX_SIZE=1_000_000, LOCK_TIMEOUT=5, IGNORED_PARAMETERS=["utm_*"])
    told = json.loads(app.test_cli_runner().invoke(args=["stalecache", "config", "--json"]).stdout)
    assert told["STALECACHE_DIR"] == {"value": str(directory), "from": "app.config"}
    assert told["STALECACHE_MAX_SIZE"] == {"value": 1_000_000, "from": "app.config"}
    assert told["STALECACHE_MAX_ENTRY_SIZE"] == {"value": 1_000_000, "from": "STALECACHE_MAX_SIZE"}
    assert told["STALECACHE_LOCK_TIMEOUT"] == {
        "value": 5.0,
        "from": "FLASK_STALECACHE_LOCK_TIMEOUT in the environment, by app.config",
    }
    assert told["STALECACHE_IGNORED_PARAMETERS"] == {"value": ["utm_*"], "from": "app.config"}
    assert told["STALECACHE_MAX_AGE"] == {"value": 60, "from": "default"}
    text = app.test_cli_runner().invoke(args=["stalecache", "config"]).stdout
    assert all(f"STALECACHE_{name}" in text for name in ("DIR", "MAX_SIZE", "BASE_URL"))


@pytest.mark.parametrize("own", ["own", "instance-of-another", None])
def test_the_configuration_tells_where_the_store_comes_from(tmp_path: Path, own: str | None) -> None:
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    StaleCache(app, store=FileStore(tmp_path / own) if own else None)
    told = json.loads(app.test_cli_runner().invoke(args=["stalecache", "config", "--json"]).stdout)
    place = (tmp_path / own, "StaleCache(store=)") if own else (tmp_path / "instance" / "stalecache", "the instance folder")
    assert told["STALECACHE_DIR"] == {"value": str(place[0]), "from": place[1]}


def test_the_numbers_are_told(shop: Shop) -> None:
    for path in ("/news", "/news", "/rates/EUR"):
        shop.visit(path)
    told = json.loads(shop.run("stats", "--json").stdout)
    # The value is a call of a function, and no request for a cached view.
    assert [(told[part]["HIT"], told[part]["MISS"]) for part in ("requests", "calls")] == [(1, 1), (0, 1)]
    text = shop.run("stats").stdout
    assert "news" in text
    assert "rate" in text


# -- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("purge",), "nothing was given"),
        (("purge", "/news", "--all"), "url and all was given"),
        (("purge", "--tag", "a", "--endpoint", "news"), "tag and endpoint was given"),
        (("purge", "--tag", ""), "give one non-empty string"),
        (("purge", ""), "give a path"),
        (("purge", "news"), "give a path that begins with '/'"),
        (("purge", "--endpoint", "newz"), "the nearest is 'news'"),
        (("refresh",), "nothing was given"),
        (("publish", "--prefix", "news"), "give a path that begins with '/'"),
        (("refresh", "--all", "--concurrency", "0"), "0 is not in the range"),
        (("list", "--state", "nowhere"), "is not one of"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("warm", "http://elsewhere.example/"), "elsewhere.example"),
        (("warm", "/news", "--header", "X"), "give a name and a value"),
        (("warm", "urls.txt"), "urls.txt can't be read"),
        (("warm",), "Missing argument"),
        (("nothing",), "No such command"),
    ],
)
def test_wrong_use_is_one_line_and_changes_nothing(shop: Shop, directory: Path, args: tuple[str, ...], said: str) -> None:
    shop.visit("/news")
    before = content_of(directory)
    result = shop.run(*args)
    assert result.exit_code == 2, result.output
    assert said in result.stderr.splitlines()[-1]
    assert result.stdout == ""
    assert content_of(directory) == before


def test_what_is_no_sitemap_is_one_line(shop: Shop, tmp_path: Path) -> None:
    sitemap = tmp_path / "sitemap.xml"
    sitemap.write_text("<html>not found</html>")
    result = shop.run("warm", str(sitemap))
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "sitemap" in result.stderr


def test_without_a_base_url_nobody_guesses_the_host(make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    app, _ = make_app()
    for sources in (["/news"], [f"{BASE}/news", "/news"]):
        result = app.test_cli_runner().invoke(args=["stalecache", "warm", *sources])
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert "STALECACHE_BASE_URL" in result.stderr


def test_full_urls_need_no_base_url(make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    app, cache = make_app()
    app.add_url_rule("/news", "news", cache.cached(60)(lambda: "news"))
    app.config["APPLICATION_ROOT"] = "/eu"
    urls = ["https://shop.example/eu/news", "http://shop.example:8000/eu/news"]
    result = app.test_cli_runner().invoke(args=["stalecache", "warm", *urls])
    assert (result.exit_code, lines(result)[-1]) == (0, "2 found: 2 done, 0 failed, 0 skipped"), result.output
    seen = [visit(app, "/news", base_url=url.removesuffix("/news"), environ={"RAW_URI": "/eu/news"}).word for url in urls]
    assert seen == ["HIT", "HIT"]


@pytest.mark.parametrize(
    "args",
    [
        ("list",),
        ("show", "/news"),
        ("purge", "--all"),
        ("refresh", "--all"),
        ("publish", "--tag", "a"),
        ("prune",),
        ("verify",),
        ("stats",),
    ],
)
def test_a_missing_directory_is_nothing_stored_and_is_not_made(shop: Shop, directory: Path, args: tuple[str, ...]) -> None:
    result = shop.run(*args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"nothing is stored: there is no directory {directory}\n"
    assert not directory.exists()


@pytest.mark.parametrize("args", [("list",), ("purge", "--all"), ("verify", "--fix"), ("prune",), ("warm", "/news")])
def test_the_directory_of_a_newer_version_is_left_alone(shop: Shop, directory: Path, args: tuple[str, ...]) -> None:
    shop.visit("/news")
    (directory / "stamps-99").write_bytes(b"")
    before = content_of(directory)
    result = shop.run(*args)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "newer version" in result.stderr
    assert content_of(directory) == before


def test_an_app_without_a_cache_is_told_so() -> None:
    from flask_stalecache.cli.commands import commands

    app = Flask("bare")
    app.cli.add_command(commands)
    result = app.test_cli_runner().invoke(args=["stalecache", "list"])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "call init_app(app) first" in result.stderr


def test_a_refused_configuration_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_with_mistake.py").write_text(
        "from flask import Flask\nfrom flask_stalecache import StaleCache\n"
        "app = Flask(__name__)\napp.config['STALECACHE_DIR'] = __file__\nStaleCache(app)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FLASK_APP", "shop_with_mistake")
    from click.testing import CliRunner

    result = CliRunner().invoke(FlaskGroup(), ["stalecache", "list"])
    assert (result.exit_code, result.stderr.splitlines()[-1][:6]) == (2, "Error:"), result.output
    assert "is a file: give a directory as STALECACHE_DIR" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_other_commands_of_flask_still_work(shop: Shop) -> None:
    run = functools.partial(shop.app.test_cli_runner().invoke, FlaskGroup(create_app=lambda: shop.app))
    routes = run(["routes"])
    assert routes.exit_code == 0, routes.output
    assert "/articles/<number>" in routes.stdout
    assert "stats" in run(["stalecache", "--help"]).stdout
