"""Nonces of Content-Security-Policy: values that allow the scripts of one response (CSP Level 3 section 2.3.1). Pure.

A stored response would give all visitors the same nonce. If hooks send a new policy with each response, its nonce is not the one in
the stored body, and browsers block the scripts of the page.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from .fields import Headers, first_of, lines_of, listed

_POLICIES = (
    "content-security-policy",
    "content-security-policy-report-only",
    "x-content-security-policy",
    "x-webkit-csp",
)
_IN_FIELD = re.compile(r"'nonce-([^'\s]+)'", re.IGNORECASE)
# A tag ends at the next bracket of either kind, so that the search is linear.
_META = re.compile(rb"<meta\b[^<>]*content-security-policy[^<>]*>", re.IGNORECASE)
_IN_META = re.compile(rb"nonce-([A-Za-z0-9+/_=-]+)", re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"<(?:script|style|link|iframe)\b[^<>]*?\snonce\s*=\s*[\"']?([^\"'\s<>]+)", re.IGNORECASE)
#: The greatest number of bytes that are decompressed from a body.
_LOOKED_THROUGH = 32 * 1024 * 1024


def without_nonces(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of a 304 without policies that have a nonce: the browser got its body with another nonce."""
    return [(name, value) for name, value in headers if name.lower() not in _POLICIES or not _IN_FIELD.search(value)]


def has_nonce_in_body(headers: Headers, body: bytes) -> bool:
    """Whether the policy of a response has a nonce that is in its body. A body that can't be decoded counts as having it.

    :param headers: its fields.
    :param body: its body, as it is sent.
    """
    fields = tuple(headers)
    nonces = {nonce for name in _POLICIES for value in lines_of(fields, name) for nonce in _IN_FIELD.findall(value)}
    text = decoded(fields, body)
    if text is None:
        return bool(nonces)
    if any(nonce.encode("utf-8", "replace") in text for nonce in nonces):
        return True
    return any(_is_used(nonce, text) for meta in _META.finditer(text) for nonce in _IN_META.findall(meta[0]))


def _is_used(nonce: bytes, text: bytes) -> bool:
    """Whether a nonce from a policy within the body is also elsewhere in the body."""
    return text.count(nonce) > sum(meta[0].count(nonce) for meta in _META.finditer(text))


def nonce_attributes(headers: Headers, body: bytes) -> Iterator[str]:
    """Yield the nonces of the scripts, styles and links in a body, whatever the policy is."""
    if b"nonce" in (text := decoded(tuple(headers), body) or b""):
        yield from (found[1].decode("utf-8", "replace") for found in _ATTRIBUTE.finditer(text))


def decoded(headers: Headers, body: bytes) -> bytes | None:
    """Return a body without its content coding, up to a limit; ``None`` if it can't be decoded."""
    codings = listed(first_of(headers, "content-encoding") or "")
    if codings in ([], ["identity"]):
        return body
    if codings not in (["gzip"], ["x-gzip"], ["deflate"]):
        return None
    try:
        # 32: both gzip and zlib.
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, _LOOKED_THROUGH)
    except zlib.error:
        return None
