"""What a request allows to be served from the store: asked only where its ``Cache-Control`` is honoured (RFC 9111 5.2.1)."""

from __future__ import annotations

from .cache_control import RequestDirectives


def accepts(said: RequestDirectives, *, age: float, fresh_for: float) -> bool:
    """Whether a request objects to nothing in a stored response that would be served to it.

    A request that says ``max-age`` or ``min-fresh`` wants nothing stale, unless it says ``max-stale`` too.

    :param said: what the request says.
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
    """Whether a stored response may be used on the request's own word: it is fresh, or as stale as ``max-stale`` allows.

    What the response's own stale windows allow beyond that is decided elsewhere, and asked of :func:`accepts`.

    :param said: what the request says.
    :param age: the stored response's, in seconds.
    :param fresh_for: the seconds of its freshness left; negative if it is stale.
    :param may_be_stale: the response does not forbid to serve it stale, which binds whatever the request says.
    """
    if fresh_for <= 0 and (not may_be_stale or said.max_stale is None):
        return False
    return accepts(said, age=age, fresh_for=fresh_for)
