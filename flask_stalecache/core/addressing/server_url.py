"""The URL of a Redis or Valkey server: it is checked, and its secret parts are kept out of logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from ...errors import ConfigError
from ..formatting import printable

#: Schemes that redis-py or valkey-py supports.
SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")

#: Parameters of the query that change how the server is reached, but not how this package uses the connection.
_PARAMETERS = frozenset((
    "db", "username", "password", "protocol", "client_name", "health_check_interval", "socket_keepalive",
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname",
))  # fmt: skip
_CERTIFICATES = ("required", "optional", "none")
_TIMEOUTS = frozenset(("socket_timeout", "socket_connect_timeout", "timeout"))


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """The URL of a server. Its text has no user, password or query.

    :param url: the whole URL.
    :param where: the URL for people.
    """

    url: str = field(repr=False)
    where: str

    def __str__(self) -> str:
        return self.where

    @property
    def scheme(self) -> str:
        """The scheme, in lower case."""
        return urlsplit(self.url).scheme

    @classmethod
    def of(cls, name: str, url: str) -> ServerUrl:
        """Return a URL after checking it.

        :param name: the setting or parameter that has the URL, for errors.
        :raises ConfigError: if no server can be reached by the URL. The error text contains no password.
        """
        try:
            parts = urlsplit(url)
            place, _ = parts.netloc.rpartition("@")[2], parts.port
        except ValueError:
            raise ConfigError(f"{name}: give a URL such as 'redis://127.0.0.1:6379/0'; a password is percent-encoded") from None
        if parts.scheme not in SCHEMES:
            raise ConfigError(f"{name}='{printable(parts.scheme)}://…': give a URL that begins with one of {_listed(SCHEMES)}")
        where = printable(f"{parts.scheme}://{place}{parts.path.rpartition('@')[2]}")
        if parts.scheme == "unix" and not parts.path.strip("/"):
            raise ConfigError(f"{name}={where!r}: give the path of the socket, such as 'unix:///run/valkey.sock'")
        if parts.scheme != "unix" and not parts.hostname:
            raise ConfigError(f"{name}={where!r}: give the name of the host, such as 'redis://127.0.0.1:6379/0'")
        if parts.scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdecimal():
            raise ConfigError(f"{name}={where!r}: the path is the number of the database, such as '/0'")
        if parts.fragment:
            raise ConfigError(f"{name}={where!r}: write '#' as '%23' in a password, or leave it out")
        for parameter, value in parse_qsl(parts.query, keep_blank_values=True):
            _check_parameter(name, where, parameter, value)
        return cls(url, where)


def _check_parameter(name: str, where: str, parameter: str, value: str) -> None:
    if parameter in _TIMEOUTS:
        raise ConfigError(f"{name}={where!r}: {parameter} has no effect in the URL: set STALECACHE_SHARED_TIMEOUT, or timeout=")
    if parameter not in _PARAMETERS:
        raise ConfigError(
            f"{name}={where!r} has an unknown parameter {printable(parameter)!r}: "
            "leave it out, or give RedisStore() a function that returns a client"
        )
    if parameter == "ssl_cert_reqs" and value not in _CERTIFICATES:
        raise ConfigError(f"{name}={where!r}: ssl_cert_reqs is one of {', '.join(_CERTIFICATES)}")
    if parameter == "db" and not value.isdecimal():
        raise ConfigError(f"{name}={where!r}: db is the number of the database, such as db=0")


def _listed(schemes: tuple[str, ...]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes)
