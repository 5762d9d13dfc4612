"""The tag ``{% cache %}``: fragments of templates (``jinja`` and ``frontends.memoize.fragments``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Blueprint, Flask, g, render_template, request, session
from jinja2 import DictLoader, TemplateSyntaxError
from markupsafe import Markup

from flask_stalecache import ConfigError, StaleCache, StaleCacheError, UnkeyableArgument

MakeApp = Callable[..., tuple[Flask, StaleCache]]
OPEN = '{% cache 60, "part", stale_while_revalidate=600, stale_if_error=6000, jitter=0'


class Site:
    """An app with one page, whose template has a fragment; ``counted()`` in it counts how often it is rendered."""

    def __init__(self, made: tuple[Flask, StaleCache], **templates: str) -> None:
        self.app, self.cache = made
        self.app.testing = True
        self.count = 0
        self.given: Callable[[], dict[str, Any]] = dict
        self.app.jinja_env.loader = DictLoader({f"{name}.html": text for name, text in templates.items()})
        self.app.jinja_env.globals["counted"] = self.counted
        self.app.add_url_rule("/<path:name>", "page", self.page)
        self.app.add_url_rule("/", "front", lambda: "")

    def counted(self) -> str:
        self.count += 1
        return str(self.count)

    def page(self, name: str) -> str:
        return render_template(f"{name}.html", **self.given())

    def visit(self, path: str = "/page", **options: Any) -> str:
        with self.app.test_client(use_cookies=False).get(path, **options) as response:
            return response.text


def fragment(body: str, *vary: str, more: str = "") -> str:
    return f"{OPEN}{more} {''.join(', ' + each for each in vary)} %}}{body}{{% endcache %}}"


def test_a_fragment_is_served_stale_and_renewed_behind(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    site = Site(make_app(), page=fragment("<b>{{ counted() }}</b>"))
    assert [site.visit(), site.visit()] == ["<b>1</b>", "<b>1</b>"]
    clock.shift(61)
    assert site.visit() == "<b>1</b>"
    assert site.cache.drain(30)
    assert (site.visit(), site.count) == ("<b>2</b>", 2)


class Article:
    def __init__(self, number: int) -> None:
        self.id = number
        self.name = "n"


def test_what_can_not_be_kept_is_renewed_in_the_request(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    site = Site(make_app(), page=fragment("{{ article.id }} {{ article.name }} {{ counted() }}", "article.id"))
    site.given = lambda: {"article": Article(7)}
    assert [site.visit(), site.visit()] == ["7 n 1", "7 n 1"]
    clock.shift(61)
    assert [site.visit(), site.visit()] == ["7 n 2", "7 n 2"]


def test_the_key_has_the_values_that_are_named(make_app: MakeApp) -> None:
    site = Site(make_app(), page=fragment("{{ n }}:{{ counted() }}", "n"))
    values = iter([1, 2, 1, "1", True])
    site.given = lambda: {"n": next(values)}
    assert [site.visit() for _ in range(5)] == ["1:1", "2:2", "1:1", "1:3", "True:4"]


def test_fragments_of_two_templates_and_bodies_are_two(make_app: MakeApp) -> None:
    site = Site(make_app(), a=fragment("a{{ counted() }}") + fragment("b{{ counted() }}"), b=fragment("a{{ counted() }}"))
    assert [site.visit("/a"), site.visit("/b"), site.visit("/a")] == ["a1b2", "a3", "a1b2"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("{{ request.args.a }}", "request"),
        ("{{ session.name }}", "session"),
        ("{% if g.user %}{{ g.user.name }}{% endif %}", "g"),
        ("{{ user.name }}", "user"),
        ("{{ alias.name }}", "alias"),
        ("{{ same.name }}", "same"),
        ("{{ greeting }}", "greeting"),
        ("{{ hello() }}", "hello"),
        ('{% include "inner.html" %}', "user"),
        ("{{ get_flashed_messages() }}", "request"),
    ],
)
def test_what_is_the_visitors_does_not_get_in(make_app: MakeApp, body: str, name: str) -> None:
    page = "{% macro hello() %}{{ user.name }}{% endmacro %}{% set alias = user %}" + fragment(body)
    site = Site(make_app(), page=page, inner="{{ user.name }}")

    class User:
        def __init__(self, name: str) -> None:
            self.name = name

    @site.app.before_request
    def load() -> None:
        g.user = User(request.args["a"])
        session["name"] = request.args["a"]

    @site.app.context_processor
    def made() -> dict[str, Any]:
        return {"user": g.user, "greeting": f"hello {g.user.name}"}

    site.given = lambda: {"same": g.user}
    for visitor in ("ann", "bob"):
        with pytest.raises(StaleCacheError, match=name):
            site.visit(f"/page?a={visitor}")


def test_what_is_named_in_the_tag_gets_in(make_app: MakeApp) -> None:
    site = Site(make_app(), page=fragment("{{ user.name }} {{ request.args.a }} {{ counted() }}", "user.name", "request.args.a"))
    site.app.context_processor(lambda: {"user": {"name": request.args["a"]}})
    assert [site.visit(f"/page?a={name}") for name in ("ann", "bob", "ann")] == ["ann ann 1", "bob bob 2", "ann ann 1"]


def test_a_member_is_not_seen_by_a_flag(make_app: MakeApp) -> None:
    site = Site(make_app(), page=fragment("{{ user.name }}", "user.is_member"))
    site.app.context_processor(lambda: {"user": {"name": request.args["a"], "is_member": True}})
    with pytest.raises(StaleCacheError, match="name `user`, or what it needs of it"):
        site.visit("/page?a=ann")


def test_processors_that_need_no_visitor_get_in(make_app: MakeApp) -> None:
    site = Site(make_app(), page=fragment("{{ shop }} {{ price(3) }}"))
    site.app.context_processor(lambda: {"shop": "Shop", "price": lambda cents: f"0.0{cents}"})
    site.app.context_processor(lambda: {"lang": request.args["a"]})
    assert site.visit("/page?a=1") == "Shop 0.03"


def test_urls_are_those_of_the_page(make_app: MakeApp) -> None:
    body = '{{ url_for("page", name="x", q=1) }} {{ url_for(".page", name="x", _external=True, _anchor="y z") }}'
    site = Site(make_app(), page=fragment(body), plain=body)
    for base in ("http://a.example", "https://b.example", "http://a.example/shop"):
        assert site.visit(base_url=base) == site.visit("/plain", base_url=base)


def test_urls_of_a_blueprint(make_app: MakeApp) -> None:
    site = Site(make_app(), page=fragment('{{ url_for(".here") }}'))
    for name in ("one", "two"):
        blueprint = Blueprint(name, name, url_prefix=f"/{name}")
        blueprint.add_url_rule("/here", "here", lambda: render_template("page.html"))
        site.app.register_blueprint(blueprint)
    assert [site.visit("/one/here"), site.visit("/two/here")] == ["/one/here", "/two/here"]


def test_urls_are_renewed_behind(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    site = Site(make_app(), page=fragment('{{ url_for("front") }}{{ counted() }}'))
    assert site.visit() == "/1"
    clock.shift(61)
    assert site.visit() == "/1"
    assert site.cache.drain(30)
    assert site.visit() == "/2"


def test_base_url_stands_for_the_host(make_app: MakeApp) -> None:
    site = Site(make_app(BASE_URL="https://shop.example"), page=fragment('{{ url_for("front", _external=True) }}{{ counted() }}'))
    assert [site.visit(base_url=f"http://{host}.example") for host in "ab"] == ["https://shop.example/1"] * 2


def test_tags_and_freshness_travel_up(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    site = Site(make_app(), page=fragment("{{ counted() }}", more=', tags=["news", tag]'))
    site.given = lambda: {"tag": "t"}
    site.app.view_functions["page"] = site.cache.cached(max_age=1000, stale_while_revalidate=5000, jitter=0)(site.page)
    assert [site.visit(), site.visit()] == ["1", "1"]
    with site.app.app_context():
        site.cache.purge(tag="t")
    assert [site.visit(), site.visit()] == ["2", "2"]
    clock.shift(61)
    assert site.visit() == "2"
    assert site.cache.drain(30)
    assert site.visit() == "3"


def test_escaping_is_that_of_the_template(make_app: MakeApp) -> None:
    site = Site(
        make_app(),
        page="{% set x = '<a>' %}"
        + fragment("<b>{{ x }}</b>")
        + "{% autoescape false %}"
        + fragment("<b>{{ x }}</b>")
        + "{% endautoescape %}{{ '<i>' }}",
    )
    assert [site.visit(), site.visit()] == ["<b>&lt;a&gt;</b><b><a></b>&lt;i&gt;"] * 2


def test_loops_nesting_inheritance_and_macros(make_app: MakeApp) -> None:
    site = Site(
        make_app(),
        base="<{% block body %}{% endblock %}>" + fragment("foot{{ counted() }}"),
        macros="{% macro bold(x) %}<b>{{ x }}</b>{% endmacro %}",
        page='{% extends "base.html" %}{% from "macros.html" import bold %}{% block body %}{% for n in [1, 2] %}'
        + fragment("{{ n }}" + fragment("inner{{ counted() }}"), "n")
        + '{% endfor %}{% import "macros.html" as m %}'
        + fragment("{{ m.bold(1) }}{% for x in [1] %}{{ loop.index }}{% endfor %}")
        + "{% endblock %}",
    )
    assert [site.visit(), site.visit()] == ["<1inner12inner1<b>1</b>1>foot2"] * 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('{% cache "del", "x" %}{% endcache %}', r"cache\.purge\(tag="),
        ("{% cache 300, name %}{% endcache %}", "the name is a string"),
        ('{% cache 300, "x", timeout=3 %}{% endcache %}', "no parameter 'timeout'"),
        ('{% for a in [1] %}{% cache 300, "x" %}{{ loop.index }}{% endcache %}{% endfor %}', "no 'loop'"),
    ],
)
def test_mistakes_in_the_tag(make_app: MakeApp, source: str, message: str) -> None:
    with pytest.raises(TemplateSyntaxError, match=message):
        make_app()[0].jinja_env.from_string(source)


@pytest.mark.parametrize(
    ("tag", "error", "message"),
    [
        ('300, "x", nobody', StaleCacheError, "page.html#x is cached by `nobody`, which is undefined"),
        ('300, "x", article', UnkeyableArgument, "by `article`, a Article, which has no canonical form"),
        ('"300", "x"', ConfigError, "max_age='300' is not a duration"),
        ('300, "x", tags="news"', ConfigError, "one tag a letter"),
    ],
)
def test_mistakes_in_the_values(make_app: MakeApp, tag: str, error: type[Exception], message: str) -> None:
    site = Site(make_app(), page=f"{{% cache {tag} %}}{{% endcache %}}")
    site.given = lambda: {"article": Article(1)}
    with pytest.raises(error, match=message):
        site.visit()


def test_without_the_cache_a_fragment_is_a_part_of_its_page(make_app: MakeApp) -> None:
    site = Site(make_app(ENABLED=False), page=fragment("{{ request.args.a }}", "request.path"))
    assert [site.visit("/page?a=1"), site.visit("/page?a=2")] == ["1", "2"]


def test_an_environment_that_exists_gets_the_tag(make_app: MakeApp) -> None:
    app = Flask("other")
    app.config["STALECACHE_DIR"] = make_app()[0].config["STALECACHE_DIR"]
    assert app.jinja_env.from_string("{{ 1 }}").render() == "1"
    StaleCache(app)
    with app.app_context():
        assert app.jinja_env.from_string('{% cache 300, "x" %}<{% endcache %}').render() == Markup("<")


def test_fragments_depend_on_the_place_as_far_as_they_show_it(make_app: MakeApp) -> None:
    made = "{{ counted() }}"
    site = Site(
        make_app(),
        none=fragment(made),
        relative=fragment("{{ url_for('front') }}" + made),
        full=fragment(fragment("{{ url_for('front', _external=True) }}") + made),
    )
    hosts = [f"http://{name}.example" for name in "abc"]
    for name, expected in (("none", "1 1 1"), ("relative", "/2 /2 /2"), ("full", "{}/3 {}/4 {}/5")):
        for _ in range(2):
            assert [site.visit(f"/{name}", base_url=host) for host in hosts] == expected.format(*hosts).split()


def test_a_processor_of_a_blueprint_is_for_its_pages(make_app: MakeApp) -> None:
    site = Site(make_app(), page=fragment("{{ shop }}"))
    site.app.context_processor(lambda: {"shop": "Shop"})
    for name in ("one", "two"):
        blueprint = Blueprint(name, name, url_prefix=f"/{name}")
        blueprint.add_url_rule("/", "index", lambda: render_template("page.html"))
        blueprint.context_processor(lambda name=name: {"shop": name})
        site.app.register_blueprint(blueprint)
    for _ in range(2):
        assert [site.visit(path) for path in ("/page", "/one/", "/two/")] == ["Shop", "one", "two"]
