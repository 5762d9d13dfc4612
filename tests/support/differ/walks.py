"""Walks of visitors through a site with a cache, each answer compared with the same site without one."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import time_machine
from hypothesis import strategies as st
from werkzeug.test import run_wsgi_app

from support.differ.site import FRONTS, LOCALHOST, LOGINS, MEMBERS, MIDDLEWARE, PATHS, WSGI, Built, Scenario, Wsgi, build

#: A body without Content-Length, as a server passes it on that received it by HTTP/2.
UNANNOUNCED = "a body without length"
#: What a visit may carry in addition: fields that proxies, attackers and browsers send, and what servers say of a connection.
EXTRAS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "another cookie": {"HTTP_COOKIE": "theme=dark"},
    "a browser": {"HTTP_USER_AGENT": "Mozilla/5.0", "HTTP_ACCEPT": "text/html", "HTTP_ACCEPT_ENCODING": "gzip"},
    "German": {"HTTP_ACCEPT_LANGUAGE": "de"},
    "a script name": {"HTTP_X_SCRIPT_NAME": "//evil.example"},
    "a script name that is a prefix": {"HTTP_X_SCRIPT_NAME": "/plain"},
    "https by X-Scheme": {"HTTP_X_SCHEME": "https"},
    "https by X-Forwarded-Proto": {"HTTP_X_FORWARDED_PROTO": "https"},
    "a forwarded host": {"HTTP_X_FORWARDED_HOST": "evil.example"},
    "a forwarded prefix": {"HTTP_X_FORWARDED_PREFIX": "/evil"},
    "a forwarded address": {"HTTP_X_FORWARDED_FOR": "203.0.113.9"},
    "a forwarded localhost": {"HTTP_X_FORWARDED_FOR": LOCALHOST},
    "a POST by override": {"HTTP_X_HTTP_METHOD_OVERRIDE": "POST"},
    "OPTIONS by override": {"HTTP_X_HTTP_METHOD_OVERRIDE": "OPTIONS"},
    "a HEAD by override": {"HTTP_X_HTTP_METHOD_OVERRIDE": "HEAD"},
    "an alias": {"HTTP_X_ALIAS": "eve"},
    "a request id": {"HTTP_X_REQUEST_ID": "<script>"},
    "a body": {"wsgi.input": b"fat", "CONTENT_LENGTH": "3"},
    UNANNOUNCED: {"wsgi.input": b"fat", "wsgi.input_terminated": True},
    "another host": {"HTTP_HOST": "evil.example"},
    "a connection by TLS": {"wsgi.url_scheme": "https"},
    "another address": {"REMOTE_ADDR": "198.51.100.8"},
}
QUERIES = ("", "q=1", "utm_source=EVIL", "q=1&utm_source=EVIL")
#: The name in the environ whose values are joined: a member with another cookie sends both.
_JOINED = "HTTP_COOKIE"

#: Fields that a cache may add, or that only say how the same content came.
_OURS = frozenset(
    {"age", "date", "cache-status", "x-cache-status", "vary", "etag", "last-modified", "accept-ranges", "content-length"}
    | {"cache-control"}
)
#: ``X-Cache-Status`` of answers from the store, without a call of the app.
FROM_STORE = ("HIT", "STALE", "UPDATING")


class Visit(NamedTuple):
    """One request.

    :ivar who: a member, or ``None`` for a stranger.
    :ivar extra: a name in :data:`EXTRAS`.
    :ivar pause: seconds since the visit before.
    """

    who: str | None
    path: str
    extra: str = "nothing"
    query: str = ""
    method: str = "GET"
    pause: int = 0

    def others(self, word: str) -> Iterator[Visit]:
        """Yield visits whose answers are allowed for this one too.

        :param word: ``X-Cache-Status`` of its answer.
        """
        if word in FROM_STORE and "utm_" in self.query:
            # The site's configuration says that pages do not depend on it.
            yield self._replace(query="q=1" if "q=1" in self.query else "")
        if self.extra == UNANNOUNCED:
            # Nothing in the request says that there is a body, so the app is not given it.
            for other in (self, *self._replace(extra="nothing").others(word)):
                yield other._replace(extra="nothing")

    @property
    def is_plain(self) -> bool:
        """Nothing sets it apart from other strangers'."""
        return self.who is None and self.extra in ("nothing", "a browser") and self.method == "GET" and not self.query

    def environ(self, scenario: Scenario) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method, "SCRIPT_NAME": "", "PATH_INFO": scenario.root + self.path,
            "QUERY_STRING": self.query, "SERVER_NAME": "shop.example", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "shop.example", "REMOTE_ADDR": "192.0.2.7", "wsgi.version": (1, 0), "wsgi.url_scheme": "http",
            "wsgi.input": b"", "wsgi.errors": io.StringIO(), "wsgi.multithread": True, "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }  # fmt: skip
        for more in (EXTRAS[self.extra], {} if self.who is None else scenario.way.fields(self.who)):
            for name, value in more.items():
                environ[name] = f"{environ[name]}; {value}" if name == _JOINED and name in environ else value
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"])
        return environ


