"""Decides whether the ``Cache-Control`` of a request accepts a stored response (RFC 9111 section 5.2.1).

Used only where the configuration honours it.
"""

from __future__ import annotations

from .cache_control import RequestDirectives


def accepts(said: RequestDirectives, *, age: float, fresh_for: float) -> bool:
    """Whether a request accepts a stored response that the cache would serve.

    A request with ``max-age`` or ``min-fresh`` accepts nothing stale, unless it also has ``max-stale``.

    :param said: the directives of the request.
    :param age: the stored response's, in seconds.
    :param fresh_for: the seconds of its freshness left; negative if it is stale.
    """
    if said.no_cache or (said.max_age is not None and age > said.max_age):
        return False
    if said.min_fresh is not None and fresh_for < said.min_fresh:
        return False
    if fresh_for > 0:
        return True
    if said.max_stale is not None:
        return -fresh_for <= said.max_stale
    return said.max_age is None and said.min_fresh is None


def may_use(said: RequestDirectives, *, age: float, fresh_for: float, may_be_stale: bool) -> bool:
    """Whether the request alone allows a stored response: it is fresh, or as stale as ``max-stale`` allows.

    The caller decides about the stale windows of the response, with :func:`accepts`.

    :param said: the directives of the request.
    :param age: the stored response's, in seconds.
    :param fresh_for: the seconds of its freshness left; negative if it is stale.
    :param may_be_stale: the response does not forbid serving it stale. A prohibition overrides the request.
    """
    if fresh_for <= 0 and (not may_be_stale or said.max_stale is None):
        return False
    return accepts(said, age=age, fresh_for=fresh_for)
