"""Pages that depend on Accept fields are stored as variants, by what they have asked of them.

They also cover ``frontends.observation.observed_accept`` and ``frontends.pages.variants``. Each answer is compared with that of the
same app without a cache.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
import threading
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, abort, g, request
from flask_babel import Babel, get_locale
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import LanguageAccept

from flask_stalecache import StaleCache
from flask_stalecache.core.rules.variant_index import INDEX, MOST_VARIANTS, keys_in
from support.client import MakeApp, visit
from support.privacy import NOBODY, Fields, play, shown
from support.threads import PATIENCE, go, results, wait_until
from support.wsgi_apps import wait_for_waiters

OFFERS = ["de", "en", "fr", "it"]
GERMAN, AUSTRIAN, FRENCH = ({"Accept-Language": value} for value in ("de", "de-AT,en;q=0.4", "fr"))


def by_language(default: str | None = "en") -> str:
    return str(request.accept_languages.best_match(OFFERS, default))


def speaking(value: str) -> Fields:
    return {"Accept-Language": value}


# -- best matches --------------------------------------------------------------------------------------------------------


def babel(app: Flask, cache: StaleCache) -> None:
    Babel(app, locale_selector=lambda: request.accept_languages.best_match(OFFERS))
    shown(lambda: f"in {get_locale()}")(app, cache)


SPELLINGS = [
    f"{name}{end},{other};q=0.{number}"
    for number in range(1, 6)
    for other in ("pl", "ru", "zh", "ja", "tr")
    for name, end in (("de", "-AT"), ("en", ""), ("fr", ";q=0.9"), ("IT", ";q=1.0"))
]  # fmt: skip


def test_a_hundred_spellings_of_four_languages_make_four_variants(make_app: MakeApp) -> None:
    assert len(SPELLINGS) == 100
    said = play(make_app, babel, *map(speaking, SPELLINGS))
    assert (said.count("MISS"), said.count("HIT")) == (4, 96)


LANGUAGES = st.lists(
    st.tuples(
        st.sampled_from(["de", "de-AT", "DE", "en_GB", "fr-CA", "it", "pl", "*", "zh-Hans", "xx;y"]),
        st.sampled_from(["", ";q=0", ";q=0.5", "; q=0.8", ";q=1"]),
    ),
    max_size=4,
).map(lambda members: speaking(",".join(f"{name}{weight}" for name, weight in members)))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(visitors=st.lists(LANGUAGES, min_size=2, max_size=12))
def test_no_visitor_gets_another_answer_than_without_the_cache(make_app: MakeApp, visitors: list[Fields]) -> None:
    play(make_app, babel, *visitors, *visitors)
    play(make_app, shown(lambda: f"{by_language()} {request.accept_languages.best}"), *visitors, *visitors, path="/")


@pytest.mark.parametrize(
    ("read", "visitors", "variants"),
    [
        (by_language, [GERMAN, AUSTRIAN, FRENCH, speaking("fr;q=0.1"), NOBODY, speaking("pl")], 3),
        (lambda: by_language(None), [GERMAN, speaking("pl"), NOBODY, speaking("ru")], 2),
        (
            lambda: request.accept_mimetypes.best_match(["text/html", "application/json"]),
            [{"Accept": "text/html,*/*;q=0.8"}, {"Accept": "*/*"}, {"Accept": "application/json"}, {"Accept": "text/html"}],
            2,
        ),
        (
            lambda: request.accept_encodings.best_match(["br", "gzip"]),
            [{"Accept-Encoding": "gzip, deflate"}, {"Accept-Encoding": "gzip, br;q=0.5"}, {"Accept-Encoding": "br"}],
            2,
        ),
        (
            lambda: request.accept_charsets.best_match(["utf-8", "latin-1"]),
            [{"Accept-Charset": "utf-8"}, {"Accept-Charset": "UTF8, *;q=0.1"}, {"Accept-Charset": "iso-8859-1"}],
            2,
        ),
        # Two lists of one field, and lists of two fields.
        (
            lambda: (by_language(), request.accept_languages.best_match(("pl", "de"), "pl")),
            [GERMAN, speaking("de-AT"), speaking("pl"), speaking("en"), speaking("en, pl"), speaking("en, de;q=0.1")],
            3,
        ),
        (
            lambda: by_language() + str(request.accept_mimetypes.best_match(["text/html", "text/plain"])),
            [{**GERMAN, "Accept": "text/html"}, {**GERMAN, "Accept": "text/html;q=0.1"}, {**FRENCH, "Accept": "text/plain"}],
            2,
        ),
        # A list that depends on the result of another one.
        (
            lambda: "json" if request.accept_mimetypes.best_match(["text/html", "text/json"]) == "text/json" else by_language(),
            [{"Accept": "text/json"}, {"Accept": "text/json", **GERMAN}, {"Accept": "text/html", **GERMAN}, FRENCH],
            3,
        ),
    ],
    ids=["language", "no-default", "type", "encoding", "charset", "two-lists", "two-fields", "dependent"],
)
def test_a_best_match_makes_a_variant(make_app: MakeApp, read: Callable[[], object], visitors: list[Fields], variants: int) -> None:
    said = play(make_app, shown(lambda: f"{read()!s}"), *visitors, *visitors)
    assert said.count("MISS") == variants
    assert {*said[len(visitors) :]} == {"HIT"}


def test_a_hook_may_ask(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def choose() -> None:
            g.language = by_language()

        shown(lambda: g.language)(app, cache)

    assert play(make_app, build, GERMAN, FRENCH, speaking("de-AT"), GERMAN) == ["MISS", "MISS", "HIT", "HIT"]


# -- other reads -----------------------------------------------------------------------------------------------------------


class Lazy(str):
    def lower(self) -> str:
        return "fr"


def by_list_that_is_used_up() -> object:
    return request.accept_languages.best_match(iter(["de", "fr"]))


def after_a_best_match(read: Callable[[LanguageAccept], object]) -> object:
    languages = request.accept_languages
    languages.best_match(OFFERS)
    return read(languages)


#: Reads that depend on more of the field than one best match does: its whole value makes the variant.
OTHERWISE: dict[str, Callable[[], object]] = {
    "best": lambda: request.accept_languages.best,
    "in": lambda: "de-AT" in request.accept_languages,
    "quality": lambda: request.accept_languages.quality("en"),
    "[]": lambda: request.accept_languages["en"],
    "[0]": lambda: request.accept_languages[0:1],
    "iteration": lambda: list(request.accept_languages),
    "values": lambda: list(request.accept_languages.values()),
    "to_header": lambda: request.accept_languages.to_header(),
    "str": lambda: str(request.accept_languages),
    "repr": lambda: repr(request.accept_languages).replace("Observed", ""),
    "format": lambda: f"{request.accept_languages}",
    "bool": lambda: bool(request.accept_languages),
    "len": lambda: len(request.accept_languages),
    "provided": lambda: request.accept_languages.provided,
    "==": lambda: request.accept_languages == LanguageAccept([("de", 1)]),
    "==-other": lambda: LanguageAccept([("de", 1)]) == request.accept_languages,
    "+": lambda: list.__add__([("pl", 1)], []) + request.accept_languages,
    "find": lambda: request.accept_languages.find("de"),
    "json": lambda: json.dumps(request.accept_languages),
    "pickle": lambda: pickle.loads(pickle.dumps(request.accept_languages)),
    "copy": lambda: list(copy.copy(request.accept_languages)),
    "deepcopy": lambda: list(copy.deepcopy(request.accept_languages)),
    "sorted": lambda: sorted(request.accept_languages),
    "star": lambda: [*request.accept_languages],
    "choice": lambda: random.Random(1).sample(request.accept_languages, len(request.accept_languages)),
    "header": lambda: request.headers.get("Accept-Language"),
    "environ": lambda: request.environ.get("HTTP_ACCEPT_LANGUAGE"),
    "unbound": lambda: list.__len__(request.accept_languages),
    "used-up": by_list_that_is_used_up,
    "no-strings": lambda: request.accept_languages.best_match([Lazy("de"), Lazy("pl")]),
    "after-a-match-json": lambda: after_a_best_match(json.dumps),
    "after-a-match-best": lambda: after_a_best_match(lambda languages: languages.best),
    "after-a-match-header": lambda: after_a_best_match(lambda languages: request.headers["Accept-Language"]),
    "many-lists": lambda: [request.accept_languages.best_match([offer, str(n)]) for offer in OFFERS for n in range(3)],
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_other_reads_make_variants_of_the_field(make_app: MakeApp, name: str) -> None:
    read = OTHERWISE[name]
    visitors = [GERMAN, AUSTRIAN, FRENCH, speaking("de-AT,en;q=0.4")]
    said = play(make_app, shown(lambda: f"{read()!s}"), *visitors, *visitors, NOBODY if "header" not in name else GERMAN)
    assert said[:8] == ["MISS", "MISS", "MISS", "HIT"] + ["HIT"] * 4


def test_a_list_that_is_not_told_by_the_field_of_the_request(make_app: MakeApp) -> None:
    """A hook puts the language of a cookie into the environ: both the cookie and the field count."""

    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def switch() -> None:
            if "language" in request.cookies:
                request.environ["HTTP_ACCEPT_LANGUAGE"] = request.cookies["language"]

        shown(by_language)(app, cache)

    chosen = {**GERMAN, "Cookie": "language=fr"}
    said = play(make_app, build, chosen, GERMAN, chosen, FRENCH, GERMAN)
    assert said == ["MISS", "MISS", "BYPASS", "MISS", "HIT"]


def test_what_an_ignored_reader_reads_does_not_count(make_app: MakeApp, exempt: types.ModuleType) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.languages(), exempt.attribute("accept_languages"), None)[-1])
        shown(lambda: "page")(app, cache)

    config = {"IGNORED_READERS": {"tracker": ["Accept-Language"]}}
    assert play(make_app, build, GERMAN, FRENCH, NOBODY, **config) == ["MISS", "HIT", "HIT"]

    def both(app: Flask, cache: StaleCache) -> None:
        app.before_request(lambda: (exempt.languages(), None)[-1])
        shown(lambda: str(request.accept_languages), path="/both")(app, cache)

    assert play(make_app, both, GERMAN, FRENCH, GERMAN, path="/both", **config) == ["MISS", "MISS", "HIT"]


@pytest.mark.parametrize("setting", ["vary", "normaliser", "key", "ignored"])
def test_what_is_in_the_key_makes_no_variants(make_app: MakeApp, directory: Any, setting: str) -> None:
    policy: dict[str, Any] = {
        "vary": {"vary": ["Accept-Language"]},
        "normaliser": {"vary": {"Accept-Language": lambda value: "x"}},
        "key": {"key": by_language},
        "ignored": {},
    }[setting]
    app, cache = make_app(**({"IGNORED_HEADERS": ["Accept-Language"]} if setting == "ignored" else {}))
    shown(by_language, **policy)(app, cache)
    for fields in (GERMAN, FRENCH, GERMAN):
        visit(app, "/", fields)
    assert not any(entry.status == INDEX or "variant" in entry.key for entry in stored_in(app))


def stored_in(app: Flask) -> list[Any]:
    return [stored.entry for stored in app.extensions["stalecache"].engine.store.walk()]


# -- the bound ---------------------------------------------------------------------------------------------------------------


def test_values_beyond_the_bound_are_live_and_the_log_says_so(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app()
    shown(lambda: request.accept_languages.best)(app, cache)
    words = [visit(app, "/", speaking(f"x{number}")).word for number in range(MOST_VARIANTS + 10)]
    assert words == ["MISS"] * MOST_VARIANTS + ["BYPASS"] * 10
    assert [visit(app, "/", speaking(f"x{number}")).word for number in range(MOST_VARIANTS)] == ["HIT"] * MOST_VARIANTS
    assert len(stored_in(app)) == MOST_VARIANTS
    (line,) = {record.getMessage() for record in caplog.records if "variants" in record.getMessage()}
    assert "accept-language" in line
    assert "vary=" in line


# -- refreshes, purges and failures --------------------------------------------------------------------------------------------


def test_all_variants_are_refreshed_purged_and_found_by_the_url(make_app: MakeApp) -> None:
    app, cache = make_app()
    calls = []
    shown(lambda: (calls.append(by_language()), f"{calls[-1]} {len(calls)}")[-1])(app, cache)
    for fields in (GERMAN, FRENCH, speaking("it")):
        visit(app, "/", fields)
    with app.app_context():
        assert cache.refresh("/").wait(10)
    assert sorted(calls[3:]) == ["de", "fr", "it"]
    assert visit(app, "/", speaking("de-DE, de;q=0.9")).text in {f"de {number}" for number in (4, 5, 6)}
    state = app.extensions["stalecache"]
    (url_key,) = state.pages.keys_of({"wsgi.url_scheme": "http", "HTTP_HOST": "localhost", "PATH_INFO": "/"})
    assert state.engine.look_up(url_key).entry.status == INDEX
    with app.app_context():
        cache.purge("/")
    assert [visit(app, "/", fields).word for fields in (GERMAN, FRENCH, GERMAN)] == ["MISS", "MISS", "HIT"]


def test_a_stale_variant_is_renewed_for_its_language(make_app: MakeApp, clock: Any) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)
    calls = []
    view = lambda: (calls.append(by_language()), f"{calls[-1]} {len(calls)}")[-1]  # noqa: E731
    app.add_url_rule("/", "page", cache.cached(60, 600, jitter=0)(view))
    for fields in (GERMAN, FRENCH):
        visit(app, "/", fields)
    clock.shift(100)
    assert [visit(app, "/", fields).word for fields in (speaking("fr-CA"), GERMAN)] == ["STALE", "STALE"]
    assert calls == ["de", "fr", "fr", "de"]
    assert [visit(app, "/", fields).text for fields in (speaking("fr"), speaking("de-AT"))] == ["fr 3", "de 4"]


def test_a_page_in_a_page_makes_its_variants(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        inner = cache.cached(600)(by_language)
        app.add_url_rule("/inner", "inner", inner)
        app.add_url_rule("/", "page", cache.cached(60)(lambda: "outer " + app.make_response(inner()).get_data(as_text=True)))

    assert play(make_app, build, GERMAN, FRENCH, speaking("de-AT"), FRENCH) == ["MISS", "MISS", "HIT", "HIT"]
    app, cache = make_app()
    build(app, cache)
    for fields in (GERMAN, FRENCH, GERMAN):
        visit(app, "/inner", fields)
    assert [visit(app, "/", fields).text for fields in (GERMAN, FRENCH, speaking("de-AT"))] == ["outer de", "outer fr", "outer de"]


def test_a_page_that_comes_to_depend_on_the_language(make_app: MakeApp) -> None:
    app, cache = make_app()
    depends = []
    shown(lambda: by_language() if depends else "all")(app, cache)
    assert visit(app, "/", GERMAN).text == visit(app, "/", FRENCH).text == "all"
    depends.append(True)
    cache_purge(app, cache)
    assert [visit(app, "/", fields).text for fields in (GERMAN, FRENCH, GERMAN)] == ["de", "fr", "de"]
    depends.clear()
    cache_purge(app, cache)
    assert [visit(app, "/", fields).word for fields in (GERMAN, FRENCH)] == ["MISS", "HIT"]


def cache_purge(app: Flask, cache: StaleCache) -> None:
    with app.app_context():
        cache.purge("/")


def test_vary_is_sent_with_every_answer(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(by_language)(app, cache)
    said = [visit(app, "/", fields) for fields in (GERMAN, GERMAN, FRENCH, NOBODY)]
    assert {answer.headers["Vary"] for answer in said} == {"Accept-Language"}


def test_a_vary_of_the_view_names_what_makes_variants(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.get("/")
        @cache.cached(60)
        def page() -> Any:
            response = app.make_response(by_language())
            response.vary.add("Accept-Language")
            return response

    assert play(make_app, build, GERMAN, FRENCH, speaking("de-AT"), FRENCH) == ["MISS", "MISS", "HIT", "HIT"]


@pytest.mark.parametrize(
    ("asks", "raised", "text", "calls"),
    [
        ("at once", True, "sorry in {0}: nothing in {0}", 2),
        ("at once", False, "nothing in {0}", 2),
        ("late", True, "sorry in {0}: nothing in {0}", 2),
        ("late", False, "nothing in {0}", 2),
        # Only the handler asks for the language: the exception is shared, and each has an error page of their own.
        ("never", True, "sorry in {0}: nothing", 1),
    ],
)
def test_a_failure_in_one_language_is_not_shared_with_another(
    make_app: MakeApp, asks: str, raised: bool, text: str, calls: int
) -> None:
    """The second visitor waits for the first one's call, unless the view has asked for the language by then."""
    app, cache = make_app()
    app.register_error_handler(500, lambda error: (f"sorry in {by_language()}: {error.description}", 500))
    runs: list[int] = []
    go_on = threading.Event()

    def fail() -> Any:
        if asks == "at once":
            by_language()
        runs.append(1)
        assert go_on.wait(PATIENCE)
        said = "nothing" if asks == "never" else f"nothing in {by_language()}"
        if raised:
            abort(500, said)
        return said, 500

    shown(fail)(app, cache)
    coming = [go(visit, app, "/", GERMAN)]
    try:
        wait_until(lambda: runs, "the first call")
        coming.append(go(visit, app, "/", FRENCH))
        if asks == "at once":
            wait_until(lambda: len(runs) == 2, "the second call")
        else:
            wait_for_waiters(app, 1)
    finally:
        go_on.set()
    assert [seen.text for seen in results(coming)] == [text.format("de"), text.format("fr")]
    assert len(runs) == calls


