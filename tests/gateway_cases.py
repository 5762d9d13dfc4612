"""What a visitor of a page behind the gateway must see, and how often the app is asked: the rules of http.md as a table.

A case begins at the same moment, on a page of its own that nobody has asked for. Where the RFC leaves something open, ``choice``
says what we do.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway_site import (
    FAILS,
    FRESH,
    Case,
    Reply,
    Step,
    answer,
    asks,
    case,
    cc,
    confirmed,
    date,
    gone,
    hit,
    new,
    ok,
    post,
    stale,
    unchanged,
)  # fmt: skip

TAG = 'ETag: "a"'
INM, IMS = 'If-None-Match: "a"', f"If-Modified-Since: {date(-100)}"
MODIFIED = f"Last-Modified: {date(-100)}"
#: Ten bytes, for ranges.
DIGITS = b"0123456789"
DOWN = answer(503)


def again(name: str, reply: Reply, *, rules: int | tuple[int, ...], after: float = 10, sent: str = "", **more: str) -> Case:
    """An answer is used for a second request."""
    return case(rules, name, new(reply, *filter(None, [sent])), hit(after=after), **more)


def anew(name: str, reply: Reply, *, rules: int | tuple[int, ...], after: float = 10, **more: str) -> Case:
    """An answer is not used for a second request."""
    return case(rules, name, new(reply), new(after=after), **more)


# -- storing: rules 1 to 7 -------------------------------------------------------------------------------------------

LONG_AGO = f"Last-Modified: {date(-86400)}"
#: Statuses of which the freshness may be guessed.
GUESSED = (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)


def storing() -> Iterator[Case]:
    """What is stored."""
    for status in (200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 501, 502, 503, 504, 599):
        yield again(f"{status}-that-says-it-is-fresh", answer(status, "Cache-Control: max-age=60"), rules=1)
        yield anew(f"{status}-past-its-freshness", answer(status, "Cache-Control: max-age=5"), rules=1)
    for status in GUESSED:
        yield again(f"{status}-guessed", answer(status, LONG_AGO), rules=(1, 11), after=60)
    for status in (201, 202, 302, 307, 403, 500, 502, 503, 504, 599):
        yield anew(f"{status}-is-not-guessed", answer(status, LONG_AGO), rules=(1, 11), after=60)
    yield again("599-public-guessed", answer(599, LONG_AGO, "Cache-Control: public"), rules=(1, 11), after=60)
    yield anew("nothing-said", ok(), rules=(1, 11), choice="without any sign of freshness none is guessed")
    yield anew("no-store", cc("no-store"), rules=1)
    yield anew("no-store-beside-freshness", cc("max-age=60, no-store"), rules=1)
    yield anew("no-store-first", cc("no-store, max-age=60"), rules=1)
    yield anew("no-store-on-another-line", cc("max-age=60", "Cache-Control: no-store"), rules=(1, 12))
    yield anew("no-store-in-capitals", cc("NO-STORE, max-age=60"), rules=(1, 12))
    yield anew("no-store-with-expires", cc("no-store", f"Expires: {date(60)}"), rules=1)
    yield anew("no-store-with-a-value", cc('no-store="a", max-age=60'), rules=1)
    yield anew("private", cc("private"), rules=1)
    yield anew("private-beside-freshness", cc("private, max-age=60"), rules=1)
    yield anew("private-beside-s-maxage", cc("s-maxage=60, private"), rules=1)
    yield anew("private-in-mixed-case", cc("Private, max-age=60"), rules=(1, 12))
    yield again("no-store-as-a-part-of-a-name", cc("max-age=60, no-storex"), rules=(1, 12))
    yield again("private-as-a-part-of-a-name", cc("max-age=60, xprivate"), rules=(1, 12))
    yield again("no-store-within-quotes", cc('max-age=60, foo="no-store, private"'), rules=(1, 12))
    yield case(
        1,
        "no-store-drops-what-was-stored",
        new(cc("max-age=5", TAG)),
        new(cc("no-store"), after=10),
        new(FRESH, asked={"If-None-Match": None}),
    )
    yield case(1, "post-is-not-stored", post(FRESH), post(FRESH, has={"Age": None}))
    yield case(1, "post-fills-no-get", post(FRESH, "Content-Type: text/plain"), new(FRESH), hit())
    yield case(1, "head-fills-no-get", new(FRESH, method="HEAD"), new(FRESH), hit())
    yield case(1, "options-fills-no-get", new(FRESH, method="OPTIONS", word="BYPASS"), new(FRESH))
    yield case(
        1,
        "request-no-store-is-for-its-sender",
        new(FRESH, "Cache-Control: no-store"),
        hit(),
        choice="no-store of a request counts only where its Cache-Control is honoured (rule 15)",
    )
    yield case((1, 15), "request-no-store-honoured", new(FRESH, "Cache-Control: no-store"), new(), hit(), gateway="honors")
    yield case(
        (1, 15),
        "request-no-store-drops-nothing",
        new(cc("max-age=5", TAG)),
        new(FRESH, "Cache-Control: no-store", after=10),
        confirmed(unchanged("Cache-Control: max-age=60"), of=1),
        hit("Cache-Control: no-store", of=1),
        gateway="honors",
    )
    yield again("a-cookie-in-the-request-is-no-matter", FRESH, rules=1, sent="Cookie: a=b")
    yield case(1, "a-body-on-a-get-goes-through", new(FRESH, payload=b"x", word="BYPASS"), new(FRESH), new(payload=b"x"), hit(of=2))
    yield again("content-disposition-is-no-matter", cc("max-age=60", "Content-Disposition: attachment"), rules=1)
    yield again("content-disposition-guessed", ok(LONG_AGO, "Content-Disposition: attachment"), rules=1)

    yield anew("private-with-names", cc('private="x-me", max-age=60'), rules=2)
    yield anew("private-with-names-without-quotes", cc("private=x-me, max-age=60"), rules=2)
    yield case(
        2,
        "no-cache-with-names",
        new(cc('max-age=60, no-cache="x-me"', TAG)),
        confirmed(unchanged(), asked={"If-None-Match": '"a"'}),
    )
    yield again("must-understand", cc("max-age=60, no-store, must-understand"), rules=3)
    yield again("must-understand-alone", cc("max-age=60, must-understand"), rules=3)
    yield again("must-understand-404", answer(404, "Cache-Control: must-understand, no-store, max-age=60"), rules=3)
    yield anew("must-understand-unknown", answer(299, "Cache-Control: must-understand, max-age=60"), rules=3)
    yield anew("must-understand-unknown-no-store", answer(599, "Cache-Control: no-store, must-understand, max-age=60"), rules=3)
    yield anew("must-understand-private", cc("max-age=60, must-understand, private"), rules=3)

    me = "Authorization: Basic eDp5"
    yield case(4, "authorization-is-not-stored", new(FRESH, me), new(FRESH, me), new(FRESH), hit(of=3))
    yield case(4, "authorization-is-not-given-the-store", new(FRESH), new(FRESH, me, word="BYPASS"), hit(of=1))
    for name in ("public", "s-maxage=60", "must-revalidate"):
        word = name.partition("=")[0]
        yield case(4, f"authorization-{word}", new(cc(f"max-age=60, {name}"), me), hit(me), hit())
        yield case(4, f"authorization-{word}-the-other-way", new(cc(f"max-age=60, {name}")), hit(me))
    for name in ("proxy-revalidate", "no-cache", "immutable"):
        yield case(4, f"authorization-{name}-is-not-enough", new(cc(f"max-age=60, {name}", TAG), me), new(FRESH, "Cookie: a=b"))
    yield case(4, "authorization-private", new(cc("max-age=60, public, private"), me), new(FRESH, me))
    yield case(4, "empty-authorization-is-one", new(FRESH, "Authorization: "), new(FRESH))

    for name, value in [
        ("Test-Header", "1"), ("X-Test-Header", "1"), ("Content-Foo", "1"), ("Content-Encoding", "x-foo"),
        ("Content-Language", "de"), ("Content-Location", "/x"), ("Content-Security-Policy", "default-src 'self'"),
        ("Content-Type", "text/x; a=b"), ("Clear-Site-Data", '"cookies"'), ("ETag", '"x"'), ("Expires", date(60)),
        ("Link", "</a>; rel=next"), ("Strict-Transport-Security", "max-age=1"), ("X-Frame-Options", "DENY"),
        ("X-XSS-Protection", "1"), ("Public-Key-Pins", "x"), ("Warning", '110 - "x"'), ("Last-Modified", date(-5)),
    ]:  # fmt: skip
        kept = {name: value}
        yield case(5, f"{name.lower()}-is-stored", new(cc("max-age=60", f"{name}: {value}"), has=kept), hit(has=kept, after=5))
    lines = {"Link": ["</a>; rel=next", "</b>; rel=next"]}
    yield case(5, "lines-stay-lines", new(cc("max-age=60", *(f"Link: {value}" for value in lines["Link"]))), hit(has=lines))
    for name in (
        "Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
        "Proxy-Connection",
    ):  # fmt: skip
        gone = {name: None}
        yield case((5, 31), f"{name.lower()}-is-hop-by-hop", new(cc("max-age=60", f"{name}: x"), has=gone), hit(has=gone))
    gone = {"X-A": None, "X-B": None, "X-C": "3"}
    yield case(
        (5, 31),
        "what-connection-names",
        new(cc("max-age=60", "Connection: x-a, X-B", "X-A: 1", "X-B: 2", "X-C: 3"), has=gone),
        hit(has=gone),
    )
    yield case(5, "content-length-is-counted", new(cc("max-age=60", body=DIGITS, length=False)), hit(has={"Content-Length": "10"}))
    yield case(5, "content-length-of-204", new(answer(204, "Cache-Control: max-age=60")), hit(has={"Content-Length": None}))

    yield anew("set-cookie", cc("max-age=60", "Set-Cookie: a=b"), rules=6, choice="a response with Set-Cookie is not stored")
    yield anew("set-cookie-public", cc("public, max-age=60", "Set-Cookie: a=b"), rules=6)
    yield case(
        6,
        "a-cookie-beside-a-304-is-for-who-asked",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged("Set-Cookie: a=b", "Cache-Control: max-age=60"), after=10, has={"Set-Cookie": "a=b"}),
        hit(has={"Set-Cookie": None}),
    )

    part = answer(206, "Cache-Control: max-age=60", "Content-Range: bytes 0-3/10", body=b"0123")
    yield case(7, "206-is-not-stored", new(part), new(FRESH), hit())
    yield case(7, "206-asked-for-is-not-stored", new(part, "Range: bytes=0-3"), new(cc("max-age=60", body=DIGITS)), hit())
    yield case(7, "304-unasked-is-not-stored", new(unchanged("Cache-Control: max-age=60")), new(FRESH), hit())
    yield anew("less-than-content-length", cc("max-age=60", "Content-Length: 20", body=DIGITS), rules=7)
    yield anew("a-stream-of-less-than-content-length", cc("max-age=60", "Content-Length: 20", body=DIGITS, streams=True), rules=7)
    more = cc("max-age=60", "Content-Length: 4", body=DIGITS)
    yield case(7, "more-than-content-length", new(more, status=200, body=b"0123"), new(FRESH), hit())
    breaks = Reply(200, ("Cache-Control: max-age=60",), DIGITS, raises="later", length=False)
    yield case(7, "a-body-that-breaks-off", new(breaks, status=200, body=b"01234"), new(FRESH), hit())
    yield again("content-length-is-right", cc("max-age=60", body=DIGITS, streams=True), rules=7)
    yield again("a-stream-without-length", cc("max-age=60", length=False, streams=True), rules=7)
    yield again("an-empty-body", cc("max-age=60", body=b""), rules=7)
    yield again("an-empty-stream", cc("max-age=60", body=b"", length=False, streams=True), rules=7)


# -- keys: rules 8 to 10 ---------------------------------------------------------------------------------------------


def keys() -> Iterator[Case]:
    """What is found by what."""
    yield case(8, "another-query", new(path="?a=1"), new(path="?a=2"), hit(path="?a=1", of=1), hit(path="?a=2", of=2))
    yield case(8, "no-query", new(path="?a=1"), new())
    yield case(8, "an-empty-query", new(), hit(path="?"), choice="an empty query is as none")
    yield case(8, "another-order", new(path="?a=1&b=2"), new(path="?b=2&a=1"))
    yield case(8, "another-path", new(path="/a"), new(path="/b"), hit(path="/a", of=1))
    yield case(8, "a-slash-more", new(path="/a"), new(path="/a/"))
    yield case(8, "another-case", new(path="/a"), new(path="/A"))
    yield case(8, "quoted-otherwise", new(path="/%61"), new(path="/a"), choice="paths are compared as they came")
    yield case(8, "another-host", new(), new(FRESH, "Host: other.example"), hit(of=1))
    yield case(8, "another-port", new(), new(FRESH, "Host: shop.example:81"), hit(of=1))
    yield case(8, "another-forwarded-host", new(), new(FRESH, "X-Forwarded-Host: other.example"), hit(of=1))
    yield case(8, "another-forwarded-scheme", new(), new(FRESH, "X-Forwarded-Proto: https"), hit(of=1))
    yield case(8, "ignored-parameters", new(path="?a=1"), hit(path="?a=1&utm_source=x"), gateway="varied")

    vary = cc("max-age=60", "Vary: Foo")
    yield case(9, "the-same", new(vary, "Foo: 1"), hit("Foo: 1"))
    yield case(9, "another", new(vary, "Foo: 1"), new(vary, "Foo: 2"), hit("Foo: 1", of=1), hit("Foo: 2", of=2))
    yield case(9, "absent-here", new(vary, "Foo: 1"), new(vary), hit(of=2), hit("Foo: 1", of=1))
    yield case(9, "absent-there", new(vary), new(vary, "Foo: 1"), hit(of=1))
    yield case(9, "absent-both-times", new(vary), hit())
    yield case(9, "empty-is-not-absent", new(vary), new(vary, "Foo: "), hit(of=1))
    yield case(9, "other-fields-are-no-matter", new(vary, "Foo: 1", "Other: 1"), hit("Foo: 1", "Other: 2"))
    two = cc("max-age=60", "Vary: Foo, Bar")
    yield case(9, "two-the-same", new(two, "Foo: 1", "Bar: a"), hit("Bar: a", "Foo: 1"))
    yield case(9, "two-one-is-another", new(two, "Foo: 1", "Bar: a"), new(two, "Foo: 1", "Bar: b"))
    yield case(9, "two-one-is-absent", new(two, "Foo: 1", "Bar: a"), new(two, "Foo: 1"))
    yield case(9, "two-one-absent-both-times", new(two, "Foo: 1"), hit("Foo: 1"))
    yield case(9, "two-swapped", new(two, "Foo: 1", "Bar: 2"), new(two, "Foo: 2", "Bar: 1"))
    lines = cc("max-age=60", "Vary: Foo", "Vary: Bar")
    yield case(9, "two-lines", new(lines, "Foo: 1", "Bar: a"), new(lines, "Foo: 1", "Bar: b"), hit("Foo: 1", "Bar: a", of=1))
    three = cc("max-age=60", "Vary: Foo, Bar, Baz")
    yield case(9, "three", new(three, "Foo: 1", "Bar: a", "Baz: x"), hit("Baz: x", "Foo: 1", "Bar: a"))
    yield case(9, "three-the-last-is-another", new(three, "Foo: 1", "Bar: a", "Baz: x"), new(three, "Foo: 1", "Bar: a", "Baz: y"))
    yield case(9, "names-in-any-case", new(cc("max-age=60", "Vary: fOO"), "Foo: 1"), new(vary, "foo: 2"), hit("FOO: 1", of=1))
    yield case(9, "values-have-a-case", new(vary, "Foo: a"), new(vary, "Foo: A"))
    yield case(9, "lines-are-joined", new(vary, "Foo: 1", "Foo: 2"), hit("Foo: 1, 2"))
    yield case(9, "spaces-around-commas", new(vary, "Foo: 1,2"), hit("Foo: 1 ,  2"))
    yield case(9, "order-in-unknown-fields-matters", new(vary, "Foo: 1, 2"), new(vary, "Foo: 2, 1"))
    language = cc("max-age=60", "Vary: Accept-Language")
    yield case(9, "language-case", new(language, "Accept-Language: en, de"), hit("Accept-Language: eN, De"))
    yield case(9, "language-order", new(language, "Accept-Language: en, de"), new(language, "Accept-Language: de, en"),
               choice="of languages of the same weight the first one may count")  # fmt: skip
    yield case(9, "language-space", new(language, "Accept-Language: en, de"), hit("Accept-Language:  en ,   de"))
    yield case(9, "language-weights", new(language, "Accept-Language: en, de;q=0.5"), hit("Accept-Language: de;q=0.500,en"))
    yield case(9, "language-others", new(language, "Accept-Language: en"), new(language, "Accept-Language: en-gb"))
    coding = cc("max-age=60", "Vary: Accept-Encoding")
    yield case(9, "encoding-what-is-acceptable", new(coding, "Accept-Encoding: gzip, br"), hit("Accept-Encoding: br;q=0.5, GZIP"))
    yield case(9, "encoding-refused", new(coding, "Accept-Encoding: gzip"), new(coding, "Accept-Encoding: gzip;q=0"))
    yield case(9, "encoding-absent", new(coding, "Accept-Encoding: gzip"), new(coding), hit("Accept-Encoding: gzip", of=1))
    yield case(9, "cookie", new(cc("max-age=60", "Vary: Cookie"), "Cookie: a=1"), new(language, "Cookie: a=2"))
    yield case(9, "host-is-in-the-key", new(cc("max-age=60", "Vary: Host")), hit(has={"Vary": "Host"}))
    yield case(9, "user-agent", new(cc("max-age=60", "Vary: User-Agent"), "User-Agent: x, y"), new(None, "User-Agent: x,y"))
    for name, value in [
        ("star", "*"), ("star-and-another", "*, Foo"), ("another-and-star", "Foo, *"), ("empty-and-star", ", *"),
        ("star-with-spaces", "  *  "), ("no-field-name", "Foo Bar"),
    ]:  # fmt: skip
        yield anew(f"vary-{name}", cc("max-age=60", f"Vary: {value}"), rules=9)
    yield anew("vary-star-on-another-line", cc("max-age=60", "Vary: Foo", "Vary: *"), rules=9)
    yield again("vary-empty", cc("max-age=60", "Vary: "), rules=9)
    yield again("vary-only-commas", cc("max-age=60", "Vary: , ,"), rules=9)
    yield again("vary-twice-the-same", cc("max-age=60", "Vary: Foo, foo"), rules=9)
    yield case(9, "vary-is-sent", new(vary, "Foo: 1"), hit("Foo: 1", has={"Vary": "Foo"}))
    yield case(9, "head-of-a-variant", new(vary, "Foo: 1"), hit("Foo: 1", method="HEAD"), new(vary, "Foo: 2", method="HEAD"))
    yield case(
        (9, 22),
        "a-variant-is-confirmed-by-its-own-tag",
        new(cc("max-age=5", "Vary: Foo", 'ETag: "one"'), "Foo: 1"),
        new(cc("max-age=5", "Vary: Foo", 'ETag: "two"'), "Foo: 2"),
        confirmed(unchanged("Vary: Foo"), "Foo: 1", after=10, of=1, asked={"If-None-Match": '"one"', "Foo": "1"}),
    )
    yield case(
        (9, 22),
        "a-304-with-another-vary-is-not-taken",
        new(cc("max-age=5", TAG)),
        new(unchanged("Vary: Foo", "Cache-Control: max-age=60"), "Foo: 1", calls=2, of=3, after=10),
        new(cc("max-age=60", "Vary: Foo"), "Foo: 2"),
    )
    yield case(
        (9, 17),
        "a-variant-is-renewed-behind",
        new(cc("max-age=5, stale-while-revalidate=60", "Vary: Foo"), "Foo: 1"),
        new(cc("max-age=60", "Vary: Foo"), "Foo: 2"),
        stale(cc("max-age=60", "Vary: Foo"), "Foo: 1", after=10, of=1, asked={"Foo": "1"}),
        hit("Foo: 1", of=3),
        hit("Foo: 2", of=2),
    )
    yield case(
        9,
        "a-rule-adds-to-vary",
        new(FRESH, "Accept-Language: de"),
        hit("Accept-Language: de", has={"Vary": "Accept-Language"}),
        new(FRESH, "Accept-Language: en"),
        gateway="varied",
    )

    plain, dated = cc("max-age=60"), "Date: "
    yield case(
        10,
        "without-vary-first",
        new(cc("max-age=60", dated + date(-2))),
        hit("Foo: 1"),
        new(cc("max-age=60", "Vary: Foo"), "Foo: 1", path="?b"),
    )
    yield case(
        10,
        "without-vary-later",
        new(vary, "Foo: 1"),
        new(plain, "Foo: 2", after=1),
        hit("Foo: 2", of=2),
        hit("Foo: 3", of=2),
        hit("Foo: 1", of=2),
    )
    yield case(
        10,
        "without-vary-does-not-shadow-newer-ones",
        new(vary, "Foo: 1"),
        new(cc("max-age=60", dated + date(-30)), "Foo: 2"),
        new(cc("max-age=60", "Vary: Foo", dated + date(0)), "Foo: 2", of=0, path="?x"),
        hit("Foo: 1", of=1),
        hit("Foo: 3", of=2),
    )
    yield case(
        10,
        "another-vary-later",
        new(vary, "Foo: 1", "Bar: 1"),
        new(cc("max-age=60", "Vary: Bar"), "Foo: 2", "Bar: 1", after=1),
        hit("Foo: 2", "Bar: 1", of=2),
        hit("Foo: 1", "Bar: 1", of=2),
        hit("Foo: 1", "Bar: 2", of=1),
        new(vary, "Foo: 3", "Bar: 3"),
    )


# -- freshness: rules 11 to 15 ---------------------------------------------------------------------------------------


def freshness() -> Iterator[Case]:
    """How long it is fresh."""
    yield again("max-age", cc("max-age=60"), rules=11, after=59)
    yield anew("max-age-is-over", cc("max-age=60"), rules=11, after=60)
    yield anew("max-age-0", cc("max-age=0"), rules=11, after=0)
    yield again("s-maxage", cc("s-maxage=60"), rules=11, after=59)
    yield anew("s-maxage-is-over", cc("s-maxage=60"), rules=11, after=60)
    yield again("s-maxage-before-max-age", cc("max-age=1, s-maxage=60"), rules=11)
    yield anew("a-lower-s-maxage-before-max-age", cc("s-maxage=1, max-age=60"), rules=11)
    yield again("s-maxage-before-max-age-0", cc("max-age=0, s-maxage=60"), rules=11)
    yield again("max-age-before-expires", cc("max-age=60", f"Expires: {date(-10)}"), rules=11)
    yield anew("a-lower-max-age-before-expires", cc("max-age=1", f"Expires: {date(60)}"), rules=11)
    yield again("max-age-before-a-bad-expires", cc("max-age=60", "Expires: 0"), rules=11)
    yield again("s-maxage-before-expires", cc("s-maxage=60", f"Expires: {date(-10)}"), rules=11)
    yield again("expires", ok(f"Expires: {date(60)}", f"Date: {date()}"), rules=11, after=59)
    yield anew("expires-is-over", ok(f"Expires: {date(60)}", f"Date: {date()}"), rules=11, after=60)
    yield again("expires-without-date", ok(f"Expires: {date(60)}"), rules=11, after=59)
    yield anew("expires-in-the-past", ok(f"Expires: {date(-60)}", f"Date: {date()}"), rules=11, after=0)
    yield anew("expires-now", ok(f"Expires: {date()}", f"Date: {date()}"), rules=11, after=0)
    yield anew("expires-counts-from-date", ok(f"Expires: {date(60)}", f"Date: {date(55)}"), rules=11)
    yield anew("expires-with-age", ok(f"Expires: {date(60)}", "Age: 60"), rules=(11, 13), after=0)
    yield again("guessed", ok(LONG_AGO, f"Date: {date()}"), rules=11, after=8600)
    yield anew("guessed-is-over", ok(LONG_AGO, f"Date: {date()}"), rules=11, after=8640)
    yield again("guessed-up-to-a-day", ok(f"Last-Modified: {date(-(10**8))}"), rules=11, after=86399,
                choice="no more than a day is guessed")  # fmt: skip
    yield anew("guessed-no-more-than-a-day", ok(f"Last-Modified: {date(-(10**8))}"), rules=11, after=86400)
    yield anew("guessed-of-the-future", ok(f"Last-Modified: {date(100)}"), rules=11, after=0)
    yield anew("max-age-0-is-not-guessed", cc("max-age=0", LONG_AGO), rules=11, after=0)
    yield anew("expires-is-not-guessed", ok("Expires: 0", LONG_AGO), rules=11, after=0)
    yield case(11, "a-rule-where-nothing-is-said", new(ok()), hit(after=59), new(after=1), gateway="rules")
    yield case(11, "the-response-before-a-rule", new(cc("max-age=5")), new(after=5), gateway="rules")
    yield case(11, "no-rule-for-other-statuses", new(answer(302)), new(), gateway="rules")

    for name, value in [
        ("nothing-but-zeros", "max-age=000"),
        ("negative", "max-age=-60"),
        ("decimal", "max-age=60.5"),
        ("letter-before", "max-age=a60"),
        ("letter-after", "max-age=60a"),
        ("no-value", "max-age"),
        ("empty-value", "max-age="),
        ("empty-quotes", 'max-age=""'),
        ("single-quotes", "max-age='60'"),
        ("space-before-equals", "max-age 60"),
        ("plus", "max-age=+60"),
        ("twice", "max-age=60, max-age=60"),
        ("twice-others", "max-age=60, max-age=1"),
        ("exponent", "max-age=6e1"),
        ("two-numbers", "max-age=6 0"),
        ("another-name-before", "x-max-age=60"),
        ("another-name-after", "max-age-x=60"),
        ("in-quotes", 'x="max-age=60"'),
        ("after-a-quote-not-closed", 'x="a, max-age=60'),
        ("semicolon", "public; max-age=60"),
        ("colon", "max-age:60"),
    ]:
        yield anew(f"{name}", cc(value), rules=12)
    for name, value in [
        ("large", "max-age=2147483648"),
        ("larger", "max-age=99999999999"),
        ("of-a-thousand-digits", f"max-age={'9' * 1000}"),
        ("leading-zeros", "max-age=0060"),
        ("in-quotes-itself", 'max-age="60"'),
        ("in-capitals", "MAX-AGE=60"),
        ("spaces-around", "  max-age=60  "),
        ("after-an-unknown", "foo, max-age=60"),
        ("before-an-unknown", "max-age=60, foo"),
        ("beside-an-unknown-with-value", "foo=1, max-age=60"),
        ("empty-members", ",, max-age=60 ,,"),
        ("tab", "public,\tmax-age=60"),
        ("beside-a-quoted-comma", 'foo="a,b", max-age=60'),
        ("beside-a-quoted-max-age", 'foo="max-age=1", max-age=60'),
        ("beside-an-escaped-quote", 'foo="a\\", max-age=1", max-age=60'),
        ("without-space", "public,max-age=60"),
        ("unknown-like-a-number", "60, max-age=60"),
    ]:
        yield again(f"{name}", cc(value), rules=12)
    yield again("lines-are-joined-of-cache-control", cc("public", "Cache-Control: max-age=60"), rules=12)
    yield anew("twice-on-two-lines", cc("max-age=60", "Cache-Control: max-age=60"), rules=12)
    yield anew("s-maxage-bad", cc("s-maxage=x, max-age=60"), rules=12, after=0)
    yield anew("s-maxage-twice", cc("s-maxage=60, s-maxage=60"), rules=12)
    yield again("spaces-around-equals", cc("max-age = 60"), rules=12, choice="spaces around = are overlooked")
    for name, value in [
        ("0", "0"),
        ("minus-1", "-1"),
        ("empty", ""),
        ("words", "in a minute"),
        ("no-zone", date(60)[:-4]),
        ("another-zone", date(60)[:-3] + "EST"),
        ("offset", date(60)[:-3] + "+0000"),
        ("utc", date(60)[:-3] + "UTC"),
        ("two-digit-year", "Fri, 15 Jan 27 08:01:00 GMT"),
        ("one-digit-hour", "Fri, 15 Jan 2027 8:01:00 GMT"),
        ("no-weekday", date(60)[5:]),
        ("no-comma", date(60).replace(",", "")),
        ("two-spaces", date(60).replace(" ", "  ")),
        ("dashes", "Fri, 15-Jan-2027 08:01:00 GMT"),
        ("no-such-day", "Fri, 32 Jan 2027 08:01:00 GMT"),
        ("dots", date(60).replace(":", ".")),
        ("year-10000", "Fri, 15 Jan 10000 08:01:00 GMT"),
    ]:
        yield anew(f"expires-{name}", ok(f"Expires: {value}"), rules=12, after=0)
    yield anew("expires-on-two-lines", ok(f"Expires: {date(60)}", f"Expires: {date(60)}"), rules=12, after=0)
    for name, value in [
        ("rfc-850", "Friday, 15-Jan-27 08:01:00 GMT"), ("asctime", "Fri Jan 15 08:01:00 2027"), ("lower-case", date(60).lower()),
        ("upper-case", date(60).upper()), ("far-away", "Fri, 31 Dec 9999 23:59:59 GMT"),
    ]:  # fmt: skip
        yield again(f"expires-{name}", ok(f"Expires: {value}"), rules=12)
    yield anew("date-in-the-future-makes-nothing-longer", cc("max-age=5", f"Date: {date(1000)}"), rules=(12, 13), after=6)
    yield again("pragma-in-a-response-says-nothing", cc("max-age=60", "Pragma: no-cache"), rules=12)
    yield again("pragma-in-a-response-beside-a-guess", ok(LONG_AGO, "Pragma: no-cache"), rules=12)

    yield again("age", cc("max-age=60", "Age: 40"), rules=13, after=19)
    yield anew("age-is-over", cc("max-age=60", "Age: 40"), rules=13, after=20)
    yield anew("age-over-on-arrival", cc("max-age=60", "Age: 60"), rules=13, after=0)
    for name, value in [("large", "2147483648"), ("larger", "99999999999"), ("of-a-thousand-digits", "9" * 1000)]:
        yield anew(f"age-{name}", cc("max-age=60", f"Age: {value}"), rules=13, after=0)
    for name, value in [
        ("words", "old"), ("negative", "-7200"), ("letter-after", "7200a"), ("letter-before", "a7200"), ("parameter", "7200;a=1"),
        ("decimal", "7200.0"), ("empty", ""), ("quoted", '"7200"'),
    ]:  # fmt: skip
        yield again(f"age-{name}", cc("max-age=60", f"Age: {value}"), rules=13, choice="an invalid Age is ignored")
    yield anew("age-on-two-lines", cc("max-age=60", "Age: 7200", "Age: 0"), rules=13, after=0)
    yield again("age-on-two-lines-the-first-counts", cc("max-age=60", "Age: 0", "Age: 7200"), rules=13)
    yield again("age-in-a-list-the-first-counts", cc("max-age=60", "Age: 0, 7200"), rules=13)
    yield anew("an-old-date", cc("max-age=60", f"Date: {date(-60)}"), rules=13, after=0)
    yield again("a-date-not-so-old", cc("max-age=60", f"Date: {date(-30)}"), rules=13, after=29)
    yield case(
        13, "age-and-date-the-greater", new(cc("max-age=60", f"Date: {date(-30)}", "Age: 10")), hit(after=5, has={"Age": "35"})
    )
    yield case(
        13, "date-and-age-the-greater", new(cc("max-age=60", f"Date: {date(-10)}", "Age: 30")), hit(after=5, has={"Age": "35"})
    )

    yield case(14, "age-is-sent", new(FRESH, has={"Age": None}), hit(has={"Age": "0"}), hit(after=7.5, has={"Age": "7"}))
    yield case(
        14, "age-of-the-app-is-passed-on", new(cc("max-age=60", "Age: 30"), has={"Age": "30"}), hit(after=5, has={"Age": "35"})
    )
    yield case(14, "date-is-kept", new(cc("max-age=60", f"Date: {date(-3)}")), hit(after=20, has={"Date": date(-3), "Age": "23"}))
    yield case(14, "age-in-a-304", new(cc("max-age=60", TAG)), hit(INM, status=304, after=9, has={"Age": "9"}))
    yield case(14, "age-in-a-206", new(cc("max-age=60", body=DIGITS)),
               hit("Range: bytes=0-0", status=206, body=b"0", after=9, has={"Age": "9"}))  # fmt: skip
    yield case(14, "age-to-head", new(), hit(method="HEAD", after=9, has={"Age": "9"}))
    yield case(
        (14, 30),
        "age-of-the-app-when-part-of-it-is-asked-for",
        new(cc("max-age=60", "Age: 30", body=DIGITS), "Range: bytes=0-1", status=206, body=b"01", has={"Age": "30"}),
    )
    yield case(
        (14, 22),
        "age-starts-anew-with-a-304",
        new(cc("max-age=5", TAG, f"Date: {date()}")),
        confirmed(unchanged(f"Date: {date(10)}"), after=10, has={"Age": "0", "Date": date(10)}),
        hit(after=4, has={"Age": "4", "Date": date(10)}),
        confirmed(unchanged(), after=1),
    )
    yield case(
        (13, 22),
        "age-of-the-304-counts",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged("Age: 3"), after=10, has={"Age": "3"}),
        hit(after=1, has={"Age": "4"}),
        confirmed(unchanged(), after=1),
    )

    for value in ("no-cache", "max-age=0", "max-age=5", "min-fresh=100", "no-store", "max-age=0, no-cache"):
        name = value.replace("=", "-").replace(", ", "-")
        yield case(15, f"{name}-is-not-obeyed", new(), hit(f"Cache-Control: {value}", after=10))
    yield case(15, "pragma-is-not-obeyed", new(), hit("Pragma: no-cache"))
    yield case(15, "only-if-cached-is-not-obeyed", new(FRESH, "Cache-Control: only-if-cached"), hit())
    yield case(15, "max-stale-is-not-obeyed", new(cc("max-age=5")), new(FRESH, "Cache-Control: max-stale=100", after=10))
    yield from honoured()


def honoured() -> Iterator[Case]:
    """What a visitor's own Cache-Control does where it is obeyed."""

    def obeyed(name: str, *steps: Step, gateway: str = "honors", choice: str = "") -> Case:
        return case(15, f"honoured-{name}", *steps, gateway=gateway, choice=choice)

    tagged = cc("max-age=60", TAG)
    yield obeyed("no-cache", new(), new(FRESH, "Cache-Control: no-cache", word="EXPIRED"), hit())
    yield obeyed(
        "no-cache-is-confirmed",
        new(tagged),
        confirmed(unchanged(), "Cache-Control: no-cache", asked={"If-None-Match": '"a"'}),
        hit(),
    )
    yield obeyed("no-cache-in-capitals", new(), new(FRESH, "Cache-Control: No-Cache"))
    yield obeyed("no-cache-on-a-miss", new(FRESH, "Cache-Control: no-cache"), hit())
    yield obeyed("pragma", new(), new(FRESH, "Pragma: no-cache"), hit("Pragma: foo"))
    yield obeyed("pragma-beside-cache-control", new(), hit("Pragma: no-cache", "Cache-Control: foo"))
    yield obeyed("max-age-0", new(), new(FRESH, "Cache-Control: max-age=0", after=0.1))
    yield obeyed("max-age", new(), hit("Cache-Control: max-age=10", after=10), new(FRESH, "Cache-Control: max-age=10", after=1))
    yield obeyed("max-age-with-age-on-arrival", new(cc("max-age=60", "Age: 30")), new(FRESH, "Cache-Control: max-age=20"))
    yield obeyed("max-age-bad", new(), new(FRESH, "Cache-Control: max-age=x", after=0.1))
    yield obeyed(
        "min-fresh", new(), hit("Cache-Control: min-fresh=50", after=10), new(FRESH, "Cache-Control: min-fresh=50", after=1)
    )
    yield obeyed("min-fresh-more-than-all", new(), new(FRESH, "Cache-Control: min-fresh=61"))
    yield obeyed("max-stale", new(cc("max-age=5")), stale(FRESH, "Cache-Control: max-stale=100", after=10), hit(of=2))
    yield obeyed("max-stale-without-end", new(cc("max-age=5")), stale(FRESH, "Cache-Control: max-stale", after=1000))
    yield obeyed("max-stale-is-over", new(cc("max-age=5")), new(FRESH, "Cache-Control: max-stale=4", after=10))
    yield obeyed("max-stale-bad", new(cc("max-age=5")), new(FRESH, "Cache-Control: max-stale=x", after=10))
    for name in ("must-revalidate", "proxy-revalidate", "s-maxage=5", "no-cache"):
        word = name.partition("=")[0]
        yield obeyed(f"max-stale-against-{word}", new(cc(f"max-age=5, {name}", TAG)),
                     confirmed(unchanged(), "Cache-Control: max-stale", after=10))  # fmt: skip
    yield obeyed("only-if-cached", new(), hit("Cache-Control: only-if-cached"))
    yield obeyed("only-if-cached-and-it-is-not", gone("Cache-Control: only-if-cached", word="MISS"), new())
    yield obeyed("only-if-cached-and-it-is-stale", new(cc("max-age=5")), gone("Cache-Control: only-if-cached", after=10), new())
    yield obeyed("only-if-cached-max-stale", new(cc("max-age=5")),
                 stale(FRESH, "Cache-Control: only-if-cached, max-stale", after=10))  # fmt: skip
    yield obeyed("only-if-cached-head", new(), hit("Cache-Control: only-if-cached", method="HEAD"))
    yield obeyed("stale-if-error", new(cc("max-age=5")), stale(DOWN, "Cache-Control: stale-if-error=60", after=10))
    yield obeyed("stale-if-error-is-over", new(cc("max-age=5")), new(DOWN, "Cache-Control: stale-if-error=4", after=10))
    yield obeyed("stale-if-error-against-must-revalidate", new(cc("max-age=5, must-revalidate")),
                 new(DOWN, "Cache-Control: stale-if-error=60", after=10))  # fmt: skip
    yield obeyed("no-cache-and-the-app-fails", new(), stale(DOWN, "Cache-Control: no-cache", after=10), gateway="honors-windows",
                 choice="where stale-if-error is allowed, it is for who reloads too")  # fmt: skip
    yield obeyed("no-cache-in-swr", new(cc("max-age=5")), new(FRESH, "Cache-Control: no-cache", after=10), gateway="honors-windows")
    yield obeyed("nothing-in-swr", new(cc("max-age=5")), stale(FRESH, after=10), gateway="honors-windows")
    yield obeyed(
        "max-age-in-swr", new(cc("max-age=5")), new(FRESH, "Cache-Control: max-age=100", after=10), gateway="honors-windows"
    )


