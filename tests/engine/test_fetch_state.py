"""The route of a request, by what is stored for it. What happens on each is tested in test_engine and test_collapsing."""

from __future__ import annotations

import time

import pytest

from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.note import NOTHING, Note
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.fetch_state import Bypass, CallUnlocked, Queue, ServeCopy
from flask_stalecache.stores.base import Copy
from support.engine import FakeOrigin, make_entry
from support.engine_calls import IN_SWR, PAST_ALL

MEMBER = frozenset({"member"})


@pytest.mark.parametrize(
    ("age", "mark", "origin", "route"),
    [
        pytest.param(None, "", FakeOrigin(), Queue, id="nothing stored"),
        pytest.param(None, "", FakeOrigin(may_collapse=False), CallUnlocked, id="it may not wait"),
        pytest.param(None, "unstorable", FakeOrigin(), CallUnlocked, id="unstorable"),
        pytest.param(None, "personal", FakeOrigin(cookies=MEMBER), CallUnlocked, id="personal, for a member"),
        pytest.param(None, "personal", FakeOrigin(), Queue, id="personal, for a guest"),
        pytest.param(0, "", FakeOrigin(), ServeCopy, id="fresh"),
        pytest.param(0, "", FakeOrigin(cookies=MEMBER), Bypass, id="fresh, made without a name that the request carries"),
        pytest.param(IN_SWR, "", FakeOrigin(), ServeCopy, id="stale"),
        pytest.param(PAST_ALL, "", FakeOrigin(), Queue, id="past its windows"),
        pytest.param(PAST_ALL, "", FakeOrigin(cookies=MEMBER), Bypass, id="past its windows, with an absent name"),
    ],
)
def test_the_route_of_a_request(engine: Engine, age: float | None, mark: str, origin: FakeOrigin, route: type) -> None:
    now = time.time()
    entry = None if age is None else make_entry(windows=(60, 600, 600), started=now - age, absent=("member",))
    note = NOTHING
    if mark == "unstorable":
        note = Note().marked_unstorable(now)
    elif mark == "personal":
        note = Note().marked_personal(now, RequestInputs(cookies=("member",)))
    assert type(engine.choose_route(origin, Copy("page", entry, note, 0, 0))) is route
