"""The recipe of a page: the data from which a refresh builds its request. Pure."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..model.environ import ARRIVED, REFRESHING, URL_VARIABLES, as_arrived, environ_name, field_of, url_variables
from ..model.query import NamePatterns
from .keys import FORWARDED_FIELDS, RAW_PATHS, digest, shown

USER_AGENT = "flask-stalecache refresh"
#: An address that belongs to nobody (RFC 5737 section 3). Apps show more to 127.0.0.1 than to visitors.
NOBODYS_ADDRESS = "192.0.2.1"
NOTHING_CARRIED: Mapping[str, str] = MappingProxyType({})
#: Variables of the fields that every key has in full.
IN_EVERY_KEY = frozenset({"HTTP_HOST", *map(environ_name, FORWARDED_FIELDS)})


@dataclass(frozen=True, slots=True)
class PageRecipe:
    """A request for a page, reduced to the parts in its key: the request of a visitor without cookies.

    It is the request as it arrived, since middleware of the app will work on it again.

    :param scheme: ``http`` or ``https``.
    :param server: the server's name and port.
    :param script_root: SCRIPT_NAME.
    :param path: PATH_INFO.
    :param query: the query without ignored parameters.
    :param raw: the server's own variables of the raw path, as received except for the query.
    :param fields: environ names and values of the request fields in the key, as received; ``None`` for one that was absent.
    :param digests: environ names and digests of the fields whose values are not known: only a visitor who sends these fields can
        request the page again.
    :param session: the values of the session in the key, by their keys.
    :param session_digests: keys and digests of the values of the session that are not known.
    :param seen: the URL variables that middleware had changed when the app saw the request; ``None`` for one that was absent.
    """

    scheme: str
    server: tuple[str, str]
    script_root: str
    path: str
    query: str
    raw: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, str | None], ...]
    digests: tuple[tuple[str, str], ...] = ()
    seen: tuple[tuple[str, str | None], ...] = ()
    session: tuple[tuple[str, Any], ...] = ()
    session_digests: tuple[tuple[str, str], ...] = ()

    @property
    def why_incomplete(self) -> str:
        """Why the recipe can't become a request; "" if it can."""
        fields = (_field_name(name).title() for name, _ in self.digests)
        names = " and ".join([*fields, *(f"the session key {key}" for key, _ in self.session_digests)])
        return f"the value of {names} is not kept: the next visitor who sends it has it refreshed" if names else ""

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, Any],
        vary: Iterable[str],
        ignored: NamePatterns,
        seen: Mapping[str, Any] | None = None,
        session: Mapping[str, Any] = NOTHING_CARRIED,
    ) -> PageRecipe:
        """Return the recipe of a request.

        :param environ: the WSGI environ.
        :param vary: names of the request fields that are in the key beside host and X-Forwarded-*.
        :param ignored: query parameters to leave out.
        :param seen: the environ as the app saw it. Default: the same.
        :param session: the values of the session that are in the key.
        """
        is_changed = ARRIVED in environ or seen is not None
        changes = _changes(environ.get(ARRIVED) or url_variables(environ), seen or environ, ignored) if is_changed else ()
        environ = as_arrived(environ)
        query = ignored.split(environ.get("QUERY_STRING", ""))[0]
        names = ["HTTP_HOST", *(environ_name(name) for name in (*FORWARDED_FIELDS, *vary))]
        return cls(
            scheme=environ.get("wsgi.url_scheme", "http"),
            server=(str(environ.get("SERVER_NAME", "")), str(environ.get("SERVER_PORT", ""))),
            script_root=environ.get("SCRIPT_NAME", ""),
            path=environ.get("PATH_INFO", ""),
            query=query,
            raw=tuple((name, _with_query(environ[name], query)) for name in RAW_PATHS if environ.get(name)),
            fields=tuple((name, environ.get(name)) for name in dict.fromkeys(names)),
            seen=changes,
            session=tuple(session.items()),
        )

    def to_environ(self, remote_addr: str = NOBODYS_ADDRESS, carried: Mapping[str, str] = NOTHING_CARRIED) -> dict[str, Any]:
        """Return the environ of a new GET for the page, with a User-Agent of ours.

        :param remote_addr: the address that the request comes from.
        :param carried: further fields of the request, by their names in lower case. Fields of the recipe take precedence.
        """
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": self.script_root,
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "SERVER_NAME": self.server[0],
            "SERVER_PORT": self.server[1],
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": remote_addr,
            "HTTP_USER_AGENT": USER_AGENT,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": self.scheme,
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            REFRESHING: True,
            **{environ_name(name): value for name, value in carried.items()},
            **dict(self.raw),
            **dict(self.fields),
        }
        # A page that varies on User-Agent may be the variant for requests without that field: then ours is removed.
        return {name: value for name, value in environ.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as data, for the disk: without values that may be secrets."""
        values = {name: value if name in IN_EVERY_KEY else shown(_field_name(name), value) for name, value in self.fields}
        known = [[name, value] for name, value in values.items() if not isinstance(value, tuple)]
        hidden = [[name, value[0]] for name, value in values.items() if isinstance(value, tuple)]
        return {
            "scheme": self.scheme,
            "server": list(self.server),
            "script_root": self.script_root,
            "path": self.path,
            "query": self.query,
            "raw": [list(item) for item in self.raw],
            "fields": known,
            "digests": [*hidden, *map(list, self.digests)],
            "seen": [list(item) for item in self.seen],
            # Never the values: they may identify a person.
            "session": [*([key, digest(ascii(value))] for key, value in self.session), *map(list, self.session_digests)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PageRecipe:
        """Return the recipe from the data of :meth:`to_json`.

        :raises TypeError: for data of another form; likewise :class:`ValueError` and :class:`LookupError`.
        """
        name, port = map(_text, data["server"])
        recipe = cls(
            scheme=_text(data["scheme"]),
            server=(name, port),
            script_root=_text(data["script_root"]),
            path=_text(data["path"]),
            query=_text(data["query"]),
            raw=tuple((_text(name), _text(value)) for name, value in data["raw"]),
            fields=tuple((_text(name), _text_or_none(value)) for name, value in data["fields"]),
            digests=tuple((_text(name), _text(value)) for name, value in data["digests"]),
            # Entries of earlier versions lack it.
            seen=tuple((_text(name), _text_or_none(value)) for name, value in data.get("seen", ())),
            session_digests=tuple((_text(key), _text(value)) for key, value in data.get("session", ())),
        )
        # The names go into an environ, in which variables such as wsgi.input must be our own.
        is_url = {name for name, _ in recipe.raw} <= {*RAW_PATHS} and {name for name, _ in recipe.seen} <= {*URL_VARIABLES}
        if not is_url or not all(_is_of_field(name) for name, _ in (*recipe.fields, *recipe.digests)):
            raise ValueError("a recipe with other names than those of a request")
        return recipe


def _changes(
    arrived: Mapping[str, str | None], environ: Mapping[str, Any], ignored: NamePatterns
) -> tuple[tuple[str, str | None], ...]:
    """Return the URL variables that middleware has changed since a request arrived."""
    before, after = (
        {**variables, "QUERY_STRING": ignored.split(variables["QUERY_STRING"] or "")[0]}
        for variables in (arrived, url_variables(environ))
    )
    return tuple((name, value) for name, value in after.items() if value != before[name])


def _is_of_field(name: str) -> bool:
    return name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a recipe is made of strings, not of {type(value).__name__}")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _field_name(variable: str) -> str:
    return field_of(variable) or variable


def _with_query(raw: str, query: str) -> str:
    path = raw.partition("?")[0]
    return f"{path}?{query}" if query else path
