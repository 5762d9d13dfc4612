"""Parses sitemaps and sitemap indexes (sitemaps.org). Pure."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from xml.parsers import expat

from ..errors import ConfigError

#: The maximum size of an uncompressed sitemap in bytes, as the protocol sets it.
MAX_BYTES = 52_428_800
_GZIP = b"\x1f\x8b"


@dataclass(slots=True)
class Sitemap:
    """The contents of a sitemap.

    :ivar urls: URLs of pages.
    :ivar sitemaps: URLs of other sitemaps, if it is an index.
    """

    urls: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)


def read_sitemap(data: bytes, where: str) -> Sitemap:
    """Parse a sitemap.

    :param data: its bytes, which may be compressed with gzip.
    :param where: its path or URL, for the error.
    :raises ConfigError: if it is not a sitemap.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    # A sitemap needs no declarations, and entities could expand without limit ("billion laughs").
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(_unpacked(data), True)
    except (expat.ExpatError, zlib.error, _NoSitemapError) as error:
        raise ConfigError(f"{where} is no sitemap: {error}") from None
    return reader.sitemap


class _NoSitemapError(Exception):
    """The data is not a sitemap."""


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
    """Collects the URLs of a sitemap from expat's events."""

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
        # The extensions for images and videos have deeper loc elements.
        url = "".join(self._text).strip()
        if url and self._path == ["urlset", "url", "loc"]:
            self.sitemap.urls.append(url)
        elif url and self._path == ["sitemapindex", "sitemap", "loc"]:
            self.sitemap.sitemaps.append(url)
        self._path.pop()
        self._text.clear()
