"""The names that pages are purged by, the selectors of a purge, and the titles of entries: pure. Covers ``core.model.titles``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import create_environ

from flask_stalecache import ConfigError
from flask_stalecache.batches.selector import Scope, Selection, Selector
from flask_stalecache.core.addressing.keys import digest
from flask_stalecache.core.addressing.purge_names import (
    EVERYTHING,
    address_of,
    endpoint_name,
    is_coded,
    is_short,
    page_names,
    prefix_name,
    short_name,
    tag_name,
    tags_in,
    target_name,
    url_below,
    url_name,
)
from flask_stalecache.core.model.query import NamePatterns
from flask_stalecache.core.model.titles import title_of
from support.engine import make_entry

NOTHING = NamePatterns(())
UTM = NamePatterns(("utm_*", "fbclid"))


def environ_of(**changes: Any) -> dict[str, Any]:
    """Return the environ of a request for ``http://shop.example/news``, with changes; ``None`` removes a variable."""
    environ = {
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "shop.example",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/news",
        "QUERY_STRING": "",
        **changes,
    }
    return {name: value for name, value in environ.items() if value is not None}


def asked_for(url: str) -> dict[str, Any]:
    """Return the environ of the request that a browser sends for a URL."""
    parts = urlsplit(url)
    path = unquote_to_bytes(quote(parts.path, safe="/%:@!$&'()*+,;=~")).decode("latin-1")
    query = quote(parts.query, safe="/?%:@!$&'()*+,;=~")
    host = parts.netloc.encode("idna").decode("ascii")
    return environ_of(**{"wsgi.url_scheme": parts.scheme}, HTTP_HOST=host, PATH_INFO=path, QUERY_STRING=query)


# -- the names of a page ---------------------------------------------------------------------------------------------

NAMES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "/news", "http://shop.example/news"),
    ({"QUERY_STRING": "page=2&q=a%20b"}, "/news?page=2&q=a%20b", "http://shop.example/news?page=2&q=a%20b"),
    ({"QUERY_STRING": "q=%C3%A9&Q=%c3%a9"}, "/news?q=%C3%A9&Q=%c3%a9", "http://shop.example/news?q=%C3%A9&Q=%c3%a9"),
    ({"SCRIPT_NAME": "/shop"}, "/shop/news", "http://shop.example/shop/news"),
    ({"SCRIPT_NAME": "/shop", "PATH_INFO": ""}, "/shop", "http://shop.example/shop"),
    ({"PATH_INFO": "/caf\xc3\xa9"}, "/caf\xc3\xa9", "http://shop.example/caf\xc3\xa9"),
    ({"HTTP_HOST": "Shop.EXAMPLE"}, "/news", "http://shop.example/news"),
    ({"HTTP_HOST": "shop.example:80"}, "/news", "http://shop.example/news"),
    ({"HTTP_HOST": "shop.example:8080"}, "/news", "http://shop.example:8080/news"),
    ({"HTTP_HOST": "shop.example:443"}, "/news", "http://shop.example:443/news"),
    ({"HTTP_HOST": "shop.example:443", "wsgi.url_scheme": "https"}, "/news", "https://shop.example/news"),
    ({"HTTP_HOST": "shop.example:80", "wsgi.url_scheme": "https"}, "/news", "https://shop.example:80/news"),
    ({"HTTP_HOST": "[2001:DB8::80]"}, "/news", "http://[2001:db8::80]/news"),
    ({"HTTP_HOST": "[2001:db8::1]:80"}, "/news", "http://[2001:db8::1]/news"),
    ({"HTTP_HOST": None}, "/news", "http://127.0.0.1:8000/news"),
    ({"HTTP_HOST": None, "SERVER_PORT": "80"}, "/news", "http://127.0.0.1/news"),
    ({"HTTP_X_FORWARDED_HOST": "evil.example", "HTTP_X_FORWARDED_PROTO": "https"}, "/news", "http://shop.example/news"),
    ({"SCRIPT_NAME": None, "QUERY_STRING": None}, "/news", "http://shop.example/news"),
]


