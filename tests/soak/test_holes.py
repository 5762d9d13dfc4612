"""Two members and a stranger visit many pages at random: nobody sees what fills another's hole, and no file of the store has it.

Endurance of ``frontends.pages.filling_holes.filling``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, flash, g, jsonify, render_template, request, session
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from markupsafe import Markup, escape

from flask_stalecache import StaleCache
from support.client import MakeApp, settle, visit
from support.holes import cookie, templates

SECRETS = {"ann": "S3CRET-of-<ann>\"'\\&", "bob": "S3CRET-of-<bob>\"'\\&"}
VISITORS: Mapping[str, Mapping[str, str]] = {
    "ann": cookie(user="ann", secret=SECRETS["ann"]),
    "bob": cookie(user="bob", secret=SECRETS["bob"]),
    "nobody": {},
}
BASE = """{% hole %}<nav>{{ session.secret }}{% for m in get_flashed_messages() %}{{ m }}{% endfor %}</nav>{% endhole %}
<main>{% block main %}{% endblock %}</main>{{ who(0) }}"""
KINDS: dict[str, str] = {
    "text": "{{ number }}",
    "hole": "{% hole n=number %}{{ n }}{{ session.secret }}{% endhole %}",
    "json": "<script>x = {{ who(number)|tojson }}</script>",
    "link": "<a href='?{{ {'q': who(number)}|urlencode }}' title='{{ who(1) }}'>",
    "looked": "{% if who(number) %}{{ who(number) }}{% endif %}",
    "upper": "{{ who(number)|upper }}",
    "captured": "{% set x %}{{ who(number) }}{% endset %}{{ x }}{{ x|tojson }}{{ x|forceescape }}",
    "own": "{{ session.secret }}",
    "global": "{{ g.secret }}",
}


def site(app: Flask, cache: StaleCache) -> None:
    hole = cache.hole(name="who")(lambda number: f"{session.get('secret', 'none')}{number}")
    bold = cache.hole(name="bold")(lambda: Markup("<b>{}</b>").format(session.get("secret", "none")))
    app.jinja_env.globals["who"] = hole
    templates(app, base=BASE, **{
        name: "{% extends 'base.html' %}{% block main %}" + text + "{% endblock %}" for name, text in KINDS.items()
    })  # fmt: skip
    seen: list[str] = ["nothing"]

    @app.before_request
    def hook() -> None:
        if request.args.get("hook"):
            g.secret = session.get("secret", "none")

    @cache.cached(60, 600)
    def page(kind: str, number: int) -> Any:
        if kind == "api":
            return jsonify(secret=hole(number), text=f"a {hole(number)} b")
        if kind == "bold":
            return f"<p>{escape(bold())}{bold()}</p>"
        if kind == "flash":
            flash(f"page {number}")
        quoted = seen[0]
        if kind == "quoted":
            # The mark of a hole on another page, as an attacker who has seen one would write it.
            mark = f"{hole(number)}"
            seen[0] = mark if "kQsc" in mark else seen[0]
            return f"<p>{escape(quoted)}</p>{escape(mark)}"
        return render_template(f"{kind}.html" if kind in KINDS else "text.html", number=number)

    app.add_url_rule("/<kind>/<int:number>", "page", page)


@pytest.mark.soak
def test_no_hole_of_one_visitor_is_ever_shown_to_another(
    make_app: MakeApp, directory: Path, soak: Callable[[int, int], int], no_housekeeping: None
) -> None:
    kinds, pages = [*KINDS, "api", "bold", "flash", "quoted"], soak(200, 40)
    visits = st.lists(
        st.tuples(st.sampled_from(sorted(VISITORS)), st.integers(0, pages - 1), st.sampled_from(["", "?hook=1"]), st.booleans()),
        min_size=50,
        max_size=50,
    )
    app, cache = make_app(REFRESH_WORKERS=0)
    site(app, cache)
    plain, off = make_app(ENABLED=False)
    site(plain, off)
    counts = {"HIT": 0, "visits": 0}

    @settings(
        max_examples=soak(200, 4), deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True,
        phases=[Phase.generate],
    )  # fmt: skip
    @given(visits)
    def play(steps: list[tuple[str, int, str, bool]]) -> None:
        for visitor, number, query, shift in steps:
            clock.shift(30 if shift else 0)
            kind = kinds[number % len(kinds)]
            shown = visit(app, f"/{kind}/{number}{query}", VISITORS[visitor])
            expected = visit(plain, f"/{kind}/{number}{query}", VISITORS[visitor])
            counts["visits"] += 1
            counts["HIT"] += shown.word in ("HIT", "STALE")
            if kind != "quoted":
                assert shown.body == expected.body, (visitor, kind, number, shown.word)
            for name in SECRETS:
                assert (f"of-&lt;{name}" in shown.text) <= (name == visitor)
                assert (f"of-<{name}" in shown.text) <= (name == visitor)

    with time_machine.travel(1_795_953_600, tick=False) as clock:
        play()
        settle(app, cache)
    assert counts["HIT"] > counts["visits"] / 8
    stored = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert b"S3CRET" not in stored
    assert b"<nav>" not in stored
    assert len(stored) > 10_000
