"""A page's key: what two requests must have in common to share a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from flask import Flask
from flask.views import MethodView
from hypothesis import example, given
from hypothesis import strategies as st

from flask_stalecache import ConfigError, Policy, StaleCache
from flask_stalecache.core.addressing.keys import digest, host_of, is_digest, page_key, raw_path, shown
from flask_stalecache.core.http.credentials import CREDENTIAL_FIELDS
from flask_stalecache.core.model.policy import Normaliser
from flask_stalecache.core.model.query import NamePatterns

IGNORED = NamePatterns(["utm_*", "ref"])
VARY: Mapping[str, Normaliser | None] = {"accept-language": None, "x-theme": None}
BASE = {
    "REQUEST_METHOD": "GET",
    "wsgi.url_scheme": "https",
    "HTTP_HOST": "shop.example",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SCRIPT_NAME": "/eu",
    "PATH_INFO": "/prices",
    "QUERY_STRING": "a=1&b=2",
    "RAW_URI": "/eu/prices?a=1&b=2",
}


def key_of(
    *, view: str = "shop.prices", vary: Mapping[str, Normaliser | None] = VARY, custom: object = None, **changes: Any
) -> str:
    """Return the key of the base request with changes to its environ; ``None`` removes a variable."""
    environ = {**BASE, **changes, "wsgi.url_scheme": changes.get("scheme", BASE["wsgi.url_scheme"])}
    return page_key(view, {name: value for name, value in environ.items() if value is not None}, vary, IGNORED, custom)


# -- what is in the key ----------------------------------------------------------------------------------------------

DIFFERENT: dict[str, dict[str, Any]] = {
    "view": {"view": "shop.rates"},
    "scheme": {"scheme": "http"},
    "host": {"HTTP_HOST": "evil.example"},
    "host-case": {"HTTP_HOST": "Shop.example"},
    "host-port": {"HTTP_HOST": "shop.example:8080"},
    "host-empty": {"HTTP_HOST": ""},
    "no-host": {"HTTP_HOST": None},
    "x-forwarded-proto": {"HTTP_X_FORWARDED_PROTO": "http"},
    "x-forwarded-host": {"HTTP_X_FORWARDED_HOST": "evil.example"},
    "x-forwarded-host-empty": {"HTTP_X_FORWARDED_HOST": ""},
    "x-forwarded-port": {"HTTP_X_FORWARDED_PORT": "81"},
    "x-forwarded-prefix": {"HTTP_X_FORWARDED_PREFIX": "/evil"},
    "script-root": {"SCRIPT_NAME": "/us"},
    "path": {"PATH_INFO": "/price"},
    "path-case": {"PATH_INFO": "/Prices"},
    "path-slash": {"PATH_INFO": "/prices/"},
    "path-static-extension": {"PATH_INFO": "/prices/x.css"},
    "raw-path": {"RAW_URI": "/eu/%70rices?a=1&b=2"},
    "raw-path-dots": {"RAW_URI": "/eu/x/..%2fprices?a=1&b=2"},
    "raw-path-absolute": {"RAW_URI": "http://evil.example/eu/prices?a=1&b=2"},
    "no-raw-path": {"RAW_URI": None, "PATH_INFO": "/other"},
    "query": {"QUERY_STRING": "a=1&b=3"},
    "query-order": {"QUERY_STRING": "b=2&a=1"},
    "query-repeated": {"QUERY_STRING": "a=1&a=1&b=2"},
    "query-repeated-order": {"QUERY_STRING": "a=1&b=2&a=3"},
    "query-semicolon": {"QUERY_STRING": "a=1;b=2"},
    "query-semicolon-before-ignored": {"QUERY_STRING": "a=1&b=2;utm_x=1"},
    "query-encoding": {"QUERY_STRING": "a=%31&b=2"},
    "query-empty-part": {"QUERY_STRING": "a=1&&b=2"},
    "query-ignored-case": {"QUERY_STRING": "a=1&b=2&UTM_x=1"},
    "no-query": {"QUERY_STRING": ""},
    "varied-field": {"HTTP_ACCEPT_LANGUAGE": "de"},
    "varied-field-empty": {"HTTP_ACCEPT_LANGUAGE": ""},
    "other-varied-field": {"HTTP_X_THEME": "de"},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_request_that_differs_in_this_has_another_key(name: str) -> None:
    assert key_of(**DIFFERENT[name]) != key_of()


def test_requests_that_differ_in_different_things_never_share_a_key() -> None:
    keys = [key_of(**changes) for changes in DIFFERENT.values()]
    assert len(set(keys)) == len(keys)


SAME: dict[str, dict[str, Any]] = {
    "cookie": {"HTTP_COOKIE": "session=x"},
    "user-agent": {"HTTP_USER_AGENT": "curl"},
    "x-forwarded-for": {"HTTP_X_FORWARDED_FOR": "10.0.0.1"},
    "address": {"REMOTE_ADDR": "10.0.0.1"},
    "method": {"REQUEST_METHOD": "HEAD"},
    "server-behind-host": {"SERVER_NAME": "10.0.0.1", "SERVER_PORT": "8001"},
    "ignored": {"QUERY_STRING": "a=1&utm_x=1&b=2"},
    "ignored-first": {"QUERY_STRING": "utm_x=1&a=1&b=2"},
    "ignored-last": {"QUERY_STRING": "a=1&b=2&ref"},
    "ignored-several": {"QUERY_STRING": "ref=1&a=1&utm_y=&utm_x=2&b=2&ref=3"},
    "ignored-encoded": {"QUERY_STRING": "a=1&%75tm%5Fx=1&b=2&re%66=1"},
    "ignored-semicolon": {"QUERY_STRING": "a=1&ref=1;c=3&b=2"},
    "ignored-in-raw-path": {"QUERY_STRING": "a=1&b=2&ref=1", "RAW_URI": "/eu/prices?a=1&b=2&ref=1"},
    "second-raw-path": {"REQUEST_URI": "/other"},
    # Some servers provide no raw path. One that equals the path adds nothing to the key.
    "no-raw-path": {"RAW_URI": None},
    "raw-path-without-query": {"RAW_URI": "/eu/prices"},
}


@pytest.mark.parametrize("name", SAME)
def test_a_request_that_differs_only_in_this_has_the_same_key(name: str) -> None:
    assert key_of(**SAME[name]) == key_of()


def test_a_raw_path_is_taken_from_where_any_server_puts_it() -> None:
    assert key_of(RAW_URI=None, REQUEST_URI="/eu/prices") == key_of()
    assert key_of(RAW_URI="", REQUEST_URI="/eu/prices?c=3") == key_of()


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, None),
        ({"RAW_URI": ""}, None),
        ({"RAW_URI": "/a%2Fb?c=1"}, "/a%2Fb"),
        ({"RAW_URI": "/a??b"}, "/a"),
        ({"REQUEST_URI": "/a"}, "/a"),
        ({"RAW_URI": "/a", "REQUEST_URI": "/b"}, "/a"),
    ],
)
def test_raw_path_is_without_the_query(environ: dict[str, str], path: str | None) -> None:
    assert raw_path(environ) == path


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({"HTTP_HOST": "a.example:81", "SERVER_NAME": "b", "SERVER_PORT": "80"}, "a.example:81"),
        ({"HTTP_HOST": "", "SERVER_NAME": "b", "SERVER_PORT": "80"}, ""),
        ({"SERVER_NAME": "b", "SERVER_PORT": "80"}, "b:80"),
    ],
)
def test_the_host_is_the_one_received(environ: dict[str, str], host: str) -> None:
    assert host_of(environ) == host


def test_the_names_of_ignored_parameters_matter_only_if_they_are_ignored() -> None:
    nothing_ignored = NamePatterns(())
    with_ref = {**BASE, "QUERY_STRING": "a=1&b=2&ref=1"}
    assert page_key("v", with_ref, {}, nothing_ignored) != page_key("v", BASE, {}, nothing_ignored)


# -- vary ------------------------------------------------------------------------------------------------------------


def test_a_field_that_is_not_varied_is_not_in_the_key() -> None:
    assert key_of(vary={}, HTTP_ACCEPT_LANGUAGE="de") == key_of(vary={})


def test_a_normaliser_makes_variants_few() -> None:
    def first(value: str | None) -> str:
        return "de" if value is not None and value.startswith("de") else "en"

    vary = {"accept-language": first}
    german = key_of(vary=vary, HTTP_ACCEPT_LANGUAGE="de-AT,de;q=0.9")
    assert german == key_of(vary=vary, HTTP_ACCEPT_LANGUAGE="de")
    assert german != key_of(vary=vary, HTTP_ACCEPT_LANGUAGE="fr")
    assert key_of(vary=vary, HTTP_ACCEPT_LANGUAGE=None) == key_of(vary=vary, HTTP_ACCEPT_LANGUAGE="fr")


@pytest.mark.parametrize("value", [None, "", "de;q=0.5"])
def test_a_normaliser_is_given_the_field_as_received_or_none(value: str | None) -> None:
    seen: list[str | None] = []
    key_of(vary={"accept-language": seen.append}, HTTP_ACCEPT_LANGUAGE=value)
    assert seen == [value]


def test_a_normaliser_that_says_none_is_not_one_that_says_nothing_or_none_in_words() -> None:
    keys = {key_of(vary={"x-theme": normalise}) for normalise in (lambda _: None, lambda _: "", lambda _: "None")}
    assert len(keys) == 3


@pytest.mark.parametrize(("header", "name"), [("content-type", "CONTENT_TYPE"), ("x-a-b", "HTTP_X_A_B")])
def test_a_varied_field_is_looked_up_where_wsgi_puts_it(header: str, name: str) -> None:
    assert key_of(vary={header: None}, **{name: "x"}) != key_of(vary={header: None})


def test_the_order_in_which_fields_are_varied_does_not_change_the_key() -> None:
    # A set has another order in each process: the workers would not find each other's copies.
    environ = {**BASE, "HTTP_ACCEPT": "a", "HTTP_X_THEME": "b"}
    one, other = Policy(vary=["Accept", "X-Theme"]).vary, Policy(vary=["X-Theme", "Accept"]).vary
    assert page_key("v", environ, one, IGNORED) == page_key("v", environ, other, IGNORED)


@pytest.mark.parametrize("variant", [1, True, b"de", ["de"], object])
def test_a_normaliser_that_returns_something_else_is_refused_by_field(variant: Any) -> None:
    with pytest.raises(ConfigError, match="x-theme"):
        key_of(vary={"x-theme": lambda _: variant})


class Theme(str, Enum):
    DARK = "dark"


def test_a_variant_counts_by_its_text_whatever_kind_of_string_it_is() -> None:
    # Equal strings are one entry in the table of quoted keys. If their quoted texts differed, the first one in a process would win.
    key = key_of(vary={"x-theme": lambda _: Theme.DARK}, HTTP_HOST="of.this.test")
    assert "'x-theme', 'dark'" in key


# -- custom keys -----------------------------------------------------------------------------------------------------

CUSTOM = [
    "",
    "1",
    1,
    1.0,
    True,
    False,
    0,
    (),
    ("1",),
    (1,),
    (("1",),),
    ("1", ""),
    ("", "1"),
    "('1',)",
    "1,",
    ("a", ("b",)),
    ("a", "b"),
]


def test_two_different_custom_values_never_share_a_key() -> None:
    assert len({key_of(custom=value) for value in CUSTOM}) == len(CUSTOM)


@pytest.mark.parametrize("value", CUSTOM, ids=repr)
def test_a_custom_value_stands_for_path_and_query_and_for_nothing_else(value: object) -> None:
    mine = key_of(custom=value)
    for same in ("path", "raw-path", "no-raw-path", "query", "script-root"):
        assert key_of(custom=value, **DIFFERENT[same]) == mine
    for different in ("view", "scheme", "host", "x-forwarded-host", "x-forwarded-proto", "varied-field"):
        assert key_of(custom=value, **DIFFERENT[different]) != mine


@pytest.mark.parametrize(
    "value",
    [b"1", ["1"], {"a": 1}, {1}, print, Decimal(1), 1j, ("1", None), ("1", ["2"]), (("1", (b"2",)),)],
    ids=repr,
)
def test_a_custom_value_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="a string, a number or a tuple"):
        key_of(custom=value)


scalars = st.text(max_size=4) | st.integers() | st.booleans() | st.floats(allow_nan=False)
customs = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


def shape(value: object) -> object:
    """Return an object that is equal for two values only if they are equal and of the same types."""
    return tuple(map(shape, value)) if isinstance(value, tuple) else (type(value).__name__, repr(value))


@given(customs, customs)
def test_custom_values_share_a_key_only_if_they_are_the_same(one: object, other: object) -> None:
    assert (key_of(custom=one) == key_of(custom=other)) == (shape(one) == shape(other))


def test_two_views_never_share_a_copy_even_if_they_were_made_by_one_function(
    make_app: Callable[..., tuple[Flask, StaleCache]],
) -> None:
    app, cache = make_app()

    class Front(MethodView):
        decorators = [cache.cached(60, key=lambda: "en")]  # noqa: RUF012

        def get(self) -> str:
            return "front"

    class Prices(MethodView):
        decorators = [cache.cached(60, key=lambda: "en")]  # noqa: RUF012

        def get(self) -> str:
            return "prices"

    app.add_url_rule("/", view_func=Front.as_view("front"))
    app.add_url_rule("/prices", view_func=Prices.as_view("prices"))
    client = app.test_client()
    assert [client.get(path).text for path in ("/", "/prices")] == ["front", "prices"]


# -- any two requests ------------------------------------------------------------------------------------------------

NASTY = "a/&=;?%',() \"\\\x00\né\xff|:"
nasty = st.text(NASTY, max_size=5)
FIELDS = ("HTTP_HOST", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_PREFIX")
VARIED = ("HTTP_ACCEPT_LANGUAGE", "HTTP_X_THEME")
ALWAYS = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
query_parts = st.lists(nasty | st.sampled_from(["utm_a=1", "%75tm_a", "ref", "ref=2;a=1", "a=1", "b"]), max_size=4)
environs = st.fixed_dictionaries(
    {**dict.fromkeys(ALWAYS, nasty), "QUERY_STRING": query_parts.map("&".join)},
    optional=dict.fromkeys([*FIELDS, *VARIED, "RAW_URI", "REQUEST_URI"], nasty),
)


def identity(environ: Mapping[str, str]) -> tuple[object, ...]:
    """Return all parts of a request that must be in its key."""
    host = environ.get("HTTP_HOST", f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}")
    raw = (environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").split("?")[0]
    query = [part for part in environ["QUERY_STRING"].split("&") if part.split("=")[0] not in ("ref", "utm_a", "%75tm_a")]
    return (
        host,
        # A raw path that equals the path adds nothing, and neither does an empty one.
        None if raw in ("", environ["SCRIPT_NAME"] + environ["PATH_INFO"]) else raw,
        "&".join(query),
        *(environ[name] for name in ("wsgi.url_scheme", "SCRIPT_NAME", "PATH_INFO")),
        *(environ.get(name) for name in (*FIELDS[1:], *VARIED)),
    )


NO_TEXT = dict.fromkeys(ALWAYS, "")


@example({**NO_TEXT, "PATH_INFO": ":", "RAW_URI": ":", "REQUEST_URI": ""}, NO_TEXT, {"RAW_URI"})
@example({**NO_TEXT, "PATH_INFO": ":", "RAW_URI": "?a"}, NO_TEXT, {"RAW_URI"})
@given(environs, environs, st.sets(st.sampled_from([*ALWAYS, *FIELDS, *VARIED, "RAW_URI"]), max_size=2))
def test_two_different_requests_never_share_a_key(one: dict[str, str], other: dict[str, str], changed: set[str]) -> None:
    near = {name: value for name, value in one.items() if name not in changed}
    near.update({name: value for name, value in other.items() if name in changed})
    for second in (other, near):
        same = identity(one) == identity(second)
        assert (page_key("v", one, VARY, IGNORED) == page_key("v", second, VARY, IGNORED)) is same


@given(st.text(NASTY, min_size=1, max_size=12), st.data())
def test_a_separator_can_not_be_moved_from_one_part_to_the_next(text: str, data: st.DataObject) -> None:
    cuts = st.integers(0, len(text))
    first, second = data.draw(cuts), data.draw(cuts)
    keys = [key_of(SCRIPT_NAME=text[:cut], PATH_INFO=text[cut:]) for cut in (first, second)]
    assert (keys[0] == keys[1]) is (first == second)


@pytest.mark.parametrize(
    "name", ["HTTP_HOST", "PATH_INFO", "QUERY_STRING", "HTTP_X_FORWARDED_HOST", "HTTP_ACCEPT_LANGUAGE", "RAW_URI"]
)
def test_a_key_that_is_sent_as_a_part_of_another_is_no_injection(name: str) -> None:
    target = key_of()
    for sent in (target, target[target.index(BASE["HTTP_HOST"]) :]):
        changes: dict[str, Any] = {name: sent}
        assert key_of(**changes) != target


@given(st.lists(st.sampled_from(["a=1", "b", "a=2", "c=;x"]), max_size=4), st.data())
@example(["a=1"], None)
def test_ignored_parameters_change_nothing_wherever_and_however_they_are_written(
    kept: list[str], data: st.DataObject | None
) -> None:
    mixed = list(kept)
    if data is not None:
        for name in data.draw(st.lists(st.sampled_from(["ref", "utm_x", "utm_y"]), max_size=4)):
            encoded = "".join(f"%{ord(sign):02x}" if data.draw(st.booleans()) else sign for sign in name)
            mixed.insert(
                data.draw(st.integers(0, len(mixed))), encoded + data.draw(st.sampled_from(["", "=", "=1", "=a=b", "=1;a=2"]))
            )
    assert key_of(QUERY_STRING="&".join(mixed)) == key_of(QUERY_STRING="&".join(kept))


# -- digests ---------------------------------------------------------------------------------------------------------


@given(environs)
def test_a_key_is_ascii_and_its_digest_a_file_name(environ: dict[str, str]) -> None:
    key = page_key("v", environ, VARY, IGNORED)
    assert key.isascii()
    assert page_key("v", environ, VARY, IGNORED, "ü").isascii()
    assert len(digest(key)) == 40
    assert set(digest(key)) <= set("0123456789abcdef")


def test_digests_differ_where_keys_do_and_stay_the_same_over_releases() -> None:
    assert digest("a") != digest("b")
    # The file of an entry has the digest of its key as its name.
    assert digest("a") == "948caa2db61bc4cdb4faf7740cd491f195043914"


# -- secrets ---------------------------------------------------------------------------------------------------------

LONG = "x" * 600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accept-language", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"),
        ("sec-ch-ua-platform", '"Windows"'),
        ("x-country", "de"),
        ("x-theme", "dark"),
        ("x-tenant", "acme"),
        ("cookie", ""),
        ("cookie", None),
    ],
)
def test_what_is_harmless_is_shown(name: str, value: str | None) -> None:
    assert shown(name, value) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cookie", "a=1"),
        ("Cookie", "a=1"),
        ("authorization", "x"),
        ("proxy-authorization", "x"),
        ("x-api-key", "1"),
        ("apikey", "1"),
        ("x-auth-token", "1"),
        ("private-token", "1"),
        ("x-session", "1"),
        ("x-csrf-token", "1"),
        ("x-amz-security-token", "1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-user", "ann"),
        ("remote-user", "ann"),
        ("x-client-cert", "ann"),
        ("x-ssl-client-s-dn", "ann"),
        ("cf-access-jwt-assertion", "ann"),
        ("x-customer-id", "1"),
        ("x_api_key", "1"),
        ("referer", "https://shop.example/?token=1"),
        ("x-theme", "0123456789abcdef01234"),
        ("user-agent", LONG),
        ("accept-language", LONG),
    ],
)
def test_what_may_be_a_secret_or_is_long_is_a_digest(name: str, value: str) -> None:
    assert shown(name, value) == (digest(value),)
    # All of the key, since the letters of a short value are in other parts of it too.
    other_parts = key_of(vary={}).removesuffix("())")
    varied = ascii(((name, (digest(value),)),))
    assert key_of(vary={name: None}, **{f"HTTP_{name.upper().replace('-', '_')}": value}) == f"{other_parts}{varied})"


@pytest.mark.parametrize("name", CREDENTIAL_FIELDS)
def test_what_says_who_asks_is_a_digest(name: str) -> None:
    assert shown(name, "ann") == (digest("ann"),)


def test_a_digest_that_is_sent_is_not_taken_for_one() -> None:
    keys = {key_of(vary={"x-theme": None}, HTTP_X_THEME=value) for value in (LONG, digest(LONG), str((digest(LONG),)))}
    assert len(keys) == 3


def test_what_a_key_callable_returns_is_a_digest() -> None:
    assert "ann" not in key_of(custom=("basket", "ann"))


@pytest.mark.parametrize(
    ("text", "is_one"), [(digest("a"), True), (digest("a").upper(), False), ("a" * 39, False), ("../x", False)]
)
def test_what_has_the_form_of_a_digest(text: str, is_one: bool) -> None:
    assert is_digest(text) is is_one
