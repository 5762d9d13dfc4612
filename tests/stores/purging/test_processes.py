"""Purging by many processes, and by the workers of real servers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from flask_stalecache.engine.origin import Answer, Start
from support.engine import FakeOrigin, make_entry, storable
from support.files import replace_text
from support.processes import Worker
from support.purging import CALLED, GO, NAMES, NEWS, SPORT, VERSION, Numbers, at, purge, seen_by
from support.servers import serving, visitors_of_two_workers
from support.threads import PATIENCE, wait_until

STALE_WORDS = ("STALE", "UPDATING")


# -- two processes ---------------------------------------------------------------------------------------------------


PUBLISHED, DONE = (4, 5), (6, 7)


def store_stale(place: Path, key: str) -> None:
    engine, numbers = at(place)
    body = f"{numbers[VERSION]}".encode()
    entry = make_entry(key, body, windows=(0, 600, 600), names=NAMES, seq=engine.store.seq())
    assert engine.store.write(entry)


def visit(place: Path, key: str, number: int) -> tuple[str, int]:
    """Visit a page whose origin is held until its round may go on; return status and version."""
    engine, numbers = at(place)

    def make(start: Start) -> Answer:
        version = numbers[VERSION]
        numbers[CALLED] = number
        wait_until(lambda: numbers[GO] >= number, "that the call may go on")
        return storable(start, f"{version}".encode(), key=key, names=NAMES)

    return seen_by(engine, FakeOrigin(make, key, renewal=make))


def visit_and_wait(place: Path, key: str, number: int) -> tuple[str, int]:
    """The same, and wait for the refresh that it asked for."""
    seen = visit(place, key, number)
    assert at(place)[0].runtime.drain(PATIENCE)
    return seen


@pytest.mark.grid
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("refresh", [False, True], ids=["a first fill", "a refresh"])
def test_a_purge_by_another_process_wins_over_what_is_under_way(
    pair: list[Worker], tmp_path: Path, refresh: bool, soft: bool, soak: Callable[[int, int], int]
) -> None:
    """It began before the purge: what it made is never served as fresh afterwards, by either, nor to who waited."""
    numbers, (filler, purger) = Numbers(tmp_path), pair
    for number in range(1, 1 + soak(200, 10)):
        key, old, new = f"page-{number}", numbers[VERSION], numbers[VERSION] + 1
        if refresh:
            filler.run(store_stale, tmp_path, key)
        filler.start(visit_and_wait, tmp_path, key, number)
        wait_until(lambda number=number: numbers[CALLED] == number, "the call")  # type: ignore[misc]
        numbers[VERSION] = new
        purger.run(purge, tmp_path, random.choice(NAMES), soft)
        purger.start(visit, tmp_path, key, number)
        numbers[GO] = number
        assert filler.result() == ("STALE" if refresh else "MISS", old)
        seen = [purger.result()]
        for _ in range(2):
            seen += [each.run(visit_and_wait, tmp_path, key, number) for each in pair]
        assert all(version == new or (soft and word in STALE_WORDS) for word, version in seen), seen
        assert seen[-2:] == [("HIT", new)] * 2


def publish_and_look(place: Path, me: int, rounds: int, soft: bool) -> int:
    """Publish and visit at full speed; no answer may be older than what either had purged when its visitor came."""
    engine, numbers = at(place)
    chance = random.Random(me)

    def make(start: Start) -> Answer:
        versions = numbers[PUBLISHED[0]], numbers[PUBLISHED[1]]
        time.sleep(chance.choice((0, 0, 0.0005)))
        return storable(start, b"%d" % (versions[0] << 32 | versions[1]), key="page", names=(*NAMES, SPORT))

    def is_over() -> bool:
        return numbers[DONE[0]] == numbers[DONE[1]] == rounds

    def is_settled() -> bool:
        return seen_by(engine, origin) == ("HIT", rounds << 32 | rounds)

    origin, visits, published = FakeOrigin(make, renewal=make), 0, 0
    while not is_over():
        if published < rounds and chance.random() < 0.4:
            published += 1
            numbers[PUBLISHED[me]] = published
            engine.store.purge((NEWS, SPORT)[me], soft=soft)
            numbers[DONE[me]] = published
        least = numbers[DONE[0]], numbers[DONE[1]]
        word, made = seen_by(engine, origin)
        visits += 1
        is_new = made >> 32 >= least[0] and made & 0xFFFFFFFF >= least[1]
        assert is_new or (soft and word in STALE_WORDS), (word, made >> 32, made & 0xFFFFFFFF, least)
        if published == rounds:
            time.sleep(0.0005)
    wait_until(is_settled, "the last content")
    return visits


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_no_answer_is_older_than_the_last_purge_when_its_visitor_came(
    pair: list[Worker], tmp_path: Path, soft: bool, soak: Callable[[int, int], int]
) -> None:
    Numbers(tmp_path)
    rounds = soak(2000, 30)
    for number, each in enumerate(pair):
        each.start(publish_and_look, tmp_path, number, rounds, soft)
    assert all(each.result() > 0 for each in pair)


# -- servers ---------------------------------------------------------------------------------------------------------


SOURCE = """
import os
from pathlib import Path

