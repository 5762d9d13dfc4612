"""Walks of members and strangers through a site of real extensions, each answer compared with the same site without a cache.

A walk depends on its seed alone. It is played once without a cache, and the answers are compared with those of as many sites with a
cache as a test wants.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import time_machine
from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from flask_stalecache.stats.schema import Stats
from support.clock import NOON
from support.real_apps.browser import Answer, Browser, Wsgi

#: ``X-Cache-Status`` of answers from the store, without a call of the app.
FROM_STORE = ("HIT", "STALE", "UPDATING")
#: As browsers and bots spell what they accept; the first two are the same language.
SPELLINGS = (
    "en-US,en;q=0.9", "en", "de-DE,de;q=0.9,en;q=0.8", "de", "fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", "", "nl,fr;q=0.5", "*",
    "pl,en-US;q=0.7,en;q=0.3",
)  # fmt: skip
_BROWSERS = ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (iPhone)", "curl/8.5.0", "Googlebot/2.1")


#: Keys of sessions, and cookies, that the pages of the sites show.
_OWN = frozenset({"_flashes", "_messages", "lang", "django_language"})


class Built(NamedTuple):
    """A site, with or without a cache.

    :ivar session_of: returns what the session cookie of a visitor stands for.
    :ivar owner: keeps alive what the site needs.
    :ivar stats: returns the statistics of its cache; ``None`` without one.
    """

    wsgi: Wsgi
    session_of: Callable[[str], Mapping[str, Any]]
    owner: object
    stats: Callable[[], Stats] | None = None


class Step(NamedTuple):
    """One action of a visitor.

    :ivar fields: those of the form to send, once the page with it was opened; ``None`` opens a page only.
    :ivar pause: seconds since the step before, whoever made that.
    :ivar cookies: those that the visitor has from now on.
    """

    visitor: int
    path: str
    fields: tuple[tuple[str, str], ...] | None = None
    pause: float = 1.0
    cookies: tuple[tuple[str, str], ...] = ()


class Visitor(NamedTuple):
    """Who takes part in a walk.

    :ivar fields: what the visitor's browser always sends, as in the environ.
    :ivar cookies: what it keeps from elsewhere.
    """

    fields: tuple[tuple[str, str], ...]
    cookies: tuple[tuple[str, str], ...] = ()


class Walk(NamedTuple):
    """Visitors, and their steps in the order in which they are made."""

    visitors: tuple[Visitor, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class RealApp:
    """A site that is walked through.

    :ivar build: ``build(front, folder)``: with a cache in this folder, or without one if there is no front.
    :ivar pages: paths of pages without a form that strangers may open, the ones that are opened most first.
    :ivar with_form: paths of pages that are opened as often, although a form with a token is on each of them.
    :ivar forms: paths of other pages with a form, and what they are sent; nothing if they are only looked at.
    :ivar others: paths of pages that nobody may share, such as those for members and those with a nonce.
    :ivar languages: paths that choose a language.
    :ivar offered: the languages of the site.
    :ivar token: the name of the field with the token of a form.
    :ivar session_cookie: the cookie with the session.
    :ivar user_key: the key of the session that holds the logged-in user; "": members count like strangers.
    :ivar own: cookies, and keys of the session, that the pages show.
    :ivar is_shared: what depends on the visitor is in holes, so all visitors of a language share one page.
    """

    name: str
    build: Callable[[str | None, Any], Built]
    pages: tuple[str, ...]
    forms: Mapping[str, Mapping[str, str]]
    with_form: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    token: str = "csrf_token"
    session_cookie: str = "session"
    user_key: str = "_user_id"
    own: frozenset[str] = _OWN
    is_shared: bool = False

    def __hash__(self) -> int:
        return hash(self.name)


# -- a walk by chance ------------------------------------------------------------------------------------------------


class _Planner:
    """Plans the way of each visitor."""

    def __init__(self, app: RealApp, seed: int) -> None:
        self._app = app
        self.random = random.Random(seed)

    def pages(self, visitor: int, count: int) -> Iterator[Step]:
        """Open pages without a form, some more often than others, and look at a form now and then."""
        app, dice = self._app, self.random
        paths = app.with_form + app.pages
        for path in dice.choices(paths, range(len(paths), 0, -1), k=count):
            yield Step(visitor, path)
            if dice.random() < 0.08:
                yield Step(visitor, dice.choice(list(app.forms)))
            if app.others and dice.random() < 0.03:
                yield Step(visitor, dice.choice(app.others))

    def message(self, visitor: int) -> Step:
        """Send a form, which leaves a message for the next page."""
        path, fields = self.random.choice([(path, fields) for path, fields in self._app.forms.items() if fields])
        return Step(visitor, path, tuple(fields.items()))

    def login(self, visitor: int, name: str, *, remember: bool = False) -> Step:
        fields = {"name": name, "password": "secret", **({"remember": "y"} if remember else {})}
        return Step(visitor, "/login", tuple(fields.items()))

    def stranger(self, visitor: int, length: int) -> Iterator[Step]:
        """One of ten logs in and out, one of ten has a language of their own, and most others send a form at some time."""
        part = length // 4
        yield from self.pages(visitor, part)
        if visitor % 10 == 4:
            yield self.login(visitor, f"guest{visitor}", remember=visitor % 20 == 4)
            yield from self.pages(visitor, 3)
            yield Step(visitor, "/logout")
        elif visitor % 10 == 7 and self._app.languages:
            yield Step(visitor, self.random.choice(self._app.languages))
        elif self.random.random() < 0.7:
            yield self.message(visitor)
        yield from self.pages(visitor, length - part)

    def member(self, visitor: int, name: str, length: int) -> Iterator[Step]:
        yield self.login(visitor, name, remember=visitor % 2 == 0)
        yield from self.pages(visitor, length)
        yield self.message(visitor)
        yield from self.pages(visitor, length // 2)
        yield Step(visitor, "/logout")
        yield from self.pages(visitor, 2)


def walk_of(app: RealApp, seed: int = 17, strangers: int = 50, length: int = 10) -> Walk:
    """Return a walk of two members and of strangers, all at the same time.

    :param length: how many pages without a form each of them opens, at least.
    """
    plan = _Planner(app, seed)
    dice = plan.random
    ways = [list(plan.member(visitor, name, length)) for visitor, name in enumerate(("ann", "bob"))]
    ways += [list(plan.stranger(visitor, length)) for visitor in range(2, strangers + 2)]
    order = [visitor for visitor, way in enumerate(ways) for _ in way]
    dice.shuffle(order)
    left = [iter(way) for way in ways]
    steps = tuple(next(left[visitor])._replace(pause=dice.choice((0.0, 0.5, 1.0, 4.0))) for visitor in order)
    return Walk(tuple(_visitor(dice) for _ in ways), steps)


def _visitor(dice: random.Random) -> Visitor:
    fields = {"HTTP_USER_AGENT": dice.choice(_BROWSERS), "HTTP_ACCEPT": dice.choice(("text/html", "*/*"))}
    language = dice.choice(SPELLINGS)
    if language:
        fields["HTTP_ACCEPT_LANGUAGE"] = language
    if dice.random() < 0.7:
        fields["HTTP_ACCEPT_ENCODING"] = dice.choice(("gzip, deflate, br", "gzip", "identity"))
    cookies = (("_ga", f"GA1.1.{dice.randrange(10**9)}"),) if dice.random() < 0.3 else ()
    return Visitor(tuple(fields.items()), cookies)


# -- to play it ------------------------------------------------------------------------------------------------------


class Exchange(NamedTuple):
    """A request, and what it was answered.

    :ivar accepted: what the site offers of the languages that the visitor's browser accepts.
    :ivar cookies: the names of the cookies that the request carried.
    :ivar had: the session that it carried.
    :ivar session: the visitor's session afterwards, as far as it makes a difference.
    """

    visitor: int
    method: str
    path: str
    answer: Answer
    accepted: str | None
    cookies: frozenset[str]
    had: Mapping[str, Any]
    session: Mapping[str, Any]


#: What the cache may leave out of a session, since it makes no difference to any page.
_BOOKKEEPING = frozenset({"_fresh", "_permanent"})
#: Keys with random values: only whether they are there is compared.
_BY_CHANCE = frozenset({"csrf_token", "_csrftoken"})
_LONGEST_WAY = 3


def _comparable(session: Mapping[str, Any]) -> dict[str, Any]:
    return {key: key in _BY_CHANCE or value for key, value in session.items() if key not in _BOOKKEEPING}


class _Player:
    """One visitor, who makes one step after the other."""

    def __init__(self, app: RealApp, built: Built, number: int, visitor: Visitor) -> None:
        self._app = app
        self._built = built
        self._number = number
        accepts = parse_accept_header(dict(visitor.fields).get("HTTP_ACCEPT_LANGUAGE"), LanguageAccept)
        self._accepted = accepts.best_match(app.offered)
        self._browser = Browser(built.wsgi, dict(visitor.fields), app.session_cookie, dict(visitor.cookies))

    def make(self, step: Step) -> Iterator[Exchange]:
        """Open a page, and send the form in it if the step says so."""
        self._browser.cookies.update(step.cookies)
        answer = yield from self._visit("GET", step.path)
        if step.fields is not None:
            data = {self._app.token: answer.token, **dict(step.fields)}
            yield from self._visit("POST", step.path, data)

    def _visit(self, method: str, path: str, data: Mapping[str, str] | None = None) -> Generator[Exchange, None, Answer]:
        """Send a request and follow redirects. Return the last answer."""
        for _ in range(_LONGEST_WAY):
            browser = self._browser
            cookies, had = frozenset(browser.cookies), self._session()
            answer = browser.get(path) if data is None else browser.post(path, data)
            yield Exchange(self._number, method, path, answer, self._accepted, cookies, had, _comparable(self._session()))
            if not answer.location:
                break
            where = urlsplit(answer.location)
            method, path, data = "GET", where.path + (f"?{where.query}" if where.query else ""), None
        return answer

    def _session(self) -> Mapping[str, Any]:
        value = self._browser.cookies.get(self._app.session_cookie)
        return self._built.session_of(value) if value else {}


def play(app: RealApp, built: Built, walk: Walk) -> Iterator[Exchange]:
    """Let all visitors make their steps."""
    with time_machine.travel(NOON, tick=False) as clock:
        players = [_Player(app, built, number, visitor) for number, visitor in enumerate(walk.visitors)]
        for step in walk.steps:
            clock.shift(step.pause)
            yield from players[step.visitor].make(step)


@lru_cache(maxsize=32)
def without_cache(app: RealApp, walk: Walk) -> tuple[Exchange, ...]:
    """Return what the visitors of a walk see without a cache."""
    return tuple(play(app, app.build(None, None), walk))


# -- what came of it -------------------------------------------------------------------------------------------------


@dataclass
class Count:
    """Requests of one kind.

    :ivar asked: all of them.
    :ivar possible: those that a cache can answer: not the first of its language, no message is waiting, no language was chosen.
    :ivar hits: those of the possible ones that it did answer.
    """

    asked: int = 0
    possible: int = 0
    hits: int = 0

    def note(self, *, possible: bool, hit: bool) -> None:
        self.asked += 1
        self.possible += possible
        self.hits += possible and hit

    @property
    def ratio(self) -> float:
        return self.hits / self.possible if self.possible else 1.0


@dataclass
class Walked:
    """What a cache answered of a walk.

    :ivar pages: strangers' requests for pages without a form, by path.
    :ivar with_session: those of them that carried a session.
    :ivar shown: the possible ones, and what they were answered.
    :ivar missed: the possible ones that were no hit: the exchange and what it was answered.
    :ivar reasons: why answers were no hits, by endpoint and the name of the reason.
    """

    app: RealApp
    sessions_count: bool = True
    pages: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    with_session: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    shown: list[Exchange] = field(default_factory=list)
    missed: list[Exchange] = field(default_factory=list)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)
    _filled: set[tuple[str, str, str | None]] = field(default_factory=set)

    def note(self, expected: Exchange, seen: Exchange) -> None:
        """Count one answer."""
        word = seen.answer.word
        self.words[word] += 1
        if seen.method != "GET" or seen.path not in self.app.pages or seen.had.get(self.app.user_key):
            return
        # A page for another accepted language counts as another page, even if both are in the default language.
        variant = seen.path, "" if self.app.is_shared else expected.answer.body, seen.accepted
        has_session = self.app.session_cookie in seen.cookies
        is_own = _is_own(seen, self.app.own) or (has_session and not self.sessions_count)
        possible = variant in self._filled and not is_own
        if not is_own:
            self._filled.add(variant)
        is_hit = word in FROM_STORE
        self.pages[seen.path].note(possible=possible, hit=is_hit)
        if has_session:
            self.with_session[seen.path].note(possible=possible, hit=is_hit)
        if possible:
            self.shown.append(seen)
        if possible and not is_hit:
            self.missed.append(seen)

    @property
    def total(self) -> Count:
        return _sum(self.pages)

    @property
    def total_with_session(self) -> Count:
        return _sum(self.with_session)

    def table(self) -> str:
        """Return the counts of each page, and the reasons of each endpoint, as text."""
        lines = [f"{self.app.name:32} {'asked':>6} {'possible':>9} {'hits':>6} {'ratio':>6} {'with session':>13}"]
        for name, all_, some in [
            *((path, self.pages[path], self.with_session[path]) for path in self.app.pages),
            ("all", self.total, self.total_with_session),
        ]:
            lines.append(
                f"{name:32} {all_.asked:6} {all_.possible:9} {all_.hits:6} {all_.ratio:6.0%} {some.hits:6}/{some.possible:<6}"
            )
        lines += [
            f"{name:32} {' '.join(f'{code}:{count}' for code, count in codes.items())}" for name, codes in self.reasons.items()
        ]
        return "\n".join(lines)


def _sum(counts: Mapping[str, Count]) -> Count:
    values = counts.values()
    return Count(sum(each.asked for each in values), sum(each.possible for each in values), sum(each.hits for each in values))


def _is_own(exchange: Exchange, own: frozenset[str]) -> bool:
    """Whether a visitor has something that the page shows: a waiting message, or a language of their own."""
    return not own.isdisjoint(exchange.had) or not own.isdisjoint(exchange.cookies)


def compare(app: RealApp, built: Built, walk: Walk, *, sessions_count: bool = True) -> Walked:
    """Play a walk through a site with a cache, and hold each answer against that of the site without one.

    :param sessions_count: whether visitors with a session can be answered from the store.
    """
    walked = Walked(app, sessions_count)
    for number, (expected, seen) in enumerate(zip(without_cache(app, walk), play(app, built, walk), strict=True)):
        where = f"{number}: visitor {seen.visitor}, {seen.method} {seen.path}, {seen.answer.detail}"
        assert (seen.method, seen.path) == (expected.method, expected.path), where
        assert seen.answer.content == expected.answer.content, where
        assert seen.session == expected.session, where
        assert "*" in seen.answer.vary or seen.answer.vary >= expected.answer.vary, where
        walked.note(expected, seen)
    assert built.stats is not None
    walked.reasons = {name: counted["reasons"] for name, counted in built.stats()["endpoints"].items()}
    # Each answer that is no hit has one reason.
    live = sum(count for word, count in walked.words.items() if word and word not in FROM_STORE)
    assert sum(sum(reasons.values()) for reasons in walked.reasons.values()) == live
    return walked
