"""URLs of servers: which are accepted, and what is said of them."""

from __future__ import annotations

import pytest

from flask_stalecache import ConfigError
from flask_stalecache.core.addressing.server_url import ServerUrl


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://user:hidden@cache.example", "rediss://cache.example"),
        ("valkeys://:hidden@[::1]:6379", "valkeys://[::1]:6379"),
        ("unix:///run/valkey.sock?password=hidden&db=1", "unix:///run/valkey.sock"),
        ("unix://user:hidden@/run/valkey.sock", "unix:///run/valkey.sock"),
    ],
)
def test_a_url_is_accepted_and_named_without_its_secrets(url: str, where: str) -> None:
    found = ServerUrl.of("STALECACHE_STORE", url)
    assert (found.url, found.where, str(found)) == (url, where, where)
    assert "hidden" not in repr(found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:hidden@cache.example", "begins with one of redis://"),
        ("Redi://:hidden@cache.example", "begins with one of redis://"),
        ("redis:/hidden@cache.example", "the name of the host|write"),
        ("redis://:hidden@", "the name of the host"),
        ("redis://:hidden@cache.example:port", "give a URL such as"),
        ("redis://cache.example/shop", "the number of the database"),
        ("redis://:hid#den@cache.example", "give a URL such as|write '#'|name of the host"),
        ("unix://", "the path of the socket"),
        ("redis://cache.example?socket_timeout=3", "STALECACHE_SHARED_TIMEOUT"),
        ("redis://cache.example?decode_responses=1", "unknown parameter 'decode_responses'"),
    ],
)
def test_another_url_is_one_error_without_a_password(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        ServerUrl.of("STALECACHE_STORE", url)
    assert str(raised.value).startswith("STALECACHE_STORE")
    assert "hidden" not in str(raised.value)