@pytest.mark.parametrize(("changes", "path", "url"), NAMES)
def test_a_page_is_named_by_its_path_on_any_host_and_by_its_url(changes: dict[str, Any], path: str, url: str) -> None:
    names = page_names("news.show", environ_of(**changes), NOTHING)
    assert names == (EVERYTHING, "endpoint:news.show", f"path:{path}", f"url:{url}")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("utm_source=letter", "/news"),
        ("utm_source=letter&page=2&fbclid=1", "/news?page=2"),
        ("page=2&utm_source=a&page=3&utm_medium", "/news?page=2&page=3"),
        ("%75tm_source=letter&page=2", "/news?page=2"),
        ("UTM_source=letter", "/news?UTM_source=letter"),
    ],
)
def test_ignored_parameters_are_in_no_name(query: str, named: str) -> None:
    page = page_names("news", environ_of(QUERY_STRING=query), UTM)
    assert page[2:] == (f"path:{named}", f"url:http://shop.example{named}")
    assert url_name(f"/news?{query}", UTM) == f"path:{named}"
    assert url_name(f"http://shop.example/news?{query}", UTM) == f"url:http://shop.example{named}"
    assert url_name(f"/news?{query}", NOTHING) == f"path:/news?{query}"


def test_a_tag_is_never_taken_for_another_kind_of_name() -> None:
    page = page_names("news", environ_of(), NOTHING)
    for value in ("all", "news", "/news", "http://shop.example/news", *page):
        assert tag_name(value) not in page
        assert url_name("/" + value.lstrip("/"), NOTHING) not in (EVERYTHING, tag_name(value), endpoint_name(value))


@given(st.lists(st.text()))
def test_tags_are_found_among_names(tags: list[str]) -> None:
    names = *page_names("tag:news", environ_of(PATH_INFO="/tag:news"), NOTHING), *map(tag_name, tags)
    assert tags_in(names) == tuple(tags)


# -- what a URL stands for -------------------------------------------------------------------------------------------

URLS: list[tuple[str, str]] = [
    ("/", "path:/"),
    ("/news", "path:/news"),
    ("/news/", "path:/news/"),
    ("/news?", "path:/news"),
    ("/news?page=2", "path:/news?page=2"),
    ("/news?page=2&page=3", "path:/news?page=2&page=3"),
    ("/news?q=a?b/c", "path:/news?q=a?b/c"),
    ("/news#comments", "path:/news"),
    ("/news?page=2#comments", "path:/news?page=2"),
    ("/news;v=1", "path:/news;v=1"),
    ("/10:30", "path:/10:30"),
    ("/http://other.example/", "path:/http://other.example/"),
    ("/a//b", "path:/a//b"),
    ("/café", "path:/caf\xc3\xa9"),
    ("/caf%C3%A9", "path:/caf\xc3\xa9"),
    ("/caf%c3%a9", "path:/caf\xc3\xa9"),
    ("/caf%E9", "path:/caf\xe9"),
    ("/100%25", "path:/100%"),
    ("/a%2Fb%20c", "path:/a/b c"),
    ("/a b", "path:/a b"),
    ("/?q=café", "path:/?q=caf%C3%A9"),
    ("/?q=caf%C3%A9", "path:/?q=caf%C3%A9"),
    ("/?q=%41", "path:/?q=%41"),
    ("http://shop.example", "url:http://shop.example/"),
    ("http://shop.example/", "url:http://shop.example/"),
    ("http://shop.example?page=2", "url:http://shop.example/?page=2"),
    ("http://shop.example/news?page=2#x", "url:http://shop.example/news?page=2"),
    ("http://shop.example:80/news", "url:http://shop.example/news"),
    ("http://shop.example:443/news", "url:http://shop.example:443/news"),
    ("http://shop.example:/news", "url:http://shop.example/news"),
    ("https://shop.example:443/news", "url:https://shop.example/news"),
    ("https://shop.example:80/news", "url:https://shop.example:80/news"),
    ("https://shop.example:8443/news", "url:https://shop.example:8443/news"),
    ("HTTPS://Shop.EXAMPLE/News", "url:https://shop.example/News"),
    ("https://editor:secret@shop.example/news", "url:https://shop.example/news"),
    ("http://[2001:DB8::1]:80/", "url:http://[2001:db8::1]/"),
    ("http://127.0.0.1:8000/news", "url:http://127.0.0.1:8000/news"),
    ("https://münchen.example/straße", "url:https://xn--mnchen-3ya.example/stra\xc3\x9fe"),
    ("https://MÜNCHEN.example/", "url:https://xn--mnchen-3ya.example/"),
    ("https://münchen.example:8443/", "url:https://xn--mnchen-3ya.example:8443/"),
    ("https://xn--mnchen-3ya.example/", "url:https://xn--mnchen-3ya.example/"),
    ("https://пример.рф/", "url:https://xn--e1afmkfd.xn--p1ai/"),
    ("https://пример.рф:8443/", "url:https://xn--e1afmkfd.xn--p1ai:8443/"),
    ("https://пример.рф:443/", "url:https://xn--e1afmkfd.xn--p1ai/"),
]


