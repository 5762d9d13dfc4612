"""All values of one function are purged at once: by the function, by its name, and in the shell."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from flask_stalecache import ConfigError, MemoizedFunction, StaleCache

MakeApp = Callable[..., tuple[Flask, StaleCache]]


def two_functions(cache: StaleCache) -> tuple[MemoizedFunction[[str], str], MemoizedFunction[[str], str]]:
    calls = iter(range(100))

    @cache.memoize(60)
    def rates(base: str) -> str:
        return f"{base} {next(calls)}"

    @cache.memoize(60)
    def names(base: str) -> str:
        return f"{base} {next(calls)}"

    return rates, names


@pytest.mark.parametrize("how", ["purge_all", "function", "name", "shell"])
def test_all_values_of_one_function_go(make_app: MakeApp, how: str) -> None:
    app, cache = make_app()
    rates, names = two_functions(cache)
    with app.app_context():
        before = [rates("EUR"), rates("USD"), names("EUR")]
        if how == "purge_all":
            assert rates.purge_all()
        elif how == "shell":
            result = app.test_cli_runner().invoke(args=["stalecache", "purge", "--function", rates.name])
            assert (result.exit_code, result.output) == (0, "purged\n")
        else:
            assert cache.purge(function=rates if how == "function" else rates.name)
        after = [rates("EUR"), rates("USD"), names("EUR")]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]


def test_a_purge_without_values_says_so(make_app: MakeApp) -> None:
    app, cache = make_app()
    rates, _ = two_functions(cache)
    with app.app_context():
        assert not rates.purge_all()
        assert not cache.purge(function="shop.nothing")


def test_values_of_one_function_are_refreshed(make_app: MakeApp) -> None:
    app, cache = make_app()
    rates, names = two_functions(cache)
    with app.app_context():
        before = [rates("EUR"), names("EUR")]
        cache.refresh(function=rates).wait()
        assert [rates("EUR") == before[0], names("EUR") == before[1]] == [False, True]


@pytest.mark.parametrize("wrong", [print, 7, ""])
def test_what_is_no_memoized_function_is_an_error(make_app: MakeApp, wrong: object) -> None:
    app, cache = make_app()
    with app.app_context(), pytest.raises(ConfigError, match="function="):
        cache.purge(function=wrong)  # type: ignore[arg-type]


def test_it_needs_an_app(make_app: MakeApp) -> None:
    rates, _ = two_functions(StaleCache())
    with pytest.raises(ConfigError, match="needs to know the app"):
        rates.purge_all()
