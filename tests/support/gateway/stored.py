"""What a visitor of a page behind the gateway must see, and how often the app is asked: the rules of http.md as a table.

A case begins at the same moment, on a page of its own that nobody has asked for. Where the RFC leaves something open, ``choice``
says what we do.
"""

from __future__ import annotations

from collections.abc import Iterator

from support.gateway.table import (
    DIGITS,
    DOWN,
    FRESH,
    INM,
    TAG,
    Case,
    Reply,
    Step,
    again,
    anew,
    answer,
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
    yield again("a-cookie-in-the-request-is-no-matter", FRESH, rules=1, sent="Cookie: a=b")
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
        "head-drops-its-own-variant",
        new(cc("max-age=5", "Vary: Foo", TAG), "Foo: 1"),
        new(cc("max-age=60", "Vary: Foo", TAG), "Foo: 2"),
        new(ok("Vary: Foo", 'ETag: "b"'), "Foo: 1", method="HEAD", after=10),
        new(vary, "Foo: 1", asked={"If-None-Match": None}),
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
    yield again("expires-beside-public", cc("public", f"Expires: {date(60)}"), rules=11)
    yield anew("s-maxage-0-before-max-age", cc("s-maxage=0, max-age=60"), rules=11, after=0)
    yield anew("guessed-from-a-bad-date", ok("Last-Modified: yesterday"), rules=(11, 12), after=0)
    yield again("a-bad-date-is-as-none", cc("max-age=60", "Date: yesterday"), rules=(12, 13))
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
    yield obeyed("only-if-cached-with-authorization", new(), gone("Cache-Control: only-if-cached", "Authorization: x"))
    yield obeyed("no-cache-of-a-head", new(FRESH), new(FRESH, "Cache-Control: no-cache", method="HEAD"), hit(of=1))
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


STORED: list[Case] = [*storing(), *keys(), *freshness()]
