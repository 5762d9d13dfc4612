"""Answers that depend on Accept fields are stored as variants at the gateway, by what the app has asked of them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import brotli
import pytest
from flask import Flask, Response, g, request
from flask_babel import Babel, get_locale
from flask_compress import Compress
from werkzeug.test import Client

from flask_stalecache import StaleCache
from flask_stalecache.core.rules.variant_index import INDEX, MOST_VARIANTS, keys_in
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from support.client import MakeApp, settle, visit
from support.flask_gateway import NOBODY, Build, Fields, fresh

OFFERS = ["de", "en", "fr", "it"]
SPELLINGS = [
    {"Accept-Language": f"{name}{end},{other};q=0.{number}"}
    for number in range(1, 6)
    for other in ("pl", "ru", "zh", "ja", "tr")
    for name, end in (("de", "-AT"), ("en", ""), ("fr", ";q=0.9"), ("IT", ";q=1.0"))
]
GERMAN, FRENCH = {"Accept-Language": "de"}, {"Accept-Language": "fr"}


def by_language() -> str:
    return str(request.accept_languages.best_match(OFFERS, "en"))


def page(view: Callable[[], Any], **options: Any) -> Build:
    def build(app: Flask) -> None:
        app.add_url_rule("/", "page", view, **options)
        app.after_request(fresh)

    return build


def play(make_app: MakeApp, build: Build, *visitors: Mapping[str, str]) -> list[str]:
    """Make the visits, compare each answer with that of the app without a cache, and return the cache status words."""
    app, _ = make_app(GATEWAY=True)
    build(app)
    plain, _ = make_app(ENABLED=False)
    build(plain)
    said = []
    for fields in visitors:
        seen, expected = visit(app, "/", fields), visit(plain, "/", fields)
        assert (seen.status, decoded(seen)) == (expected.status, decoded(expected)), f"after {said}, {fields}"
        coding = seen.headers.get("Content-Encoding", "identity")
        accepted = fields.get("Accept-Encoding", "")
        assert coding == "identity" or coding in accepted or "*" in accepted
        said.append(seen.word)
    return said


def decoded(seen: Any) -> bytes:
    decode: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "br": brotli.decompress,
        "secret": lambda body: body[::-1],
    }
    coding = seen.headers.get("Content-Encoding", "")
    return decode[coding](seen.body) if coding in decode else seen.body  # type: ignore[no-any-return]


def babel(app: Flask) -> None:
    Babel(app, locale_selector=lambda: request.accept_languages.best_match(OFFERS))
    page(lambda: f"in {get_locale()}")(app)


def test_a_hundred_spellings_of_four_languages_make_four_variants(make_app: MakeApp) -> None:
    said = play(make_app, babel, *SPELLINGS)
    assert (said.count("MISS"), said.count("HIT")) == (4, 96)


def test_a_view_under_the_decorator_too(make_app: MakeApp) -> None:
    app, cache = make_app(GATEWAY=True)
    app.add_url_rule("/", "page", cache.cached(60, gateway=True)(by_language))
    seen = [visit(app, "/", fields) for fields in SPELLINGS]
    assert [answer.text for answer in seen] == ["de", "en", "fr", "it"] * 25
    assert [answer.word for answer in seen].count("MISS") == 4
    assert {answer.headers["Vary"] for answer in seen} == {"Accept-Language"}


ENCODINGS = ["gzip", "gzip, deflate", "gzip, deflate, br", "br;q=1.0, gzip;q=0.8", "gzip, deflate, br, zstd", "identity", "", "*"]


def compressed(app: Flask) -> None:
    app.config.update(COMPRESS_MIN_SIZE=1, COMPRESS_ALGORITHM=["br", "gzip"])
    Compress(app)
    page(lambda: f"{by_language()} " * 500)(app)


def test_packed_pages_in_four_languages(make_app: MakeApp) -> None:
    visitors = [
        {"Accept-Language": language, "Accept-Encoding": encoding}
        for language in ("de-AT", "en", "fr", "it")
        for encoding in ENCODINGS
    ]  # fmt: skip
    said = play(make_app, compressed, *visitors, *visitors)
    assert said.count("MISS") <= 28
    assert {*said[len(visitors) :]} == {"HIT"}


def test_an_unknown_coding_is_for_those_who_know_it(make_app: MakeApp) -> None:
    def pack(response: Response) -> Response:
        if "secret" in request.headers.get("Accept-Encoding", ""):
            response.headers["Content-Encoding"] = "secret"
            response.set_data(response.get_data()[::-1])
        response.vary.add("Accept-Encoding")
        return response

    def build(app: Flask) -> None:
        page(lambda: "page")(app)
        app.after_request(pack)

    knowing, others = {"Accept-Encoding": "secret"}, {"Accept-Encoding": "gzip, br"}
    said = play(make_app, build, knowing, others, NOBODY, {"Accept-Encoding": "snappy"}, knowing)
    assert said[:2] == ["MISS", "MISS"]


@pytest.mark.parametrize(
    "read",
    [
        lambda: request.accept_languages.best,
        lambda: "de" in request.accept_languages,
        lambda: list(request.accept_languages),
        lambda: request.headers["Accept-Language"],
        lambda: request.environ["HTTP_ACCEPT_LANGUAGE"],
    ],
    ids=["best", "in", "list", "header", "environ"],
)
def test_other_reads_make_variants_of_the_field(make_app: MakeApp, read: Callable[[], object]) -> None:
    said = play(make_app, page(lambda: f"{read()!s}"), GERMAN, FRENCH, GERMAN, {"Accept-Language": "de-AT"}, FRENCH)
    assert said == ["MISS", "MISS", "HIT", "MISS", "HIT"]


def test_a_hook_and_a_stream_may_ask(make_app: MakeApp) -> None:
    def stream() -> Response:
        asked = request.accept_languages

        def chunks() -> Iterable[str]:
            yield "in "
            yield str(asked.best_match(OFFERS, "en"))

        return Response(chunks())

    # What the stream asks of the field is not known yet when the head is sent, so that the whole field counts.
    assert play(make_app, page(stream), GERMAN, FRENCH, {"Accept-Language": "de-AT"}, FRENCH) == ["MISS", "MISS", "MISS", "HIT"]
    app, _ = make_app(GATEWAY=True)
    app.before_request(lambda: setattr(g, "language", by_language()))
    app.after_request(fresh)
    app.add_url_rule("/hooked", "hooked", lambda: g.language)
    said = [visit(app, "/hooked", fields).page for fields in (GERMAN, FRENCH, {"Accept-Language": "de-AT"})]
    assert said == [("MISS", "de"), ("MISS", "fr"), ("HIT", "de")]


def test_what_middleware_reads_counts_as_the_field(directory: Path) -> None:
    """Middleware between gateway and app reads the whole field, and writes it into the body."""
    app = Flask("shop")
    inner = app.wsgi_app

    def shouting(environ: dict[str, Any], start_response: Any) -> Any:
        language = environ.get("HTTP_ACCEPT_LANGUAGE", "")
        return [chunk + language.encode() for chunk in inner(environ, start_response)]

    app.wsgi_app = shouting  # type: ignore[method-assign]
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY=True)
    StaleCache(app)
    app.add_url_rule("/", "page", lambda: Response(["in "], headers={"Cache-Control": "max-age=60"}))
    app.after_request(lambda response: (response.headers.pop("Content-Length", None), response)[-1])
    said = [visit(app, "/", fields).page for fields in (GERMAN, FRENCH, GERMAN)]
    assert [text for _, text in said] == ["in de", "in fr", "in de"]


def test_values_beyond_the_bound_are_live_and_the_log_says_so(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app(GATEWAY=True)
    page(lambda: request.accept_languages.best)(app)
    many = [{"Accept-Language": f"x{number}"} for number in range(100)]
    words = [visit(app, "/", fields).word for fields in many]
    assert words[:MOST_VARIANTS] == ["MISS"] * MOST_VARIANTS
    assert "HIT" not in words
    assert [visit(app, "/", fields).word for fields in many[:MOST_VARIANTS]] == ["HIT"] * MOST_VARIANTS
    entries = [stored.entry for stored in app.extensions["stalecache"].engine.store.walk()]
    assert len(entries) == MOST_VARIANTS
    lines = {record.getMessage() for record in caplog.records if "variants" in record.getMessage()}
    assert len(lines) == 1
    assert "accept-language" in lines.pop()


def test_variants_are_renewed_listed_and_purged(make_app: MakeApp) -> None:
    app, cache = make_app(GATEWAY=True)
    calls: list[str] = []
    page(lambda: (calls.append(by_language()), f"{calls[-1]} {len(calls)}")[-1])(app)
    for fields in (GERMAN, FRENCH):
        visit(app, "/", fields)
    with app.app_context():
        assert cache.refresh("/").wait(10)
    assert sorted(calls[2:]) == ["de", "fr"]
    engine = app.extensions["stalecache"].engine
    (url_key,) = {stored.entry.key.partition('"')[2].partition('"')[0] for stored in engine.store.walk()}
    index = engine.look_up(url_key).entry
    assert index.status == INDEX
    assert {engine.look_up(key).entry.body[:2] for key in keys_in(index)} == {b"de", b"fr"}
    with app.app_context():
        cache.purge("/")
    assert [visit(app, "/", fields).word for fields in (GERMAN, FRENCH, GERMAN)] == ["MISS", "MISS", "HIT"]


def test_a_stale_variant_is_renewed_for_its_language(make_app: MakeApp, clock: Any) -> None:
    app, cache = make_app(GATEWAY=True)
    calls: list[str] = []

    def view() -> Response:
        calls.append(by_language())
        return Response(f"{calls[-1]} {len(calls)}", headers={"Cache-Control": "max-age=60, stale-while-revalidate=600"})

    page(view)(app)
    for fields in (GERMAN, FRENCH):
        visit(app, "/", fields)
    clock.shift(100)
    assert visit(app, "/", {"Accept-Language": "fr-CA"}).page == ("STALE", "fr 2")
    settle(app, cache)
    assert visit(app, "/", FRENCH).page == ("HIT", "fr 3")
    assert visit(app, "/", GERMAN).word == "STALE"


def test_a_confirmation_renews_the_variant_of_its_language(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True)

    def view() -> Response:
        response = Response(by_language(), headers={"Cache-Control": "no-cache"})
        response.add_etag()
        return response.make_conditional(request)

    page(view)(app)
    visitors: list[Fields] = [GERMAN, FRENCH, {"Accept-Language": "de-AT"}, FRENCH]
    seen = [visit(app, "/", fields) for fields in visitors]
    assert [answer.text for answer in seen] == ["de", "fr", "de", "fr"]
    assert [answer.word for answer in seen[2:]] == ["REVALIDATED", "REVALIDATED"]


def test_an_app_that_can_not_be_observed_says_it_in_vary(directory: Path) -> None:
    """Each value of the field is a variant, up to the bound, since what the app asks of the field can't be seen."""
    calls = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ.get("HTTP_ACCEPT_LANGUAGE"))
        fields = [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60"), ("Vary", "Accept-Language, Accept-Encoding")]
        start_response("200 OK", fields)
        return [f"in {environ.get('HTTP_ACCEPT_LANGUAGE', '')}".encode()]

    client = Client(GatewayCache(app, dir=directory))
    for _ in range(2):
        for number in range(30):
            for encoding in ("gzip, snappy", "gzip", "GZIP;q=0.5"):
                fields = {"Accept-Language": f"x{number}", "Accept-Encoding": encoding}
                assert client.get("/", headers=fields).text == f"in x{number}"
    assert len(calls) == MOST_VARIANTS + 2 * 3 * (30 - MOST_VARIANTS)


def test_the_cache_of_a_view_and_the_gateway_agree(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.add_url_rule("/", "page", cache.cached(60)(by_language))
        Compress(app)

    app, cache = make_app(GATEWAY=True)
    build(app, cache)
    assert [visit(app, "/", fields).page for fields in (GERMAN, FRENCH, {"Accept-Language": "de-AT"})] == [
        ("MISS", "de"), ("MISS", "fr"), ("HIT", "de"),
    ]  # fmt: skip


def test_two_languages_are_made_side_by_side(make_app: MakeApp) -> None:
    """Nothing is stored yet, so the first call has to tell that the other languages need not wait for it."""
    app, _ = make_app(GATEWAY=True, LOCK_TIMEOUT=30)
    calls: list[str] = []
    both = threading.Barrier(2, timeout=20)

    def view() -> str:
        language = by_language()
        calls.append(language)
        both.wait()
        return f"in {language}"

    page(view)(app)
    asked = [GERMAN, FRENCH, {"Accept-Language": "de-AT"}, {"Accept-Language": "fr-CA"}, GERMAN]
    with ThreadPoolExecutor(len(asked)) as pool:
        texts = [answer.text for answer in pool.map(lambda fields: visit(app, "/", fields), asked)]
    assert texts == ["in de", "in fr", "in de", "in fr", "in de"]
    assert sorted(calls) == ["de", "fr"]
    assert [visit(app, "/", fields).word for fields in asked] == ["HIT"] * 5
