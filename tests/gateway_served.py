"""What a visitor must see at the gateway of what is stored, by the rules 16 to 31 of http.md: see :mod:`gateway_stored`."""

from __future__ import annotations

from collections.abc import Iterator

from gateway_table import (
    DIGITS,
    DOWN,
    FAILS,
    FRESH,
    IMS,
    INM,
    MODIFIED,
    TAG,
    Case,
    Reply,
    Step,
    again,
    anew,
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
        "head-200-of-a-404",
        new(answer(404, "Cache-Control: max-age=5", TAG)),
        new(ok(TAG), method="HEAD", after=10),
        new(FRESH, asked={"If-None-Match": None}),
    )
    yield case(
        24,
        "head-with-a-cookie",
        new(stored),
        new(cc("max-age=60", TAG, "Set-Cookie: a=b", body=DIGITS), method="HEAD", after=10, has={"Set-Cookie": "a=b"}),
        hit(of=1, has={"Set-Cookie": None}),
    )
    yield case(
        24,
        "head-with-vary",
        new(stored),
        new(cc("max-age=60", TAG, "Vary: Foo", body=DIGITS), method="HEAD", after=10),
        confirmed(unchanged(), of=1),
    )
    yield case(
        24,
        "head-renews-what-has-a-date",
        new(cc("max-age=5", MODIFIED)),
        new(cc("max-age=60", MODIFIED, length=False), method="HEAD", after=10),
        hit(of=1),
    )
    yield case(
        24,
        "head-with-conditions-renews",
        new(stored),
        new(cc("max-age=60", TAG, MODIFIED, body=DIGITS), INM, method="HEAD", after=10, status=304),
        hit(of=1),
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
    yield case(26, "what-is-invalid-does-not-stand-in", new(cc("max-age=5")), post(), new(DOWN, after=10), gateway="windows")
    yield case(
        26,
        "location-and-content-location",
        new(path="/x"),
        new(path="/y"),
        post(ok("Location: {here}/x", "Content-Location: {here}/y")),
        new(FRESH, path="/x"),
        new(FRESH, path="/y"),
    )
    yield case(
        26,
        "location-on-two-lines",
        new(path="/x"),
        new(path="/y"),
        post(ok("Location: {here}/x", "Location: {here}/y")),
        new(FRESH, path="/x"),
        new(FRESH, path="/y"),
        choice="each line of Location counts",
    )
    yield case(26, "the-target-of-a-query", new(), post(path="?a=1"), hit(of=1))
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


SERVED: list[Case] = [*past_freshness(), *validation(), *invalidation(), *sent()]
