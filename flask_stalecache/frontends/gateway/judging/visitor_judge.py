"""Judges whom an app's answer is for: everybody, requests that carry certain names, or one visitor alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from ....core.http.accept import names_of
from ....core.http.cache_control import response_directives
from ....core.http.credentials import credentials_in
from ....core.http.fields import end_to_end, first_of
from ....core.http.freshness import is_explicit
from ....core.http.storing import is_for_everybody
from ....core.http.vary import with_vary
from ....core.model.environ import REFRESHING
from ....core.model.inputs import NO_NAMES, RequestInputs
from ....core.model.policy import NEVER_VARIED
from ....core.model.reasons import Refusal, StoreRefusal
from ....core.rules.advice import InputKind, fix_of_name, log_text_at
from ....core.rules.storability import Judgement, Verdict, is_about_page, refuses_who_asks
from ....engine.origin import Answer
from ...request.request_origin import all_fields, shows_request
from ..backend import Backend, Observation
from ..rules import Rule
from ..wsgi_call import AppCall
from .entry_builder import EntryBuilder

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

READ_BY_MIDDLEWARE = "was read by {}, between the gateway and the app; put that middleware around app.wsgi_app after init_app"


class VisitorJudge:
    """Judges the answers to one request.

    :param backend: the app behind the gateway.
    :param rule: the rule for the path.
    :param environ: the request.
    :param entries: determines which parts of the request are in its key.
    """

    def __init__(self, backend: Backend, rule: Rule, environ: WSGIEnvironment, entries: EntryBuilder) -> None:
        self._backend = backend
        self._rule = rule
        self._environ = environ
        self._entries = entries

    def explain(self, call: AppCall, seen: Observation, refusal: Refusal | None) -> None:
        """Log once why an answer is not stored: if it is meant to be stored, and the developer can fix the reason."""
        if refusal is None or not (refusal.fix or refusal.reason.is_fixable):
            return
        fields, level = call.fields, logging.WARNING
        is_meant = seen.policy.gateway or self._rule.policy.max_age is not None
        if refusal.reason is StoreRefusal.NOTHING_SAID:
            # Rules for other paths may not be meant for this one; errors and redirects seldom state a lifetime.
            level = logging.INFO if self._rule.is_rest else level
            is_meant = call.code == 200
        if is_meant or is_explicit(response_directives(fields), fields):
            told = log_text_at(refusal, self._backend.front_end(seen))
            about = self._name(seen), refusal.log_key
            self._backend.complaints.warn_once(about, "%s is not stored by the gateway: %s", seen.label, told, level=level)

    def _name(self, seen: Observation) -> str:
        """Return the endpoint that answered; for an app without endpoints, the pattern of its rule."""
        return seen.endpoint or self._rule.pattern

    def personal(self, call: AppCall, seen: Observation) -> Answer | None:
        """Return the answer as personal, if it depends on something that the request carries and that is not in the key."""
        carried = self.carried_part(self._entries.beyond_key(seen, call.fields), seen)
        if not carried:
            return None
        if carried.variables:
            self.explain(call, seen, seen.own)
        for name in carried.headers:
            self._explain_field(seen, name)
        for kind, names in ((InputKind.COOKIE, carried.cookies), (InputKind.SESSION, carried.session)):
            for name in names:
                self._explain_live(seen, kind, name)
        reason = self._read_by(seen, carried) if self._backend.debugs() else None
        return Answer(Verdict.PERSONAL, call, carried=carried, anybodys=False, reason=reason)

    def carried_part(self, names: RequestInputs, seen: Observation) -> RequestInputs:
        """Return the names among these that the request carries, or that the app has found in its session."""
        hold = self._backend.sessions.hold
        return names.carried_part(self._environ, lambda keys: seen.holds(keys) or hold(self._environ, keys))

    def _read_by(self, seen: Observation, carried: RequestInputs) -> Refusal:
        """Return which code has read the names that make an answer personal, for the debug detail."""
        read = [
            f"the {kind.word} {name} was read by {seen.readers.get(name) or seen.reader_of(kind, name)}"
            for kind in InputKind
            for name in getattr(carried, kind)
        ]
        return Refusal(StoreRefusal.READ_BY, " and ".join(read))

    def _explain_field(self, seen: Observation, name: str) -> None:
        reader = seen.readers.get(name)
        if reader is None and name in NEVER_VARIED:
            self._explain_live(seen, InputKind.FIELD, name)
            return
        if reader is None:
            fix = fix_of_name(InputKind.FIELD, name, self._backend.front_end(seen))
            advice = f"was read by {seen.reader_of(InputKind.FIELD, name)} and is not in Vary; {fix}"
        else:
            advice = READ_BY_MIDDLEWARE.replace("{}", reader)
            advice += "" if name in NEVER_VARIED else ", or name the field in the vary of a rule"
        about = self._name(seen), "header", name
        message = "%s is not stored by the gateway: the request field %s %s"
        self._backend.complaints.warn_once(about, message, seen.label, name, advice)

    def _explain_live(self, seen: Observation, kind: InputKind, name: str) -> None:
        """Log once that visitors with a name are served live: usual for members, so a warning only if there are no hits."""
        is_meant = seen.policy.gateway or self._rule.policy.max_age is not None
        tally = self._backend.tally(seen.endpoint, self._rule.pattern)
        level = logging.WARNING if is_meant and tally.is_never_hit else logging.INFO
        self._backend.complaints.warn_once(
            (self._name(seen), kind, name, level),
            "%s bypasses the gateway for requests with the %s %s, which was read by %s: %s",
            seen.label, kind.word, name, seen.reader_of(kind, name), fix_of_name(kind, name, self._backend.front_end(seen)),
            level=level,
        )  # fmt: skip

    def unstorable(self, call: AppCall, seen: Observation, reason: Refusal | None) -> Answer:
        """Return the answer as one that can't be stored: for any visitor, unless its request has credentials of any kind."""
        carried = self.credentials(seen)
        if carried:
            return Answer(Verdict.PERSONAL, call, carried=carried, anybodys=False, reason=reason)
        # A refresh belongs to no visitor: all visitors would get its answer.
        is_anybodys = REFRESHING in self._environ or is_about_page(call.code, call.fields)
        if not seen.is_by_view and refuses_who_asks(call.code):
            is_anybodys = False
        anybodys = is_anybodys and self._entries.own(seen, call.fields) is None
        return Answer(Verdict.UNSTORABLE, call, anybodys=anybodys, reason=reason)

    def cut_short(self, call: AppCall, seen: Observation, why: StoreRefusal) -> Answer:
        """Return the answer as one whose body was not copied to its end.

        :param why: the reason.
        """
        if why is StoreRefusal.TOO_LARGE:
            return self.personal(call, seen) or self.unstorable(call, seen, Refusal(why))
        # A slow client says nothing about the page.
        return Answer(Verdict.UNSTORABLE, call, anybodys=False, reason=Refusal(why))

    def credentials(self, seen: Observation) -> RequestInputs:
        """Return the credentials in the request that the key lacks, if the app can't be observed: it may have used any of them."""
        if not seen.is_blind:
            return NO_NAMES
        without = {*self._rule.policy.vary, *(["cookie"] if self._rule.hides_cookies else [])}
        return RequestInputs(headers=tuple(name for name in credentials_in(self._environ).headers if name not in without))

    def guarded(self, call: AppCall, seen: Observation) -> Answer | None:
        """Return the answer as personal, if its request has credentials and its fields do not say that it is for everybody."""
        fields = call.fields
        if not self._backend.guards or is_for_everybody(response_directives(fields)):
            return None
        # HTTP has a rule of its own for Authorization (RFC 9111 section 3.5), and Vary makes a field part of the key.
        without = {"authorization", *names_of(self._entries.fields(seen, fields))}
        carried = RequestInputs(headers=tuple(name for name in self.credentials(seen).headers if name not in without))
        if not carried:
            return None
        refusal = Refusal(StoreRefusal.CREDENTIALS, carried.text)
        told = log_text_at(refusal, self._backend.front_end(seen))
        self._backend.complaints.warn_once(refusal.log_key, "%s is not stored by the gateway: %s", seen.label, told)
        return Answer(Verdict.PERSONAL, call, carried=carried, anybodys=False, reason=refusal)

    def own(self, call: AppCall, seen: Observation) -> Answer | None:
        """Return the answer as one visitor's own, if it depends on something that no name can express."""
        own = self._entries.own(seen, call.fields)
        if own is None:
            return None
        self.explain(call, seen, own)
        return Answer(Verdict.UNSTORABLE, call, anybodys=False, reason=own)

    def is_refused_refresh(self, call: AppCall, seen: Observation, judgement: Judgement) -> bool:
        """Whether a hook or middleware refuses a refresh: that says nothing about the page, which visitors may still get."""
        is_refresh = REFRESHING in self._environ and judgement.verdict is Verdict.UNSTORABLE
        return is_refresh and not seen.is_by_view and refuses_who_asks(call.code)

    def with_page(self, call: AppCall, seen: Observation, failed: Answer, body: bytes, varied: set[str]) -> Answer:
        """Add the page of a failure to its answer, for the requests that may share it.

        :param varied: the request fields that the page depends on.
        """
        fields = call.fields
        directives = response_directives(fields)
        if first_of(fields, "set-cookie") is not None or "private" in directives or "no-store" in directives:
            return replace(failed, anybodys=False)
        own = self._entries.own(seen, fields)
        if own is not None and own.reason is StoreRefusal.CHANGED_REQUEST:
            # Middleware may turn requests that are alike into different ones.
            return failed
        is_own = own is not None or bool(self._entries.fields(seen, fields))
        is_own = is_own or seen.is_blind or shows_request(self._environ, body)
        is_own = is_own or self._entries.made_for_one(fields, body, seen, None) is not None
        page = (body,), call.status, with_vary(end_to_end(fields), varied)
        return replace(failed, shared=page, asked=all_fields(self._environ) if is_own else None)
