"""Sessions: where they work, what is made of them, and bad arguments.

Covers ``frontends.requests_adapter.app_context``, ``frontends.requests_adapter.factory`` and
``frontends.requests_adapter.rules``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import time_machine
from flask import Flask
from requests.adapters import HTTPAdapter

from flask_stalecache import ConfigError, StaleCache
from support.engine import named
from support.third_party import Site, ThirdParty

# -- where it works --------------------------------------------------------------------------------------------------


def test_outside_an_app_context_nothing_is_cached(party: ThirdParty, make_app: Callable[..., tuple[Flask, StaleCache]]) -> None:
    _, cache = make_app()
    party.says("Cache-Control: max-age=60")
    with cache.session() as session:
        answers = [session.get(party.url()) for _ in range(2)]
    assert [(answer.text, answer.from_cache) for answer in answers] == [("1", False), ("2", False)]  # type: ignore[attr-defined]
    assert "Cache-Status" not in answers[0].headers


def test_where_caching_is_off_nothing_is_cached(party: ThirdParty, make_site: Callable[..., Site]) -> None:
    party.says("Cache-Control: max-age=60")
    session = make_site(ENABLED=False).session(60)
    assert [session.get(party.url()).text for _ in range(2)] == ["1", "2"]


def test_an_app_without_a_cache_is_told() -> None:
    with Flask("other").app_context(), StaleCache().session() as session, pytest.raises(ConfigError, match="call init_app"):
        session.get("http://127.0.0.1:9/")


def test_mounted_by_prefix_on_a_session_that_is_there(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")
    with requests.Session() as session:
        session.trust_env = False
        session.mount(party.url("/api/"), site.cache.adapter())
        assert [session.get(party.url("/api/x")).text for _ in range(2)] == ["1", "1"]
        assert [session.get(party.url("/other")).text for _ in range(2)] == ["2", "3"]


def test_another_adapter_asks(party: ThirdParty, site: Site) -> None:
    party.says("Cache-Control: max-age=60")

    class Counting(HTTPAdapter):
        calls = 0

        def send(self, *args: Any, **options: Any) -> requests.Response:
            self.calls += 1
            return super().send(*args, **options)

    adapter = Counting(max_retries=3)
    session = site.session(adapter=adapter)
    assert [session.get(party.url()).text for _ in range(2)] == ["1", "1"]
    assert adapter.calls == 1


def test_a_session_that_is_closed_at_once_is_still_renewed(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=60, stale-while-revalidate=600")
    texts = []
    for _ in range(3):
        with site.cache.session() as session:
            session.trust_env = False
            texts.append(session.get(party.url()).text)
        site.drain()
        clock.shift(61)
    assert texts == ["1", "1", "2"]


def test_two_apps_keep_apart(party: ThirdParty, tmp_path: Path) -> None:
    cache, texts = StaleCache(), []
    party.says("Cache-Control: max-age=60")
    with cache.session() as session:
        session.trust_env = False
        for name in ("one", "two", "one"):
            app = Flask(name)
            app.config["STALECACHE_DIR"] = tmp_path / name
            cache.init_app(app)
            with app.app_context():
                texts.append(session.get(party.url()).text)
    assert texts == ["1", "2", "1"]


# -- what is made of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inherit", "fresh_for"), [(True, 5), (False, 60)])
def test_freshness_and_tags_travel_up(
    inherit: bool, fresh_for: float, party: ThirdParty, site: Site, clock: time_machine.Traveller
) -> None:
    party.says("Cache-Control: max-age=5")
    session = site.session(tags=["rates"], inherit=inherit)
    app, cache = site.app, site.cache

    @app.get("/")
    @cache.cached(60, 600, 600, jitter=0)
    def page() -> str:
        return session.get(party.url()).text

    client = app.test_client()
    assert client.get("/").headers["X-Cache-Status"] == "MISS"
    clock.shift(fresh_for - 1)
    assert client.get("/").headers["X-Cache-Status"] == "HIT"
    clock.shift(2)
    with client.get("/") as answer:
        assert answer.headers["X-Cache-Status"] == "STALE"
    site.drain()
    assert client.get("/").text == "2"
    cache.purge(tag="rates")
    assert client.get("/").headers["X-Cache-Status"] == ("MISS" if inherit else "HIT")


def test_a_page_made_of_a_stale_response_is_stale_at_once(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=5, stale-while-revalidate=600")
    session = site.session()
    session.get(party.url())
    clock.shift(6)

    @site.app.get("/")
    @site.cache.cached(60, 600, 600)
    def page() -> str:
        return session.get(party.url()).text

    client = site.app.test_client()
    party.open.clear()
    with client.get("/") as answer:
        assert (answer.text, answer.headers["X-Cache-Status"]) == ("1", "MISS")
    with client.get("/") as answer:
        assert (answer.text, answer.headers["X-Cache-Status"]) == ("1", "STALE")
    party.open.set()
    site.drain()
    assert client.get("/").text in ("2", "3")


def test_a_fetch_function_takes_over_the_freshness(party: ThirdParty, site: Site, clock: time_machine.Traveller) -> None:
    party.says("Cache-Control: max-age=5")
    session = site.session()

    @site.cache.memoize(60, 0, 0)
    def rates() -> str:
        return session.get(party.url()).text

    assert [rates(), rates()] == ["1", "1"]
    clock.shift(6)
    assert rates() == "2"


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["session", "adapter"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_age": -1}, "max_age=-1"),
        ({"stale_if_error": "1h"}, "stale_if_error='1h'"),
        ({"ignored_parameters": "utm"}, "ignored_parameters='utm'"),
        ({"vary": "Accept"}, "vary='Accept'"),
        ({"vary": ["Cookie"]}, "names it in Vary"),
        ({"vary": ["Authorization"]}, "where the third party allows"),
        ({"statuses": {503: 1}}, "503"),
        ({"tags": "rates"}, "tags='rates'"),
        ({"tags": lambda: ()}, "tags="),
        ({"prefer_stale": lambda: True}, "prefer_stale="),
        ({"prefer_stale": 1}, "prefer_stale=1"),
        ({"wait": -1}, "wait=-1"),
        ({"lock_timeout": "x"}, "lock_timeout='x'"),
        ({"inherit": 1}, "inherit=1"),
        ({"adapter": object()}, "give an adapter of requests"),
        ({"max_agee": 1}, "the nearest is max_age"),
        ({"timeout": 1}, "a wait for the renewal is wait="),
        ({"refresh_ahead": 1}, "has no parameter 'refresh_ahead'"),
    ],
    ids=named,
)
def test_bad_input_is_refused_at_the_call(method: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(StaleCache(), method)(**given)
    assert said in str(caught.value)


def test_without_requests_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import sys

    real = builtins.__import__

    def refusing(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == "requests":
            raise ModuleNotFoundError("No module named 'requests'", name="requests")
        return real(name, *args, **options)

    for name in ("adapter", "origin", "fetch", "request", "response"):
        monkeypatch.delitem(sys.modules, f"flask_stalecache.frontends.requests_adapter.{name}", raising=False)
    monkeypatch.delattr("flask_stalecache.frontends.requests_adapter.adapter", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(ConfigError, match=r"pip install 'flask-stalecache\[requests\]'"):
        StaleCache().session()