# -- stale: rules 16 to 18 -------------------------------------------------------------------------------------------


def past_freshness() -> Iterator[Case]:
    """What is served although it is stale."""
    lost = gone(reply=FAILS, calls=1, after=10, word="EXPIRED")
    yield case(16, "no-window-and-a-failure", new(cc("max-age=5")), new(DOWN, after=10), new(FRESH), hit())
    yield anew("no-window", cc("max-age=5"), rules=(16, 17), after=5)
    for name in ("must-revalidate", "proxy-revalidate", "s-maxage=5"):
        word = name.partition("=")[0]
        held = cc(f"max-age=5, {name}", TAG)
        yield case(16, f"{word}-fresh", new(held), hit(after=4), gateway="windows")
        yield case(16, f"{word}-is-not-renewed-behind", new(held), confirmed(unchanged(), after=5), gateway="windows")
        yield case(16, f"{word}-and-no-answer", new(held), lost, new(FRESH), hit(), gateway="windows")
        yield case(16, f"{word}-and-a-failure-goes-through", new(held), new(DOWN, after=10), gateway="windows")
    yield case(16, "no-cache-each-time", new(cc("no-cache", TAG)), confirmed(unchanged()), confirmed(unchanged(), after=9))
    yield case(16, "no-cache-beside-max-age", new(cc("max-age=60, no-cache", TAG)), confirmed(unchanged()))
    yield case(16, "no-cache-in-capitals", new(cc("max-age=60, NO-CACHE", TAG)), confirmed(unchanged()))
    yield case(
        16,
        "no-cache-by-date",
        new(cc("max-age=60, no-cache", MODIFIED)),
        confirmed(unchanged(), asked={"If-Modified-Since": date(-100)}),
    )
    yield anew("no-cache-without-validator", cc("max-age=60, no-cache"), rules=16, after=0)
    yield case(16, "no-cache-is-not-renewed-behind", new(cc("no-cache", TAG)), confirmed(unchanged(), after=5), gateway="windows")
    yield case(16, "no-cache-and-a-failure", new(cc("no-cache", TAG)), new(DOWN, after=5), gateway="windows")
    yield case(
        16, "no-cache-and-explicit-windows", new(cc("no-cache, stale-while-revalidate=60, stale-if-error=60", TAG)), new(DOWN)
    )
    yield case(16, "must-revalidate-and-explicit-windows", new(cc("max-age=5, must-revalidate, stale-while-revalidate=60", TAG)),
               new(DOWN, after=10))  # fmt: skip
    yield case(16, "s-maxage-and-explicit-swr", new(cc("s-maxage=5, stale-while-revalidate=60")), stale(FRESH, after=10), hit(of=2))
    yield case(16, "s-maxage-and-explicit-sie", new(cc("s-maxage=5, stale-if-error=60")), stale(DOWN, after=10))
    yield case(
        16, "must-revalidate-on-another-line", new(cc("max-age=5", TAG, "Cache-Control: must-revalidate")), lost, gateway="windows"
    )
    yield case(16, "must-revalidate-targeted", new(ok("CDN-Cache-Control: max-age=5, must-revalidate", TAG)),
               lost, gateway="windows")  # fmt: skip

    swr = cc("max-age=5, stale-while-revalidate=60")
    yield case(17, "renewed-behind", new(swr), stale(FRESH, after=10), hit(of=2))
    yield case(17, "to-its-last-second", new(swr), stale(FRESH, after=64))
    yield case(17, "not-past-its-window", new(swr), new(FRESH, after=65), hit())
    yield case(17, "not-without-it", new(cc("max-age=5, stale-if-error=60")), new(FRESH, after=6))
    yield case(17, "fresh-is-not-renewed", new(swr), hit(after=4))
    yield case(17, "renewal-fails", new(swr), stale(DOWN, after=10), asks(DOWN, calls=0, word="UPDATING", of=1))
    yield case(17, "renewal-breaks-off", new(swr), stale(Reply(200, ("Cache-Control: max-age=60",), raises="later"), after=10),
               asks(DOWN, calls=0, word="UPDATING", of=1))  # fmt: skip
    yield case(17, "renewal-raises", new(swr), stale(FAILS, after=10), asks(FAILS, calls=0, word="UPDATING", of=1))
    yield case(17, "renewal-is-private-now", new(swr), stale(cc("private"), after=10), new(FRESH))
    yield case(17, "renewal-is-404", new(swr), stale(answer(404, "Cache-Control: max-age=60"), after=10), hit(of=2, status=404))
    yield case(17, "renewal-confirms", new(cc("max-age=5, stale-while-revalidate=60", TAG)),
               stale(unchanged(), after=10, asked={"If-None-Match": '"a"'}), hit(of=1, after=4))  # fmt: skip
    yield case(
        17,
        "renewal-has-nothing-of-the-visitor",
        new(swr),
        stale(
            FRESH,
            "Cookie: a=b",
            "X-A: b",
            'If-None-Match: "z"',
            after=10,
            asked={"Cookie": None, "X-A": None, "If-None-Match": None, "Host": "shop.example"},
        ),
    )
    yield case(17, "for-head-too", new(swr), stale(FRESH, method="HEAD", after=10), hit(of=2))
    yield case(
        17, "as-304", new(cc("max-age=5, stale-while-revalidate=60", TAG)), stale(FRESH, INM, status=304, after=10), hit(of=2)
    )
    yield case(17, "configured", new(cc("max-age=5")), stale(FRESH, after=64), hit(of=2), gateway="windows")
    yield case(17, "configured-is-over", new(cc("max-age=5")), new(FRESH, after=65), gateway="windows")
    yield case(
        17,
        "the-response-before-the-configuration",
        new(cc("max-age=5, stale-while-revalidate=0")),
        new(FRESH, after=6),
        gateway="windows",
    )
    yield case(17, "a-bad-number-is-no-window", new(cc("max-age=5, stale-while-revalidate=x")), new(FRESH, after=6))

    sie = cc("max-age=5, stale-if-error=60")
    for status in (500, 502, 503, 504):
        yield case(18, f"{status}", new(sie), stale(answer(status), after=10))
        yield case(18, f"{status}-that-says-it-is-fresh", new(sie), stale(answer(status, "Cache-Control: max-age=60"), after=10))
    for status in (400, 403, 404, 410, 501, 505, 429):
        yield case(18, f"{status}-is-no-failure", new(sie), new(answer(status), after=10))
    yield case(18, "the-app-raises", new(sie), stale(FAILS, after=10))
    yield case(18, "to-its-last-second", new(sie), stale(DOWN, after=64))
    yield case(18, "not-past-its-window", new(sie), new(DOWN, after=65))
    yield case(18, "good-again", new(sie), new(FRESH, after=10), hit())
    yield case(18, "the-app-is-left-alone-a-while", new(sie), stale(DOWN, after=10), asks(DOWN, calls=0, word="STALE", of=1),
               stale(DOWN, after=3))  # fmt: skip
    yield case(
        18, "in-the-longer-window", new(cc("max-age=5, stale-while-revalidate=10, stale-if-error=100")), stale(DOWN, after=60)
    )
    yield case(18, "configured", new(cc("max-age=5")), stale(DOWN, after=500), gateway="windows")
    yield case(18, "not-without-it", new(cc("max-age=5, stale-while-revalidate=10")), new(DOWN, after=20))
    yield case(18, "head", new(sie), stale(DOWN, method="HEAD", after=10))
    yield case(18, "a-variant", new(cc("max-age=5, stale-if-error=60", "Vary: Foo"), "Foo: 1"), stale(DOWN, "Foo: 1", after=10),
               new(DOWN, "Foo: 2"))  # fmt: skip
    yield case(18, "part-of-it", new(cc("max-age=5, stale-if-error=60", body=DIGITS)),
               stale(DOWN, "Range: bytes=2-3", status=206, body=b"23", after=10))  # fmt: skip


