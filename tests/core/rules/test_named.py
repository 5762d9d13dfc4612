"""How named cookies and values of the session get into the key."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest

from flask_stalecache.core.addressing.recipe import PageRecipe
from flask_stalecache.core.http.accept import Named
from flask_stalecache.core.model.policy import Policy
from flask_stalecache.core.model.query import NamePatterns
from flask_stalecache.core.rules.named import NamedValues, recipe_of, selectors_of, session_values, values_of
from flask_stalecache.errors import ConfigError


class Language(str, enum.Enum):
    GERMAN = "de"


def of_cookie(field: str | None, normalise: Callable[[Any], Any] | None = None, *, is_flasks: bool = True) -> str | None:
    policy = Policy(cookies={"lang": normalise})
    return values_of(policy, field, lambda keys: {}, is_flasks=is_flasks).values["cookie lang"]


def short(value: str | None) -> str:
    return "none" if value is None else value[:1]


@pytest.mark.parametrize("is_flasks", [True, False])
@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (None, "x=1", True),
        (None, "lang=", False),
        ("lang=de", "x=1; lang=de", True),
        ("lang=de", "lang=fr", False),
        ("lang=de; lang=fr", "lang=fr; lang=de", False),
        ("lang=de; lang=fr; lang=de", "lang=de; lang=fr", False),
        ("lang=('de',)", "lang=de", False),
    ],
)
def test_values_are_told_apart(one: str | None, other: str | None, alike: bool, is_flasks: bool) -> None:
    assert (of_cookie(one, is_flasks=is_flasks) == of_cookie(other, is_flasks=is_flasks)) is alike


@pytest.mark.parametrize("is_flasks", [True, False])
@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (None, "lang=none", True),
        ("lang=de", "lang=d", True),
        ("lang=de; lang=dx", "lang=de", True),
        ("lang=de; lang=fr", "lang=de", False),
        ("lang=de; lang=fr; lang=de", "lang=de; lang=fr", False),
        ('lang="de"', "lang=d", True),
    ],
)
def test_normalised_values_are_told_apart(one: str | None, other: str | None, alike: bool, is_flasks: bool) -> None:
    first = lambda value: short(value)[:1]  # noqa: E731
    assert (of_cookie(one, first, is_flasks=is_flasks) == of_cookie(other, first, is_flasks=is_flasks)) is alike


@pytest.mark.parametrize("raw", ["d e", "d,e", 'd"', r"d\e", "d\xe9"])
def test_a_value_that_is_read_in_different_ways_stands_for_itself(raw: str) -> None:
    never: Callable[[Any], str] = lambda value: pytest.fail(f"{value!r} was normalised")  # noqa: E731
    assert of_cookie(f"lang={raw}", never, is_flasks=False) == ascii(((raw,),))


def test_what_becomes_none_is_absent() -> None:
    assert of_cookie("lang=de", lambda value: None) is of_cookie(None) is None


def test_an_enum_becomes_its_text() -> None:
    assert of_cookie("lang=x", lambda value: Language.GERMAN) == of_cookie("lang=de")


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({}, {"size": None}, False),
        ({}, {"user": "ann"}, True),
        ({"size": "l"}, {"size": "l", "user": "ann"}, True),
        ({"size": 1}, {"size": True}, False),
        ({"size": 1}, {"size": 1.0}, False),
        ({"size": 1}, {"size": "1"}, False),
        ({"size": ("a", 1)}, {"size": ("a", "1")}, False),
        ({"size": None}, {"size": "None"}, False),
    ],
)
def test_values_of_sessions_are_told_apart(one: dict[str, Any], other: dict[str, Any], alike: bool) -> None:
    policy = Policy(session=["size"])
    assert (session_values(policy, one) == session_values(policy, other)) is alike


@pytest.mark.parametrize(
    ("policy", "session", "told"),
    [
        (Policy(session=["size"]), {"size": ["l"]}, r"session\['size'\] is of type list"),
        (Policy(session=["size"]), {"size": ("l", {})}, "of type dict"),
        (Policy(session={"size": lambda value: 1}), {}, r"the normaliser session\['size'\] returned int"),
        (Policy(session={"size": len}), {}, r"the normaliser session\['size'\] raised TypeError"),
        (Policy(cookies={"lang": len}), {}, r"the normaliser cookies\['lang'\] raised TypeError"),
    ],
)
def test_what_can_not_be_in_a_key_is_refused(policy: Policy, session: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        values_of(policy, None, lambda keys: session)


def test_a_recipe_has_what_is_named_alone_and_no_value_in_clear() -> None:
    policy = Policy(cookies=["lang"], session=["size"])
    environ = {"HTTP_HOST": "shop", "HTTP_COOKIE": "sid=secret; lang=very-german", "PATH_INFO": "/"}
    named = values_of(policy, environ["HTTP_COOKIE"], lambda keys: {"size": "very-large"})
    recipe = recipe_of(environ, (), selectors_of(policy), named, NamePatterns(()))
    assert recipe.to_environ()["HTTP_COOKIE"] == "lang=very-german"
    assert recipe.session == (("size", "very-large"),)
    assert "very" not in repr(recipe.to_json())
    assert "secret" not in repr(recipe)
    known = PageRecipe.from_json(recipe.to_json())
    assert known.why_incomplete == (
        "the value of Cookie and the session key size is not kept: the next visitor who sends it has it refreshed"
    )
    nothing = recipe_of({**environ, "HTTP_COOKIE": "sid=secret"}, (), selectors_of(policy), NamedValues(), NamePatterns(()))
    assert PageRecipe.from_json(nothing.to_json()).why_incomplete == ""
    assert "HTTP_COOKIE" not in nothing.to_environ()


def test_names_are_in_the_order_of_all_workers() -> None:
    assert selectors_of(Policy(cookies={"b", "a"}, session=["d", "c"])) == (
        Named("cookie", "a"), Named("cookie", "b"), Named("session", "c"), Named("session", "d"),
    )  # fmt: skip
