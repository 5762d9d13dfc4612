"""A miss of a fetch function in a request, command or task: the caller's database session goes on as if it were not decorated.

Covers ``frontends.request.caller_context`` with real databases.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy import event

from flask_stalecache import StaleCache
from support.shop_database import KINDS, DatabaseShop, Line, Order, Price
from support.threads import crowd, results

MakeApp = Callable[..., tuple[Flask, StaleCache]]
Run = Callable[[Flask, Callable[[], object]], None]


@pytest.fixture
def make_shop(make_app: MakeApp, tmp_path: Path) -> Callable[..., DatabaseShop]:
    """``make_shop(kind, pool={}, **config)``."""

    def make(kind: str, pool: dict[str, Any] | None = None, **config: Any) -> DatabaseShop:
        return KINDS[kind](*make_app(**config), tmp_path, **(pool or {}))

    return make


@pytest.fixture(params=list(KINDS))
def shop(make_shop: Callable[..., DatabaseShop], request: pytest.FixtureRequest) -> DatabaseShop:
    return make_shop(request.param)


def rate_of(shop: DatabaseShop, **rules: Any) -> Callable[[str], str]:
    @shop.cache.memoize(60, 600, 6000, **rules)
    def rate(base: str) -> str:
        shop.calls.append(base)
        # In memory, all sessions share one connection: the end of another one would roll this one back.
        shop.session.execute(sa.text("SELECT 1"))
        return f"{base} {len(shop.calls)}"

    return rate


# -- where it is called ----------------------------------------------------------------------------------------------


def in_request(app: Flask, function: Callable[[], object]) -> None:
    def view() -> str:
        function()
        return "ok"

    app.add_url_rule("/", view_func=view)
    with app.test_client().get("/") as response:
        assert response.status_code == 200


def in_command(app: Flask, function: Callable[[], object]) -> None:
    app.cli.command("run")(function)
    result = app.test_cli_runner().invoke(args=["run"])
    assert result.exit_code == 0, result.exception


def in_task(app: Flask, function: Callable[[], object]) -> None:
    with app.app_context():
        function()


everywhere = pytest.mark.parametrize("run", [in_request, in_command, in_task])


@pytest.mark.grid
@everywhere
def test_what_was_added_before_a_miss_is_stored_by_the_commit_after_it(shop: DatabaseShop, run: Run) -> None:
    rate = rate_of(shop)

    def buy() -> None:
        shop.session.add(Order(name="tea"))
        shop.session.flush()
        shop.session.add(Order(name="milk"))
        assert rate("EUR") == "EUR 1"
        shop.session.commit()

    run(shop.app, buy)
    assert shop.names() == ["tea", "milk"]
    assert shop.calls == ["EUR"]


@everywhere
def test_lazy_loads_after_a_miss_find_their_session(shop: DatabaseShop, run: Run) -> None:
    rate = rate_of(shop)
    with shop.elsewhere() as session:
        session.add(Order(name="tea", lines=[Line(), Line()]))

    def show() -> None:
        order = shop.session.scalars(sa.select(Order)).one()
        rate("EUR")
        assert len(order.lines) == 2

    run(shop.app, show)


@pytest.mark.parametrize("kind", list(KINDS))
@everywhere
def test_an_app_that_commits_at_teardown_commits_nothing_of_what_fails_later(
    kind: str, run: Run, make_shop: Callable[..., DatabaseShop]
) -> None:
    shop = make_shop(kind)
    rate = rate_of(shop)

    @shop.app.teardown_appcontext
    def commit(error: BaseException | None) -> None:
        shop.session.rollback() if error is not None else shop.session.commit()

    def buy() -> None:
        shop.session.add(Order(name="half"))
        shop.session.flush()
        rate("EUR")
        raise LookupError("the other half")

    with pytest.raises((LookupError, AssertionError)):
        run(shop.app, buy)
    assert shop.names() == []


@pytest.mark.grid
@everywhere
def test_a_nested_miss_stays_in_the_same_session(shop: DatabaseShop, run: Run) -> None:
    seen: list[object] = []

    @shop.cache.memoize()
    def inner() -> int:
        seen.append(shop.session())
        return 1

    @shop.cache.memoize()
    def outer() -> int:
        seen.append(shop.session())
        return inner() + 1

    def ask() -> None:
        shop.session.add(Order(name="tea"))
        assert outer() == 2
        assert seen == [shop.session()] * 2
        shop.session.commit()

    run(shop.app, ask)
    assert shop.names() == ["tea"]


@everywhere
def test_a_miss_that_fails_leaves_the_session_as_it_was(shop: DatabaseShop, run: Run) -> None:
    @shop.cache.memoize(fallback="fallback")
    def rate() -> str:
        raise ConnectionError("down")

    def buy() -> None:
        shop.session.add(Order(name="tea"))
        assert rate() == "fallback"
        shop.session.commit()

    run(shop.app, buy)
    assert shop.names() == ["tea"]


@pytest.mark.parametrize("kind", ["plain", "flask_sqlalchemy"])
def test_requests_that_hold_a_connection_each_need_no_second_one(kind: str, make_shop: Callable[..., DatabaseShop]) -> None:
    pool = {"poolclass": sa.QueuePool, "pool_size": 5, "max_overflow": 0, "pool_timeout": 30}
    shop = make_shop(kind, pool)
    held: list[int] = []

    @shop.cache.memoize()
    def price(name: str) -> int:
        return shop.session.scalar(sa.select(sa.func.count(Order.id)))  # type: ignore[no-any-return]

    @shop.app.get("/<name>")
    def page(name: str) -> str:
        shop.session.execute(sa.select(Order)).all()
        barrier.wait()
        held.append(shop.engine.pool.checkedout())  # type: ignore[attr-defined]
        return str(price(name))

    barrier = threading.Barrier(5)
    names = iter("abcde")

    def visit() -> str:
        with shop.app.test_client().get(f"/{next(names)}") as response:
            return response.text

    assert results(crowd(5, visit)) == ["0"] * 5
    assert max(held) == 5
    assert shop.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["plain", "flask_sqlalchemy"])
@pytest.mark.parametrize("workers", [0, 2])
def test_renewals_leave_no_session_and_no_connection(
    kind: str, workers: int, make_shop: Callable[..., DatabaseShop], clock: Any
) -> None:
    shop = make_shop(kind, {"poolclass": sa.QueuePool}, REFRESH_WORKERS=workers)

    @shop.cache.memoize(60, 600, 6000, jitter=0)
    def count() -> int:
        shop.calls.append("count")
        return shop.session.scalar(sa.select(sa.func.count(Order.id)))  # type: ignore[no-any-return]

    shop.app.add_url_rule("/", view_func=lambda: str(count()))
    for _ in range(7):
        with shop.app.test_client().get("/") as response:
            assert response.text == "0"
        assert shop.cache.drain(30)
        assert shop.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        clock.shift(61)
    assert len(shop.calls) == 7
    if kind == "plain" and workers == 0:
        assert not shop.session.registry.has()


def test_without_threads_the_call_of_a_function_with_wait_is_in_the_callers_session(
    make_shop: Callable[..., DatabaseShop],
) -> None:
    shop = make_shop("plain", REFRESH_WORKERS=0)
    rate = rate_of(shop, wait=5)

    def buy() -> None:
        shop.session.add(Order(name="tea"))
        assert rate("EUR") == "EUR 1"
        shop.session.commit()

    in_request(shop.app, buy)
    assert shop.names() == ["tea"]


def test_in_a_thread_of_the_request_it_has_a_session_of_its_own(make_shop: Callable[..., DatabaseShop]) -> None:
    """Two threads must not use one session."""
    shop = make_shop("flask_sqlalchemy")
    sessions: list[object] = []

    @shop.cache.memoize()
    def count(number: int) -> int:
        sessions.append(shop.session())
        return shop.session.scalar(sa.select(sa.func.count(Order.id)))  # type: ignore[no-any-return]

    def ask() -> None:
        ours = shop.session()
        with ThreadPoolExecutor(4) as threads:
            asking = [threads.submit(copy_context().run, count, number) for number in range(20)]
            assert [each.result() for each in asking] == [0] * 20
        assert ours not in sessions
        assert len(set(map(id, sessions))) == len(sessions)
        assert shop.session() is ours

    in_request(shop.app, ask)


# -- purges --------------------------------------------------------------------------------------------------------


def price_of(shop: DatabaseShop) -> Any:
    @shop.cache.memoize(60, 600, 6000, tags=["prices"])
    def price(name: str) -> int:
        shop.calls.append(name)
        return shop.session.get_one(Price, name).amount  # type: ignore[no-any-return]

    return price


def change(shop: DatabaseShop, amount: int) -> None:
    with shop.elsewhere() as session:
        session.merge(Price(name="tea", amount=amount))


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["plain", "flask_sqlalchemy"])
@pytest.mark.parametrize("soft", [False, True])
@everywhere
def test_a_transaction_from_before_a_purge_stores_no_old_price_after_it(
    kind: str, run: Run, soft: bool, make_shop: Callable[..., DatabaseShop]
) -> None:
    shop = make_shop(kind)
    price = price_of(shop)
    change(shop, 1)

    def slow() -> None:
        tea = shop.session.get_one(Price, "tea")
        assert tea.amount == 1

        def elsewhere() -> None:
            change(shop, 2)
            with shop.app.app_context():
                shop.cache.purge(tag="prices", soft=soft)

        results(crowd(1, elsewhere))
        assert price("tea") == tea.amount == 1, "as the function itself: a session keeps what it has read"

    run(shop.app, slow)
    assert shop.cache.drain(30)
    with shop.app.app_context():
        if soft:
            price("tea")
            assert shop.cache.drain(30)
        assert price("tea") == 2


def test_after_a_purge_of_its_own_a_request_stores_what_it_asks_for(make_shop: Callable[..., DatabaseShop]) -> None:
    shop = make_shop("plain")
    price = price_of(shop)
    change(shop, 1)

    def change_and_show() -> None:
        assert price("tea") == 1
        shop.session.merge(Price(name="tea", amount=2))
        shop.session.commit()
        price.purge("tea")
        assert price("tea") == 2
        assert price.peek("tea") == 2

    in_request(shop.app, change_and_show)
    assert shop.calls == ["tea"] * 2


def test_what_a_long_context_may_not_store_is_renewed_behind_it(make_shop: Callable[..., DatabaseShop]) -> None:
    """A shell or a daemon has one app context for days. After a purge elsewhere, the values of its calls are not stored.

    A background refresh stores one instead. Otherwise each request for the value would call the function from then on.
    """
    shop = make_shop("plain")
    price = price_of(shop)
    change(shop, 1)
    with shop.app.app_context():
        assert price("tea") == 1
        results(crowd(1, lambda: elsewhere_purged(shop)))
        shop.session.rollback()
        assert price("tea") == 1
        assert shop.cache.drain(30)
        assert [price("tea") for _ in range(3)] == [1] * 3
    assert len(shop.calls) == 3


# -- what is not committed yet -----------------------------------------------------------------------------------------


def told_of_changes(shop: DatabaseShop) -> Callable[[], bool]:
    """Return ``has_changes()``, written as docs/fetch.rst shows it."""
    kind = type(shop.session())
    shop.session.remove()

    @event.listens_for(kind, "after_flush")
    def note_flush(session: Any, context: Any) -> None:
        session.info["flushed"] = True

    @event.listens_for(kind, "do_orm_execute")
    def note_statement(state: Any) -> None:
        if not state.is_select:
            state.session.info["flushed"] = True

    @event.listens_for(kind, "after_commit")
    @event.listens_for(kind, "after_rollback")
    def forget(session: Any) -> None:
        session.info.pop("flushed", None)

    def has_changes() -> bool:
        session = shop.session
        pending = session.new or session.dirty or session.deleted
        return bool(pending) or "flushed" in session.info

    return has_changes


def set_amount(shop: DatabaseShop) -> None:
    shop.session.get_one(Price, "tea").amount = 2


def set_and_flush(shop: DatabaseShop) -> None:
    set_amount(shop)
    shop.session.flush()


def update(shop: DatabaseShop) -> None:
    shop.session.execute(sa.update(Price).values(amount=2))


@pytest.mark.parametrize("end", ["rollback", "commit"])
@pytest.mark.parametrize("make_change", [set_amount, set_and_flush, update])
def test_what_is_rolled_back_later_is_not_stored_where_the_function_says_so(
    make_change: Callable[[DatabaseShop], None], end: str, make_shop: Callable[..., DatabaseShop]
) -> None:
    shop = make_shop("plain")
    has_changes = told_of_changes(shop)
    change(shop, 1)

    @shop.cache.memoize(60, 600, 6000)
    def price(name: str) -> int:
        if has_changes():
            shop.cache.no_store()
        return shop.session.get_one(Price, name).amount  # type: ignore[no-any-return]

    def try_it() -> None:
        make_change(shop)
        assert price("tea") == 2
        getattr(shop.session, end)()
        assert price("tea") == (1 if end == "rollback" else 2)
        assert price.peek("tea") == price("tea")

    in_request(shop.app, try_it)
    with shop.app.app_context():
        assert price("tea") == (1 if end == "rollback" else 2)


def test_what_a_refresh_has_outdone_in_a_command_is_renewed_behind_it(
    make_shop: Callable[..., DatabaseShop], clock: Any, no_housekeeping: None
) -> None:
    shop = make_shop("plain")

    @shop.cache.memoize(20, 10, 0, jitter=0)
    def number() -> int:
        shop.calls.append("number")
        return len(shop.calls)

    def run() -> None:
        assert number() == 1
        clock.shift(21)
        assert number() == 1
        assert shop.cache.drain(30)
        assert number() == 2
        clock.shift(31)
        assert number() == 3
        assert shop.cache.drain(30)
        assert [number() for _ in range(3)] == [4] * 3

    in_command(shop.app, run)


def elsewhere_purged(shop: DatabaseShop) -> None:
    with shop.app.app_context():
        shop.cache.purge(tag="prices")
