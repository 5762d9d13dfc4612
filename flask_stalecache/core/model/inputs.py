"""The cookies, session keys, request fields and variables of the environ that a response depends on. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from werkzeug.sansio.http import parse_cookie

from .environ import environ_name

#: Returns whether the session of a request has at least one of some keys.
HoldsKeys: TypeAlias = "Callable[[tuple[str, ...]], bool]"


@dataclass(frozen=True, slots=True)
class RequestInputs:
    """Names in a request: the *absent* names of an entry, or the names that kept an answer out of the store.

    :param cookies: cookie names.
    :param headers: request fields, in lower case.
    :param variables: other variables of the environ, such as ``REMOTE_ADDR``.
    :param session: keys of the session, which only the front end can look up.
    """

    cookies: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    session: tuple[str, ...] = ()
    _environ_names: tuple[str, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_environ_names", (*map(environ_name, self.headers), *self.variables))

    def __bool__(self) -> bool:
        return bool(self.cookies or self.headers or self.variables or self.session)

    def __or__(self, other: RequestInputs) -> RequestInputs:
        return RequestInputs(
            tuple(sorted({*self.cookies, *other.cookies})),
            tuple(sorted({*self.headers, *other.headers})),
            tuple(sorted({*self.variables, *other.variables})),
            tuple(sorted({*self.session, *other.session})),
        )

    @property
    def fields(self) -> frozenset[str]:
        """The request fields that hold the values, in lower case."""
        return frozenset((*self.headers, *(["cookie"] if self.cookies or self.session else [])))

    @property
    def text(self) -> str:
        """The names for people to read. The values are secret."""
        kinds = (
            ("cookie", self.cookies),
            ("session key", self.session),
            ("field", self.headers),
            ("variable", self.variables),
        )
        return " and ".join(f"the {kind} {name}" for kind, names in kinds for name in names)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names for lists, each with its kind if it is no field or variable."""
        cookies, keys = (f"cookie {name}" for name in self.cookies), (f"session key {name}" for name in self.session)
        return (*self.headers, *cookies, *keys, *self.variables)

    def present_in(self, environ: Mapping[str, Any], holds: HoldsKeys | None = None) -> bool:
        """Whether the request carries one of the names.

        Every hit gets here, so the Cookie field is parsed only if it contains one of the names.

        :param holds: looks up keys of the request's session. Without it, a request with any cookie may have them all.
        """
        if self.cookies and (cookie := environ.get("HTTP_COOKIE")) and self._any_cookie(cookie):
            return True
        # Servers set CONTENT_TYPE and REMOTE_USER to "" for requests without one. Any other field counts, even an empty one.
        for name in self._environ_names:
            if name in environ and (environ[name] or name.startswith("HTTP_")):
                return True
        if not self.session:
            return False
        return "HTTP_COOKIE" in environ if holds is None else holds(self.session)

    def carried_part(self, environ: Mapping[str, Any], holds: HoldsKeys | None = None) -> RequestInputs:
        """Return the names that the request carries.

        :param holds: as for :meth:`present_in`.
        """
        return RequestInputs(
            tuple(name for name in self.cookies if RequestInputs(cookies=(name,)).present_in(environ)),
            tuple(name for name in self.headers if RequestInputs(headers=(name,)).present_in(environ)),
            tuple(name for name in self.variables if RequestInputs(variables=(name,)).present_in(environ)),
            tuple(name for name in self.session if RequestInputs(session=(name,)).present_in(environ, holds)),
        )

    def without_fields(self, names: Container[str]) -> RequestInputs:
        """Return the names without these request fields, which are in lower case."""
        return replace(self, headers=tuple(name for name in self.headers if name not in names))

    def _any_cookie(self, cookie: str) -> bool:
        if not any(name in cookie for name in self.cookies):
            return False
        # The parser of Request.cookies. The one in werkzeug.http raises for a field that is not UTF-8.
        carried = parse_cookie(cookie)
        return any(name in carried for name in self.cookies)

    def to_json(self) -> dict[str, list[str]]:
        """Return the names as data."""
        return {kind: list(getattr(self, kind)) for kind in _KINDS}

    @classmethod
    def from_json(cls, data: Mapping[str, list[str]]) -> RequestInputs:
        """Return the names from the data of :meth:`to_json`; raise :class:`TypeError` for other data."""
        kinds = [tuple(data[kind]) for kind in _KINDS]
        if not all(isinstance(name, str) for kind in kinds for name in kind):
            raise TypeError("names are strings")
        return cls(*kinds)


_KINDS = ("cookies", "headers", "variables", "session")
NO_NAMES = RequestInputs()
AUTHORIZATION = RequestInputs(headers=("authorization",))