# -- validation: rules 19 to 25 --------------------------------------------------------------------------------------


def validation() -> Iterator[Case]:
    """Conditional requests, from both sides."""
    tagged = cc("max-age=60", TAG)
    for name, known, tag in [
        ("the-same", '"a"', '"a"'), ("weak-there", 'W/"a"', '"a"'), ("weak-here", '"a"', 'W/"a"'), ("both-weak", 'W/"a"', 'W/"a"'),
        ("first-of-several", '"a", "b"', '"a"'), ("last-of-several", '"b", "a"', '"a"'), ("in-the-middle", '"b", W/"a","c"', '"a"'),
        ("star", "*", '"a"'), ("obsolete-text", '"a\xe9"', '"a\xe9"'), ("comma-within", '"a,b"', '"a,b"'), ("empty", '""', '""'),
        ("without-quotes", "a", "a"), ("without-quotes-there", "a", '"a"'), ("without-quotes-here", '"a"', "a"),
    ]:  # fmt: skip
        yield case(19, f"inm-{name}", new(cc("max-age=60", f"ETag: {tag}")), hit(f"If-None-Match: {known}", status=304))
    yield case(19, "inm-on-two-lines", new(tagged), hit('If-None-Match: "b"', INM, status=304))
    for name, known in [
        ("another", '"b"'),
        ("a-part", '"aa"'),
        ("another-case", '"A"'),
        ("none-of-several", '"b", "c"'),
        ("quoted-star", '"*"'),
    ]:
        yield case(19, f"inm-{name}", new(tagged), hit(f"If-None-Match: {known}"))
    yield case(19, "inm-without-etag", new(), hit(INM))
    yield case(19, "inm-star-without-etag", new(), hit("If-None-Match: *", status=304))
    yield case(
        19,
        "inm-goes-before-ims",
        new(cc("max-age=60", TAG, MODIFIED)),
        hit('If-None-Match: "b"', IMS),
        hit(INM, "If-Modified-Since: x", status=304),
    )
    yield case(19, "inm-to-head", new(tagged), hit(INM, method="HEAD", status=304))
    modified = cc("max-age=60", MODIFIED)
    for name, since in [
        ("the-same", date(-100)),
        ("later", date(-50)),
        ("rfc-850", "Friday, 15-Jan-27 07:58:20 GMT"),
        ("asctime", "Fri Jan 15 07:58:20 2027"),
        ("future", date(500)),
    ]:
        yield case(19, f"ims-{name}", new(modified), hit(f"If-Modified-Since: {since}", status=304))
    for name, since in [("earlier", date(-101)), ("invalid", "yesterday"), ("another-zone", date(-100)[:-3] + "EST")]:
        yield case(19, f"ims-{name}", new(modified), hit(f"If-Modified-Since: {since}"))
    yield case(19, "ims-to-head", new(modified), hit(IMS, method="HEAD", status=304))
    yield case(
        19,
        "ims-by-date",
        new(cc("max-age=60", f"Date: {date(-3)}")),
        hit(f"If-Modified-Since: {date(-3)}", status=304),
        hit(f"If-Modified-Since: {date(-4)}"),
    )
    yield case(19, "ims-by-arrival", new(), hit(f"If-Modified-Since: {date()}", status=304), hit(f"If-Modified-Since: {date(-1)}"))
    yield case(19, "not-of-a-404", new(answer(404, "Cache-Control: max-age=60", TAG)), hit(INM))
    yield case(19, "not-for-post", new(tagged), post(ok(), INM, asked={"If-None-Match": '"a"'}))
    yield case(19, "first-fill", new(tagged, INM, status=304, asked={"If-None-Match": None}), hit())
    yield case(19, "first-fill-another", new(tagged, 'If-None-Match: "b"'), hit(INM, status=304))

    kept = {
        "Cache-Control": "max-age=60",
        "ETag": '"a"',
        "Content-Location": "/x",
        "Date": date(-3),
        "Expires": date(60),
        "Vary": "Foo",
        "CDN-Cache-Control": "max-age=60",
        "Last-Modified": None,
        "Content-Type": None,
        "Content-Length": None,
        "X-A": None,
    }
    whole = [f"{name}: {value}" for name, value in kept.items() if value] + [MODIFIED, "Content-Type: text/plain", "X-A: 1"]
    yield case(20, "the-fields-of-a-304", new(ok(*whole)), hit(INM, status=304, has=kept))
    yield case(20, "last-modified-without-etag", new(modified), hit(IMS, status=304, has={"Last-Modified": date(-100)}))
    yield case(20, "of-a-first-fill", new(ok(*whole), INM, status=304, has=kept))
    yield case(
        (20, 22),
        "after-a-confirmation",
        new(cc("max-age=5", TAG)),
        confirmed(
            unchanged("Cache-Control: max-age=60"), INM, after=10, status=304, has={"ETag": '"a"', "Cache-Control": "max-age=60"}
        ),
    )

    for name in ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Range", "If-Range"):
        value = "bytes=0-1" if name == "Range" else date(-5) if name.endswith("Since") else '"zzz"'
        yield case(
            21,
            f"{name.lower()}-does-not-reach-a-filling-app",
            new(
                tagged,
                f"{name}: {value}",
                status=206 if name == "Range" else 200,
                body=b"ru" if name == "Range" else None,
                asked={name: None},
            ),
            hit(),
        )
    yield case(
        21, "if-match-is-not-evaluated", new(tagged), hit('If-Match: "b"'), choice="a fresh copy is served whatever If-Match says"
    )
    yield case(21, "conditions-reach-an-app-that-does-not-fill", new(cc("no-store", TAG)),
               new(unchanged(), INM, "Range: bytes=0-1", asked={"If-None-Match": '"a"', "Range": "bytes=0-1"}))  # fmt: skip
    yield case(
        21,
        "range-of-what-is-not-stored",
        new(cc("no-store")),
        new(answer(206, "Content-Range: bytes 0-0/9", body=b"x"), "Range: bytes=0-0", asked={"Range": "bytes=0-0"}),
    )
    yield case(
        21, "conditions-of-an-unsafe-request", new(tagged), post(answer(412), 'If-Match: "b"', asked={"If-Match": '"b"'}), hit(of=1)
    )
    yield case(21, "conditions-of-a-head", new(unchanged(TAG), INM, method="HEAD", asked={"If-None-Match": '"a"'}), new(tagged))

    both = cc("max-age=5", TAG, MODIFIED)
    yield case(
        22,
        "both-validators-are-sent",
        new(both),
        confirmed(unchanged(), after=10, asked={"If-None-Match": '"a"', "If-Modified-Since": date(-100)}),
    )
    yield case(
        22,
        "as-they-came",
        new(cc("max-age=5", 'ETag: W/"a"')),
        confirmed(unchanged(), after=10, asked={"If-None-Match": 'W/"a"', "If-Modified-Since": None}),
    )
    yield case(
        22, "without-quotes", new(cc("max-age=5", "ETag: a")), confirmed(unchanged(), after=10, asked={"If-None-Match": "a"})
    )
    yield case(
        22,
        "none-without-validators",
        new(cc("max-age=5")),
        new(FRESH, after=10, asked={"If-None-Match": None, "If-Modified-Since": None}),
    )
    yield case(
        22,
        "the-visitors-own-is-not-sent",
        new(both),
        new(cc("max-age=60", 'ETag: "b"'), 'If-None-Match: "b"', after=10, status=304, asked={"If-None-Match": '"a"'}),
        hit(of=2),
    )
    yield case(
        22,
        "freshness-starts-anew",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged(), after=10),
        hit(after=4),
        confirmed(unchanged(), after=1),
    )
    yield case(
        22,
        "freshness-of-the-304",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged("Cache-Control: max-age=60"), after=10),
        hit(after=59),
    )
    yield case(
        22,
        "expires-of-the-304",
        new(ok(f"Expires: {date(5)}", TAG)),
        confirmed(unchanged(f"Expires: {date(70)}"), after=10),
        hit(after=59),
    )
    yield case(
        22,
        "a-304-with-no-store",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged("Cache-Control: no-store"), after=10),
        new(FRESH, asked={"If-None-Match": None}),
    )
    yield case(
        22,
        "a-304-with-private",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged("Cache-Control: private, max-age=60"), after=10),
        new(FRESH),
    )
    yield case(22, "a-304-with-vary-star", new(cc("max-age=5", TAG)), confirmed(unchanged("Vary: *"), after=10), new(FRESH))
    for name, old, fresh in [
        ("test-header", "Test-Header: a", "Test-Header: b"),
        ("x-test-header", "X-Test-Header: a", "X-Test-Header: b"),
        ("content-foo", "Content-Foo: a", "Content-Foo: b"),
        ("x-content-foo", "X-Content-Foo: a", "X-Content-Foo: b"),
        ("content-location", "Content-Location: /a", "Content-Location: /b"),
        ("csp", "Content-Security-Policy: a", "Content-Security-Policy: b"),
        ("x-frame-options", "X-Frame-Options: DENY", "X-Frame-Options: SAMEORIGIN"),
        ("expires", f"Expires: {date(5)}", f"Expires: {date(70)}"),
        ("last-modified", f"Last-Modified: {date(-9)}", f"Last-Modified: {date(-8)}"),
        ("content-md5", "Content-MD5: a", "Content-MD5: b"),
    ]:
        field, value = fresh.split(": ", 1)
        updated = {field: value}
        yield case(22, f"{name}-is-updated", new(cc("max-age=5", TAG, old)),
                   confirmed(unchanged("Cache-Control: max-age=60", fresh), after=10, has=updated), hit(has=updated))  # fmt: skip
    yield case(
        22,
        "a-new-field-is-added",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged("X-New: 1", "X-New: 2"), after=10, has={"X-New": ["1", "2"]}),
    )
    yield case(22, "others-stay", new(cc("max-age=5", TAG, "X-A: 1")),
               confirmed(unchanged(), after=10, has={"X-A": "1", "ETag": '"a"'}))  # fmt: skip
    for name, old, fresh in [
        ("content-type", "Content-Type: text/a", "Content-Type: text/b"),
        ("content-encoding", "Content-Encoding: x-a", "Content-Encoding: x-b"),
        ("content-range", "Content-Range: a", "Content-Range: b"),
    ]:
        field, value = old.split(": ", 1)
        yield case(
            22, f"{name}-is-not-updated", new(cc("max-age=5", TAG, old)), confirmed(unchanged(fresh), after=10, has={field: value})
        )
    yield case(
        22,
        "content-length-is-not-updated",
        new(cc("max-age=5", TAG, body=DIGITS)),
        confirmed(unchanged("Content-Length: 36"), after=10, has={"Content-Length": "10"}),
    )
    yield case(
        (5, 22),
        "hop-by-hop-is-not-updated",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged("Keep-Alive: 1", "Connection: x-a", "X-A: 1"), after=10, has={"Keep-Alive": None, "X-A": None}),
    )
    yield case(22, "a-weak-tag-of-the-same", new(cc("max-age=5", TAG)), confirmed(unchanged('ETag: W/"a"'), after=10))
    yield case(
        22,
        "a-strong-tag-of-another",
        new(cc("max-age=5", TAG)),
        new(unchanged('ETag: "b"'), calls=2, of=3, after=10, word="EXPIRED"),
        choice="a 304 about something else is asked again without a condition",
    )
    yield case(22, "only-for-get", new(cc("max-age=5", TAG)), new(ok(), method="HEAD", after=10, asked={"If-None-Match": None}))

    yield case(23, "a-full-answer-replaces", new(both), new(FRESH, after=10), hit())
    yield case(23, "404-replaces", new(both), new(answer(404, "Cache-Control: max-age=60"), after=10), hit())
    yield case(23, "410-replaces", new(cc("max-age=5, stale-if-error=60")), new(answer(410), after=10), new(FRESH))
    yield case(23, "what-says-nothing-drops", new(both), new(ok(), after=10), new(FRESH, asked={"If-None-Match": None}))
    yield case(
        23,
        "500-replaces-nothing",
        new(both),
        new(answer(500), after=10),
        confirmed(unchanged(), of=1, asked={"If-None-Match": '"a"'}),
    )
    yield case(23, "500-that-says-it-is-fresh-replaces", new(both), new(answer(500, "Cache-Control: max-age=60"), after=10), hit())
    yield case(
        23,
        "raising-replaces-nothing",
        new(cc("max-age=5, stale-if-error=60", TAG)),
        stale(FAILS, after=10),
        confirmed(unchanged(), of=1, after=5),
    )

    yield case(
        24, "head-of-a-get", new(), hit(method="HEAD", has={"Content-Length": str(len("rule24-head-of-a-get, call 1"))}), hit()
    )
    yield case(24, "head-of-nothing", new(FRESH, method="HEAD", word="MISS"), new(FRESH, method="HEAD"))
    yield case(24, "head-of-a-404", new(answer(404, "Cache-Control: max-age=60")), hit(method="HEAD"))
    stored = cc("max-age=5", TAG, MODIFIED, body=DIGITS)
    for name, fields in [
        ("etag", ('ETag: "b"', MODIFIED)),
        ("last-modified", (TAG, f"Last-Modified: {date(-9)}")),
        ("length", (TAG, "Content-Length: 11")),
    ]:
        yield case(24, f"head-with-another-{name}", new(stored), new(ok(*fields, body=DIGITS), method="HEAD", after=10),
                   new(FRESH, asked={"If-None-Match": None}))  # fmt: skip
    yield case(
        24,
        "head-with-the-same",
        new(stored),
        new(cc("max-age=60", TAG, MODIFIED, "X-A: 1", body=DIGITS), method="HEAD", after=10),
        hit(of=1, has={"X-A": "1", "Cache-Control": "max-age=60"}),
    )
    yield case(
        24,
        "head-without-validators-says-nothing",
        new(stored),
        new(ok(body=DIGITS), method="HEAD", after=10),
        confirmed(unchanged(), of=1),
        choice="only a validator of a HEAD renews what is stored",
    )
    yield case(
        24,
        "head-that-may-not-be-stored",
        new(stored),
        new(cc("no-store", TAG, body=DIGITS), method="HEAD", after=10),
        confirmed(unchanged(), of=1),
    )
    yield case(24, "head-410-says-nothing", new(stored), new(answer(410), method="HEAD", after=10), confirmed(unchanged(), of=1))
    yield case(
        24,
        "head-of-a-fresh-one-with-conditions",
        new(cc("max-age=60", TAG)),
        hit(INM, method="HEAD", status=304),
        hit('If-None-Match: "b"', method="HEAD"),
    )
    yield case(
        24,
        "range-is-not-for-head",
        new(cc("max-age=60", body=DIGITS)),
        hit("Range: bytes=0-1", method="HEAD", has={"Content-Length": "10"}),
    )

    whole_ = cc("max-age=60", TAG, MODIFIED, "X-A: 1", body=DIGITS)
    for name, asked, part, where in [
        ("first", "bytes=0-3", b"0123", "0-3"),
        ("middle", "bytes=4-6", b"456", "4-6"),
        ("no-last", "bytes=7-", b"789", "7-9"),
        ("suffix", "bytes=-2", b"89", "8-9"),
        ("suffix-longer-than-all", "bytes=-20", DIGITS, "0-9"),
        ("last-past-the-end", "bytes=8-99", b"89", "8-9"),
        ("one-byte", "bytes=0-0", b"0", "0-0"),
        ("all", "bytes=0-9", DIGITS, "0-9"),
        ("unit-in-capitals", "BYTES=0-0", b"0", "0-0"),
        ("many-digits", "bytes=00000000000000000000001-2", b"12", "1-2"),
    ]:
        cut = {"Content-Range": f"bytes {where}/10", "Content-Length": str(len(part)), "X-A": "1", "ETag": '"a"'}
        yield case(25, f"range-{name}", new(whole_), hit(f"Range: {asked}", status=206, body=part, has=cut), hit())
    for name, asked in [
        ("from-the-end", "bytes=10-"),
        ("past-the-end", "bytes=50-60"),
        ("last-0", "bytes=-0"),
        ("of-a-thousand-digits", f"bytes={'9' * 1000}-"),
    ]:
        yield case(25, f"range-{name}", new(whole_), hit(f"Range: {asked}", status=416, has={"Content-Range": "bytes */10"}))
    for name, asked in [
        ("several", "bytes=0-1,4-5"),
        ("another-unit", "lines=0-1"),
        ("backwards", "bytes=5-2"),
        ("no-number", "bytes=a-b"),
        ("empty", "bytes="),
    ]:
        yield case(25, f"range-{name}", new(whole_), hit(f"Range: {asked}", has={"Content-Range": None}),
                   choice="several ranges are answered with the whole" if name == "several" else "")  # fmt: skip
    for name, condition, status in [
        ("tag", '"a"', 206),
        ("another-tag", '"b"', 200),
        ("weak-tag", 'W/"a"', 200),
        ("date", date(-100), 206),
        ("a-later-date", date(-99), 200),
        ("an-earlier-date", date(-101), 200),
        ("another-form-of-the-date", "Friday, 15-Jan-27 07:58:20 GMT", 200),
    ]:
        yield case(
            25,
            f"if-range-{name}",
            new(whole_),
            hit("Range: bytes=0-1", f"If-Range: {condition}", status=status, body=b"01" if status == 206 else None),
        )
    yield case(
        25, "if-range-weak-here", new(cc("max-age=60", 'ETag: W/"a"', body=DIGITS)), hit("Range: bytes=0-1", 'If-Range: W/"a"')
    )
    yield case(
        25,
        "condition-before-range",
        new(whole_),
        hit("Range: bytes=0-1", INM, status=304),
        hit("Range: bytes=0-1", 'If-None-Match: "b"', status=206, body=b"01"),
    )
    yield case(
        25,
        "range-on-a-miss",
        new(whole_, "Range: bytes=0-1", status=206, body=b"01", has={"Content-Range": "bytes 0-1/10"}),
        hit(),
        choice="the app is asked for the whole, and the part cut out of it",
    )
    yield case(
        25,
        "range-on-a-miss-of-a-stream",
        new(cc("max-age=60", body=DIGITS, streams=True), "Range: bytes=0-1"),
        hit("Range: bytes=0-1", status=206, body=b"01"),
        choice="a body that is still to come is handed on whole",
    )
    yield case(
        25,
        "range-of-what-is-confirmed",
        new(cc("max-age=5", TAG, body=DIGITS)),
        confirmed(unchanged(), "Range: bytes=1-2", after=10, status=206, body=b"12", asked={"Range": None, "If-None-Match": '"a"'}),
    )
    yield case(25, "range-of-a-404", new(answer(404, "Cache-Control: max-age=60", body=DIGITS)), hit("Range: bytes=0-1"))
    yield case(
        25,
        "range-of-a-variant",
        new(cc("max-age=60", "Vary: Foo", body=DIGITS), "Foo: 1"),
        hit("Foo: 1", "Range: bytes=0-1", status=206, body=b"01"),
    )
    yield case(25, "range-of-nothing", new(cc("max-age=60", body=b"")), hit("Range: bytes=0-1", status=416))


