"""Cases of validation at the gateway: the rules 19 to 25 of ``docs/rules.rst``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from support.gateway.table import (
    DIGITS,
    DOWN,
    FAILS,
    FRESH,
    IMS,
    INM,
    MODIFIED,
    TAG,
    Case,
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
        ("content-md5", "Content-MD5: a", "Content-MD5: b"),
        ("content-digest", "Content-Digest: a", "Content-Digest: b"),
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
                   new(FRESH, asked={"If-None-Match": '"a"'}))  # fmt: skip
        lasting = replace(stored, fields=("Cache-Control: max-age=5, stale-if-error=1000", *stored.fields[1:]))
        yield case(24, f"head-with-another-{name}-keeps-the-copy-for-errors", new(lasting),
                   new(ok(*fields, body=DIGITS), method="HEAD", after=10), stale(DOWN, of=1))  # fmt: skip
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
        new(FRESH, asked={"If-None-Match": '"a"'}),
    )
    yield case(
        24,
        "head-with-a-cookie",
        new(stored),
        new(cc("max-age=60", TAG, "Set-Cookie: a=b", body=DIGITS), method="HEAD", after=10, has={"Set-Cookie": "a=b"}),
        confirmed(unchanged(), of=1, has={"Set-Cookie": None}),
        choice="what is for who asked says nothing of what is stored for all",
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
        new(cc("max-age=60", body=DIGITS, streams=True, length=False), "Range: bytes=0-1"),
        hit("Range: bytes=0-1", status=206, body=b"01"),
        choice="a body that is still to come, and does not tell its size, is handed on whole",
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
