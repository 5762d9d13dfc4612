"""Makes the environ that the app behind the gateway is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from werkzeug.wsgi import FileWrapper

from ...core.http.cookies import only_named
from ...core.model.entry import Entry
from ...core.model.environ import environ_name
from ...core.responses.validators import CONDITIONS, conditional_fields
from ..request.request_body import take_body_away
from .rules import Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def environ_for_app(
    environ: WSGIEnvironment,
    rule: Rule,
    previous: Entry | None,
    more: Mapping[str, str],
    *,
    removes_conditions: bool,
    has_body: bool,
) -> WSGIEnvironment:
    """Return the environ to call the app with: a copy, since middleware of the app may take the script root off the path.

    :param environ: the client's request.
    :param rule: the rule for the path.
    :param previous: the stored response that the app may confirm, if any.
    :param more: fields that are added, by their names in lower case.
    :param removes_conditions: the client's conditions are replaced by those of the stored response (RFC 9111 section 4.3.1).
    :param has_body: the request has a body, or is not a GET.
    """
    made = {name: value for name, value in environ.items() if not (removes_conditions and name in CONDITIONS)}
    if removes_conditions and previous is not None:
        made.update((environ_name(name), value) for name, value in conditional_fields(previous.headers))
    if rule.hides_cookies:
        # The key has no other cookies, so no other one may make a difference to the stored response.
        cookie = only_named(made.pop("HTTP_COOKIE", None), rule.policy.cookies)
        made.update({} if cookie is None else {"HTTP_COOKIE": cookie})
    if not has_body:
        take_body_away(made)
    if "HTTP_RANGE" in environ:
        # The file wrappers of most servers can't seek, so a range at the end of a film would be reached by reading all of it.
        made["wsgi.file_wrapper"] = FileWrapper
    # Only here, not in the request that is judged: the operator's own fields say nothing about a visitor.
    for name, value in more.items():
        made.setdefault(environ_name(name), value)
    return made
