"""The cookies, request fields and variables of the environ that a response depends on. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.sansio.http import parse_cookie

from .environ import environ_name


@dataclass(frozen=True, slots=True)
class RequestInputs:
    """Names in a request: the *absent* names of an entry, or those because of which an answer was not stored.

    :param cookies: cookie names.
    :param headers: request fields, in lower case.
    :param variables: other variables of the environ, such as ``REMOTE_ADDR``.
    """

    cookies: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    _environ_names: tuple[str, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_environ_names", (*map(environ_name, self.headers), *self.variables))

    def __bool__(self) -> bool:
        return bool(self.cookies or self.headers or self.variables)

    def __or__(self, other: RequestInputs) -> RequestInputs:
        return RequestInputs(
            tuple(sorted({*self.cookies, *other.cookies})),
            tuple(sorted({*self.headers, *other.headers})),
            tuple(sorted({*self.variables, *other.variables})),
        )

    @property
    def fields(self) -> frozenset[str]:
        """The request fields that hold the values, in lower case."""
        return frozenset((*self.headers, *(["cookie"] if self.cookies else [])))

    @property
    def text(self) -> str:
        """The names for people to read. The values are secret."""
        kinds = ("cookie", self.cookies), ("field", self.headers), ("variable", self.variables)
        return " and ".join(f"the {kind} {name}" for kind, names in kinds for name in names)

    def present_in(self, environ: Mapping[str, Any]) -> bool:
        """Whether the request carries one of the names.

        Every hit gets here, so the Cookie field is parsed only if it contains one of the names.
        """
        if self.cookies and (cookie := environ.get("HTTP_COOKIE")) and self._any_cookie(cookie):
            return True
        # Servers set CONTENT_TYPE and REMOTE_USER to "" for requests without one. Any other field counts, even an empty one.
        for name in self._environ_names:  # noqa: SIM110  A generator would cost every hit.
            if name in environ and (environ[name] or name.startswith("HTTP_")):
                return True
        return False

    def carried_part(self, environ: Mapping[str, Any]) -> RequestInputs:
        """Return the names that the request carries."""
        return RequestInputs(
            tuple(name for name in self.cookies if RequestInputs(cookies=(name,)).present_in(environ)),
            tuple(name for name in self.headers if RequestInputs(headers=(name,)).present_in(environ)),
            tuple(name for name in self.variables if RequestInputs(variables=(name,)).present_in(environ)),
        )

    def without_fields(self, names: Container[str]) -> RequestInputs:
        """Return the names without these request fields, which are in lower case."""
        return RequestInputs(self.cookies, tuple(name for name in self.headers if name not in names), self.variables)

    def _any_cookie(self, cookie: str) -> bool:
        if not any(name in cookie for name in self.cookies):
            return False
        # The parser of Request.cookies. The one in werkzeug.http raises for a field that is not UTF-8.
        carried = parse_cookie(cookie)
        return any(name in carried for name in self.cookies)

    def to_json(self) -> dict[str, list[str]]:
        """Return the names as data."""
        return {"cookies": list(self.cookies), "headers": list(self.headers), "variables": list(self.variables)}

    @classmethod
    def from_json(cls, data: Mapping[str, list[str]]) -> RequestInputs:
        """Return the names from the data of :meth:`to_json`; raise :class:`TypeError` for other data."""
        kinds = [tuple(data[kind]) for kind in ("cookies", "headers", "variables")]
        if not all(isinstance(name, str) for kind in kinds for name in kind):
            raise TypeError("names are strings")
        return cls(*kinds)


NO_NAMES = RequestInputs()