# -- invalidation: rule 26 -------------------------------------------------------------------------------------------


def invalidation() -> Iterator[Case]:
    """What an unsafe request makes invalid."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO"):
        yield case(26, f"{method.lower()}", new(), post(method=method), new(FRESH), hit())
        yield case(26, f"{method.lower()}-that-fails", new(), post(answer(500), method=method), hit(of=1))
        for field in ("Location", "Content-Location"):
            yield case(
                26,
                f"{method.lower()}-{field.lower()}",
                new(path="/x"),
                post(ok(f"{field}: {{here}}/x"), method=method),
                new(FRESH, path="/x"),
            )
    for method in ("OPTIONS", "PROPFIND", "REPORT", "SEARCH", "HEAD"):
        yield case(26, f"{method.lower()}-is-safe", new(), safe(method))
    for status in (201, 204, 301, 302, 303, 307):
        yield case(26, f"post-{status}", new(), post(answer(status)), new(FRESH))
    for status in (400, 403, 404, 409, 412, 503):
        yield case(26, f"post-{status}", new(), post(answer(status)), hit(of=1))
    at = "http://shop.example{here}/x"
    for name, place, is_ours in [
        ("of-the-same-host", at, True),
        ("in-capitals", "HTTP://SHOP.example{here}/x", True),
        ("with-the-default-port", "http://shop.example:80{here}/x", True),
        ("of-another-host", "http://other.example{here}/x", False),
        ("of-another-scheme", "https://shop.example{here}/x", False),
        ("of-another-port", "http://shop.example:81{here}/x", False),
        ("that-is-no-url", "http://[{here}/x", False),
        ("with-a-fragment", at + "#y", True),
        ("of-another-subdomain", "http://x.shop.example{here}/x", False),
        ("relative-host", "//shop.example{here}/x", True),
    ]:
        after = new(FRESH, path="/x") if is_ours else hit(path="/x", of=1)
        for field in ("Location", "Content-Location"):
            yield case(26, f"{field.lower()}-{name}", new(path="/x"), post(answer(201, f"{field}: {place}")), after)
    yield case(
        26,
        "location-with-a-query",
        new(path="/x?a=1"),
        new(path="/x?a=2"),
        post(answer(303, "Location: {here}/x?a=1")),
        new(FRESH, path="/x?a=1"),
        hit(path="/x?a=2", of=2),
    )
    yield case(26, "location-of-a-failure", new(path="/x"), post(answer(404, "Location: {here}/x")), hit(path="/x", of=1))
    yield case(26, "location-of-a-get", new(path="/x"), new(answer(302, "Location: {here}/x")), hit(path="/x", of=1))
    yield case(
        26,
        "another-query-stays",
        new(path="?a=1"),
        new(path="?a=2"),
        post(path="?a=1"),
        new(FRESH, path="?a=1"),
        hit(path="?a=2", of=2),
    )
    yield case(
        26, "another-host-stays", new(), new(FRESH, "Host: other.example"), post(), new(FRESH), hit("Host: other.example", of=2)
    )
    vary = cc("max-age=60", "Vary: Foo")
    yield case(
        26, "all-variants", new(vary, "Foo: 1"), new(vary, "Foo: 2"), post(None, "Foo: 3"), new(vary, "Foo: 1"), new(vary, "Foo: 2")
    )
    yield case(
        26,
        "all-variants-of-a-rule",
        new(FRESH, "Accept-Language: de"),
        new(FRESH, "Accept-Language: en"),
        post(None, "Accept-Language: fr"),
        new(FRESH, "Accept-Language: de"),
        new(FRESH, "Accept-Language: en"),
        gateway="varied",
    )
    yield case(
        26, "what-is-stale-is-not-confirmed", new(cc("max-age=5", TAG)), post(), new(FRESH, after=10, asked={"If-None-Match": None})
    )
    yield case(26, "unsafe-goes-through-each-time", post(FRESH), post(FRESH), new(FRESH), post(FRESH))
    yield case(26, "authorized-too", new(cc("max-age=60, public")), post(None, "Authorization: Basic eDp5"), new(FRESH))


def safe(method: str) -> Step:
    """Send a safe request, and look whether the page is still stored."""
    if method == "HEAD":
        return hit(method=method)
    return new(ok(), method=method, word="BYPASS")


# -- what is sent: rules 27 to 31 ------------------------------------------------------------------------------------


def sent() -> Iterator[Case]:
    """The fields that say what was done, and what else is ours to send."""

    def told(field: str, word: str, **more: str | None) -> dict[str, str | None]:
        return {"Cache-Status": f"stalecache; {field}", "X-Cache-Status": word, **more}

    swr = cc("max-age=5, stale-while-revalidate=60, stale-if-error=600", TAG)
    yield case(27, "miss-stored", new(has=told("fwd=uri-miss; fwd-status=200; ttl=60; stored", "MISS")))
    yield case(27, "miss-not-stored", new(ok(), has=told("fwd=uri-miss; fwd-status=200", "MISS")))
    yield case(27, "miss-404", new(answer(404), has=told("fwd=uri-miss; fwd-status=404", "MISS")))
    yield case(
        27, "miss-of-age", new(cc("max-age=60", "Age: 20"), has=told("fwd=uri-miss; fwd-status=200; ttl=40; stored", "MISS"))
    )
    yield case(27, "hit", new(), hit(after=18, has=told("hit; ttl=42", "HIT")))
    yield case(27, "hit-304", new(cc("max-age=60", TAG)), hit(INM, status=304, has=told("hit; ttl=60", "HIT")))
    yield case(
        27,
        "hit-206",
        new(cc("max-age=60", body=DIGITS)),
        hit("Range: bytes=0-0", status=206, body=b"0", has=told("hit; ttl=60", "HIT")),
    )
    yield case(
        27, "hit-416", new(cc("max-age=60", body=DIGITS)), hit("Range: bytes=20-", status=416, has=told("hit; ttl=60", "HIT"))
    )
    yield case(27, "hit-head", new(), hit(method="HEAD", has=told("hit; ttl=60", "HIT")))
    yield case(27, "stale-while-revalidate", new(swr), stale(DOWN, after=17, has=told("hit; ttl=-12", "STALE")),
               asks(DOWN, calls=0, of=1, has=told("hit; ttl=-12", "UPDATING")))  # fmt: skip
    yield case(27, "stale-if-error", new(swr), stale(DOWN, after=105, has=told("hit; ttl=-100", "STALE")))
    yield case(
        27, "expired", new(cc("max-age=5")), new(FRESH, after=10, has=told("fwd=stale; fwd-status=200; ttl=60; stored", "EXPIRED"))
    )
    yield case(
        27, "expired-not-stored", new(cc("max-age=5")), new(DOWN, after=10, has=told("fwd=stale; fwd-status=503", "EXPIRED"))
    )
    yield case(
        27,
        "revalidated",
        new(cc("max-age=5", TAG)),
        confirmed(unchanged(), after=10, has=told("fwd=stale; fwd-status=304; ttl=5; stored", "REVALIDATED", Age="0")),
    )
    yield case(
        27,
        "variant",
        new(cc("max-age=60", "Vary: Foo"), "Foo: 1"),
        new(None, "Foo: 2", has=told("fwd=vary-miss; fwd-status=200; ttl=60; stored", "MISS")),
    )
    yield case(27, "method", post(answer(201), has=told("fwd=method; fwd-status=201", "BYPASS")))
    yield case(27, "options", new(ok(), method="OPTIONS", has=told("fwd=method; fwd-status=200", "BYPASS")))
    yield case(27, "bypass", new(FRESH, payload=b"x", has=told("fwd=bypass; fwd-status=200", "BYPASS")))
    yield case(27, "authorization", new(), new(FRESH, "Authorization: x", has=told("fwd=bypass; fwd-status=200", "BYPASS")))
    yield case(
        27,
        "request",
        new(),
        new(FRESH, "Cache-Control: no-cache", has=told("fwd=request; fwd-status=200; ttl=60; stored", "EXPIRED")),
        gateway="honors",
    )
    yield case(27, "only-if-cached", gone("Cache-Control: only-if-cached", has=told("fwd=request", "MISS")), gateway="honors")
    yield case(
        27,
        "must-revalidate",
        new(cc("max-age=5, must-revalidate")),
        gone(reply=FAILS, calls=1, after=10, has=told("fwd=stale", "EXPIRED")),
    )
    other = "other; hit"
    yield case(
        27,
        "ours-is-the-last",
        new(
            cc("max-age=60", f"Cache-Status: {other}"),
            has={"Cache-Status": [other, "stalecache; fwd=uri-miss; fwd-status=200; ttl=60; stored"]},
        ),
        hit(has={"Cache-Status": [other, "stalecache; hit; ttl=60"]}),
    )
    yield case(
        27,
        "switched-off",
        new(has={"Cache-Status": None, "X-Cache-Status": None}),
        hit(word="", has={"Cache-Status": None, "X-Cache-Status": None, "Age": "0"}),
        gateway="silent",
    )

    for name, targeted, own in [
        ("cdn", "CDN-Cache-Control: max-age=60", "max-age=1"),
        ("cdn-before-no-store", "CDN-Cache-Control: max-age=60", "no-store"),
        ("cdn-before-private", "CDN-Cache-Control: max-age=60", "private"),
        ("cdn-before-s-maxage", "CDN-Cache-Control: max-age=60", "s-maxage=1"),
        ("ours", "Stalecache-Cache-Control: max-age=60", "max-age=1"),
        ("cdn-unknown-beside", "CDN-Cache-Control: foo, max-age=60", "max-age=1"),
        ("cdn-unknown-with-value", "CDN-Cache-Control: max-age=60, foo=bar", "max-age=1"),
        ("cdn-large", "CDN-Cache-Control: max-age=99999999999", "max-age=1"),
        ("cdn-spaces", "CDN-Cache-Control:    max-age=60  ", "max-age=1"),
        ("cdn-parameters", "CDN-Cache-Control: max-age=60;a=1", "max-age=1"),
        ("cdn-false-is-not-there", "CDN-Cache-Control: max-age=60, no-store=?0", "max-age=1"),
    ]:
        yield again(f"{name}", cc(own, targeted), rules=28)
    for name, targeted, own in [
        ("cdn-0", "CDN-Cache-Control: max-age=0", "max-age=60"),
        ("cdn-no-store", "CDN-Cache-Control: no-store", "max-age=60"),
        ("cdn-private", "CDN-Cache-Control: private", "max-age=60"),
        ("cdn-no-cache", "CDN-Cache-Control: no-cache", "max-age=60"),
        ("cdn-lower", "CDN-Cache-Control: max-age=1", "max-age=60"),
        ("cdn-string", 'CDN-Cache-Control: max-age="60"', "max-age=60"),
        ("cdn-decimal", "CDN-Cache-Control: max-age=60.5", "max-age=60"),
        ("cdn-replaces-all", "CDN-Cache-Control: public", "max-age=60"),
    ]:
        yield anew(f"{name}", cc(own, targeted), rules=28)
    yield anew("cdn-replaces-expires", ok(f"Expires: {date(60)}", "CDN-Cache-Control: public"), rules=28)
    yield anew("cdn-with-age", cc("max-age=60", "CDN-Cache-Control: max-age=30", "Age: 30"), rules=28, after=0)
    for name, targeted in [("empty", ""), ("invalid", "max-age=60, ???"), ("in-capitals", "Max-Age=1"), ("cut", "max-age=")]:
        yield again(f"cdn-{name}-is-ignored", cc("max-age=60", f"CDN-Cache-Control: {targeted}"), rules=28)
    yield again("ours-before-cdn", ok("CDN-Cache-Control: no-store", "Stalecache-Cache-Control: max-age=60"), rules=28)
    yield again("lines-of-cdn-are-joined", ok("CDN-Cache-Control: public", "CDN-Cache-Control: max-age=60"), rules=28)
    passed = {"CDN-Cache-Control": "max-age=60", "Cache-Control": "max-age=1"}
    yield case(28, "passed-on", new(cc("max-age=1", "CDN-Cache-Control: max-age=60"), has=passed), hit(after=5, has=passed))

    yield case(29, "immutable-fresh", new(cc("max-age=60, immutable")), hit("Cache-Control: no-cache"))
    yield case(29, "immutable-stale", new(cc("max-age=5, immutable", TAG)), confirmed(unchanged(), after=10))
    yield case(29, "immutable-alone", new(cc("immutable")), new())
    yield case(
        29,
        "no-transform",
        new(cc("max-age=60, no-transform", "Content-Encoding: x-a", body=b"\0\x01gz")),
        hit("Accept-Encoding: identity", has={"Content-Encoding": "x-a", "Cache-Control": "max-age=60, no-transform"}),
    )

    yield case(
        30,
        "a-lifetime-of-ours-is-not-told",
        new(ok(), has={"Cache-Control": None}),
        hit(has={"Cache-Control": None, "Expires": None, "Age": "5"}, after=5),
        gateway="rules",
    )
    yield case(
        30,
        "what-is-stale-says-its-age",
        new(swr),
        stale(DOWN, after=100 - 40, has={"Age": "60", "Cache-Control": "max-age=5, stale-while-revalidate=60, stale-if-error=600"}),
    )
    yield case(
        30,
        "expires-is-passed-on",
        new(ok(f"Expires: {date(60)}", f"Date: {date()}")),
        hit(after=50, has={"Expires": date(60), "Date": date(), "Age": "50"}),
    )

    yield case(31, "a-body-is-closed", new(cc("no-store", streams=True)))
    yield case(31, "a-body-is-closed-that-is-stored", new(cc("max-age=60", streams=True)), hit())
    yield case(31, "a-body-is-closed-that-is-not-sent", new(cc("max-age=60", TAG, streams=True, length=False), method="HEAD"))
    yield case(31, "a-body-is-closed-of-a-304", new(cc("max-age=5", TAG)), confirmed(Reply(304, streams=True), after=10))
    yield case(
        31, "a-body-is-closed-of-a-failure", new(cc("max-age=5, stale-if-error=60")), stale(answer(503, streams=True), after=10)
    )
    yield case(31, "a-body-is-closed-of-a-post", post(ok(streams=True)))
    yield case(
        31,
        "a-body-is-closed-of-a-renewal",
        new(cc("max-age=5, stale-while-revalidate=60")),
        stale(cc("max-age=60", streams=True), after=10),
        hit(of=2),
    )
    yield case(31, "more-than-max-entry-size", new(cc("max-age=60", body=b"x" * 1001)), new(), gateway="small")
    yield case(31, "just-max-entry-size", new(cc("max-age=60", body=b"x" * 1000)), hit(), gateway="small")
    yield case(
        31,
        "a-stream-of-more-than-max-entry-size",
        new(cc("max-age=60", body=b"x" * 1001, streams=True, length=False)),
        new(),
        gateway="small",
    )
    yield case(
        31,
        "a-stream-of-just-max-entry-size",
        new(cc("max-age=60", body=b"x" * 1000, streams=True, length=False)),
        hit(),
        gateway="small",
    )


CASES: list[Case] = [
    *storing(),
    *keys(),
    *freshness(),
    *past_freshness(),
    *validation(),
    *invalidation(),
    *sent(),
]
