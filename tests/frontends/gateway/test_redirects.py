"""A form whose answer redirects to a page: the page is dropped, and made anew behind the redirect, so that others need not wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, redirect, request

from flask_stalecache import Policy, StaleCache
from flask_stalecache.frontends.gateway.invalidation import MOST_RENEWED
from support.client import Seen, settle, visit

GERMAN, FRENCH = {"Accept-Language": "de"}, {"Accept-Language": "fr"}


class Forum:
    """A forum that shows all posts in one list, behind a gateway.

    :ivar posts: what visitors have written.
    :ivar made: the language of the list, once for each time that it was made.
    """

    def __init__(self, directory: Path, workers: int = 0) -> None:
        self.posts: list[str] = []
        self.made: list[str] = []
        app = self.app = Flask("forum", static_folder=None)
        app.add_url_rule("/list", "list", self.list)
        app.add_url_rule("/write", "write", self.write, methods=["POST"])
        app.config.update(STALECACHE_DIR=directory, STALECACHE_REFRESH_WORKERS=workers)
        app.config["STALECACHE_GATEWAY"] = {"/*": Policy(max_age=60)}
        self.cache = StaleCache(app)

    def list(self) -> Response:
        language = request.headers.get("Accept-Language", "en")
        self.made.append(language)
        return Response(f"{language}: {', '.join(self.posts)}", headers={"Vary": "Accept-Language"})

    def write(self) -> Any:
        self.posts.append(request.args["text"])
        code = request.args.get("code", 303, type=int)
        return redirect("/list", code) if code < 400 and code != 200 else ("", code, {"Location": "/list"})

    def read(self, language: dict[str, str]) -> Seen:
        return visit(self.app, "/list", language)

    def post(self, text: str, code: int = 303) -> Seen:
        return visit(self.app, f"/write?text={text}&code={code}", method="POST")


@pytest.mark.parametrize("workers", [0, 2])
def test_the_page_is_made_anew_in_all_its_variants(workers: int, directory: Path, no_housekeeping: None) -> None:
    forum = Forum(directory, workers)
    for language in (GERMAN, FRENCH):
        assert forum.read(language).page == ("MISS", f"{language['Accept-Language']}: ")
    assert forum.post("hello").status == 303
    settle(forum.app, forum.cache)
    assert [forum.read(language).page for language in (GERMAN, FRENCH)] == [("HIT", "de: hello"), ("HIT", "fr: hello")]
    assert sorted(forum.made) == ["de", "de", "fr", "fr"]


@pytest.mark.parametrize(("code", "word"), [(200, "MISS"), (201, "MISS"), (301, "HIT"), (302, "HIT"), (307, "HIT"), (400, "HIT")])
def test_only_behind_a_redirect(code: int, word: str, directory: Path, clock: time_machine.Traveller) -> None:
    forum = Forum(directory)
    forum.read(GERMAN)
    forum.post("hello", code)
    # An error changes nothing.
    assert forum.read(GERMAN).page == (word, "de: " if code == 400 else "de: hello")


def test_only_what_was_stored(directory: Path, clock: time_machine.Traveller) -> None:
    forum = Forum(directory)
    forum.post("hello")
    assert forum.made == []
    forum.read(GERMAN)
    clock.shift(61)
    forum.post("world")
    assert forum.made == ["de", "de"]
    assert forum.read(GERMAN).page == ("HIT", "de: hello, world")


def test_no_more_than_a_few_variants(directory: Path, clock: time_machine.Traveller) -> None:
    forum = Forum(directory)
    languages = [{"Accept-Language": f"l{number}"} for number in range(MOST_RENEWED + 3)]
    for language in languages:
        forum.read(language)
    del forum.made[:]
    forum.post("hello")
    assert len(forum.made) == MOST_RENEWED
    assert {forum.read(language).text[-5:] for language in languages} == {"hello"}
    assert len(forum.made) == len(languages)


def test_a_page_that_is_nobodys_any_more(directory: Path, clock: time_machine.Traveller) -> None:
    forum = Forum(directory)
    forum.read(GERMAN)
    forum.app.view_functions["list"] = lambda: ("only for members", 200, {"Cache-Control": "private"})
    forum.post("hello")
    assert [forum.read(GERMAN).page for _ in range(2)] == [("MISS", "only for members")] * 2
