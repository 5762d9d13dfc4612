"""Random visits to two workers with a gateway, checked against a simple model, under a clock that the test moves.

An answer from the store was made for anybody, was allowed to be shown at that time, and was not purged. The app is called only for
answers that the store does not have.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults

import pytest
import time_machine
from flask import Flask, Response, g, request, session, stream_with_context
from flask.sessions import SecureCookieSessionInterface
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from flask_stalecache import StaleCache
from flask_stalecache.core.model.moments import AHEAD
from support.silence import silent_logger

BASE = 1_800_000_000.0
PATHS = ("/a", "/b")
VISITORS = (None, "ann", "bob")
#: How a page looks up its visitor: what the view reads, or where else something is read (a hook before or after it, a stream).
READS = ("", "cookie", "session", "field", "hook", "after", "stream", "authorization", "cookies")


class Control(NamedTuple):
    """What a page says in Cache-Control, and what follows from it."""

    text: str
    max_age: float = 0.0
    swr: float = 0.0
    sie: float = 0.0
    is_storable: bool = True
    is_shared: bool = False


CONTROLS = (
    # The first is played most.
    Control("max-age=10, stale-while-revalidate=30, stale-if-error=300", 10, 30, 300),
    Control("max-age=60", 60),
    Control("max-age=10, stale-while-revalidate=30, stale-if-error=300, must-revalidate", 10, is_shared=True),
    Control("max-age=0, stale-while-revalidate=60", 0, 60),
    Control("max-age=1, s-maxage=20", 20, is_shared=True),
    Control("public, max-age=30, stale-if-error=100", 30, 0, 100, is_shared=True),
    Control("no-cache"),
    Control("private, max-age=60", is_storable=False),
    Control("no-store", is_storable=False),
)


@dataclass(frozen=True)
class Page:
    """How a page is made now.

    :ivar how: ``200``, ``404``; ``503`` or ``raise``: it fails; ``break``: it breaks off in mid-stream.
    """

    path: str
    version: int = 0
    control: Control = CONTROLS[0]
    reads: str = ""
    varies: bool = False
    sets_cookie: bool = False
    how: str = "200"

    @property
    def fails(self) -> bool:
        return self.how in ("503", "raise")

    def content(self, who: str | None, language: str | None) -> dict[str, Any]:
        """Return what it shows to somebody."""
        return {
            "path": self.path,
            "version": self.version,
            "reads": self.reads,
            "who": who if self.reads else None,
            "varies": self.varies,
            "language": language if self.varies else None,
            "how": self.how,
        }


@dataclass(frozen=True)
class Record:
    """An answer of the app that may have been stored, or may have renewed the stored one.

    :ivar event: number of the visit, in the order of all events.
    :ivar is_sure: whether it was stored without doubt.
    """

    event: int
    at: float
    page: Page
    content: dict[str, Any]
    is_sure: bool

    def is_for(self, asked: Asked) -> bool:
        """Whether a visitor sees in it what the app would show them."""
        return not asked.is_known_to(self.page) and (not self.page.varies or self.content["language"] == asked.language)


@dataclass
class Call:
    """One call of the app."""

    page: Page
    is_refresh: bool
    language: str | None
    answer: str = ""


@dataclass
class Model:
    """What has happened so far: the model that the answers are checked against.

    :ivar hard: event of the last purge, by path or ``all``.
    :ivar soft: event and time of the last soft purge, likewise.
    :ivar failed: event of the last failure of the app, by path.
    """

    events: int = 0
    pages: dict[str, Page] = field(default_factory=lambda: {path: Page(path) for path in PATHS})
    records: dict[str, list[Record]] = field(default_factory=lambda: {path: [] for path in PATHS})
    hard: dict[str, int] = field(default_factory=dict)
    soft: dict[str, tuple[int, float]] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def event(self) -> int:
        self.events += 1
        return self.events

    def is_dropped(self, record: Record) -> bool:
        return any(self.hard.get(name, 0) > record.event for name in ("all", record.page.path))

    def ended(self, record: Record) -> float | None:
        """Return when a soft purge ended the freshness of a record, or None."""
        purges = [self.soft.get(name, (0, 0.0)) for name in ("all", record.page.path)]
        times = [at for event, at in purges if event > record.event]
        return min(times, default=None)

    def fresh_until(self, record: Record) -> float:
        ended, natural = self.ended(record), record.at + record.page.control.max_age
        # A clock that has stepped back may date the purge before the record, which is stale since it was made then.
        return natural if ended is None else max(record.at, min(natural, ended))

    def is_fresh(self, record: Record, now: float) -> bool:
        return self.ended(record) is None and max(0.0, now - record.at) < record.page.control.max_age

    def may_be_served(self, record: Record, now: float) -> bool:
        """Whether it may come from the store now."""
        if self.is_dropped(record) or not record.page.control.is_storable:
            return False
        stale_for, control = max(0.0, now - self.fresh_until(record)), record.page.control
        has_failed = self.failed.get(record.page.path, 0) > record.event
        return self.is_fresh(record, now) or stale_for < control.swr or (has_failed and stale_for < control.sie)


#: Counts of cache status words and other events over all examples, to be sure that the machine reaches them.
PLAYED: Counter[str] = Counter()


def fields_of(who: str | None, language: str | None, has_authorization: bool) -> dict[str, str]:
    """Return what a visitor sends."""
    fields = {"HTTP_COOKIE": "theme=dark"}
    if who is not None:
        fields = {"HTTP_COOKIE": f"user={who}; session={SESSIONS[who]}", "HTTP_X_USER": who}
        if has_authorization:
            fields["HTTP_AUTHORIZATION"] = f"Bearer {who}"
    return fields if language is None else {**fields, "HTTP_ACCEPT_LANGUAGE": language}


def _session_of(who: str) -> str:
    app = Flask("shop")
    app.secret_key = "not a secret"
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    # Signed a day before the test begins: recent enough to be valid, and never from the future when the clock steps back.
    with time_machine.travel(BASE - 86400):
        return str(signer.dumps({"user": who}))


SESSIONS = {who: _session_of(who) for who in VISITORS if who is not None}


def who_is_there(reads: str) -> str | None:
    """Look for a visitor as a page does."""
    if reads == "session":
        return session.get("user")
    if reads == "authorization":
        return None if request.authorization is None else request.authorization.token
    if reads == "cookies":
        return dict(request.cookies).get("user")
    return request.headers.get("X-User") if reads in ("field", "after") else request.cookies.get("user")


class Visit(NamedTuple):
    """Who comes, and how long after what was before."""

    seconds: float
    worker: int
    who: str | None
    language: str | None
    has_authorization: bool
    is_conditional: bool
    method: str


VISITS = st.builds(
    Visit,
    seconds=st.sampled_from((0.0, 0.0, 0.0, 11.0, 25.0)),
    worker=st.integers(0, 1),
    who=st.sampled_from((None, *VISITORS)),
    language=st.sampled_from((None, None, "de", "en")),
    has_authorization=st.sampled_from((False, False, True)),
    is_conditional=st.sampled_from((False, False, True)),
    method=st.sampled_from(("GET", "GET", "GET", "GET", "HEAD")),
)


class Visits(RuleBasedStateMachine):
    """Each rule is a series of visits, a change of the app, a purge, the restart of a worker, or a step of the clock."""

    @initialize()
    def open(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.travelling = time_machine.travel(BASE, tick=False)
        self.clock = self.travelling.start()
        self.model = Model()
        self.calls: list[Call] = []
        self.workers = [self._worker(), self._worker()]

    def teardown(self) -> None:
        self.travelling.stop()
        shutil.rmtree(self.directory)

    # -- the app -------------------------------------------------------------------------------------------------

    def _worker(self) -> tuple[Flask, StaleCache]:
        app = Flask("shop")
        app.config.update(SECRET_KEY="not a secret", PROPAGATE_EXCEPTIONS=False, STALECACHE_DIR=self.directory / "cache")
        app.config.update(STALECACHE_GATEWAY=True, STALECACHE_REFRESH_WORKERS=0)
        # A logger of its own, since those of one name are one for the whole process.
        app.logger = silent_logger()
        cache = StaleCache(app)

        @app.before_request
        def look() -> None:
            page = self.model.pages[request.path]
            if page.reads == "hook":
                g.who = request.cookies.get("user")

        @app.route("/<name>", methods=["GET", "POST"])
        def show(name: str) -> Response:
            return self._show(self.model.pages[request.path], cache)

        @app.after_request
        def finish(response: Response) -> Response:
            page = self.model.pages[request.path]
            if page.reads == "after" and page.how in ("200", "404") and request.method != "POST":
                content = {**json.loads(response.get_data()), "who": who_is_there("after")}
                response.set_data(json.dumps(content))
                response.set_etag(tag_of(content))
            return response

        return app, cache

    def _show(self, page: Page, cache: StaleCache) -> Response:
        if request.method == "POST":
            return Response("done")
        language = request.headers.get("Accept-Language") if page.varies else None
        call = Call(page, cache.refreshing, language)
        self.calls.append(call)
        if page.fails:
            self.model.failed[page.path] = self.model.event()
            if page.how == "raise":
                raise RuntimeError("the app fails")
            return Response("down", 503)
        # Streams and ``after_request`` hooks look up the visitor later.
        asks_here = page.reads not in ("", "hook", "stream", "after")
        who = g.who if page.reads == "hook" else who_is_there(page.reads) if asks_here else None
        content = page.content(who, language)
        response = self._response(page, content, call)
        response.headers["Cache-Control"] = page.control.text
        cache.tag(page.path)
        if page.varies:
            response.vary.add("Accept-Language")
        if page.sets_cookie:
            response.set_cookie("seen", "1")
        return response

    def _response(self, page: Page, content: dict[str, Any], call: Call) -> Response:
        status = 404 if page.how == "404" else 200
        if page.reads == "stream" or page.how == "break":

            def chunks() -> Iterator[str]:
                if page.reads == "stream":
                    content["who"] = who_is_there("stream")
                text = json.dumps(content)
                yield text[:5]
                if page.how == "break":
                    raise RuntimeError("it breaks off")
                yield text[5:]

            return Response(stream_with_context(chunks()), status)
        if page.reads != "after" and page.how == "200" and tag_of(content) in request.if_none_match:
            # An answer to the client's own condition is never stored.
            call.answer = "confirmed to a client" if "client" in request.if_none_match else "confirmed"
            return Response(status=304, headers={"ETag": f'"{tag_of(content)}"'})
        response = Response(json.dumps(content), status)
        if page.how == "200":
            response.set_etag(tag_of(content))
        return response

    # -- visits --------------------------------------------------------------------------------------------------

    @rule(path=st.sampled_from(PATHS), visits=st.lists(VISITS, min_size=1, max_size=6))
    def visit(self, path: str, visits: list[Visit]) -> None:
        for visit in visits:
            self.clock.shift(visit.seconds)
            page = self.model.pages[path]
            has_authorization = visit.has_authorization and page.reads in ("", "authorization")
            fields = fields_of(visit.who, visit.language, has_authorization)
            asked = Asked(page, visit.who, visit.language, visit.method, fields)
            if visit.is_conditional:
                fields["HTTP_IF_NONE_MATCH"] = f'"client", "{tag_of(asked.expected)}"'
            self._visit(visit.worker, asked)

    def _visit(self, worker: int, asked: Asked) -> None:
        # No two visits have the same time, since neither of their answers would be the newer one.
        self.clock.shift(0.001)
        model, now = self.model, time.time()
        must_hit = self._must_hit(asked, now)
        before, event = len(self.calls), model.event()
        got = self._ask(worker, asked.page.path, asked.method, asked.fields)
        calls = self.calls[before:]
        live = [call for call in calls if not call.is_refresh]
        # If the app confirms a copy that then can't be used, it is called once more.
        assert len(live) <= 1 + (len(live) == 2 and live[0].answer == "confirmed")
        assert len(calls) - len(live) <= 1 + (len(calls) - len(live) == 2 and calls[-2].answer == "confirmed")
        assert not (must_hit and live), (asked, got)
        if live and got.word != "STALE":
            self._check_answer(asked, got)
        else:
            self._check_stored(asked, got, now)
        for call in calls:
            # A page made for one visitor alone (BYPASS), since the copy is not for them, is never stored.
            if call.is_refresh or got.word != "BYPASS":
                self._note(call, asked, event, now)
        PLAYED[got.word] += 1

    def _ask(self, worker: int, path: str, method: str, fields: dict[str, str]) -> Got:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
        # A server that runs no threads: what is to be renewed is renewed when the response is closed.
        environ.update({"HTTP_HOST": "shop.example", "wsgi.run_once": True, **fields})
        setup_testing_defaults(environ)
        told: list[Any] = []
        body = self.workers[worker][0].wsgi_app(environ, lambda *args: told.append(args))  # type: ignore[arg-type,func-returns-value]
        parts: list[bytes] = []
        try:
            parts.extend(body)
        except RuntimeError:
            PLAYED["broken"] += 1
        finally:
            getattr(body, "close", lambda: None)()
        return Got(int(told[0][0][:3]), {name.lower(): value for name, value in told[0][1]}, b"".join(parts))

    def _check_answer(self, asked: Asked, got: Got) -> None:
        """Check an answer that the app made for this visit: it shows what this visitor should see."""
        page = asked.page
        if page.fails:
            assert got.status in (500, 503)
        elif got.status == 304:
            assert f'"{tag_of(asked.expected)}"' in asked.fields["HTTP_IF_NONE_MATCH"]
        elif asked.method == "GET" and page.how != "break":
            assert (got.status, json.loads(got.body)) == (404 if page.how == "404" else 200, asked.expected)

    def _check_stored(self, asked: Asked, got: Got, now: float) -> None:
        """What comes from the store was made for anybody, and may be shown now."""
        records = [record for record in self.model.records[asked.page.path] if self.model.may_be_served(record, now)]
        records = [record for record in records if record.is_for(asked)]
        assert got.word in ("HIT", "STALE", "UPDATING")
        if got.status == 304 or asked.method == "HEAD":
            etag = got.fields.get("etag")
            records = [record for record in records if etag in (None, f'"{tag_of(record.content)}"')]
        else:
            content = json.loads(got.body)
            assert content["who"] is None
            assert content["language"] in (None, asked.language)
            records = [record for record in records if record.content == content]
        assert records, (asked, got, self.model.records[asked.page.path])
        if "HTTP_AUTHORIZATION" in asked.fields:
            assert any(record.page.control.is_shared for record in records)
        age = int(got.fields["age"])
        assert age >= 0
        # Of an answer from the future nobody knows the age: see core.model.moments.
        assert age in {int(max(0.0, now - record.at)) for record in records} or any(record.at > now + AHEAD for record in records)
        if got.word == "HIT":
            assert any(self.model.is_fresh(record, now) for record in records)

    def _must_hit(self, asked: Asked, now: float) -> bool:
        """Whether this visit must be answered from the store, without a call of the app."""
        if "HTTP_AUTHORIZATION" in asked.fields:
            return False
        records = self.model.records[asked.page.path]
        # A newer page that is not for this visitor may have replaced one that was.
        newest = next(
            (each for each in reversed(records) if not each.page.varies or each.content["language"] == asked.language), None
        )
        if newest is None or not newest.is_for(asked):
            return False
        return newest.is_sure and not self.model.is_dropped(newest) and self.model.is_fresh(newest, now)

    def _note(self, call: Call, asked: Asked, event: int, now: float) -> None:
        """Note what the app has answered, as far as it may be stored."""
        page, records = call.page, self.model.records[call.page.path]
        if page.fails or call.answer == "confirmed to a client":
            return
        if asked.method == "HEAD" and not call.is_refresh:
            # It may renew what is stored, or show that it is out of date.
            records[:] = [replace(record, is_sure=False) for record in records]
        is_own = page.reads == "cookies" or (asked.is_known_to(page) and not call.is_refresh)
        # A confirmed page stays as it was: the cookie goes only to the visitor who asked.
        sets_cookie = page.sets_cookie and call.answer != "confirmed"
        may_be = page.control.is_storable and not sets_cookie and page.how != "break" and not is_own
        if "HTTP_AUTHORIZATION" in asked.fields and not call.is_refresh:
            may_be = may_be and page.control.is_shared
        if not may_be:
            return
        content = page.content(None, call.language)
        is_sure = asked.method == "GET" and not call.is_refresh and call.answer == "" and "HTTP_AUTHORIZATION" not in asked.fields
        records.append(Record(event, now, page, content, is_sure))

    # -- what changes --------------------------------------------------------------------------------------------

    @rule(
        path=st.sampled_from(PATHS),
        control=st.sampled_from(CONTROLS),
        reads=st.sampled_from(READS),
        varies=st.booleans(),
        sets_cookie=st.sampled_from((False, False, False, True)),
        edits=st.booleans(),
        visits=st.lists(VISITS, min_size=2, max_size=6),
    )
    def change(
        self, path: str, control: Control, reads: str, varies: bool, sets_cookie: bool, edits: bool, visits: list[Visit]
    ) -> None:
        """The page is made in another way from now on; some come to see it."""
        page = self.model.pages[path]
        changed = replace(page, control=control, reads=reads, varies=varies, sets_cookie=sets_cookie, how="200")
        self.model.pages[path] = replace(changed, version=page.version + edits)
        self.visit(path, visits)

    @rule(
        path=st.sampled_from(PATHS),
        how=st.sampled_from(("200", "404", "503", "raise", "break")),
        visits=st.lists(VISITS, max_size=3),
    )
    def behave(self, path: str, how: str, visits: list[Visit]) -> None:
        self.model.pages[path] = replace(self.model.pages[path], how=how)
        self.visit(path, visits)

    @rule(
        worker=st.integers(0, 1), path=st.sampled_from(PATHS), by=st.sampled_from(("all", "url", "tag", "POST")), soft=st.booleans()
    )
    def purge(self, worker: int, path: str, by: str, soft: bool) -> None:
        app, cache = self.workers[worker]
        if by == "POST":
            assert self._ask(worker, path, "POST", {}).word == "BYPASS"
        else:
            selector: dict[str, Any] = {"all": {"all": True}, "url": {"url": path}, "tag": {"tag": path}}[by]
            with app.app_context():
                cache.purge(**selector, soft=soft)
        name = "all" if by == "all" else path
        if soft and by != "POST":
            self.model.soft[name] = (self.model.event(), time.time())
        else:
            self.model.hard[name] = self.model.event()
        PLAYED["purged"] += 1

    @rule(worker=st.integers(0, 1))
    def restart(self, worker: int) -> None:
        self.workers[worker] = self._worker()

    @rule(seconds=st.sampled_from((0.5, 5.0, 9.0, 11.0, 25.0, 61.0, 301.0)))
    def go_on(self, seconds: float) -> None:
        self.clock.shift(seconds)

    @rule(seconds=st.sampled_from((3.0, 40.0)))
    def step_back(self, seconds: float) -> None:
        """Step the clock back. A record that is fresh again may have been replaced while it was not, so that none is sure."""
        self.clock.shift(-seconds)
        for records in self.model.records.values():
            records[:] = [replace(record, is_sure=False) for record in records]


@dataclass(frozen=True)
class Asked:
    """A visit."""

    page: Page
    who: str | None
    language: str | None
    method: str
    fields: dict[str, str]

    def is_known_to(self, page: Page) -> bool:
        """Whether a page tells this visitor from a stranger."""
        if page.reads == "authorization":
            return "HTTP_AUTHORIZATION" in self.fields
        return page.reads != "" and self.who is not None

    @property
    def expected(self) -> dict[str, Any]:
        """What the app shows without a gateway."""
        return self.page.content(self.who if self.is_known_to(self.page) else None, self.language)


class Got(NamedTuple):
    """What a visitor was answered."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def word(self) -> str:
        return self.fields.get("x-cache-status", "")