@pytest.mark.parametrize(("url", "name"), URLS)
def test_a_path_stands_for_all_hosts_and_a_full_url_for_its_own(url: str, name: str) -> None:
    assert url_name(url, NOTHING) == name


@pytest.mark.parametrize("url", [url for url, name in URLS if name.startswith("url:") and "рф:" not in url and "@" not in url])
def test_a_full_url_names_the_page_that_a_browser_gets_for_it(url: str) -> None:
    if urlsplit(url).path:
        assert url_name(url, NOTHING) in page_names("news", asked_for(url), NOTHING)


# Segments of a path, not yet encoded. None are dot segments, which browsers remove, or empty, so no path begins with two slashes.
SEGMENTS = st.text(st.characters(exclude_characters="/?#\\\t\n\r", exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip(".") != ""
)


@given(
    path=st.lists(SEGMENTS, max_size=4).map(lambda segments: "/" + "/".join(segments)),
    query=st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")), max_size=3),
    root=st.sampled_from(["", "/shop", "/ä"]),
    base=st.sampled_from(["http://shop.example", "https://shop.example", "http://shop.example:8000", "https://shop.example:443"]),
)
@example(path="/100%", query={}, root="", base="http://shop.example")
@example(path="/", query={"": ""}, root="", base="http://shop.example")
def test_what_flask_makes_of_a_url_is_purged_by_it(path: str, query: dict[str, str], root: str, base: str) -> None:
    environ = create_environ(quote(path), base + quote(root) + "/", query_string=query)
    names = page_names("news", environ, NOTHING)
    raw_query = environ["QUERY_STRING"]
    url = quote(root + path) + (f"?{raw_query}" if raw_query else "")
    assert url_name(url, NOTHING) == names[2]
    assert url_name(base + url, NOTHING) == names[3]


@given(st.text())
@example("http://[")
@example("http://shop.example:port/")
@example("/\udcff")
@example("//")
def test_any_text_is_a_name_or_a_clear_error(text: str) -> None:
    for url in (text, f"/{text}", f"http://{text}/"):
        said = name_or_error(url)
        assert said.startswith(("path:/", "url:http://", "url:https://", "url="))


def name_or_error(url: str) -> str:
    try:
        return url_name(url, UTM)
    except ConfigError as error:
        return str(error)


NO_URLS: list[object] = [
    "",
    "news",
    "?page=2",
    "#top",
    " /news",
    "./news",
    "shop.example/news",
    "//shop.example/news",
    "///news",
    "\\news",
    "https:/news",
    "https:news",
    "http://",
    "http:///news",
    "http://:80/news",
    "http://editor@/news",
    "ftp://shop.example/news",
    "file:///news",
    "javascript:alert(1)",
    "http://shop.example:port/",
    "http://shop.example:99999/",
    "http://shop.example:-1/",
    "http://[2001:db8::1/",
    "http://" + "ü" * 70 + ".example/",
    "http://ü..example/",
    "/\ud800",
    b"/news",
    5,
    True,
    ["/news"],
]


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_neither_a_path_nor_a_full_url_is_refused(url: object) -> None:
    with pytest.raises(ConfigError, match="url="):
        url_name(url, NOTHING)
    with pytest.raises(ConfigError):
        selected(url=url)


def test_a_page_behind_a_proxy_is_named_as_the_app_sees_it() -> None:
    """``ProxyFix`` puts the scheme, host and prefix that visitors use into the environ."""
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return []

    behind = environ_of(
        HTTP_HOST="10.0.0.5:8000",
        REMOTE_ADDR="10.0.0.1",
        HTTP_X_FORWARDED_PROTO="https",
        HTTP_X_FORWARDED_HOST="Shop.example",
        HTTP_X_FORWARDED_PORT="443",
        HTTP_X_FORWARDED_PREFIX="/shop",
    )
    list(ProxyFix(app, x_proto=1, x_host=1, x_port=1, x_prefix=1)(dict(behind), lambda *args: None))  # type: ignore[arg-type]
    names = page_names("news", seen[0], NOTHING)
    assert names[2:] == (url_name("/shop/news", NOTHING), url_name("https://shop.example/shop/news", NOTHING))
    assert page_names("news", behind, NOTHING)[2:] == ("path:/news", "url:http://10.0.0.5:8000/news")


# -- what is selected ------------------------------------------------------------------------------------------------


def selected(**given: Any) -> Selector:
    """Return the selector of a purge in an app with two endpoints."""
    return Selection(**given).resolve("a purge", Scope(UTM, ("news.show", "news.list")))


@pytest.mark.parametrize(
    ("selectors", "name"),
    [
        ({"url": "/news?utm_source=x&page=2"}, "path:/news?page=2"),
        ({"url": "https://shop.example/news"}, "url:https://shop.example/news"),
        ({"tag": "news"}, "tag:news"),
        ({"tag": "tag:all"}, "tag:tag:all"),
        ({"tag": "  "}, "tag:  "),
        ({"tag": "ü" * 5000}, "tag:" + "ü" * 5000),
        ({"endpoint": "news.show"}, "endpoint:news.show"),
        ({"all": True}, "all"),
    ],
)
def test_one_selector_is_one_name(selectors: dict[str, Any], name: str) -> None:
    selector = selected(**selectors)
    assert (selector.name, selector.prefix) == (name, "")
    assert selector.matches(make_entry(names=("all", "tag:other", name)))
    assert not selector.matches(make_entry(names=("tag:other", f"{name}/more")))


@pytest.mark.parametrize(
    ("selectors", "said"),
    [
        ({}, "nothing was given"),
        ({"url": "/news", "tag": "news"}, "url and tag was given"),
        ({"url": "/news", "endpoint": "news"}, "url and endpoint was given"),
        ({"tag": "news", "endpoint": "news"}, "tag and endpoint was given"),
        ({"tag": "news", "all": True}, "tag and all was given"),
        ({"url": "/news", "all": 1}, "url and all was given"),
        ({"url": "/", "tag": "a", "endpoint": "b", "all": True}, "url and tag and endpoint and all was given"),
        ({"url": "", "tag": ""}, "url and tag was given"),
        ({"prefix": "/news", "tag": "news"}, "tag and prefix was given"),
        ({"prefix": ""}, "prefix='': give a path"),
        ({"prefix": "news/"}, "prefix='news/': give a path"),
        ({"prefix": "//shop.example/"}, "prefix='//shop.example/': give a path"),
        ({"prefix": "ftp://shop.example/"}, "prefix='ftp://shop.example/': give a path"),
        ({"prefix": ["/news"]}, r"prefix=\['/news'\] is not a string"),
        ({"endpoint": "news.shwo"}, "endpoint='news.shwo' is not an endpoint of the app; the nearest is 'news.show'"),
        ({"endpoint": "x"}, "endpoint='x' is not an endpoint of the app$"),
        ({"all": 1}, "all=1: give True"),
        ({"all": 0}, "all=0: give True"),
        ({"all": None}, "all=None: give True"),
        ({"all": "yes"}, "all='yes': give True"),
        ({"url": ""}, "url='': give a path"),
        ({"tag": ""}, "tag='': give one non-empty string"),
        ({"endpoint": ""}, "endpoint='': give one non-empty string"),
        ({"tag": 5}, "tag=5: give one non-empty string"),
        ({"tag": b"news"}, "tag=b'news': give one"),
        ({"tag": ["news"]}, r"tag=\['news'\]: give one"),
        ({"tag": ("news", "home")}, r"tag=\('news', 'home'\): give one"),
        ({"tag": False}, "tag=False: give one"),
        ({"endpoint": print}, "endpoint=<built-in function print>: give one"),
    ],
)
def test_anything_but_one_good_selector_is_refused(selectors: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        selected(**selectors)


def test_where_there_are_no_endpoints_none_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"^a refresh is by one of url, tag=, prefix= and all=True, and nothing was given$"):
        Selection().resolve("a refresh", Scope(NOTHING, None))


@pytest.mark.parametrize(
    ("prefix", "name", "matching", "others"),
    [
        ("/", "path:/", ["/", "/news", "/news?page=2"], []),
        ("/news/", "path:/news/", ["/news/", "/news/1", "/news/1?page=2"], ["/news", "/newsletter", "/a/news/"]),
        ("/news", "path:/news", ["/news", "/news/1", "/news?page=2", "/newsletter"], ["/new", "/"]),
        ("/news?", "path:/news?", ["/news?page=2"], ["/news", "/newsletter"]),
        ("/news?page=", "path:/news?page=", ["/news?page=2"], ["/news?pages=2", "/news"]),
        # No page has an ignored parameter in its name. If the prefix were shortened to match, it would select all news.
        ("/news?utm_source=a", "path:/news?utm_source=a", [], ["/news", "/news?page=2", "/newsletter"]),
        ("/news/#top?a", "path:/news/", ["/news/1"], ["/news"]),
        ("/caf%C3%A9/", "path:/caf\xc3\xa9/", ["/caf%C3%A9/1", "/café/1"], ["/cafe/1"]),
        ("/café/", "path:/caf\xc3\xa9/", ["/caf%C3%A9/1"], []),
        ("http://Shop.example:80/news/", "url:http://shop.example/news/", ["/news/1"], ["/news"]),
        ("http://shop.example", "url:http://shop.example/", ["/news", "/"], []),
        ("http://shop.exam", "url:http://shop.exam/", [], ["/news", "/"]),
        ("https://shop.example/", "url:https://shop.example/", [], ["/news", "/"]),
        ("http://müller.example/", "url:http://xn--mller-kva.example/", [], ["/news"]),
    ],
)
def test_a_prefix_is_of_all_whose_path_or_url_begins_so(prefix: str, name: str, matching: list[str], others: list[str]) -> None:
    selector = selected(prefix=prefix)
    assert (selector.name, selector.prefix) == (None, name)
    for path in (*matching, *others):
        page = make_entry(names=page_names("news", asked_for(f"http://shop.example{path}"), UTM))
        assert selector.matches(page) is (path in matching), path


def test_no_prefix_is_of_what_has_no_url() -> None:
    assert not selected(prefix="/").matches(make_entry(names=("all", "function:shop.rates", "call:00", "tag:/")))


@given(st.text(alphabet="ab/%é?=&"), st.text(alphabet="ab/é?=&"))
@example("", "%C3%A9")
def test_a_url_has_each_prefix_of_it_that_cuts_no_escape(start: str, rest: str) -> None:
    url = f"/{start}{rest}"
    if start[-2:].count("%") or url.startswith("//") or "?" in start:
        return
    assert url_name(url, NOTHING).startswith(prefix_name(f"/{start}"))


# -- what entries are called -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "recipe", "title"),
    [
        (("all", "path:/news", "url:http://shop.example/news"), {}, "http://shop.example/news"),
        (("url:http://shop.example/caf\xc3\xa9?q=%C3%A9",), {}, "http://shop.example/caf%C3%A9?q=%C3%A9"),
        (("url:http://shop.example/a?b?q=1",), {"query": "q=1"}, "http://shop.example/a%3Fb?q=1"),
        (("url:http://shop.example/a?b",), {"query": ""}, "http://shop.example/a?b"),
        (
            ("all",),
            {"function": "shop.rates", "arguments": {"args": ["EUR", 2], "kwargs": {"x": None}}},
            "shop.rates('EUR', 2, x=None)",
        ),
        (("all",), {"function": "shop.rates", "arguments": None}, "shop.rates(...)"),
        (("all",), {}, "a key"),
    ],
)
def test_an_entry_is_called_by_its_url_or_by_its_call(names: tuple[str, ...], recipe: dict[str, Any], title: str) -> None:
    assert title_of(replace(make_entry("a key", names=names), recipe=recipe)) == title


