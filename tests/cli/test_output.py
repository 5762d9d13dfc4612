"""What commands print: visitors choose parts of it, and may not act on the operator's terminal. Covers ``cli.output``."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from flask import Flask

from flask_stalecache import StaleCache

EVIL = ["\x9b2Jforged", "\x1b[2Jforged", "\nforged", "\rforged", "\u2028forged", "\u202eforged"]
UNSAFE = ("\x9b", "\x1b", "\nforged", "\r", "\u2028", "\u202e")


@pytest.mark.parametrize("value", EVIL, ids=["one-byte escape", "escape", "line feed", "return", "separator", "direction"])
def test_no_command_prints_what_acts_on_a_terminal(make_app: Callable[..., tuple[Flask, StaleCache]], value: str) -> None:
    app, cache = make_app(REFRESH_WORKERS=0)

    @app.get("/news/<what>")
    @cache.cached(max_age=60, tags=lambda what: [what], vary=["X-Theme"], response_filter=lambda response: True)
    def news(what: str) -> str:
        return "news"

    environ = {"QUERY_STRING": f"page={value.encode().decode('latin-1')}", "HTTP_X_THEME": value.encode().decode("latin-1")}
    with app.test_client().get(f"/news/{quote(value)}", environ_overrides=environ) as response:
        assert response.headers["X-Cache-Status"] == "MISS"
    run = app.test_cli_runner().invoke
    [listed] = json.loads(run(args=["stalecache", "list", "--json"]).stdout)
    assert listed["tags"] == [value]
    for command in (["list"], ["list", "--json"], ["stats"]):
        result = run(args=["stalecache", *command])
        assert result.exit_code == 0, result.output
        assert not [sign for sign in UNSAFE if sign in result.stdout]
    for command in (["show", listed["title"]], ["show", f"/{value}"], ["purge", value], ["refresh", "--tag", value]):
        assert not [sign for sign in UNSAFE if sign in run(args=["stalecache", *command]).output]
