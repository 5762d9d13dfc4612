"""Marks in all kinds of places in templates, JSON and links: a value that a visitor has chosen must not break out of its place."""

from __future__ import annotations

import gzip
import html
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, Response, jsonify, render_template, session, url_for
from flask_compress import Compress
from markupsafe import Markup, escape

from flask_stalecache import StaleCache
from support.client import MakeApp, visit
from support.holes import compare, cookie, said, templates

pytestmark = pytest.mark.usefixtures("clock")

PAYLOADS = (
    '</script><script>alert("1")</script>',
    "' onclick='x' \" onload=\"y",
    '\\";alert(1)//\n\\u0022',
    "a&b=c#d?e/f g+h%3Cb%3E;é€",
    "{{ 7 * 7 }}{% raw %}<!-- --]]>",
    "",
)
VISITORS = [cookie(name=payload) for payload in PAYLOADS]
PLACES: dict[str, str] = {
    "text": "<p>{{ name() }}</p>",
    "an attribute": "<p title=\"{{ name() }}\" class='{{ name() }}'>",
    "a script": "<script>x = {{ name()|tojson }}; y = [{{ {'a': [name()]}|tojson }}]</script>",
    "JSON in an attribute": "<p data-x='{{ {'a': name()}|tojson }}' data-y=\"{{ name()|tojson|forceescape }}\">",
    "a query": "<a href=\"?q={{ name()|urlencode }}&amp;{{ {'r': name()}|urlencode }}\">",
    "a link of the app": "<a href=\"{{ url_for('page', q=name(), r='1') }}\">",
    "a format": "{{ '<b>%s</b>'|safe|format(name()) }}{{ 'hello %s'|format(name()) }}",
    "joined": "{{ [name(), 'a', name()]|join('<br>'|safe) }}{{ 'a' ~ name() ~ 'b' }}",
    "captured": "{% set x %}<i>{{ name() }}</i>{% endset %}{{ x }}{{ x|tojson }}{{ x|forceescape }}",
    "safe": "{{ bold()|safe }}{{ bold() }}{{ bold()|tojson }}{{ bold()|forceescape }}",
    "no autoescape": "{% autoescape false %}{{ name() }}{{ name()|e }}{% endautoescape %}",
    "a macro": "{% macro m(x) %}<u>{{ x }}</u>{% endmacro %}{{ m(name()) }}",
    "a default": "{{ name()|default('x') }}",
    "a loop": "{% for i in range(3) %}{{ i }}{{ name() }}{% endfor %}",
    "pretty": "<pre>{{ {'a': name()}|tojson(indent=2) }}</pre>",
    "a comment": "<!-- {{ name() }} -->",
    "a style": "<style>p { content: {{ name()|tojson }} }</style>",
}
#: These look at the mark or change it: the page is made for each visitor.
LOOKING = {
    "striptags": "{{ name()|striptags }}",
    "line breaks": "{{ name()|forceescape|replace('\n', '<br>'|safe) }}",
    "upper": "{{ name()|upper }}",
    "length": "{{ name()|length }}",
    "truncate": "{{ name()|truncate(9, True) }}",
    "wordwrap": "{{ name()|wordwrap(9) }}",
    "urlize": "{{ name()|urlize }}",
    "reverse": "{{ name()|reverse }}",
    "test": "{% if name() %}a{% else %}b{% endif %}",
    "equal": "{{ name() == '' }}",
    "slice": "{{ name()[:3] }}",
    "tojson twice": "{{ name()|tojson|tojson|tojson }}",
    "quotes undone": "{% set x %}{{ name() }}{% endset %}{{ x|replace('&#34;'|safe, '\"') }}",
}


def name() -> str:
    return session.get("name", "")  # type: ignore[no-any-return]


def bold() -> Markup:
    return Markup("<b>{}</b>").format(session.get("name", ""))


