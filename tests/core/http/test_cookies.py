"""Named cookies in a Cookie field."""

from __future__ import annotations

import pytest

from flask_stalecache.core.http.cookies import is_plain, only_named, raw_values, unquoted, values

ROWS: list[tuple[str | None, str | None, list[str], list[str]]] = [
    (None, None, [], []),
    ("", None, [], []),
    ("lang=de", "lang=de", ["de"], ["de"]),
    ("lang=", "lang=", [""], [""]),
    ("_ga=1; lang=de; x=y", "lang=de", ["de"], ["de"]),
    ("lang=de; lang=fr", "lang=de; lang=fr", ["de", "fr"], ["de", "fr"]),
    ("Lang=de; language=fr; xlang=en", None, [], []),
    (" lang = de ;x", "lang = de", ["de"], ["de"]),
    ('lang="de"', 'lang="de"', ['"de"'], ["de"]),
    ("lang", None, [], [""]),
    ("x=lang=de", None, [], []),
    ("lang=a=b", "lang=a=b", ["a=b"], ["a=b"]),
    (";;; lang=de;", "lang=de", ["de"], ["de"]),
    ('x="a; lang=de; b"; lang=fr', "lang=de; lang=fr", ["de", "fr"], ["fr"]),
]


@pytest.mark.parametrize(("field", "alone", "raw", "read"), ROWS, ids=repr)
def test_a_field_is_taken_apart(field: str | None, alone: str | None, raw: list[str], read: list[str]) -> None:
    assert only_named(field, ["lang"]) == alone
    assert raw_values(field, "lang") == raw
    assert list(values(field, "lang")) == read
    # The remaining cookies have the same values, and taking them out again changes nothing.
    assert raw_values(alone, "lang") == raw
    assert only_named(alone, ["lang"]) == alone


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("de", True), ('"de"', True), ("", True), ('""', True), ("a/b?c=d", True), ("de fr", False), ("de,fr", False),
        ('"de', False), ('de"', False), (r"d\e", False), ("d\xe9", False), ("de\t", False), ('"d"e"', False), ("de\n", False),
    ],
)  # fmt: skip
def test_what_all_parsers_read_alike_is_plain(raw: str, plain: bool) -> None:
    assert is_plain(raw) is plain
    assert not plain or unquoted(raw) == raw.strip('"')
