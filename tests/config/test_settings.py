"""Every ``STALECACHE_*`` key: what it accepts, and how it refuses the rest.

Covers ``config.values``, ``extension``, ``app_state`` and ``errors``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from flask import Flask

from flask_stalecache import ConfigError, FileStore, StaleCache
from flask_stalecache.config.settings import DEFAULT_IGNORED_READERS, KEYS, PREFIX, Settings, read
from flask_stalecache.core.addressing.base_url import Base
from flask_stalecache.core.addressing.server_url import ServerUrl
from flask_stalecache.core.model.policy import Policy, Windows
from flask_stalecache.core.model.query import NamePatterns
from flask_stalecache.stats.counters import Counters

STORE = FileStore(Path("nowhere"), memory_size=0, counters=Counters())
NAN = float("nan")


class Refresher:
    """Queues nothing."""

    def submit(self, job: object) -> bool:
        return False

    def __repr__(self) -> str:
        # Ids of tests contain it. The default text has an address, which differs in each process.
        return "Refresher()"


REFRESHER = Refresher()


class HalfAStore:
    """Has the methods that a hit and a miss need, and none of the others."""

    def __repr__(self) -> str:
        return "HalfAStore()"

    def lookup(self, key: str) -> None: ...

    load = write = lock = lookup


def value_of(settings: Settings, key: str) -> Any:
    value = getattr(settings, key.lower())
    return value.items if isinstance(value, NamePatterns) else value


DEFAULTS: dict[str, object] = {
    "DIR": None,
    "ALLOW_NETWORK_DIR": False,
    "STORE": "file",
    "SHARED_NAME": None,
    "SHARED_TIMEOUT": 1.0,
    "SHARED_LEASE": 15.0,
    "SHARED_ENTRY_SIZE": 1024 * 1024,
    "SHARED_PURGE_WAIT": 0.25,
    "SHARED_MAX_DEAF": None,
    "ENABLED": True,
    "MAX_AGE": 60.0,
    "STALE_WHILE_REVALIDATE": 600.0,
    "STALE_IF_ERROR": 86400.0,
    "INACTIVE": 86400.0,
    "MAX_SIZE": 100 * 1024 * 1024,
    "MIN_FREE": 0,
    "MAX_ENTRY_SIZE": 8 * 1024 * 1024,
    "MEMORY_SIZE": 32 * 1024 * 1024,
    "MIN_USES_WITHIN": 600.0,
    "LOCK_TIMEOUT": 60.0,
    "REFRESH_WORKERS": 4,
    "REFRESH_QUEUE": 1000,
    "REFRESH_BACKOFF": (2.0, 300.0),
    "REFRESH_DEADLINE": 120.0,
    "REFRESHER": None,
    "SWITCH_INTERVAL": 0.0002,
    "REFRESH_REMOTE_ADDR": "192.0.2.1",
    "FAILURE_STATUSES": {429, 500, 502, 503, 504},
    "REFRESH_HEADERS": {},
    "VERSION": None,
    "DEBUG_ERRORS": True,
    "PREFER_STALE": False,
    "PREFER_STALE_HEADER": None,
    "PREFER_STALE_COOKIE": None,
    "PREFER_STALE_REFRESH": True,
    "BASE_URL": None,
    "GATEWAY": False,
    "HONOR_REQUEST_CACHE_CONTROL": False,
    "CREDENTIALS_NEED_PUBLIC": True,
    "SHUTDOWN_WAIT": 1.0,
    "IGNORED_PARAMETERS": (),
    "IGNORED_HEADERS": {
        "x-request-id", "traceparent", "tracestate", "range", "if-range", "if-match", "if-none-match", "if-modified-since",
        "if-unmodified-since",
    },
    "IGNORED_READERS": {
        package: {name.lower() for name in names} for package, names in DEFAULT_IGNORED_READERS.items()
    },
    "TAG_FIELDS": {"surrogate-key", "cache-tag", "xkey"},
    "SEND_TAG_FIELDS": True,
    "SESSION_OPENER": None,
    "HOLES": {"flask_login", "flask_principal", "flask_seasurf", "flask_talisman", "flask_wtf"},
    "HOOKS_SET_G": frozenset(),
    "STATUS_HEADERS": {"Cache-Status", "X-Cache-Status"},
}  # fmt: skip

RULE = Policy(max_age=60)
DURATIONS: list[tuple[object, object]] = [(30, 30.0), (0.5, 0.5), (timedelta(minutes=1), 60.0)]
COUNTS: list[tuple[object, object]] = [(0, 0), (7, 7)]
ACCEPTED: dict[str, list[tuple[object, object]]] = {
    "DIR": [(None, None), ("/a/b", Path("/a/b")), ("b", Path("b")), (PurePosixPath("/a"), Path("/a"))],
    "STORE": [("file", "file"), (STORE, STORE), ("redis://a:6/0", ServerUrl("redis://a:6/0", "redis://a:6/0"))],
    "SHARED_NAME": [(None, None), ("shop", "shop")],
    "SHARED_TIMEOUT": DURATIONS,
    "SHARED_LEASE": DURATIONS,
    "SHARED_ENTRY_SIZE": [(1, 1)],
    "SHARED_PURGE_WAIT": [*DURATIONS, (0, 0.0)],
    "SHARED_MAX_DEAF": [(None, None), (5, 5.0), (timedelta(minutes=1), 60.0)],
    "ENABLED": [(True, True), (False, False)],
    "ALLOW_NETWORK_DIR": [(True, True), (False, False)],
    "MAX_AGE": [*DURATIONS, (0, 0.0)],
    "STALE_WHILE_REVALIDATE": [*DURATIONS, (0, 0.0)],
    "STALE_IF_ERROR": [*DURATIONS, (0, 0.0)],
    "INACTIVE": DURATIONS,
    "MAX_SIZE": [(None, None), (1, 1), (1024**4, 1024**4)],
    "MIN_FREE": COUNTS,
    "MAX_ENTRY_SIZE": COUNTS,
    "MEMORY_SIZE": COUNTS,
    "MIN_USES_WITHIN": DURATIONS,
    "LOCK_TIMEOUT": [*DURATIONS, (0, 0.0)],
    "REFRESH_WORKERS": COUNTS,
    "REFRESH_QUEUE": COUNTS,
    "REFRESH_BACKOFF": [((1, 60), (1.0, 60.0)), ([5, 5], (5.0, 5.0)), ((timedelta(seconds=1), 2.5), (1.0, 2.5))],
    "REFRESH_DEADLINE": DURATIONS,
    "REFRESHER": [(None, None), (REFRESHER, REFRESHER)],
    "SWITCH_INTERVAL": [(None, None), (0.000001, 0.000001), (0.005, 0.005), (1, 1.0), (timedelta(milliseconds=1), 0.001)],
    "REFRESH_REMOTE_ADDR": [("198.51.100.7", "198.51.100.7"), ("2001:DB8::1", "2001:db8::1")],
    "FAILURE_STATUSES": [((), frozenset()), ([404, 503], {404, 503})],
    "REFRESH_HEADERS": [({}, {}), ({"X-Secret": "a b"}, {"x-secret": "a b"})],
    "VERSION": [(None, None), ("", ""), ("2026-11-22", "2026-11-22"), (7, "7"), (1.5, "1.5")],
    "DEBUG_ERRORS": [(True, True), (False, False)],
    "PREFER_STALE": [(True, True), (False, False)],
    "PREFER_STALE_HEADER": [(None, None), ("X-Prefer-Stale", "X-Prefer-Stale")],
    "PREFER_STALE_COOKIE": [(None, None), ("prefer_stale", "prefer_stale")],
    "PREFER_STALE_REFRESH": [(True, True), (False, False)],
    "BASE_URL": [
        (None, None),
        ("https://Shop.example:443/", Base("https", "shop.example", "")),
        ("http://127.0.0.1:8000/app/", Base("http", "127.0.0.1:8000", "/app")),
        ("http://[::1]:8000", Base("http", "[::1]:8000", "")),
        ("https://müller.example/caf%C3%A9", Base("https", "xn--mller-kva.example", "/caf\xc3\xa9")),
    ],
    "GATEWAY": [(True, True), (False, False), ({"/": RULE}, {"/": RULE}), ([("/", RULE)], [("/", RULE)])],
    "HONOR_REQUEST_CACHE_CONTROL": [(True, True), (False, False)],
    "CREDENTIALS_NEED_PUBLIC": [(True, True), (False, False)],
    "SHUTDOWN_WAIT": [*DURATIONS, (0, 0.0)],
    "IGNORED_PARAMETERS": [((), ()), (["utm_*", "ref"], ("utm_*", "ref"))],
    "IGNORED_HEADERS": [((), frozenset()), (["X-Trace"], {"x-trace"})],
    "IGNORED_READERS": [({}, {}), ({"a": ["X-B", "REMOTE_ADDR"], "b.c": ()}, {"a": {"x-b", "remote_addr"}, "b.c": set()})],
    "TAG_FIELDS": [((), frozenset()), (["X-Cache-Tags"], {"x-cache-tags"})],
    "SEND_TAG_FIELDS": [(True, True), (False, False)],
    "SESSION_OPENER": [(None, None), (print, print)],
    "HOLES": [((), frozenset()), (["flask_wtf"], {"flask_wtf"})],
    "HOOKS_SET_G": [((), frozenset()), (["shop.auth.load", "a.b.<locals>.c"], {"shop.auth.load", "a.b.<locals>.c"})],
    "STATUS_HEADERS": [((), frozenset()), (["cache-status"], {"Cache-Status"}), (["X-CACHE-STATUS"], {"X-Cache-Status"})],
}

NO_DURATION = [-1, NAN, float("inf"), True, "60", None]
NO_COUNT = [-1, 1.0, NAN, True, "7", None]
NO_NAMES = ["utm", b"utm", 5, None]
REFUSED: dict[str, list[tuple[object, str]]] = {
    "DIR": [(value, "the path of a directory") for value in ("", 5, True, b"/a", ["/a"])],
    "STORE": [(value, "'file'") for value in ("redis", None, 5, print, HalfAStore())],
    "SHARED_NAME": [(value, "letters, digits") for value in ("", "a{b}", "a b", "a*", 3)],
    "SHARED_TIMEOUT": [*((value, "seconds, 0 or more") for value in NO_DURATION), (0, "more than 0 seconds")],
    "SHARED_LEASE": [*((value, "seconds, 0 or more") for value in NO_DURATION), (0, "more than 0 seconds")],
    "SHARED_ENTRY_SIZE": [*((value, "a whole number, 0 or more") for value in NO_COUNT), (0, "more than 0 bytes")],
    "SHARED_PURGE_WAIT": [(value, "seconds, 0 or more") for value in NO_DURATION],
    "SHARED_MAX_DEAF": [*((value, "seconds, 0 or more") for value in NO_DURATION if value is not None), (1, "at least 5 seconds")],
    "ENABLED": [(value, "True or False") for value in (1, 0, None, "yes", "false")],
    "ALLOW_NETWORK_DIR": [(value, "True or False") for value in (1, 0, None, "yes", "nfs")],
    "MAX_AGE": [(value, "seconds, 0 or more") for value in NO_DURATION],
    "STALE_WHILE_REVALIDATE": [(value, "seconds, 0 or more") for value in NO_DURATION],
    "STALE_IF_ERROR": [(value, "seconds, 0 or more") for value in NO_DURATION],
    "INACTIVE": [*((value, "seconds, 0 or more") for value in NO_DURATION), (0, "more than 0 seconds")],
    "MAX_SIZE": [*((value, "a whole number, 0 or more") for value in NO_COUNT if value is not None), (0, "more than 0 bytes")],
    "MIN_FREE": [(value, "a whole number, 0 or more") for value in NO_COUNT],
    "MAX_ENTRY_SIZE": [(value, "a whole number, 0 or more") for value in NO_COUNT],
    "MEMORY_SIZE": [(value, "a whole number, 0 or more") for value in NO_COUNT],
    "MIN_USES_WITHIN": [*((value, "seconds, 0 or more") for value in NO_DURATION), (0, "more than 0 seconds")],
    "LOCK_TIMEOUT": [(value, "seconds, 0 or more") for value in NO_DURATION],
    "REFRESH_WORKERS": [(value, "a whole number, 0 or more") for value in NO_COUNT],
    "REFRESH_QUEUE": [(value, "a whole number, 0 or more") for value in NO_COUNT],
    "REFRESH_BACKOFF": [
        *[(value, "two durations") for value in (2, "25", (2,), (2, 3, 4), None)], ((300, 2), "shorter than the first"),
    ],
    "REFRESH_DEADLINE": [*[(value, "seconds, 0 or more") for value in NO_DURATION], (0, "more than 0 seconds")],
    "REFRESHER": [(value, "an object with a method submit(job)") for value in ("celery", 5, {}, b"")],
    "SWITCH_INTERVAL": [
        *[(value, "seconds, 0 or more") for value in NO_DURATION if value is not None],
        (0, "more than 0 seconds"), (1e-7, "0.0002"), (1.5, "None"),
    ],
    "REFRESH_REMOTE_ADDR": [(value, "an IP address") for value in ("", "localhost", "192.0.2", "1.2.3.4:80", 5, None, b"1.2.3.4")],
    "FAILURE_STATUSES": [(value, "a sequence of statuses") for value in (None, 404, "404", {404: 5})],
    "REFRESH_HEADERS": [(value, "a mapping from request fields") for value in (None, "X-A", ["X-A"], 5)],
    "VERSION": [(value, "a string or a number") for value in (True, b"1", ["1"], object)],
    "PREFER_STALE": [(value, "True or False") for value in (1, 0, None, "yes", print)],
    "PREFER_STALE_HEADER": [
        *((value, "the name of a request field") for value in ("", "X Prefer", "X-A:", "X-A\n", "X-Ü", b"X-Prefer", True, 1)),
        *((value, "a meaning of its own") for value in ("Host", "cookie", "Authorization", "Content-Type", "content-length")),
    ],
    "PREFER_STALE_COOKIE": [(value, "the name of a cookie") for value in ("", "prefer stale", "a=b", "a;", "a\n", "ü", b"a", True)],
    "DEBUG_ERRORS": [(value, "True or False") for value in (1, 0, None, "yes")],
    "PREFER_STALE_REFRESH": [(value, "True or False") for value in (1, 0, None, "yes")],
    "BASE_URL": [
        *((value, "give a full URL") for value in ("", "shop.example", "/app", "//shop.example", "ftp://a", "https://", 5)),
        *((f"https://{value}", "give a full URL") for value in ("a/?b=c", "a/?", "a/#b", "me@a/", "a /")),
        ("http://a:port/", "port"),
    ],
    "GATEWAY": [(value, "True, False, or rules") for value in (1, None, "yes", (), {})],
    "HONOR_REQUEST_CACHE_CONTROL": [(value, "True or False") for value in (1, 0, None, "yes")],
    "CREDENTIALS_NEED_PUBLIC": [(value, "True or False") for value in (1, 0, None, "yes")],
    "SHUTDOWN_WAIT": [(value, "seconds, 0 or more") for value in NO_DURATION],
    "IGNORED_PARAMETERS": [(value, "a sequence of names") for value in NO_NAMES],
    "IGNORED_HEADERS": [(value, "a sequence of names") for value in NO_NAMES],
    "IGNORED_READERS": [(value, "a mapping from each package") for value in (*NO_NAMES, ["flask_login"], "flask_login")],
    "TAG_FIELDS": [(value, "a sequence of names") for value in NO_NAMES],
    "SEND_TAG_FIELDS": [(value, "True or False") for value in (1, 0, None, "yes")],
    "SESSION_OPENER": [(value, "a function of an app and a request") for value in (1, True, "flask_session", ())],
    "HOLES": [(value, "a sequence of names") for value in NO_NAMES],
    "HOOKS_SET_G": [(value, "a sequence of names") for value in NO_NAMES],
    "STATUS_HEADERS": [(value, "a sequence of names") for value in NO_NAMES],
}  # fmt: skip

#: The value is a sequence or mapping, as it must be, with one wrong item: the error names that item.
REFUSED_WITHIN: list[tuple[str, object, object, str]] = [
    ("REFRESH_BACKOFF", (0, 5), 0, "more than 0 seconds"),
    ("REFRESH_BACKOFF", (-1, 5), -1, "seconds, 0 or more"),
    ("REFRESH_BACKOFF", (1, NAN), NAN, "seconds, 0 or more"),
    ("REFRESH_BACKOFF", ("1", 5), "1", "seconds, 0 or more"),
    ("IGNORED_PARAMETERS", ["a", ""], "", "non-empty strings"),
    ("IGNORED_HEADERS", ["a", 7], 7, "non-empty strings"),
    ("IGNORED_HEADERS", ["X-A", "Authorization"], "authorization", "always served live"),
    ("IGNORED_HEADERS", ["COOKIE"], "cookie", "cookies="),
    ("IGNORED_READERS", {"a": ["b"], None: ["c"]}, None, "non-empty strings"),
    ("IGNORED_READERS", {"a": ["b", ""]}, "", "non-empty strings"),
    ("IGNORED_READERS", {"a": ["Cookie"]}, "cookie", "cookies="),
    ("IGNORED_READERS", {"a": ["Authorization"]}, "authorization", "always served live"),
    ("FAILURE_STATUSES", [500, 200], 200, "from 400 to 599"),
    ("HOLES", ["flask_wtf", "wtforms"], "wtforms", "give some of flask_login"),
    ("HOOKS_SET_G", ["load"], "load", "module and the name of a function"),
    ("HOOKS_SET_G", ["shop.a b"], "shop.a b", "module and the name of a function"),
    ("FAILURE_STATUSES", ["404"], "404", "from 400 to 599"),
    ("FAILURE_STATUSES", [True], True, "from 400 to 599"),
    ("REFRESH_HEADERS", {"X A": "b"}, "X A", "names of request fields"),
    ("REFRESH_HEADERS", {"Cookie": "b"}, "Cookie", "give other fields"),
    ("REFRESH_HEADERS", {"If-None-Match": "b"}, "If-None-Match", "give other fields"),
    ("REFRESH_HEADERS", {"X-A": "b\n"}, "X-A", "on one line"),
    ("REFRESH_HEADERS", {"X-A": 5}, "X-A", "give a string"),
    ("TAG_FIELDS", ["xkey", "Cache-Control"], "Cache-Control", "response fields that list tags"),
    ("TAG_FIELDS", ["Surrogate Key"], "Surrogate Key", "response fields that list tags"),
    ("STATUS_HEADERS", ["Cache-Status", "X-Cache"], "X-Cache", "Cache-Status, X-Cache-Status"),
]


def rows(table: Mapping[str, list[tuple[Any, ...]]]) -> list[Any]:
    return [pytest.param(key, *row, id=f"{key}={row[0]!r}"[:60]) for key, values in table.items() for row in values]


@pytest.mark.parametrize("table", [DEFAULTS, ACCEPTED, REFUSED], ids=["defaults", "accepted", "refused"])
def test_the_tables_below_have_every_key(table: Mapping[str, object]) -> None:
    assert set(table) == set(KEYS)


def test_settings_have_a_field_for_every_key() -> None:
    assert {field.name for field in fields(Settings)} == {key.lower() for key in KEYS}


@pytest.mark.parametrize(("key", "value"), DEFAULTS.items())
def test_an_app_that_says_nothing_has_the_documented_default(key: str, value: object) -> None:
    assert value_of(read({}), key) == value


@pytest.mark.parametrize(("key", "given", "kept"), rows(ACCEPTED))
def test_an_accepted_value_is_kept_in_its_own_unit(key: str, given: object, kept: object) -> None:
    assert value_of(read({PREFIX + key: given}), key) == kept


@pytest.mark.parametrize(("key", "value", "accepted"), rows(REFUSED))
def test_a_wrong_value_is_refused_by_key_value_and_what_is_accepted(key: str, value: object, accepted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({PREFIX + key: value})
    assert f"{PREFIX}{key}={value!r}" in str(caught.value)
    assert accepted in str(caught.value)


@pytest.mark.parametrize(("key", "value", "culprit", "accepted"), REFUSED_WITHIN)
def test_a_wrong_item_is_refused_by_key_item_and_what_is_accepted(key: str, value: object, culprit: object, accepted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({PREFIX + key: value})
    assert PREFIX + key in str(caught.value)
    assert repr(culprit) in str(caught.value)
    assert accepted in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("STALECACHE_DIRECTORY", "STALECACHE_DIR"),
        ("STALECACHE_MAXAGE", "STALECACHE_MAX_AGE"),
        ("STALECACHE_MAX_AGES", "STALECACHE_MAX_AGE"),
        ("STALECACHE_STALE_WHILE_REVALIDATION", "STALECACHE_STALE_WHILE_REVALIDATE"),
        ("STALECACHE_REFRESH_WORKER", "STALECACHE_REFRESH_WORKERS"),
        ("STALECACHE_IGNORE_HEADERS", "STALECACHE_IGNORED_HEADERS"),
        ("STALECACHE_", "STALECACHE_"),
        ("STALECACHE_max_age", "STALECACHE_"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({name: 1})
    assert str(caught.value).startswith(f"{name} is not")
    assert f"nearest is {nearest}" in str(caught.value)


def test_the_keys_of_others_are_left_alone() -> None:
    settings = read({"CACHE_TYPE": "simple", "MAX_AGE": -1, "stalecache_max_age": -1, "XSTALECACHE_MAX_AGE": -1})
    assert settings.max_age == 60


def test_the_windows_of_views_that_say_none_are_the_configured_ones() -> None:
    settings = read({"STALECACHE_MAX_AGE": 1, "STALECACHE_STALE_WHILE_REVALIDATE": 2, "STALECACHE_STALE_IF_ERROR": 3})
    assert settings.windows == Windows(1.0, 2.0, 3.0)


@pytest.mark.parametrize(("name", "value"), [("STALECACHE_MAX_AGE", -1), ("STALECACHE_MAXAGE", 1), ("STALECACHE_DIR", "a\0b")])
def test_init_app_refuses_what_is_wrong(name: str, value: object) -> None:
    app = Flask("shop")
    app.config[name] = value
    with pytest.raises(ConfigError, match=name):
        StaleCache(app)
    assert "stalecache" not in app.extensions


@pytest.mark.parametrize("store", ["redis", object(), HalfAStore()], ids=["str", "object", "half"])
def test_a_store_that_is_none_is_refused_by_value(store: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        StaleCache(Flask("shop"), store=store)
    assert repr(store) in str(caught.value)


def test_a_second_init_app_is_refused_by_the_apps_name(directory: Path) -> None:
    app = Flask("shop")
    app.config["STALECACHE_DIR"] = directory
    cache = StaleCache(app)
    with pytest.raises(ConfigError, match="'shop'"):
        cache.init_app(app)


def test_setting_up_creates_nothing(directory: Path) -> None:
    app = Flask("shop", instance_path=str(directory / "instance"))
    StaleCache(app)
    assert not directory.exists()


# -- limits that contradict each other -------------------------------------------------------------------------------


def test_an_entry_can_not_be_larger_than_the_store() -> None:
    with pytest.raises(ConfigError, match="STALECACHE_MAX_ENTRY_SIZE=200 is over STALECACHE_MAX_SIZE=100"):
        read({"STALECACHE_MAX_ENTRY_SIZE": 200, "STALECACHE_MAX_SIZE": 100})
    with pytest.raises(ConfigError, match="STALECACHE_MAX_ENTRY_SIZE"):
        read({"STALECACHE_MAX_ENTRY_SIZE": 200 * 1024 * 1024})
    assert read({"STALECACHE_MAX_ENTRY_SIZE": 100, "STALECACHE_MAX_SIZE": 100}).max_entry_size == 100
    assert read({"STALECACHE_MAX_ENTRY_SIZE": 200 * 1024 * 1024, "STALECACHE_MAX_SIZE": None}).max_entry_size == 200 * 1024 * 1024


def test_a_small_store_has_small_entries_by_default() -> None:
    assert read({"STALECACHE_MAX_SIZE": 1000}).max_entry_size == 1000


@pytest.mark.parametrize("key", ["DIR", "MEMORY_SIZE", "INACTIVE", "MAX_SIZE", "MIN_FREE", "ALLOW_NETWORK_DIR"])
def test_what_a_store_of_ones_own_does_not_hear_is_refused(key: str) -> None:
    app = Flask("shop")
    app.config[f"STALECACHE_{key}"] = {"DIR": "/a", "ALLOW_NETWORK_DIR": True}.get(key, 5)
    with pytest.raises(ConfigError, match=f"STALECACHE_{key} has no effect with a store of your own"):
        StaleCache(app, store=STORE)


@pytest.mark.grid
@pytest.mark.parametrize(
    "name",
    ["Connection", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"],
)
@pytest.mark.parametrize("change", [str, str.lower, str.upper])
def test_no_field_between_two_hops_is_asked_whether_stale_is_preferred(name: str, change: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError, match=r"STALECACHE_PREFER_STALE_HEADER='.*' is a field with a meaning of its own"):
        read({"STALECACHE_PREFER_STALE_HEADER": change(name)})
