"""A recipe: a request reduced to what is in its key, as data that makes the same page again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from wsgiref import validate

import pytest
from flask import Request
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.addressing.keys import digest, page_key
from flask_stalecache.core.addressing.recipe import USER_AGENT, PageRecipe
from flask_stalecache.core.model.environ import ARRIVED, URL_VARIABLES, environ_name, url_variables
from flask_stalecache.core.model.policy import Normaliser
from flask_stalecache.core.model.query import NamePatterns

IGNORED = NamePatterns(["utm_*", "ref"])
SECRET = "S3CR3T"
VARY = ("accept-language", "x-theme", "content-type", "host")
KEY_FIELDS = {"HTTP_HOST", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_PREFIX"}
VARIED_FIELDS = {"HTTP_ACCEPT_LANGUAGE", "HTTP_X_THEME", "CONTENT_TYPE"}
#: Fields that a visitor may send and variables that a server may set, none of which may get into a recipe.
PRIVATE = (
    "HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "HTTP_X_REMOTE_USER", "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED",
    "HTTP_RANGE", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_REFERER", "HTTP_USER_AGENT", "HTTP_ACCEPT", "REMOTE_USER",
    "REMOTE_ADDR", "AUTH_TYPE", "SSL_CLIENT_S_DN", "HTTP_CACHE_CONTROL", "HTTP_X_HTTP_METHOD_OVERRIDE",
)  # fmt: skip

texts = st.text(st.characters(max_codepoint=255, exclude_characters="\n\r"), max_size=6)
query_parts = st.lists(texts | st.sampled_from(["utm_a=1", "%72ef", "ref=2", "a=1", "a=%31", "b;ref=1"]), max_size=4)
environs = st.fixed_dictionaries(
    {
        "REQUEST_METHOD": st.sampled_from(["GET", "HEAD"]),
        "wsgi.url_scheme": st.sampled_from(["http", "https"]),
        "SERVER_NAME": texts,
        "SERVER_PORT": st.integers(1, 65535).map(str),
        "SCRIPT_NAME": texts,
        "PATH_INFO": texts.map("/".__add__),
        "QUERY_STRING": query_parts.map("&".join),
    },
    optional={
        **dict.fromkeys(sorted(KEY_FIELDS | VARIED_FIELDS), texts),
        "RAW_URI": st.just("") | texts.map("/".__add__),
        "REQUEST_URI": st.just("") | texts.map("/".__add__),
        **dict.fromkeys(PRIVATE, texts.map(SECRET.__add__)),
    },
)
VISIT: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "wsgi.url_scheme": "https",
    "HTTP_HOST": "shop.example",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SCRIPT_NAME": "/eu",
    "PATH_INFO": "/prices/\xc3\xa9",
    "QUERY_STRING": "a=1&utm_a=2&b=%20",
    "RAW_URI": "/eu/prices/%C3%A9?a=1&utm_a=2&b=%20",
    "HTTP_X_FORWARDED_HOST": "www.shop.example",
    "HTTP_ACCEPT_LANGUAGE": "de",
    "HTTP_COOKIE": f"session={SECRET}",
}


def is_phone(value: str | None) -> str:
    return "phone" if value and "phone" in value else "desktop"


def same(value: str | None) -> str | None:
    return value


def recipe_of(environ: Mapping[str, Any], vary: tuple[str, ...] = VARY) -> PageRecipe:
    return PageRecipe.from_environ(environ, vary, IGNORED)


@given(environs)
def test_a_recipe_is_the_same_after_a_trip_through_json(environ: dict[str, Any]) -> None:
    recipe = recipe_of(environ)
    assert PageRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@given(environs)
def test_the_request_of_a_recipe_has_the_visitors_key(environ: dict[str, Any]) -> None:
    vary = dict.fromkeys(VARY)
    again = recipe_of(environ).to_environ()
    assert page_key("v", again, vary, IGNORED) == page_key("v", environ, vary, IGNORED)


@given(environs)
def test_the_recipe_of_a_recipes_request_is_the_recipe(environ: dict[str, Any]) -> None:
    recipe = recipe_of(environ)
    assert recipe_of(recipe.to_environ()) == recipe


@pytest.mark.parametrize("agent", [None, "", "curl/8"])
@pytest.mark.parametrize("normalise", [None, is_phone, same], ids=["raw", "normalised", "same"])
def test_a_page_that_varies_on_user_agent_is_refreshed_under_its_own_key(agent: str | None, normalise: Normaliser | None) -> None:
    environ = dict(VISIT) if agent is None else {**VISIT, "HTTP_USER_AGENT": agent}
    vary = {"user-agent": normalise}
    again = PageRecipe.from_environ(environ, vary, IGNORED).to_environ()
    assert page_key("v", again, vary, IGNORED) == page_key("v", environ, vary, IGNORED)


@given(environs)
def test_nothing_of_the_visitor_gets_in_but_what_is_in_the_key(environ: dict[str, Any]) -> None:
    recipe = recipe_of(environ)
    again = recipe.to_environ()
    fields = {name for name in again if name.startswith(("HTTP_", "CONTENT_"))}
    assert fields <= KEY_FIELDS | VARIED_FIELDS | {"HTTP_USER_AGENT"}
    assert SECRET not in json.dumps(recipe.to_json())
    assert not [name for name, value in again.items() if SECRET in str(value)]


@given(environs)
def test_fields_in_the_key_are_as_received_and_absent_where_they_were(environ: dict[str, Any]) -> None:
    again = recipe_of(environ).to_environ()
    for name in KEY_FIELDS | VARIED_FIELDS:
        assert again.get(name) == environ.get(name)


@given(environs)
def test_ignored_parameters_are_out_of_the_query_and_of_the_raw_path(environ: dict[str, Any]) -> None:
    again = recipe_of(environ).to_environ()
    query = IGNORED.split(environ["QUERY_STRING"])[0]
    assert again["QUERY_STRING"] == query
    for name in ("RAW_URI", "REQUEST_URI"):
        path = environ.get(name, "").split("?")[0]
        expected = None if not environ.get(name) else f"{path}?{query}" if query else path
        assert again.get(name) == expected


def test_the_url_is_the_one_that_arrived() -> None:
    """Middleware has changed the URL since then, and will change that of the recipe's request again."""
    came = {**VISIT, "wsgi.url_scheme": "http", "HTTP_HOST": "127.0.0.1:8000", "SCRIPT_NAME": "", "PATH_INFO": "/eu/prices"}
    recipe = recipe_of({**VISIT, "SCRIPT_NAME": "/eu", "PATH_INFO": "/prices", ARRIVED: url_variables(came)})
    again = recipe.to_environ()
    assert {name: again[name] for name in URL_VARIABLES} == {name: came[name] for name in URL_VARIABLES} | {
        "QUERY_STRING": "a=1&b=%20"
    }
    assert dict(recipe.seen) == {
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "shop.example",
        "SCRIPT_NAME": "/eu",
        "PATH_INFO": "/prices",
    }
    assert PageRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_host_that_only_middleware_has_set_did_not_arrive() -> None:
    recipe = recipe_of({**VISIT, ARRIVED: {**url_variables(VISIT), "HTTP_HOST": None}})
    assert "HTTP_HOST" not in recipe.to_environ()
    assert recipe.seen == (("HTTP_HOST", "shop.example"),)


