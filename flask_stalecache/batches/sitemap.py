"""Sitemaps (sitemaps.org): the URLs in one, or the sitemaps in an index. Pure."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from xml.parsers import expat

from ..errors import ConfigError

#: Bytes that a sitemap may have, unpacked: what the protocol allows.
MAX_BYTES = 52_428_800
_GZIP = b"\x1f\x8b"


@dataclass(slots=True)
class Sitemap:
    """What a sitemap lists.

    :ivar urls: pages.
    :ivar sitemaps: other sitemaps, if it is an index.
    """

    urls: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)


def read_sitemap(data: bytes, where: str) -> Sitemap:
    """Return what a sitemap lists.

    :param data: its bytes; packed with gzip, as they may be.
    :param where: where it is from, for the error.
    :raises ConfigError: if it is none.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    # What it may declare is nothing that a sitemap needs, and entities that expand to no end.
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(_unpacked(data), True)
    except (expat.ExpatError, zlib.error, _NoSitemapError) as error:
        raise ConfigError(f"{where} is no sitemap: {error}") from None
    return reader.sitemap


class _NoSitemapError(Exception):
    """What is read is not a sitemap."""


def _unpacked(data: bytes) -> bytes:
    if data.startswith(_GZIP):
        unpack = zlib.decompressobj(wbits=31)
        data = unpack.decompress(data, MAX_BYTES + 1)
        if len(data) <= MAX_BYTES and not unpack.eof:
            raise _NoSitemapError("it is cut")
    if len(data) > MAX_BYTES:
        raise _NoSitemapError(f"it has more than {MAX_BYTES} bytes")
    return data


def _refuse_doctype(*declared: object) -> None:
    raise _NoSitemapError("it has a DOCTYPE")


class _Reader:
    """Goes through the elements of a sitemap."""

    def __init__(self) -> None:
        self.sitemap = Sitemap()
        self._path: list[str] = []
        self._text: list[str] = []

    def start(self, name: str, attributes: object) -> None:
        local = name.rpartition(" ")[2]
        if not self._path and local not in ("urlset", "sitemapindex"):
            raise _NoSitemapError(f"its root is {local}, and not urlset or sitemapindex")
        self._path.append(local)
        self._text.clear()

    def text(self, data: str) -> None:
        self._text.append(data)

    def end(self, name: str) -> None:
        # Extensions for images and videos have a loc too, further down.
        url = "".join(self._text).strip()
        if url and self._path == ["urlset", "url", "loc"]:
            self.sitemap.urls.append(url)
        elif url and self._path == ["sitemapindex", "sitemap", "loc"]:
            self.sitemap.sitemaps.append(url)
        self._path.pop()
        self._text.clear()
