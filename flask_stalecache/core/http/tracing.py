"""Request fields that trace a request through the parts of a site, and whether an answer shows their values. Pure.

Hooks and libraries read them in every request, for logs and for requests of their own, so their reads do not count. A client may
send any value, though, so an answer that shows it belongs to that client alone.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from ..model.environ import environ_name
from .content_policy import decoded
from .fields import Headers

#: The fields, in lower case.
TRACING = frozenset({"x-request-id", "traceparent", "tracestate"})
#: The least length of a part that is looked for: shorter ones are in many answers by chance.
_TELLING = 8
_BETWEEN = re.compile(r"[^0-9A-Za-z]+")


def shown_fields(environ: Mapping[str, Any], names: Iterable[str], headers: Headers, body: bytes) -> tuple[str, ...]:
    """Return the tracing fields of a request whose values its answer shows, in its fields or body.

    :param environ: the request.
    :param names: the fields to look for, in lower case.
    """
    values = {name: value for name in names if name in TRACING and (value := environ.get(environ_name(name)))}
    if not values:
        return ()
    fields = tuple(headers)
    text = decoded(fields, body)
    where = " ".join([*(value for _, value in fields), (body if text is None else text).decode("latin-1")]).lower()
    return tuple(sorted(name for name, value in values.items() if any(form in where for form in _forms(value))))


def _forms(value: str) -> set[str]:
    """Return the texts that show a value: the value in all forms in which pages quote it, and its longer parts."""
    parts = [part for part in _BETWEEN.split(value) if len(part) >= _TELLING]
    whole = {value, html.escape(value), json.dumps(value)[1:-1], quote(value, encoding="latin-1"), value.strip()}
    return {form.lower() for form in (*whole, *parts) if form}
