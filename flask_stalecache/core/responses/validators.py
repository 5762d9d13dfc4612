"""Compares validators, in conditional requests and in answers that confirm a stored response.

See RFC 9110 section 13 and RFC 9111 section 4.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..http.cache_control import TARGETED_FIELDS
from ..http.dates import timestamp
from ..http.fields import Headers, Lookup, first_of, lines_of, stored_fields

#: Environ keys of conditions and ranges. They are removed before an origin is called to fill the store. Afterwards the stored
#: response answers them.
CONDITIONS = (
    "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE",
)  # fmt: skip
#: The fields of the 200 that a 304 repeats (RFC 9110 section 15.4.5), with the targeted forms of Cache-Control.
_IN_304 = frozenset({"cache-control", "content-location", "date", "etag", "expires", "vary", *TARGETED_FIELDS})
#: Fields that a 304 never updates: those of the stored body (RFC 9111 section 3.2), and cookies, which belong to one visitor.
_KEPT = frozenset(
    {
        "content-digest", "content-encoding", "content-length", "content-md5", "content-range", "content-type", "digest",
        "repr-digest", "set-cookie",
    }
)  # fmt: skip
#: Fields that describe one exchange. A new exchange drops the stored ones.
_OF_ONE_ANSWER = frozenset({"age", "date"})
#: A tag without its weakness. Some servers and clients omit the quotes. Werkzeug's parser does not support empty tags.
_TAG = re.compile(r'(?:W/)?"([^"]*)"|([^\s,"]+)')
_WHOLE_TAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators of a stored response.

    :param etag: its ETag field, if any.
    :param last_modified: its Last-Modified field, if any.
    :param date: when it was made, in seconds since the epoch. It replaces a missing Last-Modified (RFC 9111 section 4.3.2).
    """

    etag: str | None
    last_modified: str | None
    date: float

    @classmethod
    def of(cls, headers: Headers, answered: float) -> Validators:
        """Return the validators of a stored response.

        :param headers: its fields.
        :param answered: when it was received, in seconds since the epoch. It replaces a missing Date.
        """
        # The first line of each field, in one pass, since each hit with a condition gets here.
        first = {name.lower(): value for name, value in reversed(tuple(headers))}
        date = timestamp(first.get("date"))
        return cls(first.get("etag"), first.get("last-modified"), answered if date is None else date)

    def not_modified(self, get: Lookup) -> bool:
        """Whether the client already has the response: by If-None-Match with weak comparison, otherwise by If-Modified-Since.

        :param get: the fields of the request, which is a GET or HEAD.
        """
        known = get("if-none-match")
        if known is not None:
            return self._is_among(known)
        since = timestamp(get("if-modified-since"))
        if since is None:
            return False
        modified = timestamp(self.last_modified)
        # HTTP dates have whole seconds.
        return (int(self.date) if modified is None else modified) <= since

    def _is_among(self, known: str) -> bool:
        if known.strip() == "*":
            return True
        # A star within a list is no wildcard: otherwise a client could get a 304 for a response that it does not have.
        return self.etag is not None and _opaque(self.etag) in {_opaque(tag[0]) for tag in _TAG.finditer(known)}

    def allow_range(self, get: Lookup) -> bool:
        """Whether a range of this response fits the client's part, by If-Range: with strong comparison, or by the exact date.

        The date counts only if nothing can have changed in the same second (RFC 9110 sections 13.1.5 and 8.8.2.2).

        :param get: the request's fields.
        """
        if not self._is_still(get):
            return False
        condition = get("if-range")
        if condition is None:
            return True
        condition = condition.strip()
        if condition.startswith(('"', "W/")):
            return condition == self.etag and not condition.startswith("W/")
        modified = timestamp(self.last_modified)
        return modified is not None and condition == self.last_modified and self.date - modified >= 1

    def _is_still(self, get: Lookup) -> bool:
        """Whether the response is what the client expects: by If-Match with strong comparison, otherwise by If-Unmodified-Since."""
        expected = get("if-match")
        if expected is not None:
            strong = {tag[0] for tag in _WHOLE_TAG.finditer(expected) if not tag[0].startswith("W/")}
            return expected.strip() == "*" or self.etag in strong
        since = timestamp(get("if-unmodified-since"))
        if since is None:
            return True
        modified = timestamp(self.last_modified)
        return modified is None or modified <= since


def conditional_fields(headers: Headers) -> list[tuple[str, str]]:
    """Return the conditions that revalidate a stored response (RFC 9111 section 4.3.1); empty without validators.

    :param headers: the stored response's fields.
    """
    fields = tuple(headers)
    pairs = (("If-None-Match", first_of(fields, "etag")), ("If-Modified-Since", first_of(fields, "last-modified")))
    return [(name, value) for name, value in pairs if value is not None]


def fields_of_304(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of a stored response that a 304 repeats (RFC 9110 section 15.4.5).

    Last-Modified is included only without an ETag. The caller adds Age and the status fields.

    :param headers: the stored response's fields.
    """
    fields = tuple(headers)
    wanted = _IN_304 if first_of(fields, "etag") is not None else _IN_304 | {"last-modified"}
    return [(name, value) for name, value in fields if name.lower() in wanted]


def renewed(stored: Headers, new: Headers) -> tuple[tuple[str, str], ...] | None:
    """Return a stored response's fields after a 304; ``None`` if the 304 confirms another response (RFC 9111 sections 3.2, 4.3.4).

    New fields replace stored ones of the same name, except for cookies, fields that belong to the stored body, and fields that are
    never stored. A stored Date and Age are always dropped, since they describe the older response.

    :param stored: the stored response's fields.
    :param new: the fields of the 304.
    """
    before, came = tuple(stored), tuple(new)
    if not _is_about(before, first_of(came, "etag")):
        return None
    updates = tuple((name, value) for name, value in stored_fields(came) if name.lower() not in _KEPT)
    replaced = {name.lower() for name, _ in updates} | _OF_ONE_ANSWER
    return (*((name, value) for name, value in before if name.lower() not in replaced), *updates)


def _is_about(stored: tuple[tuple[str, str], ...], tag: str | None) -> bool:
    """Whether the ETag of a 304 matches the stored one: a strong one must be identical, a weak one equivalent.

    Last-Modified is not compared: it is weak, and the later of two dates is simply the newer information.
    """
    known = first_of(stored, "etag")
    if tag is None:
        return True
    if not tag.startswith("W/"):
        return tag == known
    return known is None or _opaque(tag) == _opaque(known)


def _opaque(tag: str) -> str:
    match = _TAG.fullmatch(tag.strip())
    return tag if match is None else match[1] or match[2] or ""


def confirmed_by_head(stored: Headers, size: int, head: Headers) -> bool:
    """Whether a 200 to HEAD agrees with the stored response to GET. If not, the stored one is outdated (RFC 9111 section 4.3.5).

    :param stored: the stored response's fields.
    :param size: the size of its body in bytes.
    :param head: the fields of the answer to HEAD.
    """
    before, came = tuple(stored), tuple(head)
    for name in ("etag", "last-modified"):
        value = first_of(came, name)
        if value is not None and value != first_of(before, name):
            return False
    return lines_of(came, "content-length") in ([], [str(size)])
