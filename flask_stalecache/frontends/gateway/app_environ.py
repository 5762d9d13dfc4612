"""Makes the environ that the app behind the gateway is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...core.http.validators import CONDITIONS, conditional_fields
from ...core.model.entry import Entry
from ...core.model.environ import environ_name
from ..request_body import take_body_away
from .rules import Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def with_our_conditions(environ: WSGIEnvironment, previous: Entry | None) -> WSGIEnvironment:
    """Return a request with the conditions of the stored response instead of the client's (RFC 9111 section 4.3.1).

    :param environ: the client's request.
    :param previous: the stored response, if any.
    """
    made = {name: value for name, value in environ.items() if name not in CONDITIONS}
    if previous is not None:
        made.update((environ_name(name), value) for name, value in conditional_fields(previous.headers))
    return made


def without_what_is_ignored(environ: WSGIEnvironment, rule: Rule, refresh_fields: Mapping[str, str], *, has_body: bool) -> None:
    """Take from a copy of a request what must make no difference to the answer, and give a refresh its own fields.

    :param environ: the copy.
    :param rule: the rule for the path.
    :param refresh_fields: the fields that are added, by their names in lower case; none for a visitor's request.
    :param has_body: the request has a body, or is not a GET.
    """
    if rule.policy.cookies is not None:
        # None of them matters, so none may make a difference.
        environ.pop("HTTP_COOKIE", None)
    if not has_body:
        take_body_away(environ)
    # Not in the request that is judged: the operator's own fields say nothing about a visitor.
    for name, value in refresh_fields.items():
        environ.setdefault(environ_name(name), value)