from flask import Flask, request
from flask_stalecache import StaleCache

app = Flask(__name__)
app.config["STALECACHE_DIR"] = os.environ["CACHE"]
cache = StaleCache(app)
version = Path(os.environ["VERSION"])


@app.get("/news/<int:number>")
@cache.cached(3600, 3600, 3600, tags=["news"])
def article(number):
    return version.read_text()


@app.get("/about")
@cache.cached(3600, 3600, 3600)
def about():
    return version.read_text()


@app.post("/purge")
def purge():
    given = request.args.to_dict()
    if "all" in given:
        given["all"] = True
    cache.purge(**{**given, "soft": "soft" in given})
    return "done"


@app.after_request
def tell(response):
    response.headers["X-Pid"] = str(os.getpid())
    return response
"""

#: For two servers, one after the other: without it, their ports would be in the cache key.
HOST = {"Host": "shop.example"}

QUERIES = ("tag=news", "endpoint=article", "url=/news/1", "url=http://shop.example/news/1", "all=1")


@pytest.mark.server
def test_every_worker_sees_a_purge_at_its_next_request_and_after_a_restart(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("0")
    env = {"CACHE": tmp_path / "cache", "VERSION": version}
    with serving("gthread", SOURCE, tmp_path / "site", env=env) as server, ExitStack() as stack:
        pair, about = visitors_of_two_workers(server, stack, "/about", HOST), "0"
        for number, query in enumerate([*QUERIES, *(f"{query}&soft=1" for query in QUERIES)], 1):
            purger, other = pair if number % 2 else pair[::-1]
            for visitor in pair:
                while (seen := visitor.get("/news/1", HOST)).cache != "HIT" or seen.text != version.read_text():
                    pass
            old = version.read_text()
            replace_text(version, f"{number}")
            assert purger.get(f"/purge?{query}", method="POST").status == 200
            for visitor in (other, purger):
                seen = visitor.get("/news/1", HOST)
                if "soft" in query:
                    assert seen.cache in ("STALE", "UPDATING", "HIT"), query
                    assert (seen.text == old) == (seen.cache != "HIT"), query
                else:
                    assert seen.text == f"{number}", query
            if "all" not in query:
                assert other.get("/about", HOST).text == about
            about = other.get("/about", HOST).text
        for soft in ("&soft=1", ""):
            path = "/news/2" if soft else "/news/3"
            while pair[0].get(path, HOST).cache != "HIT":
                pass
            assert pair[0].get(f"/purge?url={path}{soft}", method="POST").status == 200
    version.write_text("after the restart")
    with serving("gthread", SOURCE, tmp_path / "site", env=env) as server:
        assert server.get("/news/1", HOST).cache == "HIT"
        seen = server.get("/news/2", HOST)
        assert (seen.cache, seen.text) == ("STALE", f"{2 * len(QUERIES)}")
        seen = server.get("/news/3", HOST)
        assert (seen.cache, seen.text) == ("MISS", "after the restart")
