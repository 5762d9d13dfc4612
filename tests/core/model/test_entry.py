"""An entry and its bytes: what is read back is what was stored, or nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.addressing.recipe import PageRecipe
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.policy import Windows
from flask_stalecache.errors import BrokenEntry
from flask_stalecache.stores.formats.entry_format import decode, decode_head, encode, head_size
from support.sealed import PREFIX, head_in, sealed

NOON = 1_800_000_000.0
PAGE = PageRecipe(
    scheme="https",
    server=("127.0.0.1", "8000"),
    script_root="",
    path="/prices",
    query="page=2",
    raw=(("RAW_URI", "/prices?page=2"),),
    fields=(("HTTP_HOST", "shop.example"), ("HTTP_X_FORWARDED_HOST", None)),
)


def make_entry(**changes: Any) -> Entry:
    values: dict[str, Any] = {
        "key": "the key",
        "serial": "0123456789abcdef",
        "names": ("endpoint:prices", "path:/prices"),
        "seq": 7,
        "version": "1",
        "deployed": NOON - 3600,
        "started": NOON - 1,
        "answered": NOON,
        "windows": Windows(60.0, 600.0, 86400.0),
        "never_stale": False,
        "shared": False,
        "absent": RequestInputs(("session",), ("x-user",), session=("_user_id",)),
        "varied": ("Cookie",),
        "status": 200,
        "headers": (("Content-Type", "text/html"), ("X-A", "1"), ("X-A", "2")),
        "body": b"<p>prices</p>\x00\xff",
        "recipe": PAGE.to_json(),
    }
    return Entry(**{**values, **changes})


def head_of(entry: Entry) -> dict[str, Any]:
    return head_in(encode(entry))[0]


texts = st.text(max_size=8)
names = st.lists(texts, max_size=3).map(tuple)
#: What can be sent in a field.
values = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=8)
tokens = st.text("abcXYZ019-_", min_size=1, max_size=8)
times = st.floats(-6e10, 2e11)
spans = st.floats(0, 1e9)
recipes = st.dictionaries(
    texts.filter(lambda name: name not in {"scheme", "fields", "arguments"}),
    texts | st.integers() | st.lists(st.lists(texts, max_size=2), max_size=2),
    max_size=3,
)
entries = st.builds(
    Entry,
    key=texts,
    serial=texts,
    names=names,
    seq=st.integers(0, 2**64 - 1),
    version=texts,
    deployed=times,
    started=times,
    answered=times,
    windows=st.builds(Windows, spans, spans, spans),
    never_stale=st.booleans(),
    shared=st.booleans(),
    absent=st.builds(RequestInputs, names, st.lists(values, max_size=3).map(tuple), names, names),
    varied=st.lists(values, max_size=3).map(tuple),
    status=st.integers(200, 599).filter(lambda status: status not in (206, 304)),
    headers=st.lists(st.tuples(tokens, values), max_size=4).map(tuple),
    body=st.binary(max_size=64),
    recipe=recipes,
)


# -- the bytes -------------------------------------------------------------------------------------------------------


@given(entries)
def test_what_is_read_back_is_what_was_stored(entry: Entry) -> None:
    assert decode(encode(entry), entry.key) == entry


@given(entries)
def test_what_is_read_back_has_the_types_of_what_was_stored(entry: Entry) -> None:
    again = decode(encode(entry), entry.key)
    assert [type(getattr(again, field.name)) for field in dataclasses.fields(Entry)] == [
        type(getattr(entry, field.name)) for field in dataclasses.fields(Entry)
    ]
    assert all(type(pair) is tuple for pair in again.headers)
    assert type(again.absent.headers) is tuple


@given(entries, st.data())
def test_any_flipped_byte_is_a_broken_entry(entry: Entry, data: st.DataObject) -> None:
    stored = bytearray(encode(entry))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BrokenEntry):
        decode(bytes(stored), entry.key)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_single_byte_counts(mask: int) -> None:
    entry = make_entry()
    stored = encode(entry)
    for position in range(len(stored)):
        flipped = bytearray(stored)
        flipped[position] ^= mask
        with pytest.raises(BrokenEntry):
            decode(bytes(flipped), entry.key)


def test_any_cut_is_a_broken_entry() -> None:
    entry = make_entry()
    stored = encode(entry)
    for length in range(len(stored)):
        with pytest.raises(BrokenEntry):
            decode(stored[:length], entry.key)


@given(entries, st.data())
def test_any_piece_cut_out_is_a_broken_entry(entry: Entry, data: st.DataObject) -> None:
    stored = encode(entry)
    start = data.draw(st.integers(0, len(stored) - 1))
    end = data.draw(st.integers(start + 1, len(stored)))
    # Bytes that repeat: what is left is the same file, cut at its end.
    with pytest.raises(BrokenEntry):
        decode(stored[:start] + stored[end:], entry.key)


@given(entries, st.binary(min_size=1, max_size=32))
def test_trailing_bytes_are_a_broken_entry(entry: Entry, trailing: bytes) -> None:
    with pytest.raises(BrokenEntry):
        decode(encode(entry) + trailing, entry.key)


def test_two_entries_in_one_file_are_a_broken_entry() -> None:
    stored = encode(make_entry())
    with pytest.raises(BrokenEntry):
        decode(stored + stored, "the key")


@given(st.binary(max_size=200))
def test_any_other_bytes_are_a_broken_entry(stored: bytes) -> None:
    with pytest.raises(BrokenEntry):
        decode(stored, "the key")


@given(entries, texts)
def test_another_keys_content_is_a_broken_entry(entry: Entry, key: str) -> None:
    if key == entry.key:
        key += "x"
    with pytest.raises(BrokenEntry):
        decode(encode(entry), key)


def test_a_body_moved_between_files_is_a_broken_entry() -> None:
    one, other = encode(make_entry(body=b"one")), encode(make_entry(body=b"two"))
    with pytest.raises(BrokenEntry):
        decode(one[:-3] + other[-3:], "the key")


def test_a_head_and_a_body_that_share_their_lengths_otherwise_are_a_broken_entry() -> None:
    stored = encode(make_entry())
    magic, head, body = PREFIX.unpack_from(stored)
    moved = PREFIX.pack(magic, head - 1, body + 1) + stored[PREFIX.size :]
    with pytest.raises(BrokenEntry):
        decode(moved, "the key")


def test_the_files_of_these_tests_are_right_in_form() -> None:
    entry = make_entry()
    assert decode(sealed(json.dumps(head_of(entry)).encode(), entry.body), entry.key) == entry


@pytest.mark.parametrize("magic", [b"FSC1", b"FSC2", b"fsc1", b"\0\0\0\0"])
def test_another_format_is_a_broken_entry_even_if_its_checksum_is_right(magic: bytes) -> None:
    entry = make_entry()
    with pytest.raises(BrokenEntry, match="format"):
        decode(sealed(json.dumps(head_of(entry)).encode(), entry.body, magic), entry.key)


@pytest.mark.parametrize(
    "head",
    [b"", b"{", b"null", b"7", b"[]", b'"the key"', b"{}", b'{"key": "the key"}', b"\xff\xfe", b'{"key": ["the key"]}', b"[" * 9],
    ids=repr,
)
def test_a_head_that_is_something_else_is_a_broken_entry(head: bytes) -> None:
    with pytest.raises(BrokenEntry):
        decode(sealed(head), "the key")


@pytest.mark.parametrize("name", sorted(head_of(make_entry())))
def test_a_head_that_lacks_something_is_a_broken_entry(name: str) -> None:
    head = head_of(make_entry())
    del head[name]
    with pytest.raises(BrokenEntry):
        decode(sealed(json.dumps(head).encode()), "the key")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("absent", None),
        ("absent", ["session"]),
        ("absent", {"cookies": []}),
        ("absent", {"cookies": [], "headers": [7]}),
        ("absent", {"cookies": 7, "headers": []}),
        ("windows", None),
        ("windows", [1, 2]),
        ("windows", [1, 2, 3, 4]),
        ("headers", None),
        ("headers", [["X-A"]]),
        ("headers", [["X-A", "1", "2"]]),
        ("names", None),
        ("varied", 7),
    ],
)
def test_a_head_of_another_shape_is_a_broken_entry(name: str, value: object) -> None:
    head = {**head_of(make_entry()), name: value}
    with pytest.raises(BrokenEntry):
        decode(sealed(json.dumps(head).encode()), "the key")


def test_a_head_from_a_later_release_that_says_more_is_read() -> None:
    entry = make_entry()
    head = {**head_of(entry), "soft_at": NOON}
    assert decode(sealed(json.dumps(head).encode(), entry.body), entry.key) == entry


def test_the_body_is_stored_as_it_is() -> None:
    body = bytes(range(256)) * 3
    assert encode(make_entry(body=body)).endswith(body)


def test_that_a_soft_purge_ended_it_is_stored() -> None:
    """Another host may fetch the entry after that host has applied the purge."""
    entry = make_entry()
    ended = entry.softly_purged(NOON + 1)
    assert b"ended" not in encode(entry)
    assert decode(encode(ended), entry.key) == ended


# -- the head alone --------------------------------------------------------------------------------------------------


@given(entries, st.integers(0, 64))
def test_a_head_is_read_without_the_body(entry: Entry, more: int) -> None:
    stored = encode(entry)
    length = head_size(stored[:64])
    assert length == len(stored) - len(entry.body)
    assert decode_head(stored[: length + more]) == dataclasses.replace(entry, body=b"")


@given(entries, st.data())
def test_a_cut_head_is_a_broken_entry(entry: Entry, data: st.DataObject) -> None:
    stored = encode(entry)
    with pytest.raises(BrokenEntry):
        decode_head(stored[: data.draw(st.integers(0, head_size(stored) - 1))])


@pytest.mark.parametrize("magic", [b"FSC1", b"FSC2", b"\0\0\0\0"])
def test_the_head_of_another_format_is_a_broken_entry(magic: bytes) -> None:
    stored = magic + encode(make_entry())[4:]
    for read in (head_size, decode_head):
        with pytest.raises(BrokenEntry, match="format"):
            read(stored)


@pytest.mark.parametrize("head", [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe"], ids=repr)
def test_a_head_of_something_else_is_a_broken_entry(head: bytes) -> None:
    with pytest.raises(BrokenEntry):
        decode_head(sealed(head))


# -- ages and windows ------------------------------------------------------------------------------------------------


def test_an_entry_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_entry().body = b""  # type: ignore[misc]


@pytest.mark.parametrize(("now", "age"), [(NOON, 0.0), (NOON + 5, 5.0), (NOON - 5, 0.0), (NOON - 11, 60.0), (0.0, 60.0)])
def test_an_age_is_never_negative(now: float, age: float) -> None:
    assert make_entry().age(now) == age


def test_freshness_starts_when_the_origin_has_answered() -> None:
    entry = make_entry(started=NOON - 30, answered=NOON, windows=Windows(60.0, 0.0, 0.0))
    assert entry.fresh_until == NOON + 60
    assert entry.is_fresh(NOON + 59.9)


@pytest.mark.parametrize(
    ("age", "fresh", "in_swr", "in_sie"),
    [
        # From the future: nobody knows how old it is.
        (-1e9, False, True, True),
        (-10.01, False, True, True),
        (-10.0, True, True, True),
        (0.0, True, True, True),
        (59.99, True, True, True),
        (60.0, False, True, True),
        (159.99, False, True, True),
        (160.0, False, False, True),
        (1059.99, False, False, True),
        (1060.0, False, False, False),
    ],
)
@pytest.mark.parametrize("never_stale", [False, True])
def test_windows_end_where_they_say(age: float, fresh: bool, in_swr: bool, in_sie: bool, never_stale: bool) -> None:
    entry, now = make_entry(windows=Windows(60.0, 100.0, 1000.0), never_stale=never_stale), NOON + age
    allowed = not never_stale
    assert (entry.is_fresh(now), entry.in_swr(now), entry.in_sie(now)) == (fresh, in_swr and allowed, in_sie and allowed)


@pytest.mark.parametrize("given_at", [NOON - 3600, NOON])
def test_an_answer_that_was_old_when_it_came_is_from_the_future_by_when_it_came(given_at: float) -> None:
    """Another cache had kept it for an hour."""
    entry = make_entry(answered=given_at, received=NOON, windows=Windows(7200.0, 100.0, 0.0))
    assert (entry.is_fresh(NOON), entry.is_fresh(NOON - 1800), entry.age(NOON - 1800)) == (True, False, 7200.0)


def test_an_entry_from_the_future_never_wins_against_a_new_one() -> None:
    """The call of the entry from the future began before the clock was set ahead, and ended after that."""
    assert make_entry(started=NOON).outdates(make_entry(started=NOON + 1, answered=NOON + 3600), NOON + 5)


@pytest.mark.parametrize(
    ("other_started", "now", "outdates"),
    [
        (None, NOON, True),
        (NOON - 2, NOON, True),
        (NOON - 1, NOON, True),
        (NOON - 0.5, NOON, False),
        (NOON, NOON, False),
        (NOON + 0.1, NOON, True),
        (NOON + 3600, NOON, True),
    ],
)
def test_a_fill_replaces_only_one_whose_origin_was_not_called_later(
    other_started: float | None, now: float, outdates: bool
) -> None:
    other = None if other_started is None else make_entry(started=other_started)
    assert make_entry(started=NOON - 1).outdates(other, now) is outdates


# -- a soft purge ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "fresh_for"),
    [
        pytest.param(20.0, 20.0, id="while it is fresh"),
        pytest.param(0.0, 0.0, id="as it answered"),
        pytest.param(60.0, 60.0, id="where freshness ends"),
        pytest.param(500.0, 60.0, id="when it is stale: its windows are not moved"),
        pytest.param(-5.0, 0.0, id="while its origin ran"),
        pytest.param(-1e9, 0.0, id="in a clock far behind"),
    ],
)
def test_a_soft_purge_ends_freshness_and_moves_the_stale_windows_there(at: float, fresh_for: float) -> None:
    entry = make_entry(windows=Windows(60.0, 100.0, 1000.0))
    purged = entry.softly_purged(NOON + at)
    assert purged == dataclasses.replace(entry, windows=Windows(fresh_for, 100.0, 1000.0), ended=True)
    assert purged.fresh_until == NOON + fresh_for
    assert purged.in_swr(NOON + fresh_for + 99.9)
    assert not purged.in_swr(NOON + fresh_for + 100)
    assert purged.in_sie(NOON + fresh_for + 999.9)
    assert not purged.in_sie(NOON + fresh_for + 1000)


@pytest.mark.parametrize("age", [-1e9, -1.0, 0.0, 10.0, 20.0, 1e9])
def test_what_was_softly_purged_is_never_fresh_again(age: float) -> None:
    assert not make_entry().softly_purged(NOON + 20).is_fresh(NOON + age)


@given(entries, times, times)
def test_of_two_soft_purges_the_earlier_counts(entry: Entry, one: float, other: float) -> None:
    both = entry.softly_purged(one).softly_purged(other)
    assert both == entry.softly_purged(min(one, other)) == entry.softly_purged(other).softly_purged(one)


@pytest.mark.parametrize(
    ("swr", "sie", "never_stale", "may"),
    [
        (0.0, 0.0, False, False),
        (1.0, 0.0, False, True),
        (0.0, 1.0, False, True),
        (1.0, 1.0, False, True),
        (1.0, 1.0, True, False),
    ],
)
def test_what_may_be_stale_has_a_stale_window_and_is_not_forbidden(swr: float, sie: float, never_stale: bool, may: bool) -> None:
    assert make_entry(windows=Windows(60.0, swr, sie), never_stale=never_stale).may_be_stale is may


def test_a_key_is_in_memory_once() -> None:
    key = f"long {'x' * 8000}"
    assert decode(encode(make_entry(key=key)), key).key is key