def site(app: Flask, cache: StaleCache, text: str) -> None:
    app.jinja_env.globals.update(name=cache.hole(name), bold=cache.hole(bold))
    templates(app, page=text)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template("page.html")))


@pytest.mark.parametrize("text", PLACES.values(), ids=PLACES)
def test_a_visitors_value_is_encoded_as_without_a_cache(text: str, make_app: MakeApp) -> None:
    answers = compare(make_app, lambda app, cache: site(app, cache, text), *VISITORS)
    assert said(answers) == ["HIT"] * len(VISITORS)


@pytest.mark.parametrize("text", LOOKING.values(), ids=LOOKING)
def test_what_a_page_does_otherwise_with_it_is_done_for_each_visitor(text: str, make_app: MakeApp) -> None:
    compare(make_app, lambda app, cache: site(app, cache, text), *VISITORS)


def test_a_text_stays_escaped_where_a_filter_takes_it_for_html(make_app: MakeApp) -> None:
    app, cache = make_app()
    site(app, cache, "<p>{{ name()|safe }}</p>")
    for payload, headers in zip(PAYLOADS, VISITORS, strict=True):
        assert visit(app, "/", headers).text == f"<p>{escape(payload)}</p>"


def test_what_browsers_and_clients_make_of_it(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown = cache.hole(name=f"{__name__}.shown")(name)

    @cache.cached(60)
    def page() -> str:
        link, script = url_for("page", q=shown()), json.dumps(shown()).replace("</", "<\\/")
        return f"<p>{escape(shown())}</p><a href='{escape(link)}'></a><script>{script}</script>"

    app.add_url_rule("/", "page", page)
    app.add_url_rule("/json", "json", cache.cached(60)(lambda: jsonify(name=shown(), more=[f"a {shown()}"])))
    for _ in range(2):
        for payload, headers in zip(PAYLOADS, VISITORS, strict=True):
            body = visit(app, "/", headers).text
            found = re.fullmatch(r"<p>(.*)</p><a href='(.*)'></a><script>(.*)</script>", body, re.DOTALL)
            assert found is not None
            assert "</" not in found[3]
            assert html.unescape(found[1]) == payload
            assert parse_qs(urlsplit(html.unescape(found[2])).query).get("q", [""]) == [payload]
            assert json.loads(found[3]) == payload
            data = json.loads(visit(app, "/json", headers).body)
            assert data == {"name": payload, "more": [f"a {payload}"]}


def test_a_response_that_is_compressed_on_its_way_out(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.config["COMPRESS_MIN_SIZE"] = 1
    Compress(app)
    site(app, cache, "x" * 2000 + "{{ name() }}")
    for word in ("MISS", "HIT"):
        for payload, headers in zip(PAYLOADS, VISITORS, strict=True):
            seen = visit(app, "/", {**headers, "Accept-Encoding": "gzip"})
            assert seen.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(seen.body).decode() == "x" * 2000 + str(escape(payload))
            assert seen.word in (word, "HIT")
            assert seen.headers["Cache-Control"] == "private, no-cache"


def minified(text: str) -> str:
    """Minify a page as tools do: remove needless white space, and replace the entity of the single quote."""
    return re.sub(r">\s+<", "><", re.sub(r"[ \t]+", " ", text)).replace("&#39;", "'")


@pytest.mark.parametrize("place", ["in the view", "in a hook"])
def test_a_page_that_is_minified(place: str, make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        shown = cache.hole(name=f"{__name__}.shown")(name)
        change: Any = minified if place == "in the view" else str
        app.add_url_rule("/", "page", cache.cached(60)(lambda: change(f"<p>   {escape(shown())}</p>   <p>")))
        if place == "in a hook":

            @app.after_request
            def minify(response: Response) -> Response:
                response.set_data(minified(response.get_data(as_text=True)))
                return response

    answers = compare(make_app, build, *VISITORS)
    assert (said(answers) == ["HIT"] * len(VISITORS)) == (place == "in a hook")
