"""Cases of storing and of keys at the gateway: the rules 1 to 10 of ``docs/rules.rst``.

Cases say what a visitor of a page must see, and how often the app is called. All begin at the same moment, each with its own page,
which nobody has requested before. Where the RFC leaves something open, ``choice`` says what we do.
"""

from __future__ import annotations

from collections.abc import Iterator

from support.gateway.table import (
    DIGITS,
    FRESH,
    INM,
    TAG,
    Case,
    Reply,
    again,
    anew,
    answer,
    case,
    cc,
    confirmed,
    date,
    hit,
    new,
    ok,
    post,
    stale,
    unchanged,
)

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
    yield again("a-cookie-in-the-request-of-a-public-page", cc("public, max-age=60"), rules=1, sent="Cookie: a=b")
    yield case(
        1, "a-cookie-in-the-request", new(FRESH, "Cookie: a=b"), new(FRESH), hit(), choice="unless it says public, or s-maxage"
    )
    yield case(1, "a-body-on-a-get-goes-through", new(FRESH, payload=b"x", word="BYPASS"), new(FRESH), new(payload=b"x"), hit(of=2))
    yield again("content-disposition-is-no-matter", cc("max-age=60", "Content-Disposition: attachment"), rules=1)
    yield again("content-disposition-guessed", ok(LONG_AGO, "Content-Disposition: attachment"), rules=1)

    yield case(
        1,
        "range-of-what-was-not-stored-before",
        new(cc("no-store")),
        new(cc("max-age=60", body=DIGITS), "Range: bytes=0-1", status=206, body=b"01"),
        hit(),
    )
    yield again("301-with-location", answer(301, "Location: /elsewhere", "Cache-Control: max-age=60"), rules=1)

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
    public = cc("max-age=5, public", TAG)
    yield case(
        4, "authorization-confirms", new(public, me), confirmed(unchanged(), me, after=10, asked={"If-None-Match": '"a"'}), hit()
    )
    yield case(4, "authorization-replaces", new(public, me), new(cc("max-age=60, public"), me, after=10), hit(), hit(me))
    yield case(
        4,
        "authorization-takes-it-back",
        new(public, me),
        new(FRESH, me, after=10),
        confirmed(unchanged(), of=1),
        choice="what one with authorization is answered for themselves says nothing of what others are",
    )
    yield case(
        4,
        "authorization-in-vary",
        new(cc("max-age=60, public", "Vary: Authorization"), me),
        new(None, "Authorization: x"),
        hit(me, of=1),
    )
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
    """Which stored response is found for which request."""
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
    short = cc("max-age=5", "Vary: Accept-Language")
    yield case(
        (9, 10),
        "a-variant-of-fields-that-were-not-the-last-ones",
        new(short, "Accept-Language: de"),
        new(cc("max-age=5"), "Accept-Language: en"),
        new(cc("no-store"), "Accept-Language: en", after=10),
        new(short, "Accept-Language: de"),
        hit("Accept-Language: de"),
    )
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

    yield case(
        (9, 17),
        "a-renewal-names-others-in-vary",
        new(cc("max-age=5, stale-while-revalidate=60", "Vary: Foo"), "Foo: 1", "Bar: 1"),
        stale(cc("max-age=60", "Vary: Bar"), "Foo: 1", "Bar: 1", after=10),
        new(cc("max-age=60", "Vary: Bar"), "Foo: 2", "Bar: 1"),
        hit("Foo: 3", "Bar: 1"),
    )
    yield case(
        9,
        "vary-star-drops-what-was-stored",
        new(cc("max-age=5", TAG)),
        new(cc("max-age=60", "Vary: *"), after=10),
        new(FRESH, asked={"If-None-Match": None}),
    )
    yield case(
        (9, 25),
        "range-on-a-variants-miss",
        new(vary, "Foo: 1"),
        new(cc("max-age=60", "Vary: Foo", body=DIGITS), "Foo: 2", "Range: bytes=0-1", status=206, body=b"01"),
        hit("Foo: 2", of=2),
    )
    yield case(
        (9, 19),
        "condition-on-the-first-variant",
        new(cc("max-age=60", "Vary: Foo", TAG), "Foo: 1", INM, status=304),
        hit("Foo: 1", of=1),
        hit("Foo: 1", INM, status=304),
    )
    yield case(
        (9, 19),
        "the-tag-of-another-variant",
        new(cc("max-age=60", "Vary: Foo", TAG), "Foo: 1"),
        new(cc("max-age=60", "Vary: Foo", 'ETag: "b"'), "Foo: 2"),
        hit("Foo: 2", INM, of=2),
        hit("Foo: 1", INM, status=304),
    )
    yield case(
        (9, 16),
        "no-cache-of-variants",
        new(cc("no-cache", "Vary: Foo", TAG), "Foo: 1"),
        new(cc("no-cache", "Vary: Foo", 'ETag: "b"'), "Foo: 2"),
        confirmed(unchanged(), "Foo: 1", of=1, asked={"If-None-Match": '"a"'}),
        confirmed(unchanged(), "Foo: 2", of=2, asked={"If-None-Match": '"b"'}),
    )
    yield case(
        (9, 24),
        "head-leaves-the-variants-alone",
        new(cc("max-age=5", "Vary: Foo", TAG), "Foo: 1"),
        new(cc("max-age=60", "Vary: Foo", TAG), "Foo: 2"),
        new(ok("Vary: Foo", 'ETag: "b"'), "Foo: 1", method="HEAD", after=10),
        new(vary, "Foo: 1", asked={"If-None-Match": '"a"'}),
        hit("Foo: 2", of=2),
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


STORED: list[Case] = [*storing(), *keys()]
