"""Records how a cached view has answered, for requests that are made to find out why."""

from __future__ import annotations

from functools import partial

from ...core.model.reasons import BypassReason
from ...core.rules.advice import FrontEnd
from ...engine.origin import Served
from ..flask_internals.contexts import RequestContext
from ..setup.probe import Noted, probe_of
from .bound_view import BoundView
from .origin import PageOrigin
from .watching.request_recorder import plain_environ
from .watching.watch import reader_of


def note_served(origin: PageOrigin, served: Served) -> None:
    """Record how a request for a cached view is answered, if it has a probe."""
    probe, context = probe_of(origin.environ), origin.context
    if probe is None:
        return
    endpoint = context.request.endpoint
    probe.note(
        Noted(
            FrontEnd.VIEW,
            origin.bound.name_at(endpoint),
            endpoint or "",
            key=origin.key,
            reader_of=_unknown if served.answer is None else partial(reader_of, context),
            served=served,
            terms=origin.terms,
        )
    )


def _unknown(kind: str, name: str) -> str:
    return ""


def note_bypass(bound: BoundView, context: RequestContext, reason: BypassReason) -> None:
    """Record that a request for a cached view bypasses the cache, if it has a probe."""
    endpoint = context.request.endpoint
    if (probe := probe_of(plain_environ(context.request))) is not None:
        probe.note(Noted(FrontEnd.VIEW, bound.name_at(endpoint), endpoint or "", bypass=reason))