# -- two URLs of a page ----------------------------------------------------------------------------------------------

PUBLIC = environ_of(**{"wsgi.url_scheme": "https"}, SCRIPT_NAME="/shop")
BOTH = ("path:/shop/news", "url:https://shop.example/shop/news", "path:/news", "url:http://shop.example/news")


def test_a_page_has_the_url_that_was_seen_and_the_one_that_arrived() -> None:
    assert page_names(None, PUBLIC, NOTHING, environ_of()) == (EVERYTHING, *BOTH)
    assert page_names(None, PUBLIC, NOTHING, PUBLIC) == page_names(None, PUBLIC, NOTHING) == (EVERYTHING, *BOTH[:2])


def test_the_target_of_a_request_has_its_script_root() -> None:
    names = [
        target_name(environ_of(SCRIPT_NAME=root, PATH_INFO=path), NOTHING)
        for root, path in [("", "/a/b"), ("/a", "/b"), ("/a/", "b")]
    ]
    assert names == ["url:http://shop.example/a/b", *["below:/a url:http://shop.example/a/b"] * 2]
    assert url_below(names[1:], "path:/") is None


@pytest.mark.parametrize(
    ("prefix", "url"),
    [
        ("path:/", BOTH[1]),
        ("path:/shop/", BOTH[1]),
        ("path:/news", BOTH[3]),
        ("url:https://", BOTH[1]),
        ("url:http://shop.example/news", BOTH[3]),
        ("url:http://shop.example/news/", None),
        ("path:/other", None),
        ("tag:news", None),
    ],
)
def test_a_prefix_selects_one_of_its_urls(prefix: str, url: str | None) -> None:
    assert url_below((EVERYTHING, *BOTH, "tag:news"), prefix) == url


@pytest.mark.parametrize(
    ("name", "in_code"),
    [
        ("all", True),
        ("endpoint:page", True),
        ("tag:x", True),
        ("function:m.f", True),
        ("path:/a", False),
        ("url:http://a/b", False),
    ],
)
def test_a_short_name_stands_for_another_one(name: str, in_code: bool) -> None:
    short = short_name(name)
    assert len(short) == 41
    assert address_of(short) == address_of(name) == digest(name)
    assert is_coded(short) is is_coded(name) is in_code
    assert short_name(short) == short
    assert (is_short(short), is_short(name)) == (True, False)
