"""The base URL of an app, and requests for URLs and paths below it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

from ...errors import ConfigError
from ..model.checks import FIELD_NAME
from ..model.environ import environ_name
from ..model.policy import HOP_BY_HOP
from .purge_names import DEFAULT_PORTS, host_on_the_wire
from .recipe import PageRecipe

#: Characters that browsers send unquoted.
_PATH = "!$%&'()*+,-./:;=@[]^_|~\\"
_QUERY = _PATH + "?`{}"
_NOT_ALLOWED = {
    "cookie": "it is made for visitors without cookies",
    "authorization": "it is made for visitors whom nobody knows",
    "host": "that is what STALECACHE_BASE_URL says",
    "content-length": "it has no body",
    "content-type": "it has no body",
    "range": "the whole is stored",
}


@dataclass(frozen=True, slots=True)
class Address:
    """One URL of an app.

    :param url: the full URL.
    :param path: the path below the script root, as in the environ: its bytes as latin-1.
    :param query: the query as received.
    :param raw: path and query as received.
    :param base: the base URL of the app that it belongs to.
    """

    url: str
    path: str
    query: str
    raw: str
    base: Base


@dataclass(frozen=True, slots=True)
class Base:
    """The base URL of an app, as its server sees it.

    :param scheme: ``http`` or ``https``.
    :param host: the host, with the port unless that is the default of the scheme.
    :param root: the script root, as in the environ.
    """

    scheme: str
    host: str
    root: str

    @classmethod
    def of(cls, name: str, value: object) -> Base:
        """Return the base URL from a setting.

        :param name: the name of the setting, for the error text.
        :raises ConfigError: if it is not a full ``http`` or ``https`` URL, or has a query, fragment or user.
        """
        example = "give a full URL such as 'https://shop.example', with the path below which the app is if there is one"
        if not isinstance(value, str):
            raise ConfigError(f"{name}={value!r}: {example}")
        try:
            parts = urlsplit(value)
            host = host_on_the_wire(parts)
        except ValueError as error:
            raise ConfigError(f"{name}={value!r}: {error}") from None
        is_more = parts.query or parts.fragment or "?" in value or "#" in value or "@" in parts.netloc
        if parts.scheme not in DEFAULT_PORTS or not host or is_more or any(char.isspace() for char in value):
            raise ConfigError(f"{name}={value!r}: {example}")
        return cls(parts.scheme, _short(parts.scheme, host), _decoded(parts.path.rstrip("/")))

    @classmethod
    def of_url(cls, url: object, root: str = "") -> Base | None:
        """Return the base URL of an app by the full URL of one of its pages; ``None`` for anything else.

        :param root: the script root, as in the environ.
        """
        try:
            parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
            host = host_on_the_wire(parts)
        except ValueError:
            return None
        if parts.scheme not in DEFAULT_PORTS or not host or "@" in parts.netloc:
            return None
        return cls(parts.scheme, _short(parts.scheme, host), root)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{quote(self.root.encode('latin-1'), safe=_PATH)}"

    def address(self, url: object) -> Address:
        """Return the address of a URL or path of the app. The scheme is ignored, since a proxy may terminate TLS.

        :raises ConfigError: if it is neither a URL nor a path, or has another host, or is not below the script root.
        """
        if not isinstance(url, str):
            raise ConfigError(
                f"{url!r} is no URL: give a path such as '/news?page=2', a full URL, or a pair of endpoint and values"
            )
        try:
            parts = urlsplit(url)
            host = host_on_the_wire(parts)
        except ValueError as error:
            raise ConfigError(f"{url!r} is no URL: {error}") from None
        if parts.scheme in DEFAULT_PORTS and host:
            if _short(parts.scheme, host) != self.host:
                raise ConfigError(f"{url!r} is of another host than the app, which is at {self}")
        elif not url.startswith("/") or url.startswith("//"):
            raise ConfigError(f"{url!r} is no URL: give a path that begins with '/', or a full URL such as '{self}/news'")
        return self._address(quote(parts.path or "/", safe=_PATH), quote(parts.query, safe=_QUERY))

    def _address(self, raw: str, query: str) -> Address:
        path = _decoded(raw)
        if self.root and path != self.root and not path.startswith(f"{self.root}/"):
            raise ConfigError(f"{raw!r} is not below {self}, where the app is: give the path as visitors see it")
        where = f"{raw}?{query}" if query else raw
        return Address(f"{self.scheme}://{self.host}{where}", path.removeprefix(self.root), query, where, self)

    def recipe(self, address: Address, *, with_raw: bool = True) -> PageRecipe:
        """Return the request for a URL, from a visitor without cookies.

        :param with_raw: the server provides the raw path, as most do.
        """
        name, colon, port = self.host.rpartition(":")
        if not colon or not port.isdigit():
            name, port = self.host, DEFAULT_PORTS[self.scheme].removeprefix(":")
        return PageRecipe(
            scheme=self.scheme,
            server=(name, port),
            script_root=self.root,
            path=address.path,
            query=address.query,
            raw=(("RAW_URI", address.raw),) if with_raw else (),
            fields=(("HTTP_HOST", self.host),),
        )


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode("latin-1")


def _short(scheme: str, host: str) -> str:
    # RFC 9110 section 4.2.3. Browsers omit the default port of the scheme.
    return host.lower().removesuffix(DEFAULT_PORTS[scheme])


def environ_fields(headers: object) -> dict[str, str]:
    """Return request fields in the form of an environ.

    :raises ConfigError: for invalid fields, and for fields that make no sense in a request of ours.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigError(f"headers={headers!r}: give a mapping, such as {{'X-Forwarded-Proto': 'https'}}")
    fields = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not FIELD_NAME.fullmatch(name):
            raise ConfigError(f"headers contain {name!r}: give names of request fields, such as 'Accept-Language'")
        reason = "it is between two hops" if name.lower() in HOP_BY_HOP else _NOT_ALLOWED.get(name.lower())
        if reason or name.lower().startswith("if-"):
            raise ConfigError(f"headers contain {name!r}: leave it out, since {reason or 'the whole is stored'}")
        if not isinstance(value, str) or any(char in value for char in "\r\n\0"):
            raise ConfigError(f"headers[{name!r}]={value!r}: give a string in one line")
        # WSGI represents the bytes of a field as latin-1 (PEP 3333).
        fields[environ_name(name)] = value.encode().decode("latin-1")
    return fields