def tag_of(content: dict[str, Any]) -> str:
    """Return the entity tag of what is shown."""
    return "-".join(str(content[name]) for name in ("path", "version", "reads", "who", "varies", "language")).strip("/")


@pytest.mark.soak
@pytest.mark.usefixtures("no_housekeeping")
def test_two_workers_and_a_simple_model_agree(soak: Callable[[int, int], int], capsys: pytest.CaptureFixture[str]) -> None:
    """Run in parts, since hypothesis remembers all that it draws within a run: 0.1 MB for each example."""
    PLAYED.clear()
    parts = soak(4, 1)
    logger = logging.getLogger("flask_stalecache")
    logger.disabled = True
    try:
        for part in range(parts):
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                # Deterministic in the suite, which must give the same result each time; random where it is played in full.
                Visits,
                settings=settings(max_examples=soak(160, 20), stateful_step_count=15, derandomize=parts == 1, database=None),
            )
            if parts > 1:
                with capsys.disabled():
                    print(f"\n{part + 1} of {parts} parts", end="", flush=True)
    finally:
        logger.disabled = False
    # A few examples may not reach all of these; many must.
    wanted = ("HIT", "MISS", "BYPASS", "purged", "EXPIRED", "STALE", "REVALIDATED", "UPDATING", "broken")[: soak(9, 4)]
    assert all(PLAYED[what] for what in wanted), PLAYED