@pytest.mark.parametrize("in_hook", [False, True], ids=["view", "hook"])
def test_two_languages_are_made_side_by_side(make_app: MakeApp, in_hook: bool) -> None:
    """Nothing is stored yet, so the first call has to tell that the other languages need not wait for it."""
    app, cache = make_app(LOCK_TIMEOUT=30)
    calls: list[str] = []
    both = threading.Barrier(2, timeout=20)

    if in_hook:
        app.before_request(lambda: setattr(g, "language", by_language()))

    def view() -> str:
        language = g.language if in_hook else by_language()
        calls.append(language)
        both.wait()
        return f"in {language}"

    shown(view)(app, cache)
    asked = [GERMAN, FRENCH, speaking("de-AT"), speaking("fr-CA"), GERMAN]
    with ThreadPoolExecutor(len(asked)) as pool:
        texts = [answer.text for answer in pool.map(lambda fields: visit(app, "/", fields), asked)]
    assert texts == ["in de", "in fr", "in de", "in fr", "in de"]
    assert sorted(calls) == ["de", "fr"]
    assert [visit(app, "/", fields).word for fields in asked] == ["HIT"] * 5
    state = app.extensions["stalecache"]
    (url_key,) = state.pages.keys_of({"wsgi.url_scheme": "http", "HTTP_HOST": "localhost", "PATH_INFO": "/"})
    assert len(keys_in(state.engine.look_up(url_key).entry)) == 2
