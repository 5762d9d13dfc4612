"""Tags in response fields."""

from __future__ import annotations

import pytest

from flask_stalecache.core.http.tags import tags_in_fields, without_fields

KNOWN = frozenset({"surrogate-key", "cache-tag", "xkey"})


@pytest.mark.parametrize(
    ("headers", "tags"),
    [
        ([], ()),
        ([("Surrogate-Key", "")], ()),
        ([("Surrogate-Key", "news product-7")], ("news", "product-7")),
        ([("surrogate-key", "  news\tnews  product-7 ")], ("news", "product-7")),
        ([("Cache-Tag", "news,product-7")], ("news", "product-7")),
        ([("Cache-Tag", "news, product-7,,")], ("news", "product-7")),
        ([("xkey", "news"), ("XKEY", "product-7")], ("news", "product-7")),
        ([("xkey", "a"), ("Cache-Tag", "b"), ("Surrogate-Key", "a c")], ("a", "b", "c")),
        ([("Surrogate-Keys", "news"), ("X-Surrogate-Key", "news")], ()),
        ([("xkey", "größe".encode().decode("latin-1"))], ("größe",)),
        ([("xkey", "größe")], ("größe",)),
        ([("xkey", "node:7?a=b/c")], ("node:7?a=b/c",)),
    ],
)
def test_tags_in_fields(headers: list[tuple[str, str]], tags: tuple[str, ...]) -> None:
    assert tags_in_fields(headers, KNOWN) == tags


def test_no_field_is_read_if_none_is_named() -> None:
    assert tags_in_fields([("Surrogate-Key", "news")], frozenset()) == ()


def test_fields_are_removed_whatever_their_case() -> None:
    headers = [("ETag", '"1"'), ("XKEY", "a"), ("Cache-tag", "b"), ("xkey-2", "c")]
    assert without_fields(headers, KNOWN) == [("ETag", '"1"'), ("xkey-2", "c")]
