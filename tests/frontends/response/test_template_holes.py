"""Covers ``frontends.response.template_holes``, and the tag in ``jinja``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g, render_template, render_template_string
from jinja2 import DictLoader, FileSystemBytecodeCache, TemplateSyntaxError

from flask_stalecache import StaleCache
from flask_stalecache.errors import StaleCacheError
from support.client import MakeApp, visit
from support.holes import VISITORS, Build, compare, said, templates

pytestmark = pytest.mark.usefixtures("clock")
MAIN = "{% block main %}{% endblock %}"
SHOWN = "{% hole %}<b>{{ session.user }}</b>{% endhole %}"


def page(*, name: str = "page.html", values: dict[str, Any] | None = None, **texts: str) -> Build:
    """Return a function that sets up an app whose page is a template."""

    def build(app: Flask, cache: StaleCache) -> None:
        templates(app, **texts)
        app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template(name, **(values or {}))))

    return build


PLACES: dict[str, dict[str, str]] = {
    "alone": {"page": SHOWN},
    "a base": {
        "base": f"{SHOWN}{{% block main %}}{{% endblock %}}",
        "page": "{% extends 'base.html' %}{% block main %}x{% endblock %}",
    },
    "a block": {
        "base": "{% block main %}{% endblock %}",
        "page": f"{{% extends 'base.html' %}}{{% block main %}}{SHOWN}{{% endblock %}}",
    },
    "an overridden block": {
        "base": f"{{% block main %}}{SHOWN}{{% endblock %}}",
        "page": "{% extends 'base.html' %}{% block main %}{{ super() }}{{ super() }}{% endblock %}",
    },
    "an include": {"box": SHOWN, "page": "{% include 'box.html' %}{% include 'box.html' %}"},
    "a macro": {"page": f"{{% macro box() %}}{SHOWN}{{% endmacro %}}{{{{ box() }}}}{{{{ box() }}}}"},
    "an imported macro": {
        "box": f"{{% macro box() %}}{SHOWN}{{% endmacro %}}",
        "page": "{% from 'box.html' import box %}{{ box() }}",
    },
    "a loop": {"page": "{% for i in [1, 2] %}{% hole i=i %}{{ i }}{{ session.user }}{% endhole %}{% endfor %}"},
    "captured": {"page": f"{{% set x %}}{SHOWN}{{% endset %}}{{{{ x }}}} {{{{ x|tojson }}}} <p title='{{{{ x|forceescape }}}}'>"},
    "no autoescape": {"page": f"{{% autoescape false %}}{SHOWN}{{% endautoescape %}}"},
    "a filter": {"page": f"{{% filter forceescape %}}{SHOWN}{{% endfilter %}}"},
    "an import in the hole": {
        "m": "{% macro m(x) %}[{{ x }}]{% endmacro %}",
        "page": "{% hole %}{% from 'm.html' import m %}{{ m(session.user) }}{% endhole %}",
    },
    "a fragment in the hole": {"page": "{% hole %}{% cache 60 %}all{% endcache %}{{ session.user }}{% endhole %}"},
    "set in the hole": {"page": "{% hole %}{% set a = session.user %}{{ a }}{% for b in [1] %}{{ b }}{% endfor %}{% endhole %}"},
    "flash messages": {"page": "{% hole %}{{ get_flashed_messages() }}{{ session.user }}{% endhole %}"},
    "two arguments": {"page": "{% hole a=1, b='x' %}{{ a }}{{ b }}{{ session.user }}{% endhole %}"},
    "white space": {"page": "a  {%- hole -%}  {{ session.user }}  {%- endhole -%}  b"},
}


@pytest.mark.parametrize("texts", PLACES.values(), ids=PLACES)
def test_a_hole_is_everywhere(texts: dict[str, str], make_app: MakeApp) -> None:
    answers = compare(make_app, page(**texts), *VISITORS)
    assert said(answers) == ["HIT"] * 3
    assert len({each.body for each in answers}) == 3


def test_a_text_template(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.jinja_loader = DictLoader({"page.txt": SHOWN})
        app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template("page.txt")))

    assert said(compare(make_app, build, *VISITORS)) == ["HIT"] * 3


def test_in_another_process_with_a_cache_of_bytecode(make_app: MakeApp, tmp_path: Path) -> None:
    for word in ("MISS", "HIT", "HIT"):
        app, cache = make_app()
        app.jinja_options = {**app.jinja_options, "bytecode_cache": FileSystemBytecodeCache(str(tmp_path))}
        page(**PLACES["a loop"])(app, cache)
        assert visit(app, "/", VISITORS[1]).page == (word, "1bob2bob")


def test_another_body_is_another_hole(make_app: MakeApp) -> None:
    app, cache = make_app()
    page(page="<{% hole %}one{% endhole %}>")(app, cache)
    assert visit(app).page == ("MISS", "<one>")
    later, cache = make_app()
    page(page="<{% hole %}two{% endhole %}>")(later, cache)
    assert [visit(later).page for _ in range(2)] == [("EXPIRED", "<two>"), ("HIT", "<two>")]
    gone, cache = make_app()
    page(page="<three>")(gone, cache)
    assert visit(gone).page == ("EXPIRED", "<three>")


REFUSED = {
    "{% hole %}{% block a %}{% endblock %}{% endhole %}": "can't hold a block",
    "{% hole %}{% hole %}{% endhole %}{% endhole %}": "in a hole",
    "{% block a %}{% hole %}{{ super() }}{% endhole %}{% endblock %}": "no 'super'",
    "{% for a in [1] %}{% hole %}{{ loop.index }}{% endhole %}{% endfor %}": "hole index=loop.index",
    "{% hole %}{{ self.a() }}{% endhole %}": "no 'self'",
    "{% macro a() %}{% hole %}{{ caller() }}{% endhole %}{% endmacro %}": "no 'caller'",
    "{% hole a %}{% endhole %}": "by name",
    "{% hole 'a' %}{% endhole %}": "by name",
    "{% hole %}{% extends 'b.html' %}{% endhole %}": "extends",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_when_it_is_compiled(text: str, make_app: MakeApp) -> None:
    app, _ = make_app()
    templates(app, page=text)
    with pytest.raises(TemplateSyntaxError, match=REFUSED[text]):
        app.jinja_env.get_template("page.html")


def test_a_template_without_a_name_can_have_none(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.testing = True
    app.add_url_rule("/", "page", cache.cached(60)(lambda: render_template_string("{% hole %}{% endhole %}")))
    with pytest.raises(TemplateSyntaxError, match="put the template into a file"):
        visit(app)


UNKNOWN = {
    "{% hole %}{{ title }}{% endhole %}": "{% hole title=title %}",
    "{% set a = 1 %}{% hole %}{{ a }}{% endhole %}": "{% hole a=a %}",
    "{% for i in [1] %}{% hole %}{{ i }}{% endhole %}{% endfor %}": "{% hole i=i %}",
    "{% macro m() %}{% endmacro %}{% hole %}{{ m() }}{% endhole %}": "import it in the hole",
    "{% for g in [1] %}{% hole %}{{ g }}{% endhole %}{% endfor %}": "{% hole g=g %}",
    "{% set url_for = 1 %}{% hole %}{{ url_for }}{% endhole %}": "{% hole url_for=url_for %}",
    "{% hole title=[title, item] %}{{ title }}{% endhole %}": "was given title, a Item",
}


class Item:
    pass


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("text", UNKNOWN)
def test_what_only_the_page_has_is_an_error_that_says_what_to_write(text: str, cached: bool, make_app: MakeApp) -> None:
    app, cache = make_app(ENABLED=cached)
    app.testing = True
    page(page=text, values={"title": "t", "item": Item()})(app, cache)
    with pytest.raises(StaleCacheError) as caught:
        visit(app)
    assert UNKNOWN[text] in str(caught.value)
    assert "page.html, line 1" in str(caught.value)


def test_what_context_processors_make_is_known(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.context_processor(lambda: {"shop": "ours", "user": g.get("user")})
        page(page="{% hole %}{{ shop }}{{ user }}{{ session.user }}{{ config.TESTING }}{{ request.path }}{% endhole %}")(app, cache)

        @app.before_request
        def hook() -> None:
            g.user = "by a hook"

    assert said(compare(make_app, build, *VISITORS)) == ["HIT"] * 3


def test_a_fragment_can_have_none(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.testing = True
    page(page=f"{{% cache 60 %}}{SHOWN}{{% endcache %}}")(app, cache)
    with pytest.raises(StaleCacheError, match="in a fragment"):
        visit(app)


def test_without_a_request_there_is_none(make_app: MakeApp) -> None:
    app, _ = make_app()
    templates(app, page=SHOWN)
    with app.app_context(), pytest.raises(StaleCacheError, match="needs a request"):
        render_template("page.html")