class Answer(NamedTuple):
    """What matters in an answer."""

    status: int
    body: bytes
    fields: tuple[tuple[str, str], ...]
    vary: frozenset[str]
    word: str

    @property
    def content(self) -> tuple[object, ...]:
        return self.status, self.body, self.fields


def ask(wsgi: Wsgi, environ: dict[str, Any]) -> Answer:
    """Send one request, read the answer, and close it, as a server does."""
    iterable, status, headers = run_wsgi_app(wsgi, environ)  # type: ignore[arg-type]
    try:
        body = b"".join(iterable)
    finally:
        getattr(iterable, "close", lambda: None)()
    fields = sorted((name.lower(), value) for name, value in headers if name.lower() not in _OURS)
    vary = frozenset(name.strip().lower() for line in headers.getlist("Vary") for name in line.split(","))
    return Answer(int(status[:3]), body, tuple(fields), vary - {""}, headers.get("X-Cache-Status", ""))


@lru_cache(maxsize=512)
def without_cache(scenario: Scenario, paths: frozenset[str]) -> Built:
    """Return the site without a cache, which remembers nothing."""
    return build(scenario, paths)


@dataclass
class Played:
    """Counts of what was played, to check that walks get hits at all."""

    words: Counter[tuple[str, str]] = field(default_factory=Counter)
    strangers: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)

    def note(self, scenario: Scenario, visit: Visit, word: str) -> None:
        front = scenario.front
        self.words[front, word] += 1
        if visit.is_plain:
            self.strangers[front] += 1
            self.hits[front] += word in FROM_STORE


def walk(scenario: Scenario, visits: list[Visit], directory: Path, clock: time_machine.Traveller, played: Played) -> None:
    """Let visitors come one after the other, and compare what each of them is answered."""
    paths = frozenset(visit.path for visit in visits)
    with_cache, plain = build(scenario, paths, directory), without_cache(scenario, paths)
    for number, visit in enumerate(visits):
        clock.shift(visit.pause)
        expected = ask(plain.wsgi, visit.environ(scenario))
        seen = ask(with_cache.wsgi, visit.environ(scenario))
        played.note(scenario, visit, seen.word)
        for other in visit.others(seen.word):
            if seen.content == expected.content:
                break
            expected = ask(plain.wsgi, other.environ(scenario))
        assert seen.content == expected.content, f"visit {number}, {seen.word}"
        assert "*" in seen.vary or seen.vary >= expected.vary, f"visit {number}, {seen.word}"


def scenarios() -> st.SearchStrategy[Scenario]:
    """Return all sites that can be built."""
    layers = st.one_of(st.just(()), st.lists(st.sampled_from(list(MIDDLEWARE)), max_size=2, unique=True).map(tuple))
    sites = st.builds(Scenario, st.sampled_from(FRONTS), st.sampled_from(list(LOGINS)), inner=layers, outer=layers)
    return sites.filter(is_possible)


def is_possible(scenario: Scenario) -> bool:
    """Whether the site can be built. It is mounted once at most, and no app can tell a gateway that pages depend on an address."""
    is_mounted_once = (scenario.inner + scenario.outer).count("mount") <= 1
    return is_mounted_once and not (scenario.front == WSGI and scenario.login.startswith("address"))


def visits(places: Sequence[str] = PATHS) -> st.SearchStrategy[list[Visit]]:
    """Return walks through one page, or two.

    :param places: where the pages are. Default: all that there are.
    """

    def through(paths: list[str]) -> st.SearchStrategy[list[Visit]]:
        one = st.builds(
            Visit,
            who=st.sampled_from((None, None, *MEMBERS)),
            path=st.sampled_from(paths),
            extra=st.one_of(st.just("nothing"), st.sampled_from(list(EXTRAS))),
            query=st.sampled_from(("",) * 8 + QUERIES),
            method=st.sampled_from(("GET",) * 12 + ("HEAD", "POST", "OPTIONS")),
            pause=st.sampled_from((0, 0, 0, 61)),
        )
        return st.lists(one, min_size=4, max_size=8)

    return st.lists(st.sampled_from(places), min_size=1, max_size=2, unique=True).flatmap(through)