def test_the_recipe_of_an_earlier_version_has_no_other_url() -> None:
    data = recipe_of(VISIT).to_json()
    del data["seen"]
    assert PageRecipe.from_json(data) == recipe_of(VISIT)


@pytest.mark.parametrize("seen", [[["wsgi.input", ""]], [["PATH_INFO", 5]], [["PATH_INFO"]], 5])
def test_another_url_is_made_of_its_variables(seen: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        PageRecipe.from_json({**recipe_of(VISIT).to_json(), "seen": seen})


def test_a_field_that_is_not_varied_is_left_out() -> None:
    assert "HTTP_ACCEPT_LANGUAGE" not in recipe_of(VISIT, vary=()).to_environ()


def test_the_request_is_a_get_from_here_under_a_name_of_ours() -> None:
    again = recipe_of({**VISIT, "REQUEST_METHOD": "HEAD", "REMOTE_ADDR": "10.0.0.1", "HTTP_USER_AGENT": "curl"}).to_environ()
    assert (again["REQUEST_METHOD"], again["REMOTE_ADDR"], again["HTTP_USER_AGENT"]) == ("GET", "192.0.2.1", USER_AGENT)
    assert again["wsgi.input"].read() == b""


def test_the_request_is_what_wsgi_asks_for() -> None:
    validate.check_environ(recipe_of(VISIT).to_environ())  # type: ignore[attr-defined]


def test_the_request_has_the_visitors_url_without_ignored_parameters() -> None:
    assert Request(recipe_of(VISIT).to_environ()).url == "https://shop.example/eu/prices/é?a=1&b=%20"


def test_each_request_of_a_recipe_is_its_own() -> None:
    recipe = recipe_of(VISIT)
    one, other = recipe.to_environ(), recipe.to_environ()
    one["marked"] = True
    assert "marked" not in other
    assert one["wsgi.input"] is not other["wsgi.input"]


@pytest.mark.parametrize("name", ["scheme", "server", "script_root", "path", "query", "raw", "fields", "digests"])
def test_data_that_lacks_a_part_is_no_recipe(name: str) -> None:
    data = recipe_of(VISIT).to_json()
    del data[name]
    with pytest.raises(KeyError, match=name):
        PageRecipe.from_json(data)


@pytest.mark.parametrize("name", ["Cookie", "Authorization", "X-Api-Key"])
def test_a_secret_is_in_the_request_and_not_on_the_disk(name: str) -> None:
    environ = {**VISIT, environ_name(name): SECRET}
    recipe = recipe_of(environ, vary=(name, "accept-language"))
    assert recipe.to_environ()[environ_name(name)] == SECRET
    assert not recipe.why_incomplete
    stored = json.dumps(recipe.to_json())
    assert SECRET not in stored
    again = PageRecipe.from_json(json.loads(stored))
    assert again.digests == ((environ_name(name), digest(SECRET)),)
    assert again.why_incomplete == f"the value of {name} is not kept: the next visitor who sends it has it refreshed"
    assert again.to_json() == recipe.to_json()
    assert dict(again.fields)["HTTP_ACCEPT_LANGUAGE"] == "de"


def test_what_every_key_has_in_full_is_kept_however_long() -> None:
    long = "x" * 2000
    recipe = recipe_of({**VISIT, "HTTP_HOST": long, "HTTP_X_FORWARDED_HOST": long}, vary=("host",))
    assert PageRecipe.from_json(recipe.to_json()) == recipe
