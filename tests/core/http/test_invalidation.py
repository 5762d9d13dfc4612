"""What an unsafe request makes invalid. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.http.invalidation import invalidated

TARGET = "https://shop.example/a/b?c=d"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "MKCOL", "LOCK", "PURGE", "FOO", "get"])
@pytest.mark.parametrize("status", [200, 201, 204, 299, 301, 303, 399])
def test_rule26_an_unsafe_method_or_one_that_nobody_knows(method: str, status: int) -> None:
    assert invalidated(method, status, TARGET, []) == (TARGET,)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"])
def test_rule26_a_safe_method_makes_nothing_invalid(method: str) -> None:
    assert invalidated(method, 200, TARGET, [("Location", "/x")]) == ()


@pytest.mark.parametrize("status", [100, 199, 400, 404, 412, 500, 503, 599])
def test_rule26_an_error_makes_nothing_invalid(status: int) -> None:
    assert invalidated("POST", status, TARGET, [("Location", "/x")]) == ()


@pytest.mark.parametrize("field", ["Location", "Content-Location", "LOCATION"])
@pytest.mark.parametrize(
    ("value", "more"),
    [
        pytest.param("/x", ["https://shop.example/x"], id="rule26-a-path"),
        pytest.param("x?y=z", ["https://shop.example/a/x?y=z"], id="rule26-a-relative-path"),
        pytest.param("../x", ["https://shop.example/x"], id="rule26-up"),
        pytest.param("?y", ["https://shop.example/a/b?y"], id="rule26-a-query"),
        pytest.param("", [], id="rule26-empty-is-the-target"),
        pytest.param("#top", [], id="rule26-a-fragment-is-the-target"),
        pytest.param(" /x#top ", ["https://shop.example/x"], id="rule26-without-fragment"),
        pytest.param(TARGET, [], id="rule26-the-target-once"),
        pytest.param("https://shop.example/x", ["https://shop.example/x"], id="rule26-a-full-url"),
        pytest.param("//shop.example/x", ["https://shop.example/x"], id="rule26-without-scheme"),
        pytest.param("HTTPS://Shop.Example:443/x", ["https://shop.example/x"], id="rule26-default-port-and-any-case"),
        pytest.param("https://shop.example", ["https://shop.example/"], id="rule26-no-path"),
        pytest.param("https://user:pass@shop.example/x", ["https://shop.example/x"], id="rule26-a-user-is-no-part-of-an-origin"),
        pytest.param("http://shop.example/x", [], id="rule26-another-scheme"),
        pytest.param("https://shop.example:8443/x", [], id="rule26-another-port"),
        pytest.param("https://other.example/x", [], id="rule26-another-host"),
        pytest.param("//other.example/x", [], id="rule26-another-host-without-scheme"),
        pytest.param("https://shop.example.evil.example/x", [], id="rule26-a-host-that-begins-alike"),
        pytest.param("https://shop.example@evil.example/x", [], id="rule26-a-host-in-place-of-the-user"),
        pytest.param("https://shop.example:99999/x", [], id="rule26-no-port"),
        pytest.param("https://[shop.example/x", [], id="rule26-no-url"),
        pytest.param("mailto:a@shop.example", [], id="rule26-no-page"),
        pytest.param("data:,x", [], id="rule26-no-host"),
    ],
)
def test_what_else_an_answer_names(field: str, value: str, more: list[str]) -> None:
    assert invalidated("POST", 201, TARGET, iter([("X", "/y"), (field, value)])) == (TARGET, *more)


def test_rule26_both_fields_count() -> None:
    headers = [("Content-Location", "/x"), ("Location", "/y"), ("Location", "/x")]
    assert invalidated("PUT", 303, TARGET, headers) == (TARGET, "https://shop.example/x", "https://shop.example/y")


@pytest.mark.parametrize(
    ("target", "url"),
    [
        pytest.param("HTTP://Shop.Example:80", "http://shop.example/", id="rule26-default-port-of-http"),
        pytest.param("http://shop.example:443/a", "http://shop.example:443/a", id="rule26-default-port-of-another-scheme"),
        pytest.param("http://[::1]:8000/a", "http://[::1]:8000/a", id="rule26-ipv6"),
        pytest.param("http://h/a/../b%2Fc//d", "http://h/a/../b%2Fc//d", id="rule26-the-targets-path-as-it-was-sent"),
    ],
)
def test_the_target_in_its_normal_form(target: str, url: str) -> None:
    assert invalidated("POST", 200, target, [("Location", "//elsewhere/")]) == (url,)


@given(st.text(":/?#[]@.ahtps0é\\ ", max_size=20))
def test_rule26_no_location_is_too_odd_or_leads_elsewhere(value: str) -> None:
    urls = invalidated("POST", 200, TARGET, [("Location", value)])
    assert all(url.startswith("https://shop.example/") for url in urls)
