"""Cases of freshness at the gateway: the rules 11 to 15 of ``docs/rules.rst``."""

from __future__ import annotations

from collections.abc import Iterator

from support.gateway.stored import LONG_AGO
from support.gateway.table import (
    DIGITS,
    DOWN,
    FRESH,
    INM,
    TAG,
    Case,
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
    stale,
    unchanged,
)


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


FRESHNESS: list[Case] = [*freshness()]
