"""A magazine of real extensions, walked by members and strangers: every answer equals that of the app without the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.frontends.flask_app.flask_sessions import FlaskSessions
from flask_stalecache.frontends.request.request_origin import RequestOrigin
from support.endurance import IS_SOAK
from support.real_apps.flask_sites import GATEWAY, VIEW
from support.real_apps.magazine import (
    LANGUAGES,
    MAGAZINE,
    MAGAZINE_AT_GATEWAY_WITH_HOLES,
    MAGAZINE_ON_SERVER,
    MAGAZINE_ON_SERVER_WITH_HOLES,
    MAGAZINE_OPENED,
    MAGAZINE_WITH_HOLES,
    signed,
)
from support.real_apps.walks import FROM_STORE, SPELLINGS, RealApp, Step, Visitor, Walk, compare, walk_of, without_cache

pytestmark = pytest.mark.usefixtures("no_housekeeping")

FRONTS = (VIEW, GATEWAY)
DAY = 86_400
#: The share of strangers' requests for pages without a form that are answered from the store.
GOAL = 0.95
Fields = tuple[tuple[str, str], ...]


#: Site, front, and whether visitors with a session count: not if the server keeps sessions, which the gateway can't look up.
SITES = [
    (MAGAZINE, VIEW, True),
    (MAGAZINE_ON_SERVER, GATEWAY, False),
    (MAGAZINE_OPENED, GATEWAY, True),
    *([(MAGAZINE, GATEWAY, True), (MAGAZINE_ON_SERVER, VIEW, True)] if IS_SOAK else []),
]


WITH_HOLES = [
    MAGAZINE_WITH_HOLES,
    MAGAZINE_AT_GATEWAY_WITH_HOLES,
    *([MAGAZINE_ON_SERVER_WITH_HOLES] if IS_SOAK else []),
]


@pytest.mark.soak
@pytest.mark.parametrize(("app", "front", "sessions_count"), SITES, ids=lambda value: getattr(value, "name", str(value)))
def test_strangers_get_pages_without_a_form_from_the_store(
    app: RealApp, front: str, sessions_count: bool, directory: Path, soak: Callable[[int, int], int]
) -> None:
    walk = walk_of(app, strangers=soak(50, 35 if app is MAGAZINE else 25), length=soak(60, 6))
    walked = compare(app, app.build(front, directory), walk, sessions_count=sessions_count)
    print(walked.table())
    assert walked.total.ratio >= GOAL
    if sessions_count:
        assert walked.total.possible > 90
        assert walked.total_with_session.possible > 60
        assert walked.total_with_session.ratio >= GOAL


@pytest.mark.soak
@pytest.mark.parametrize("app", WITH_HOLES, ids=lambda app: app.name)
def test_members_get_pages_with_holes_from_the_store_too(app: RealApp, directory: Path, soak: Callable[[int, int], int]) -> None:
    walk = walk_of(app, strangers=soak(50, 10), length=soak(60, 8))
    walked = compare(app, app.build(VIEW, directory), walk)
    print(walked.table())
    members = [seen for seen in walked.shown if seen.had.get("_user_id")]
    # A page of a view with gateway=True is made twice at first: only the first response shows that it has holes.
    refilled = len(app.pages) if app is MAGAZINE_AT_GATEWAY_WITH_HOLES else 0
    from_store = sum(seen.answer.word in FROM_STORE for seen in members)
    assert walked.total.hits + refilled >= GOAL * walked.total.possible
    assert len(members) > soak(30, 15)
    assert from_store + refilled >= GOAL * len(members)


# -- ways that nobody takes by chance --------------------------------------------------------------------------------

ANN, STRANGER, OTHER = 0, 1, 2
EVERYTHING = (*MAGAZINE.pages, *MAGAZINE.forms, *MAGAZINE.others)
SHARED = ("/", "/prices", "/feed.xml")
SOME = (*SHARED, "/contact", "/map", "/account")
TEXT: Fields = (("text", "tea"),)
LOGIN: Fields = (("name", "ann"), ("password", "secret"))


def opens(visitor: int, *paths: str) -> list[Step]:
    return [Step(visitor, path) for path in paths]


def carries(visitor: int, value: str, path: str = "/") -> Step:
    """Let a visitor come with a session that the site has not given to them in this walk."""
    return Step(visitor, path, cookies=(("session", value),))


def interleaved(*ways: list[Step]) -> list[Step]:
    """Let visitors make their steps in turn."""
    return [step for steps in zip(*ways, strict=True) for step in steps]


def everybody() -> list[Step]:
    return interleaved(*(opens(visitor, *SOME) for visitor in (ANN, STRANGER, OTHER)))


MESSAGE = signed({"_flashes": [("message", "for you")]})
OUT_OF_TIME = "a session that is out of time"
AT_ONCE = {"_user_id": "ann", "_fresh": True}
WAYS: dict[str, list[Step]] = {
    "a member first on every page": [
        Step(ANN, "/login", LOGIN),
        *opens(ANN, *EVERYTHING),
        *opens(STRANGER, *EVERYTHING),
        *opens(OTHER, *EVERYTHING),
    ],
    "a stranger who logs in, then out": [
        *opens(STRANGER, *SOME),
        Step(STRANGER, "/login", LOGIN),
        *opens(STRANGER, *SOME),
        *opens(OTHER, *SOME),
        *opens(STRANGER, "/logout", *SOME),
        *everybody(),
    ],
    "remembered, then without a session": [
        Step(ANN, "/login", (*LOGIN, ("remember", "y"))),
        *opens(STRANGER, *SOME),
        Step(ANN, "/", cookies=(("session", ""),)),
        *everybody(),
    ],
    "a language by session": [
        *opens(STRANGER, *SOME, "/speak/pl", *SOME),
        *opens(OTHER, *SOME, "/speak/pl", *SOME),
        *everybody(),
    ],
    "a language by cookie": [
        *opens(STRANGER, "/speak/pl/by-cookie", *SOME),
        *opens(OTHER, *SOME, "/speak/fr/by-cookie", *SOME),
        *everybody(),
    ],
    "two languages in turn": [
        *opens(STRANGER, "/speak/pl"),
        *opens(OTHER, "/speak/de/by-cookie"),
        *everybody(),
        *opens(STRANGER, "/speak/fr/by-cookie"),
        *opens(OTHER, "/speak/en"),
        *everybody(),
    ],
    "a message that is waiting on each page": [
        *opens(OTHER, *SOME),
        *(step for path in SOME for step in (Step(STRANGER, "/contact", TEXT), *opens(OTHER, path), *opens(STRANGER, path))),
    ],
    "a message before anybody has opened the page": [
        *(
            step
            for path in SOME[:3]
            for step in (carries(STRANGER, MESSAGE, path="/feed.xml"), *opens(OTHER, path), *opens(STRANGER, path))
        ),
    ],
    "forged sessions": [
        *opens(OTHER, *SOME),
        carries(STRANGER, signed(AT_ONCE, key="guessed")),
        carries(ANN, signed(AT_ONCE)),
        *everybody(),
        carries(STRANGER, "x.y.z"),
        *everybody(),
    ],
    OUT_OF_TIME: [
        *opens(OTHER, *SOME),
        carries(ANN, signed({**AT_ONCE, "_permanent": True}, ago=32 * DAY)),
        carries(STRANGER, signed({"csrf_token": "0" * 40, "lang": "pl"}, ago=32 * DAY)),
        *everybody(),
    ],
    "a session of a host whose clock is ahead": [
        *opens(OTHER, *SOME),
        carries(ANN, signed(AT_ONCE, ago=-300)),
        *opens(ANN, *SHARED),
        Step(OTHER, "/", pause=400),
        *opens(ANN, *SHARED),
        *everybody(),
    ],
    "a session that ends between two pages": [
        *opens(OTHER, *SOME),
        carries(ANN, signed(AT_ONCE, ago=31 * DAY - 20)),
        *everybody(),
        Step(OTHER, "/", pause=60),
        *everybody(),
    ],
}  # fmt: skip


def way_of(steps: list[Step]) -> Walk:
    return Walk((Visitor((("HTTP_ACCEPT_LANGUAGE", "de"),)),) * 3, tuple(steps))


@pytest.mark.grid
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", WAYS)
def test_nobody_is_shown_what_was_made_for_another(name: str, front: str, directory: Path) -> None:
    walk = way_of(WAYS[name])
    walked = compare(MAGAZINE, MAGAZINE.build(front, directory), walk)
    assert walked.total.hits == walked.total.possible
    # The comparison is worth something only if visitors are shown different pages.
    homes = {seen.answer.body for seen in without_cache(MAGAZINE, walk) if seen.path == "/"}
    assert (len(homes) > 1) == (name != OUT_OF_TIME)


SPELLINGS_IN_TURN = Walk(
    tuple(Visitor((("HTTP_ACCEPT_LANGUAGE", spelling),)) for spelling in SPELLINGS),
    tuple(Step(visitor, path) for path in ("/about", "/", "/about") for visitor in range(len(SPELLINGS))),
)


@pytest.mark.parametrize("front", FRONTS)
def test_many_spellings_of_four_languages(front: str, directory: Path) -> None:
    walked = compare(MAGAZINE, MAGAZINE.build(front, directory), SPELLINGS_IN_TURN)
    # One variant more than there are languages, since some visitors accept none of them.
    assert walked.total.asked - walked.total.possible == 2 * (len(LANGUAGES) + 1)
    assert walked.total.hits == walked.total.possible


# -- damage that the comparison must find ----------------------------------------------------------------------------


def bars_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestOrigin, "is_barred_from", lambda origin, entry: False)
    patch.setattr(FlaskSessions, "bar", lambda sessions, environ, keys: False)


def carries_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestInputs, "present_in", lambda names, *asked: False)
    patch.setattr(FlaskSessions, "bar", lambda sessions, environ, keys: False)


def finds_no_keys(patch: pytest.MonkeyPatch) -> None:
    for look_up in ("bar", "hold"):
        patch.setattr(FlaskSessions, look_up, lambda sessions, environ, keys: False)


def mixes_languages_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("flask_stalecache.core.rules.variant_index.normal_form", lambda selector, value: "")


LOGS_IN, LANGUAGES_MIXED = way_of(WAYS["a stranger who logs in, then out"]), SPELLINGS_IN_TURN


@pytest.mark.parametrize(
    ("front", "damage", "walk"),
    [
        (VIEW, bars_nobody, LOGS_IN),
        (VIEW, carries_nothing, LOGS_IN),
        (GATEWAY, finds_no_keys, LOGS_IN),
        (VIEW, mixes_languages_up, LANGUAGES_MIXED),
        (GATEWAY, mixes_languages_up, LANGUAGES_MIXED),
    ],
    ids=lambda value: getattr(value, "__name__", "") or (value if isinstance(value, str) else "walk"),
)
def test_a_cache_that_mixes_visitors_up_is_found_out(
    front: str, damage: Callable[[pytest.MonkeyPatch], None], walk: Walk, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch)
    with pytest.raises(AssertionError, match="visitor"):
        compare(MAGAZINE, MAGAZINE.build(front, directory), walk)
