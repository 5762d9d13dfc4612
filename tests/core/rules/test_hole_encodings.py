from __future__ import annotations

import html
import json
from urllib.parse import quote, quote_plus, urlencode
from xml.sax.saxutils import escape as xml_escape

import pytest
from markupsafe import Markup, escape

from flask_stalecache.core.rules.hole_encodings import PROBES, _forms, encode, is_encoding, recognised

#: Results that would break out of their place in the page if they were encoded in a wrong way.
PAYLOADS = ('</script><script>alert("1")', "'\"><b onload=x>", "\\", "a&b=c#d?e", "é€\u2028", "%3Cb%3E", "a b+c;d", "", "{{ x }}")


def tojson(text: str) -> str:
    from jinja2.utils import htmlsafe_json_dumps

    return str(htmlsafe_json_dumps(text))[1:-1]


WAYS = {
    "as it is": lambda text: text,
    "a template": lambda text: str(escape(text)),
    "twice": lambda text: str(escape(str(escape(text)))),
    "html.escape": html.escape,
    "html.escape, no quotes": lambda text: html.escape(text, quote=False),
    "saxutils": xml_escape,
    "json": lambda text: json.dumps(text)[1:-1],
    "json in utf-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json in a script": lambda text: json.dumps(text).replace("</", "<\\/")[1:-1],
    "tojson": tojson,
    "tojson in an attribute": lambda text: str(escape(tojson(text))),
    "the html of a template in json": lambda text: json.dumps(str(escape(text)))[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "urlencode": lambda text: quote(text),
    "urlencode of a dict": lambda text: quote(text, safe=""),
    "quote_plus": quote_plus,
    "a form": lambda text: urlencode({"q": text})[2:],
    "a link": lambda text: str(escape(quote_plus(text))),
}
CHARSETS = {
    "utf-8": lambda text: text.encode(),
    "latin-1": lambda text: text.encode("latin-1", "xmlcharrefreplace"),
    "ascii": lambda text: text.encode("ascii", "xmlcharrefreplace"),
}


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("way", WAYS)
def test_a_result_is_encoded_as_its_mark_was(way: str, charset: str) -> None:
    def written(text: str) -> bytes:
        return CHARSETS[charset](WAYS[way](text))

    found = recognised(b"before " + written(PROBES))
    assert found is not None
    encoding, length = found
    assert length == len(written(PROBES))
    assert is_encoding(encoding)
    assert [encode(text, encoding) for text in PAYLOADS] == [written(text) for text in PAYLOADS]


@pytest.mark.parametrize(
    "altered",
    [
        PROBES.upper().replace("É", "E"),
        PROBES[1:],
        PROBES[:-1],
        PROBES.replace("<", ""),
        PROBES.replace("<", "\\x3c"),
        PROBES.replace(" ", "&nbsp;"),
        str(escape(PROBES)).replace("&#34;", '"'),
        json.dumps(PROBES)[1:-1].replace("<", "\\u003C"),
        "",
    ],
)
def test_any_other_form_is_altered(altered: str) -> None:
    assert recognised(f"before {altered}".encode()) is None


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-be", "cp1252"])
def test_another_charset_is_altered(charset: str) -> None:
    assert recognised(PROBES.encode(charset)) is None


def test_a_markup_is_not_escaped_again_where_it_is_html() -> None:
    bold = Markup("<b>&amp;</b>")
    assert encode(bold, "html|") == b"<b>&amp;</b>"
    assert encode(bold, "html.escape|") == b"&lt;b&gt;&amp;amp;&lt;/b&gt;"
    assert encode(bold, "tojson|") == b"\\u003cb\\u003e\\u0026amp;\\u003c/b\\u003e"
    assert encode(bold, "html,html|") == b"&lt;b&gt;&amp;amp;&lt;/b&gt;"


def test_no_form_is_the_end_of_another() -> None:
    forms = list(_forms()[0])
    assert [(one, other) for one in forms for other in forms if one != other and one.endswith(other)] == []


@pytest.mark.parametrize("encoding", ["rot13|", "html|utf-16", "html,|", "html;json|"])
def test_an_encoding_of_a_later_version(encoding: str) -> None:
    assert not is_encoding(encoding)
    with pytest.raises(LookupError):
        encode("a", encoding)
