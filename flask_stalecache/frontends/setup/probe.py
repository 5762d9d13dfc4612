"""The record of how and why a request is answered. Front ends write it, for requests that are made to find this out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...core.model.entry import Entry
from ...core.model.environ import PROBE
from ...core.model.inputs import NO_NAMES, RequestInputs
from ...core.model.reasons import BypassReason, Reason, Refusal
from ...core.rules.advice import FrontEnd, InputKind
from ...core.rules.serving import PLAIN, ServeOptions
from ...core.rules.why import Account, ReadName
from ...engine.origin import Answer, Served
from ..response.debug_detail import readable_key


@dataclass(frozen=True, slots=True)
class Noted:
    """How a front end has answered a request.

    :param front: the front end.
    :param who: the name of the view or endpoint that answered, as in the log.
    :param endpoint: its endpoint; "" if it has none.
    :param pattern: the pattern of the gateway's rule for its path; "" if there is none.
    :param key: the key of the response; "" for a request that bypasses the cache.
    :param reader_of: returns the module that has read a name.
    :param served: how the request was answered; ``None`` for one that bypasses the cache.
    :param terms: the serving options of the request.
    :param bypass: why it bypasses the cache.
    :param ended: returns the complete answer of a body that was still to come.
    """

    front: FrontEnd
    who: str
    endpoint: str = ""
    pattern: str = ""
    key: str = ""
    reader_of: Callable[[InputKind, str], str] = lambda kind, name: ""
    served: Served | None = None
    terms: ServeOptions = PLAIN
    bypass: BypassReason | None = None
    ended: Callable[[], Answer | None] = lambda: None

    def account(self) -> Account:
        """Return the account of the answer, once its body is complete."""
        served = self.served
        if served is None:
            return Account(self.front, self.who, self.endpoint, self.pattern, why=self.bypass)
        answer = served.answer
        if answer is not None and answer.later is not None:
            answer = self.ended() or answer
        names, carried = _names(served.entry, answer)
        return Account(
            self.front,
            self.who,
            self.endpoint,
            self.pattern,
            key=readable_key(self.key),
            status=served.status,
            why=_why(served, answer, self.terms),
            refusal=_refusal(served, answer),
            entry=served.entry if answer is None else answer.entry,
            reads=tuple(ReadName(kind, name, self.reader_of(kind, name)) for kind in InputKind for name in getattr(names, kind)),
            carried=carried,
        )


def _names(entry: Entry | None, answer: Answer | None) -> tuple[RequestInputs, RequestInputs]:
    """Return the names that an answer depends on, and those that the request carries."""
    names = NO_NAMES if entry is None else entry.absent
    return (names, NO_NAMES) if answer is None else (names | answer.absent | answer.carried, answer.carried)


def _why(served: Served, answer: Answer | None, terms: ServeOptions) -> Reason | None:
    if answer is None or answer is served.answer:
        return served.why_no_hit(terms)
    return answer.why_no_hit


def _refusal(served: Served, answer: Answer | None) -> Refusal | None:
    is_stored = answer is None or served.stored or answer.renewed
    if answer is None or is_stored or (answer is not served.answer and answer.entry is not None):
        return None
    return answer.why_not_stored


class Probe:
    """The record of one request, under :data:`.PROBE` in its environ."""

    def __init__(self) -> None:
        self._noted: list[Noted] = []

    def note(self, noted: Noted) -> None:
        """Record how a front end has answered."""
        self._noted.append(noted)

    def account(self) -> Account | None:
        """Return the account of the request; ``None`` if no front end has met it.

        If cached views have called each other, the outermost one is recorded last, and counts. A gateway in front of a cached view
        records nothing.
        """
        return self._noted[-1].account() if self._noted else None


def probe_of(environ: Mapping[str, Any]) -> Probe | None:
    """Return the record of a request; ``None`` for a request of a visitor."""
    return environ.get(PROBE)
