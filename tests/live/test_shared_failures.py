"""A crowd before a page that fails, on a real server: how often the page is called, and whose error page each visitor gets."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.live_apps import new_path
from support.servers import PATIENCE, Answer, Gate, Server, serving, wait_for

pytestmark = pytest.mark.server

COUNT = 8
#: Each page calls the third party, and fails when that has answered.
SOURCE = """
import os
from pathlib import Path
from urllib.request import urlopen

from flask import Flask, request
from flask_stalecache import GatewayCache, Policy, StaleCache

FOLDER = Path(os.environ["FOLDER"])


def fail(path):
    urlopen(f"{os.environ['GATE']}?path={path}").close()


site = Flask("live")
site.config.update(STALECACHE_DIR=FOLDER / "site", STALECACHE_GATEWAY=[("/gateway/*", Policy(max_age=60))])
cache = StaleCache(site)


def view(name):
    fail(request.path)
    return "the page is down", 503


def greeting(name):
    fail(request.path)
    return f"sorry {request.headers.get('X-Forwarded-User')}", 503


for kind, decorate in {"view": cache.cached(60), "coded": cache.cached(60, gateway=True), "gateway": lambda view: view}.items():
    site.add_url_rule(f"/{kind}/<path:name>", kind, decorate(view))
    site.add_url_rule(f"/{kind}/own/<path:name>", f"{kind}.own", decorate(greeting))


def unobserved(environ, start_response):
    fail(environ["PATH_INFO"])
    body = f"sorry {environ.get('HTTP_X_FORWARDED_USER')}".encode()
    start_response("503 Service Unavailable", [("Content-Length", str(len(body)))])
    return [body]


plain = GatewayCache(unobserved, dir=FOLDER / "plain")


def waiting():
    engines = plain._engine, site.extensions["stalecache"].engine
    flights = [flight for engine in engines for flight in list(engine.runtime.process.flights._flights.values())]
    return sum(len(flight.done.waiters) for flight in flights)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/waiting":
        text = str(waiting()).encode()
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]
    return (plain if environ["PATH_INFO"].startswith("/plain/") else site)(environ, start_response)
"""


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with Gate() as made:
        yield made


@pytest.fixture(scope="module")
def server(gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process with a thread for each visitor."""
    folder = tmp_path_factory.mktemp("failures")
    with serving("gthread", SOURCE, folder, env={"FOLDER": folder, "GATE": gate.url}, workers=1, threads=COUNT + 2) as made:
        yield made


def visit_all(server: Server, gate: Gate, path: str) -> tuple[list[Answer], int]:
    """Let a crowd come while the first one's call is held; return their answers, and how many calls there were."""
    before = gate.calls
    gate.hold(before)
    with ThreadPoolExecutor(COUNT) as pool:
        asked = [pool.submit(server.get, path, {"X-Forwarded-User": f"user{number}"}) for number in range(COUNT)]
        wait_for(lambda: gate.open >= 1, what="the first call")
        wait_for(lambda: server.get("/waiting").text == str(COUNT - 1), what="the crowd waits")
        gate.release()
        answers = [future.result(PATIENCE) for future in asked]
    return answers, gate.calls - before


@pytest.mark.parametrize("kind", ["view", "gateway", "coded"])
def test_a_failure_that_is_everybodys_is_called_for_once(server: Server, gate: Gate, kind: str) -> None:
    answers, calls = visit_all(server, gate, f"/{kind}{new_path()}")
    assert {(answer.status, answer.text) for answer in answers} == {(503, "the page is down")}
    assert calls == 1


@pytest.mark.parametrize("kind", ["plain", "view/own", "gateway/own", "coded/own"])
def test_nobody_is_shown_the_failure_of_another(server: Server, gate: Gate, kind: str) -> None:
    answers, _ = visit_all(server, gate, f"/{kind}{new_path()}")
    for number, answer in enumerate(answers):
        assert answer.status == 503
        assert answer.text in (f"sorry user{number}", "503 Service Unavailable\n")
