"""Sends the requests of ``warm`` to the app."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from ..core.addressing.base_url import Address, Base
from ..core.addressing.keys import FORWARDED_FIELDS
from ..core.addressing.recipe import PageRecipe
from ..core.model.environ import environ_name
from ..errors import ConfigError
from .batch import Outcome
from .fronts import Fronts
from .sitemap import MAX_BYTES, read_sitemap
from .warm_call import WarmCall
from .warm_elsewhere import WarmElsewhere

_FORWARDED = frozenset(map(environ_name, FORWARDED_FIELDS))
#: Limits of sitemaps: levels of nesting, number of sitemaps, and total number of URLs.
MAX_DEPTH, MAX_SITEMAPS, MAX_URLS = 3, 1000, 1_000_000


#: A URL, a path, a pair of endpoint and values, or a sitemap; or several URLs, paths and pairs.
Urls: TypeAlias = "str | os.PathLike[str] | tuple[str, Mapping[str, Any]] | Iterable[str | tuple[str, Mapping[str, Any]]]"


@dataclass(frozen=True, slots=True)
class Warmer:
    """Sends requests without cookies to an app in this process, or has the worker of the host send them.

    :param call: sends them in this process.
    :param elsewhere: has the worker send them; ``None``: they are sent in this process.
    :param base: its base URL; ``None`` if it is not known: then each full URL determines it.
    :param unknown_base: why a path can't be warmed without a base URL, and what to write.
    :param root: the script root, as in the environ, for full URLs without a base URL.
    :param fields: request fields to send, as in an environ.
    :param with_raw: whether its server passes on the raw path of the request.
    :param force: refresh fresh entries too.
    :param path_of: returns the path or URL for an endpoint and its values; ``None``: the app has no endpoints.
    :param fronts: finds how requests for a host arrive.
    """

    call: WarmCall
    elsewhere: WarmElsewhere | None
    fronts: Fronts
    base: Base | None
    unknown_base: str
    root: str
    fields: dict[str, str]
    with_raw: bool
    force: bool
    path_of: Callable[[str, Mapping[str, Any]], str] | None

    def tasks(self, urls: object) -> list[WarmTask]:
        """Return one task for each URL.

        :param urls: a URL, a path, a pair of endpoint and values, or a sitemap; or an iterable of URLs, paths and pairs.
        :raises ConfigError: for an invalid URL or sitemap, or a URL of another host.
        """
        addresses = {address.url: address for address in self._addresses(urls)}
        return [WarmTask(self, address) for address in addresses.values()]

    def _addresses(self, urls: object) -> Iterator[Address]:
        if isinstance(urls, os.PathLike) or (isinstance(urls, str) and _is_sitemap(urls)):
            yield from self._in_sitemap(os.fspath(urls))
        elif isinstance(urls, str) or _is_pair(urls):
            yield self._address(urls)
        elif isinstance(urls, Iterable) and not isinstance(urls, (bytes, Mapping)):
            yield from map(self._address, urls)
        else:
            raise ConfigError(f"urls={urls!r}: give a URL, a sitemap, or a list of URLs, paths and pairs of endpoint and values")

    def _address(self, item: object) -> Address:
        if not _is_pair(item):
            return (self._front_base_of(item) or self._base_of(item)).address(item)
        if self.base is None:
            raise ConfigError(self.unknown_base)
        if self.path_of is None:
            raise ConfigError(f"{item!r} is no URL: the app has no endpoints; give a path or a full URL")
        return self.base.address(self.path_of(*item))

    def _base_of(self, url: object) -> Base:
        """Return the base URL of the app, or else that of a full URL."""
        base = self.base or Base.of_url(url, self.root)
        if base is None:
            raise ConfigError(self.unknown_base)
        return base

    def _front_base_of(self, url: object) -> Base | None:
        """Return the base URL of a full URL of another host, if stored pages show how requests for that host arrive."""
        host = Base.of_url(url)
        if self.base is None or host is None or host.host == self.base.host or self._says_how or self.fronts.of(host) is None:
            return None
        return host

    @property
    def _says_how(self) -> bool:
        """Whether the caller's request fields determine how requests arrive."""
        return not _FORWARDED.isdisjoint(self.fields)

    # -- sitemaps ------------------------------------------------------------------------------------------------

    def _in_sitemap(self, where: str) -> Iterator[Address]:
        """Yield the URLs in a sitemap and in the sitemaps that it lists. All sitemaps are read before the first warming request."""
        # A sitemap of the app lists pages of its own host.
        base = self.base or Base.of_url(where, self.root)
        todo, known, count = [(where, self._read(where), 1)], {where}, 0
        while todo:
            name, data, depth = todo.pop()
            sitemap = read_sitemap(data, name)
            count += len(sitemap.urls)
            if count > MAX_URLS:
                raise ConfigError(f"{where} lists more than {MAX_URLS} URLs: warm its parts")
            yield from ((base or self._base_of(url)).address(url) for url in sitemap.urls)
            for url in sitemap.sitemaps:
                if depth == MAX_DEPTH or len(known) == MAX_SITEMAPS:
                    raise ConfigError(f"{name} lists more sitemaps than are followed: {MAX_SITEMAPS}, {MAX_DEPTH} deep")
                if url not in known:
                    known.add(url)
                    todo.append((url, self._fetched(url), depth + 1))

    def _read(self, where: str) -> bytes:
        if "://" not in where and Path(where).is_file():
            with Path(where).open("rb") as file:
                return file.read(MAX_BYTES + 1)
        if "://" in where or where.startswith("/"):
            return self._fetched(where)
        raise ConfigError(f"{where} is no sitemap: there is no such file")

    def _fetched(self, url: str) -> bytes:
        """Request a sitemap from the app, and return its bytes."""
        address = self._base_of(url).address(url)
        reply = self.call.ask(self.recipe(address), self.fields, None, MAX_BYTES)
        if reply.error is not None or reply.code != 200:
            raise ConfigError(f"the sitemap {address.url} can't be had: {reply.error or reply.status!r}")
        return reply.body

    # -- requests ------------------------------------------------------------------------------------------------

    def recipe(self, address: Address) -> PageRecipe:
        """Return the request for a URL as it arrives at the app."""
        front = None if self._says_how else self.fronts.of(address.base)
        recipe = None if front is None else front.recipe(address)
        return recipe or address.base.recipe(address, with_raw=self.with_raw)


def checked_flag(name: str, value: object) -> bool:
    """Return a flag, or raise :class:`ConfigError` unless it is a ``bool``."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: give True or False")
    return value


class WarmTask:
    """Warms one URL."""

    def __init__(self, warmer: Warmer, address: Address) -> None:
        self.url = address.url
        self._warmer = warmer
        self._address = address

    def run(self, given_up: Callable[[str], None]) -> Outcome:
        """Request the URL, in the worker of the host if there is one, and else in this process."""
        warmer, recipe = self._warmer, self._warmer.recipe(self._address)
        elsewhere, fields, force = warmer.elsewhere, warmer.fields, warmer.force
        outcome = None if elsewhere is None else elsewhere.warm(self.url, recipe, fields, force=force)
        return outcome or warmer.call.warm(self.url, recipe, fields, force=force)


def _is_sitemap(text: str) -> bool:
    return text.partition("?")[0].lower().endswith((".xml", ".xml.gz"))


def _is_pair(item: object) -> TypeGuard[tuple[str, Mapping[str, Any]]]:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], Mapping)
