"""The attributes of a new request object, as Werkzeug's constructor sets them.

The constructor makes six calls and sets six properties of ours, which takes a tenth of a hit. So a request object of the usual kind
gets the attributes at once. That they are the same is checked when the class is made: another version of Werkzeug, or an app's own
class, may set others.
"""

from __future__ import annotations

from inspect import getattr_static
from typing import Any

#: Requests that take each branch of Werkzeug's constructor.
_SAMPLES: tuple[dict[str, Any], ...] = (
    {},
    {
        "REQUEST_METHOD": "get",
        "SCRIPT_NAME": "/a/",
        "PATH_INFO": "//b",
        "QUERY_STRING": "c=%C3%A4",
        "REMOTE_ADDR": "192.0.2.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "https",
        "HTTP_COOKIE": "d=e",
    },
    {"SCRIPT_NAME": "/\xc3\xa4", "PATH_INFO": "\xc3\xb6/\xff", "SERVER_NAME": "/run/socket", "SERVER_PORT": ""},
    {"SCRIPT_NAME": None, "PATH_INFO": None, "SERVER_NAME": "host", "SERVER_PORT": None},
)


def initial_state(environ: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the request object of an environ, apart from ``environ`` itself.

    :raises UnicodeEncodeError: for an environ that violates PEP 3333, as Werkzeug does.
    """
    get = environ.get
    root, path, query = get("SCRIPT_NAME") or "", get("PATH_INFO") or "", get("QUERY_STRING", "")
    if not root.isascii():
        root = _decoded(root)
    if not path.isascii():
        path = _decoded(path)
    if not query.isascii():
        query.encode("latin1")
    name, port = get("SERVER_NAME"), get("SERVER_PORT")
    try:
        port = int(port)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        # A Unix socket.
        port = None
    return {
        "method": get("REQUEST_METHOD", "GET").upper(),
        "scheme": get("wsgi.url_scheme", "http"),
        "server": None if name is None else (name, port),
        "root_path": root.rstrip("/"),
        "path": "/" + path.lstrip("/"),
        "shallow": False,
    }


def _decoded(text: str) -> str:
    return text.encode("latin1").decode(errors="replace")


def sets_initial_state(kind: type[Any]) -> bool:
    """Whether the constructor of a class of requests sets what :func:`initial_state` returns, and nothing else."""
    made_by: tuple[object, object] = (kind.__new__, kind.__setattr__)
    if made_by != (object.__new__, object.__setattr__):
        return False
    own = initial_state({}).keys() - {"server"}
    if any(hasattr(getattr_static(kind, name, None), "__set__") for name in own):
        return False
    return all(_is_set(kind, sample) for sample in _SAMPLES)


def _is_set(kind: type[Any], sample: dict[str, Any]) -> bool:
    environ = sample.copy()
    try:
        request = kind(environ)
    except Exception:
        # The app's own class may need more of a request than a sample has.
        return False
    state = vars(request).copy()
    state.pop("environ", None)
    return state == initial_state(sample) and environ == {**sample, "werkzeug.request": request}
