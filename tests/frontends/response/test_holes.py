from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from markupsafe import Markup

from flask_stalecache import ConfigError
from flask_stalecache.errors import StaleCacheError
from flask_stalecache.frontends.response.holes import NOTHING, HoleFunctions, being_made, with_marks, without_marks
from support.client import MakeApp, visit


async def coroutine() -> str:
    return ""


def generator() -> Any:
    yield ""


async def both() -> Any:
    yield ""


@pytest.mark.parametrize("function", [coroutine, generator, both], ids=lambda function: function.__name__)
def test_what_can_not_be_a_hole(function: Callable[..., Any], make_app: MakeApp) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match="a hole is a plain function"):
        cache.hole(function)


@pytest.mark.parametrize("name", ["", "a#b", "a\nb", 1])
def test_what_can_not_be_its_name(name: Any, make_app: MakeApp) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match="name="):
        cache.hole(name=name)(lambda: "")


@pytest.mark.parametrize("fallback", [1, b"", None])
def test_what_can_not_be_its_fallback(fallback: Any, make_app: MakeApp) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match="fallback="):
        cache.hole(fallback=fallback)(lambda: "")


def test_two_holes_of_one_name(make_app: MakeApp) -> None:
    _, cache = make_app()

    def box() -> str:
        return "1"

    cache.hole(box)
    with pytest.raises(ConfigError, match=r"two holes are named '.*box': write @cache.hole\(name=…\)"):
        cache.hole(box)
    assert cache.hole(name="other")(box)() == "1"


def test_an_unknown_parameter(make_app: MakeApp) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match="fallback"):
        cache.hole(falback="")(lambda: "")  # type: ignore[call-overload]


def test_what_is_no_function(make_app: MakeApp) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match="decorates functions"):
        cache.hole("box")  # type: ignore[call-overload]


def test_elsewhere_it_is_a_plain_call(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.hole
    def greet(name: str, *, loud: bool = False) -> str:
        """Greet somebody."""
        return f"hello {name}{'!' * loud}"

    assert greet(name="ann", loud=True) == "hello ann!"
    assert (greet.__name__, greet.__doc__) == ("greet", "Greet somebody.")  # type: ignore[attr-defined]
    app.add_url_rule("/", "page", lambda: greet("bob"))
    assert visit(app).text == "hello bob"


def test_its_result_is_checked_everywhere(make_app: MakeApp) -> None:
    _, cache = make_app()
    with pytest.raises(StaleCacheError, match="has returned a int: it returns a str, which is escaped, or a Markup"):
        cache.hole(lambda: 1)()  # type: ignore[arg-type,type-var]


@pytest.mark.parametrize("value", [object(), {1: 2}, Markup("a"), (1,)])
def test_its_arguments_are_json_values(value: object) -> None:
    box = HoleFunctions().add(lambda value: "", "box", NOTHING)
    with being_made(with_marks()), pytest.raises(StaleCacheError, match="the hole box was given a"):
        box(value)
    assert box(value) == ""


def test_a_page_tells_whether_it_has_holes() -> None:
    box = HoleFunctions().add(lambda: "here", "box", NOTHING)
    page, plain = with_marks(), without_marks("altered before")
    assert not page.has_holes
    with being_made(page):
        assert "here" not in f"{box()}"
        with being_made(plain):
            assert box() == "here"
    assert page.has_holes
    assert plain.has_holes
    assert page.refusal() is None
    assert "altered before" in (plain.refusal() or page.refusal()).text  # type: ignore[union-attr]


def test_with_the_cache_switched_off_it_is_a_plain_call(make_app: MakeApp) -> None:
    app, cache = make_app(ENABLED=False)
    box = cache.hole(lambda: "here")
    app.add_url_rule("/", "page", cache.cached(60)(lambda: box()))
    assert visit(app).text == "here"
