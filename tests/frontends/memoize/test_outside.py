"""Fetch functions outside requests: in commands, in tasks of Celery, and in threads; they share what is stored with the site."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import time_machine
from celery import Celery, Task
from flask import Flask

from flask_stalecache import MemoizedFunction, StaleCache
from support import prepared
from support.servers import PATIENCE, Gate, environment
from support.threads import wait_until

MakeApp = Callable[..., tuple[Flask, StaleCache]]


class Shop:
    """An app whose page and command show what a fetch function returns. ``calls`` records its calls."""

    def __init__(self, made: tuple[Flask, StaleCache], wait: float | None) -> None:
        self.app, self.cache = made
        self.calls: list[str] = []

        @self.cache.memoize(60, 600, 6000, jitter=0, wait=wait)
        def rates(base: str) -> str:
            self.calls.append(base)
            return f"{base} {len(self.calls)}"

        self.rates: MemoizedFunction[[str], str] = rates
        self.app.add_url_rule("/", view_func=lambda: rates("EUR"))
        self.app.cli.command("rates")(lambda: print(rates("EUR")))

    def page(self) -> str:
        with self.app.test_client().get("/") as response:
            return response.text

    def command(self) -> str:
        return self.app.test_cli_runner().invoke(args=["rates"], catch_exceptions=False).output.strip()


@pytest.fixture(params=[None, 20], ids=["without wait", "wait"])
def shop(request: pytest.FixtureRequest, make_app: MakeApp) -> Shop:
    return Shop(make_app(), request.param)


def drained(shop: Shop) -> bool:
    with shop.app.app_context():
        return shop.cache.drain(30)


def test_a_command_and_a_page_share_what_is_stored(shop: Shop, clock: time_machine.Traveller) -> None:
    assert [shop.command(), shop.page(), shop.command()] == ["EUR 1"] * 3
    clock.shift(61)
    assert shop.command() == "EUR 1"
    assert drained(shop), "no response is closed there, so it is handed over at once"
    assert [shop.page(), shop.command()] == ["EUR 2"] * 2
    assert shop.calls == ["EUR"] * 2


def test_threads_with_an_app_context_share_it_too(shop: Shop) -> None:
    def ask(number: int) -> str:
        with shop.app.app_context():
            return shop.rates("EUR")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(100))) == {"EUR 1"}
    assert shop.page() == "EUR 1"
    assert shop.calls == ["EUR"]


def celery_of(app: Flask) -> Celery:
    """Return Celery as Flask's documentation sets it up: each task has an app context. Tasks run in the caller's thread."""

    class ContextTask(Task):  # type: ignore[type-arg]
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery = Celery(app.name, task_cls=ContextTask, set_as_current=False)
    celery.conf.task_always_eager = True
    return celery


def test_a_task_and_a_page_share_what_is_stored(shop: Shop, clock: time_machine.Traveller) -> None:
    @celery_of(shop.app).task(name="rates", shared=False)  # type: ignore[untyped-decorator]
    def rates(base: str) -> str:
        return shop.rates(base)

    assert [rates.delay("EUR").get(), shop.page(), rates.delay("EUR").get()] == ["EUR 1"] * 3
    clock.shift(61)
    assert rates.delay("EUR").get() == "EUR 1"
    assert drained(shop)
    assert [shop.page(), rates.delay("EUR").get()] == ["EUR 2"] * 2
    assert shop.calls == ["EUR"] * 2


# -- real processes --------------------------------------------------------------------------------------------------

SOURCE = """
import os
from urllib.request import urlopen
from flask import Flask
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config["STALECACHE_DIR"] = os.environ["CACHE"]
cache = StaleCache(app)


@cache.memoize(float(os.environ["MAX_AGE"]), 600, 6000, jitter=0, wait=float(os.environ["WAIT"]), fallback="fallback")
def ask(base: str) -> str:
    with urlopen(os.environ["GATE"]) as answer:
        return answer.read().decode()


@app.cli.command("ask")
def command():
    print(ask("EUR"))


@app.cli.command("drain")
def drain():
    print(ask("EUR"), cache.drain(30), ask.peek("EUR"))


# A name of its own, since that of the main module is another one.
if __name__ == "__main__":
    from live_app import app, ask
    with app.app_context():
        print(ask("EUR"))
"""


def run(folder: Path, gate: Gate, *command: str, max_age: float = 600, wait: float = 20) -> str:
    (folder / "live_app.py").write_text(SOURCE)
    env = {"GATE": gate.url, "CACHE": folder / "cache", "FLASK_APP": "live_app:app", "MAX_AGE": max_age, "WAIT": wait}
    done = prepared.run(command, folder=folder, env=environment(folder, env), timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.server
def test_commands_and_scripts_share_what_is_stored(tmp_path: Path) -> None:
    with Gate() as gate:
        assert run(tmp_path, gate, "-m", "flask", "ask") == "1"
        assert run(tmp_path, gate, "-m", "live_app") == "1"
        assert gate.calls == 1
        assert run(tmp_path, gate, "-m", "flask", "drain", max_age=0.001) == "1 True 1"


@pytest.mark.server
def test_a_command_does_not_wait_for_one_that_hangs(tmp_path: Path) -> None:
    with Gate() as gate:
        gate.hold()
        assert run(tmp_path, gate, "-m", "flask", "ask", wait=1) == "fallback"
        wait_until(lambda: gate.open == 0, "the call died with the command")
        assert gate.calls == 1
        gate.release()
        assert run(tmp_path, gate, "-m", "flask", "ask") == "2"


@pytest.mark.server
def test_a_command_renews_what_is_stale_behind_it(tmp_path: Path) -> None:
    with Gate() as gate:
        assert run(tmp_path, gate, "-m", "flask", "ask", max_age=0.001) == "1"
        assert run(tmp_path, gate, "-m", "flask", "drain", max_age=0.001) == "1 True 2"
        assert gate.calls == 2
