"""The place of a caller, which the URLs in a value are relative to. The parts of it that a value depends on are observed.

============= ======================================== ================================================================
in the key    what it is                               if the function
============= ======================================== ================================================================
``host``      scheme, host and subdomain               built a full URL, or any URL if rules depend on hosts
``mount``     the script root                          built any URL
``blueprint`` the blueprint of the request             built the URL of an endpoint such as ``.show``
``request``   whether there is a request               left open whether a URL is full
============= ======================================== ================================================================

With ``STALECACHE_BASE_URL`` host and mount are those of that URL, whatever the caller's request says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

from flask import Flask
from werkzeug.routing import BuildError, MapAdapter

from ...core.addressing.base_url import Base
from ...core.model.environ import environ_name
from ...core.remembered import MIB, Remembered
from ...core.rules.variant_index import INDEX, Fields
from ...core.rules.variants import Index, Located, StoragePlace, locate, place_of
from ...errors import StaleCacheError
from ...stores.base import Copy
from ..flask_internals.contexts import outer_context, request_context_variable, request_or_none, url_adapter_of

HOST, MOUNT, BLUEPRINT, REQUEST = "host", "mount", "blueprint", "request"
#: The most characters of host and mount together for which the form in keys is remembered.
_LONG = 200


class CallerPlace(NamedTuple):
    """The place of a caller.

    :ivar host: scheme, host and subdomain; ``None`` if they are unknown.
    :ivar mount: the script root.
    :ivar blueprint: the blueprint of the request; "" for none.
    :ivar in_request: whether there is a request, so that URLs are relative unless the function says otherwise.
    """

    host: tuple[str, str, str] | None = None
    mount: str = "/"
    blueprint: str = ""
    in_request: bool = False

    @classmethod
    def from_json(cls, data: Any) -> CallerPlace:
        """Return the place from the data that :meth:`to_json` returned.

        :raises TypeError: for data of another form; likewise :class:`ValueError`.
        """
        host, mount, blueprint, in_request = data
        if not all(isinstance(each, str) for each in (mount, blueprint, *(host or ()))) or len(host or "123") != 3:
            raise TypeError("a place is made of strings")
        return cls(None if host is None else tuple(host), mount, blueprint, bool(in_request))

    def to_json(self) -> list[Any]:
        """Return the place as data."""
        return list(self)

    @property
    def environ(self) -> Mapping[str, str]:
        """The place in the form of an environ, by which variants are distinguished."""
        is_long = sum(map(len, (*(self.host or ()), self.mount))) > _LONG
        return _environ(self) if is_long else _remembered_environ(self)


def _environ(place: CallerPlace) -> Mapping[str, str]:
    # Quoted, since a comparison of field values ignores whitespace around commas.
    values = {MOUNT: _quoted(place.mount), BLUEPRINT: _quoted(place.blueprint), REQUEST: "yes" if place.in_request else "no"}
    if place.host is not None:
        scheme, name, subdomain = map(_quoted, place.host)
        values[HOST] = f"{scheme}://{name}" + (f" {subdomain}" if subdomain else "")
    return {environ_name(field): value for field, value in values.items()}


_remembered_environ = lru_cache(maxsize=256)(_environ)


def _quoted(text: str) -> str:
    return quote(text, safe="/:[]", errors="surrogatepass")


class ObservedAdapter:
    """Builds the URLs of a place for a call, and observes on which parts of the place they depend.

    It is the URL adapter of the app's context during the call.

    :param app: the app.
    :param place: the place.
    :param label: the function in error messages.
    :param around: the adapter of the call that makes this call: its value depends on the same parts.
    :ivar read: the parts of the place that the URLs depend on.
    """

    __slots__ = ("_adapter", "_app", "_around", "_label", "place", "read")

    def __init__(self, app: Flask, place: CallerPlace, label: str, around: ObservedAdapter | None) -> None:
        self._app = app
        self._label = label
        self._around = around
        self._adapter: MapAdapter | None = None
        self.place = place
        self.read: set[str] = set()

    def note(self, fields: Iterable[str]) -> None:
        """Note that the value depends on parts of the place."""
        self.read.update(fields)
        if self._around is not None:
            self._around.note(self.read)

    def build(self, *args: Any, **kwargs: Any) -> str:
        """Return the URL of an endpoint, as a URL adapter of Werkzeug's does."""
        adapter = self._bound()
        try:
            url = adapter.build(*args, **kwargs)
        except BuildError:
            # An error handler of the app may build the URL otherwise, with the adapter in the exception.
            self.note((HOST, MOUNT))
            raise
        is_full = not url.startswith("/") or url.startswith("//")
        depends = is_full or adapter.map.host_matching or self._app.subdomain_matching
        self.note((HOST, MOUNT) if depends else (MOUNT,))
        return url

    def __getattr__(self, name: str) -> Any:
        self.note((HOST, MOUNT))
        return getattr(self._bound(), name)

    def as_in_request(self, endpoint: str, values: dict[str, Any]) -> str:
        """Return an endpoint as ``url_for`` in the caller's request completes it, and change the parameters likewise."""
        if endpoint.startswith("."):
            self.note((BLUEPRINT, REQUEST))
            if self.place.in_request:
                endpoint = f"{self.place.blueprint}{endpoint}" if self.place.blueprint else endpoint[1:]
        if values.get("_external") is None:
            self.note((REQUEST,))
            if self.place.in_request:
                values["_external"] = values.get("_scheme") is not None
        return endpoint

    def _bound(self) -> MapAdapter:
        """Return an adapter with the place and nothing else of the request."""
        if self._adapter is None:
            if self.place.host is None:
                self.note((HOST, MOUNT))
                raise StaleCacheError(
                    f"{self._label} uses url_for where no request tells the host: set "
                    "STALECACHE_BASE_URL = 'https://shop.example', or SERVER_NAME, or give it the URL as an argument"
                )
            scheme, name, subdomain = self.place.host
            url_map = self._app.url_map
            self._adapter = url_map.bind(name, self.place.mount, None if url_map.host_matching else subdomain, scheme)
        return self._adapter


