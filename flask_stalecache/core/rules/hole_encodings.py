"""The encoding of a hole's mark on its way into a body, so that each visitor's result is encoded in the same way. Pure.

A mark begins with characters that each encoding writes in its own way. The encoding is recognised from the text in the body:
one or two of these steps, and a charset. A mark that was written in any other way is not recognised, and its page is not stored.

==============  ========================================================
``html``        ``markupsafe.escape``, as templates do
``html.escape`` the standard library's
``xml``         the same without quotes
``json``        ``json.dumps``, within its quotes; ``json-raw`` without ``ensure_ascii``
``tojson``      Flask's and Jinja's filter; ``tojson-raw`` likewise
``json-tag``    ``json.dumps`` with ``</`` as ``<\\/``
``url …``       percent-encoded, except for the named characters
==============  ========================================================
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from urllib.parse import quote, quote_plus

from markupsafe import escape

#: Characters that each encoding writes in its own way.
PROBES = "\u2039\"\u00e9'&% \n</\\>#+=?:;"
#: The encoding of a text that stands in the body as it is.
AS_IT_IS = ""

_TO_JSON = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"}


def _html(text: str) -> str:
    # escape() returns a Markup unchanged.
    return str(escape(text))


def _json(text: str, *, is_ascii: bool, others: Mapping[str, str] = {}) -> str:
    written = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
    for sign, instead in others.items():
        written = written.replace(sign, instead)
    return written


_STEPS: dict[str, Callable[[str], str]] = {
    "html": _html,
    "html.escape": html.escape,
    "xml": partial(html.escape, quote=False),
    "json": partial(_json, is_ascii=True),
    "json-raw": partial(_json, is_ascii=False),
    "tojson": partial(_json, is_ascii=True, others=_TO_JSON),
    "tojson-raw": partial(_json, is_ascii=False, others=_TO_JSON),
    "json-tag": partial(_json, is_ascii=True, others={"</": "<\\/"}),
    "json-tag-raw": partial(_json, is_ascii=False, others={"</": "<\\/"}),
    "url": partial(quote, safe=""),
    "url /": partial(quote, safe="/"),
    "url form": quote_plus,
    # Werkzeug's url_for: parameters, and parts of the path.
    "url parameter": partial(quote_plus, safe="!$'()*,/:;?@"),
    "url part": partial(quote, safe="!$&'()*+,/:;=@"),
}
_CHARSETS: dict[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode("utf-8", "surrogatepass"),
    "latin-1": lambda text: text.encode("latin-1", "xmlcharrefreplace"),
    "ascii": lambda text: text.encode("ascii", "xmlcharrefreplace"),
}


def encode(text: str, encoding: str) -> bytes:
    """Return a text as it stands in a body.

    :param text: the text, or a ``Markup``.
    :param encoding: as :func:`recognised` returns it.
    :raises LookupError: if there is no such encoding.
    """
    return encoder(encoding)(text)


@lru_cache(maxsize=1024)
def encoder(encoding: str) -> Callable[[str], bytes]:
    """Return the function that writes texts in an encoding.

    :raises LookupError: if there is no such encoding.
    """
    written, _, charset = encoding.rpartition("|")
    names = written.split(",") if written else []
    steps, into = [_STEPS[name] for name in names], _CHARSETS[charset or "utf-8"]
    if names == ["html"]:
        # Nearly all holes have this encoding.
        return lambda text: into(escape(text))
    is_html = [name == "html" for name in names]

    def write(text: str) -> bytes:
        for step, keeps_markup in zip(steps, is_html, strict=True):
            # The methods of a Markup escape their arguments.
            text = step(text if keeps_markup else str(text))
        return into(str(text))

    return write


def is_encoding(encoding: str) -> bool:
    """Whether this version knows an encoding."""
    steps, _, charset = encoding.rpartition("|")
    return (charset or "utf-8") in _CHARSETS and all(step in _STEPS for step in (steps.split(",") if steps else ()))


@lru_cache(maxsize=1)
def _forms() -> tuple[dict[bytes, str], tuple[int, ...]]:
    """Return the probes in all encodings, and the lengths of them, the longest first."""
    steps = [AS_IT_IS, *_STEPS, *(f"{first},{second}" for first in _STEPS for second in _STEPS)]
    forms: dict[bytes, str] = {}
    for charset in _CHARSETS:
        for step in steps:
            encoding = f"{step}|{charset}" if charset != "utf-8" else f"{step}|"
            # The encoding with fewer steps comes first.
            forms.setdefault(encode(PROBES, encoding), encoding)
    return forms, tuple(sorted({len(form) for form in forms}, reverse=True))


def recognised(before: bytes) -> tuple[str, int] | None:
    """Return the encoding of the probes at the end of some bytes, and their length; ``None`` if they were altered."""
    forms, lengths = _forms()
    for length in lengths:
        encoding = forms.get(before[-length:])
        if encoding is not None:
            return encoding, length
    return None
