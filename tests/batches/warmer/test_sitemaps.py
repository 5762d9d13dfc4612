"""Warming: sitemaps. Covers ``batches.sitemap``."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Response, abort

from flask_stalecache import ConfigError
from flask_stalecache.batches.sitemap import MAX_BYTES, read_sitemap
from support.warm_site import HERE, Site, stored

XMLNS = "http://www.sitemaps.org/schemas/sitemap/0.9"


def sitemap(*urls: str, root: str = "urlset", item: str = "url") -> bytes:
    listed = "".join(f"<{item}><loc> {url} </loc><lastmod>2026-11-24</lastmod></{item}>" for url in urls)
    return f'<?xml version="1.0" encoding="UTF-8"?><{root} xmlns="{XMLNS}">{listed}</{root}>'.encode()


def index(*urls: str) -> bytes:
    return sitemap(*urls, root="sitemapindex", item="sitemap")


@pytest.fixture
def serve(site: Site) -> dict[str, bytes]:
    """The sitemaps that the app serves below ``/sitemaps/``, by their names."""
    files: dict[str, bytes] = {}

    @site.app.get("/sitemaps/<name>")
    def give(name: str) -> Response:
        return Response(files[name], content_type="application/xml") if name in files else abort(404)

    return files


NEWS = {"/news/1", "/news/2"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", [str, Path], ids=["text", "path"])
def test_a_sitemap_file_is_followed(site: Site, tmp_path: Path, pack: Callable[[bytes], bytes], kind: type) -> None:
    path = tmp_path / ("sitemap.xml.gz" if pack is gzip.compress else "sitemap.xml")
    path.write_bytes(pack(sitemap(f"{HERE}/news/1", "https://shop.example/news/2")))
    assert stored(site.warm(kind(path))) == NEWS


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("start", ["", HERE])
def test_a_sitemap_of_the_app_is_followed(site: Site, serve: dict[str, bytes], pack: Callable[[bytes], bytes], start: str) -> None:
    serve["all.xml"] = index(f"{HERE}/sitemaps/news.xml.gz", f"{HERE}/sitemaps/all.xml", f"{HERE}/sitemaps/empty.xml")
    serve["news.xml.gz"] = pack(sitemap(f"{HERE}/news/1", f"{HERE}/news/2", f"{HERE}/news/1"))
    serve["empty.xml"] = sitemap()
    batch = site.warm(f"{start}/sitemaps/all.xml")
    assert (stored(batch), batch.found) == (NEWS, 2)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no element found"),
        (b"<html><body>404</body></html>", "its root is html, and not urlset or sitemapindex"),
        (b"/news/1\n/news/2\n", "not well-formed"),
        (b'{"urls": []}', "not well-formed"),
        (sitemap(f"{HERE}/news/1")[:-5], "unclosed token"),
        (b'<!DOCTYPE urlset [<!ENTITY a "aaaa">]>' + sitemap(f"{HERE}/&a;").partition(b"?>")[2], "it has a DOCTYPE"),
        (b'<!DOCTYPE urlset SYSTEM "http://evil.example/x"><urlset/>', "it has a DOCTYPE"),
        (b"<urlset><url><loc>&b;</loc></url></urlset>", "undefined entity"),
        (gzip.compress(sitemap(f"{HERE}/news/1"))[:-12], "it is cut"),
        (gzip.compress(b"", mtime=0)[:12] + b"\xff\xff", ""),
        (b"\x1f\x8b but not packed", "compression method"),
    ],
    # Given explicitly: the packed bytes contain the current time, so ids made from them would change.
    ids=[
        "nothing",
        "HTML",
        "lines",
        "JSON",
        "cut",
        "a DOCTYPE with an entity",
        "a DOCTYPE elsewhere",
        "an unknown entity",
        "packed and cut",
        "a packed head",
        "not packed",
    ],
)
def test_what_is_no_sitemap_is_said_in_one_line(
    site: Site, tmp_path: Path, serve: dict[str, bytes], data: bytes, said: str
) -> None:
    path = tmp_path / "sitemap.xml"
    path.write_bytes(data)
    told = site.refused(str(path))
    assert told.startswith(f"{path} is no sitemap: ")
    assert said in told
    serve["bad.xml"] = data
    serve["all.xml"] = index(f"{HERE}/sitemaps/bad.xml")
    assert f"{HERE}/sitemaps/bad.xml is no sitemap: " in site.refused("/sitemaps/all.xml")


def test_what_a_sitemap_lists_is_checked_before_anything_is_asked(site: Site, tmp_path: Path, serve: dict[str, bytes]) -> None:
    path = tmp_path / "sitemap.xml"
    for url, said in [("http://other.example/", "of another host"), ("mailto:me@shop.example", "is no URL")]:
        path.write_bytes(sitemap(f"{HERE}/news/1", url))
        assert said in site.refused(path)
        path.write_bytes(index(url))
        assert said in site.refused(path)
    assert "there is no such file" in site.refused("missing.xml")
    assert site.refused(Path("/missing/sitemap.xml")).endswith("can't be had: '404 NOT FOUND'")
    assert f"the sitemap {HERE}/sitemaps/none.xml can't be had: '404 NOT FOUND'" in site.refused("/sitemaps/none.xml")


def test_sitemaps_are_followed_so_deep_and_no_deeper(site: Site, serve: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        serve[f"{number}.xml"] = index(f"{HERE}/sitemaps/{number + 1}.xml")
    assert "lists more sitemaps than are followed: 1000, 3 deep" in site.refused("/sitemaps/0.xml")
    assert len([path for path in site.asked if path.endswith(".xml")]) == 3
    serve["3.xml"] = sitemap(f"{HERE}/news/1")
    assert stored(site.warm("/sitemaps/1.xml")) == {"/news/1"}
    monkeypatch.setattr("flask_stalecache.batches.warmer.MAX_SITEMAPS", 2)
    assert "lists more sitemaps than are followed" in site.refused("/sitemaps/1.xml")
    monkeypatch.setattr("flask_stalecache.batches.warmer.MAX_URLS", 1)
    serve["2.xml"] = sitemap(f"{HERE}/news/1", f"{HERE}/news/2")
    assert "lists more than 1 URLs: warm its parts" in site.refused("/sitemaps/2.xml")


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(ConfigError, match=r"^bomb is no sitemap: it has more than 52428800 bytes$"):
        read_sitemap(gzip.compress(bytes(MAX_BYTES + 1)), "bomb")


def test_only_the_pages_of_a_sitemap_are_read_from_it() -> None:
    data = f"""
    <urlset xmlns="{XMLNS}" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
      <url><loc>/a&amp;b</loc><image:image><image:loc>/image.png</image:loc></image:image></url>
      <url><loc><![CDATA[/c]]></loc></url><url><loc/></url><url/>
    </urlset>"""
    assert read_sitemap(data.strip().encode(), "it").urls == ["/a&b", "/c"]
    assert read_sitemap(data.strip().encode("utf-16"), "it").urls == ["/a&b", "/c"]