def observed_adapter(app: Flask) -> ObservedAdapter | None:
    """Return the adapter of the call in whose context this runs; ``None`` outside of calls."""
    context: Any = outer_context()
    adapter = None if context is None or context.app is not app else context.url_adapter
    return adapter if type(adapter) is ObservedAdapter else None


def observe_url_for(endpoint: str, values: dict[str, Any]) -> str:
    """Return the endpoint with which ``url_for`` in a call builds the caller's URL. Outside of calls, it is unchanged.

    :param values: the parameters of ``url_for``, which are changed likewise.
    """
    context: Any = outer_context()
    adapter = None if context is None else context.url_adapter
    # A function may make a request context of its own.
    if type(adapter) is not ObservedAdapter or request_or_none() is not None:
        return endpoint
    return adapter.as_in_request(endpoint, values)


class Places:
    """The places of callers in one app, and of values.

    :param app: the app.
    :param base: the base URL that stands for all hosts, if there is one.
    :param look_up: returns the copy of a key.
    """

    def __init__(self, app: Flask, base: Base | None, look_up: Callable[[str], Copy]) -> None:
        self.look_up = look_up
        self._app = app
        self._base = base
        self._of_base: CallerPlace | None = None
        #: Limited, since visitors choose the hosts.
        self._located: Remembered[tuple[Index, CallerPlace], Located] = Remembered(most=4096, limit=8 * MIB, longest=MIB // 16)

    def of_caller(self) -> CallerPlace:
        """Return the place of the code that calls a function: that of the call in which it runs, else of the request."""
        around = observed_adapter(self._app)
        if around is not None:
            return around.place
        context: Any = None if request_or_none() is None else request_context_variable.get()
        if context is not None and context.app is self._app:
            return self._of(context.url_adapter)._replace(blueprint=context.request.blueprint or "", in_request=True)
        context = outer_context()
        return self._of(context.url_adapter if context is not None and context.app is self._app else None)

    def _of(self, adapter: MapAdapter | None) -> CallerPlace:
        if self._base is None:
            return _of_adapter(adapter)
        if self._of_base is None:
            self._of_base = _of_adapter(url_adapter_of(self._app, self._base))
        return self._of_base

    def locate(self, key: str, place: Callable[[], CallerPlace]) -> Located | None:
        """Return where the value of a call is looked for; ``None`` if nothing is known about its place.

        :param key: the key of the call.
        :param place: returns the place of its caller.
        """
        copy = self.look_up(key)
        if copy.entry is None or copy.entry.status != INDEX:
            return None
        index, here = copy.prepared, place()
        if type(index) is not Index or index.names is None:
            return locate(key, here.environ, self.look_up, time.time())
        located = self._located.get((index, here))
        if located is None:
            located = locate(key, here.environ, self.look_up, time.time())
            self._located.note((index, here), located)
        return located

    def of_value(self, key: str, fields: Fields, place: CallerPlace) -> StoragePlace | None:
        """Return where a value is stored; ``None`` if values for too many places are stored.

        Visitors choose the hosts, so the places are limited. If all are taken, values that are not fresh any more give way.

        :param key: the key of the call.
        :param fields: the parts of the place that it depends on.
        """
        return place_of(key, fields, place.environ.get, self.look_up(key).entry, self._is_fresh)

    def _is_fresh(self, key: str) -> bool:
        entry = self.look_up(key).entry
        return entry is not None and entry.is_fresh(time.time())


def _of_adapter(adapter: MapAdapter | None) -> CallerPlace:
    if adapter is None:
        return CallerPlace()
    return CallerPlace((adapter.url_scheme, adapter.server_name, adapter.subdomain or ""), adapter.script_name)
