"""Selects variants by request fields, and normalises the values of these fields (RFC 9111 section 4.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol, TypeAlias, TypeVar

from ..model.checks import FIELD_NAME
from .dates import timestamp
from .fields import Headers, Lookup, first_of, lines_of, vary_names

#: In Vary: no request field tells what the response depends on, so no cache may reuse it (RFC 9110 section 12.5.5).
STAR = "*"
#: The selecting fields with their normal forms; ``None`` for a field that the request did not have.
Selection: TypeAlias = "tuple[tuple[str, str | None], ...]"

#: Lists of tokens with weights (RFC 9110 section 12.5). Some apps prefer the first of several members with equal weights.
_WEIGHTED = frozenset({"accept", "accept-charset", "accept-language"})
#: Fields that are not lists: a comma in them does not separate members.
_NO_LISTS = frozenset({"authorization", "cookie", "referer", "user-agent"})
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEMBER = re.compile(rf"({_TOKEN}(?:/{_TOKEN})?)((?:[ \t]*;[ \t]*{_TOKEN}={_TOKEN})*)")
_WEIGHT = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)


def selecting_fields(headers: Headers) -> tuple[str, ...] | None:
    """Return the request fields that select a variant, in lower case and sorted; ``None`` if no request ever matches.

    No request matches ``Vary: *``, even if the star is one of several members or lines. A member that is no valid field name
    counts as a star, since no field can be compared by it.
    """
    names = vary_names(headers)
    if any(name == "*" or not FIELD_NAME.fullmatch(name) for name in names):
        return None
    return tuple(sorted(names))


def vary_with(headers: Headers, names: Iterable[str]) -> str | None:
    """Return the ``Vary`` of a response that also depends on other request fields; ``None`` if it stays as it is.

    :param headers: the response's fields.
    :param names: the request fields, in lower case; a star replaces all names, since some caches recognise it only alone.
    """
    fields, wanted = tuple(headers), set(names)
    named = vary_names(fields)
    if STAR in named or wanted <= named:
        return None
    if STAR in wanted:
        return STAR
    return ", ".join([*lines_of(fields, "vary"), *(name.title() for name in sorted(wanted - named))])


def with_vary(headers: Headers, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the fields of a response with more request fields in its ``Vary``."""
    fields = list(headers)
    value = vary_with(fields, names)
    return fields if value is None else [*((name, line) for name, line in fields if name.lower() != "vary"), ("Vary", value)]


def selection(names: Iterable[str], get: Lookup) -> Selection:
    """Return the selecting fields of a request.

    :param names: as :func:`selecting_fields` returns them.
    :param get: the request's fields.
    """
    return tuple((name, normalised(name, get(name))) for name in names)


def matches(chosen: Selection, get: Lookup) -> bool:
    """Whether a request has the same selecting fields as that of the stored response. Absent fields must be absent in both."""
    return all(normalised(name, get(name)) == value for name, value in chosen)


class Dated(Protocol):
    """A stored response, reduced to its date."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...

    @property
    def answered(self) -> float: ...


_Dated = TypeVar("_Dated", bound=Dated)


def newest(matching: Iterable[_Dated]) -> _Dated | None:
    """Return the stored response with the latest ``Date``. If dates are equal, return the one received last (RFC 9111 section 4).

    :param matching: the stored responses that match a request, with or without Vary.
    """
    return max(matching, key=_when, default=None)


def _when(stored: Dated) -> tuple[float, float]:
    date = timestamp(first_of(stored.headers, "date"))
    return stored.answered if date is None else date, stored.answered


def normalised(name: str, value: str | None) -> str | None:
    """Return the normal form of a request field. Requests with equal normal forms may get the same answer.

    Accept fields: normalises case, the spelling of weights, and the order of members with different weights. Accept-Encoding is
    reduced to the set of acceptable codings. Other fields: normalises the whitespace around commas. Malformed values are unchanged.

    :param name: in lower case.
    :param value: all lines of the field, joined by commas; ``None`` without the field.
    """
    if value is None:
        return None
    if name in _NO_LISTS or '"' in value:
        return value.strip()
    parts = [part.strip() for part in value.split(",")]
    if name == "accept-encoding" or name in _WEIGHTED:
        members = _weighed([part for part in parts if part], has_parameters=name == "accept")
        if members is not None:
            return _acceptable(members) if name == "accept-encoding" else _sorted(members)
    return ", ".join(parts)


def weighed(value: str) -> str | None:
    """Return a list of tokens with the weights of all members; ``None`` for a malformed one."""
    members = _weighed([part.strip() for part in value.split(",") if part.strip()], has_parameters=False)
    return None if members is None else _sorted(members)


def acceptable_of(value: str, known: Iterable[str]) -> str:
    """Return an Accept-Encoding field that accepts the same known codings, and names no others.

    :param value: all lines of the field, joined by commas. A malformed one is returned unchanged.
    :param known: codings in lower case. A response with another coding must not be selected by the result.
    """
    members = _weighed([part.strip() for part in value.split(",") if part.strip()], has_parameters=False)
    if members is None:
        return value.strip()
    # The star stands for the codings that are not named, and for identity.
    others = members.get("*")
    accepted = {coding: members.get(coding, others or 0.0) for coding in known}
    identity = members.get("identity", 1.0 if others is None else others)
    return _acceptable({**accepted, "identity": identity})


def _weighed(parts: list[str], *, has_parameters: bool) -> dict[str, float] | None:
    """Return the members with their weights; ``None`` if one is malformed, or occurs with two different weights."""
    members: dict[str, float] = {}
    for part in parts:
        match = _MEMBER.fullmatch(part)
        if match is None:
            return None
        parameters = [parameter.strip().partition("=") for parameter in match[2].split(";")[1:]]
        weight = parameters.pop()[2] if parameters and parameters[-1][0].lower() == "q" else "1"
        keys = [key.lower() for key, _, _ in parameters]
        # Parameters after the weight do not belong to the media type. Other fields have no parameters.
        if not _WEIGHT.fullmatch(weight) or "q" in keys or (keys and not has_parameters):
            return None
        values = [value for _, _, value in parameters]
        member = ";".join([match[1].lower(), *map("=".join, zip(keys, values, strict=True))])
        if members.setdefault(member, float(weight)) != float(weight):
            return None
    return members


def _sorted(members: dict[str, float]) -> str:
    by_weight = sorted(members.items(), key=lambda item: -item[1])
    return ", ".join(f"{member};q={weight:g}" if weight != 1 else member for member, weight in by_weight)


def _acceptable(members: dict[str, float]) -> str:
    """Return an equivalent Accept-Encoding field that lists the acceptable codings (RFC 9110 section 12.5.3).

    Preferences are left out: any coding is acceptable. Unknown codings stay, since the app may know them.
    """
    codings = {coding: weight > 0 for coding, weight in members.items()}
    any_coding = codings.pop("*", None)
    # Identity, i.e. no coding, is acceptable unless the field refuses it by its name or by ``*``.
    plain = codings.pop("identity", any_coding is not False)
    if any_coding:
        refused = [f"{coding};q=0" for coding, accepted in sorted(codings.items()) if not accepted]
        return ", ".join(["*", *refused, *([] if plain else ["identity;q=0"])])
    accepted = [coding for coding, accepted in sorted(codings.items()) if accepted]
    if plain:
        return ", ".join(accepted) or "identity"
    return ", ".join([*accepted, "identity;q=0"]) if accepted else "*;q=0"
