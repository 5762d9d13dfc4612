"""A browser without a window: it keeps cookies, follows redirects, and sends forms with the token that it found in them."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlencode

import brotli
from werkzeug.test import run_wsgi_app

Wsgi: TypeAlias = "Callable[[dict[str, Any], Any], Iterable[bytes]]"

HOST = "site.example"
#: Fields that a cache may add or change, or that only say how the same content came.
_OURS = frozenset({"age", "date", "cache-status", "x-cache-status", "vary", "etag", "last-modified", "accept-ranges", "set-cookie"})
#: What differs from answer to answer by its nature: signed tokens, Django's masked ones, and nonces.
_TOKEN = re.compile(r'(name="csrf-?\w*" (?:type="hidden" )?(?:value|content)=")([^"]+)')
_NONCE = re.compile(r"""(nonce-|nonce=["'])[\w-]+={0,2}""")
_LENGTH = "content-length"
_MOVED = (301, 302, 303, 307, 308)


class Answer(NamedTuple):
    """What a visitor is answered.

    :ivar body: the body, without the tokens and nonces that differ from answer to answer.
    :ivar fields: the other response fields, without those that a cache may add or change.
    :ivar cookies: names of the cookies that are set or removed, apart from the session's.
    :ivar word: ``X-Cache-Status``.
    :ivar detail: ``Cache-Status``.
    :ivar token: the token in the first form.
    """

    status: int
    body: str
    fields: tuple[tuple[str, str], ...]
    cookies: tuple[tuple[str, bool], ...]
    vary: frozenset[str]
    word: str
    detail: str
    token: str
    location: str

    @property
    def content(self) -> tuple[object, ...]:
        """What must be equal with and without a cache."""
        return self.status, self.body, self.fields, self.cookies


class Browser:
    """The browser of one visitor of one site.

    :param wsgi: the site.
    :param fields: request fields that it always sends, as in the environ.
    :param session_cookie: the name of the cookie with the session.
    :ivar cookies: those that it keeps, also what other sites of the domain have left.
    """

    def __init__(self, wsgi: Wsgi, fields: Mapping[str, str], session_cookie: str, cookies: Mapping[str, str]) -> None:
        self.wsgi = wsgi
        self.cookies = dict(cookies)
        self._fields = fields
        self._session_cookie = session_cookie

    def get(self, path: str) -> Answer:
        """Open a page."""
        return self._send(self._environ("GET", path))

    def post(self, path: str, data: Mapping[str, str]) -> Answer:
        """Send a form."""
        body = urlencode(data).encode()
        environ = self._environ("POST", path)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
        # Flask-WTF and Django look whether a form that comes by TLS comes from the site itself.
        environ["HTTP_REFERER"] = f"https://{HOST}{path}"
        return self._send(environ)

    def _environ(self, method: str, path: str) -> dict[str, Any]:
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": HOST,
            "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": HOST, "REMOTE_ADDR": "192.0.2.7",
            "wsgi.version": (1, 0), "wsgi.url_scheme": "https", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True, "wsgi.multiprocess": True, "wsgi.run_once": False, **self._fields,
        }  # fmt: skip
        if self.cookies:
            environ["HTTP_COOKIE"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return environ

    def _send(self, environ: dict[str, Any]) -> Answer:
        iterable, status, headers = run_wsgi_app(self.wsgi, environ)  # type: ignore[arg-type]
        try:
            sent = b"".join(iterable)
        finally:
            getattr(iterable, "close", lambda: None)()
        raw = _unpacked(sent, headers.get("Content-Encoding", "")).decode()
        cookies = sorted(pair for line in headers.getlist("Set-Cookie") for pair in self._keep(line))
        token = _TOKEN.search(raw)
        body = _plain(raw)
        fields = {(name.lower(), _plain(value)) for name, value in headers if name.lower() not in _OURS}
        # A cache sends this with each page with holes.
        fields.discard(("cache-control", "private, no-cache"))
        if body != raw:
            # The length depends on the tokens and nonces.
            fields = {(name, value) for name, value in fields if name != _LENGTH}
        vary = {name.strip().lower() for line in headers.getlist("Vary") for name in line.split(",")}
        code = int(status[:3])
        return Answer(
            code, body, tuple(sorted(fields)), tuple(cookies), frozenset(vary - {""}), headers.get("X-Cache-Status", ""),
            headers.get("Cache-Status", ""), token[2] if token else "", headers.get("Location", "") if code in _MOVED else "",
        )  # fmt: skip

    def _keep(self, line: str) -> Iterable[tuple[str, bool]]:
        """Keep a cookie or remove it, as the site says. Yield its name and whether it is kept, unless it is the session's."""
        pair, *attributes = (part.strip() for part in line.split(";"))
        name, _, value = pair.partition("=")
        options = {key.lower(): text for key, _, text in (attribute.partition("=") for attribute in attributes)}
        removes = options.get("max-age") == "0" or ("expires" in options and parsedate_to_datetime(options["expires"]).year < 2000)
        # To remove a cookie that the browser does not have makes no difference; Flask-Login does that.
        changes = not removes or name in self.cookies
        if removes:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value
        if changes and name != self._session_cookie:
            yield name, not removes


def _unpacked(sent: bytes, coding: str) -> bytes:
    """Return a body as the site has written it."""
    if coding == "br":
        return brotli.decompress(sent)  # type: ignore[no-any-return]
    return gzip.decompress(sent) if coding == "gzip" else zlib.decompress(sent) if coding == "deflate" else sent


def _plain(text: str) -> str:
    return _NONCE.sub(r"\1N", _TOKEN.sub(r"\1T", text))
