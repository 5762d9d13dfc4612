"""Nonces of Content-Security-Policy."""

from __future__ import annotations

import gzip
import zlib

import pytest

from flask_stalecache.core.http.content_policy import decoded, has_nonce_in_body, nonce_attributes, without_nonces

BODY = b"<script nonce=abc123=>f()</script>"
POLICY = "script-src 'self' 'nonce-abc123='"
WITH_NONCE = ("Content-Security-Policy", POLICY)
META = b"<META http-equiv='Content-Security-Policy' content=\"script-src 'nonce-abc123='\">"
ESCAPED = b'<meta content="script-src &#39;nonce-abc123=&#39;" http-equiv="content-security-policy">'


@pytest.mark.parametrize(
    ("fields", "body", "expected"),
    [
        pytest.param([WITH_NONCE], BODY, True, id="in the body"),
        pytest.param([("content-security-policy-report-only", POLICY)], BODY, True, id="report only"),
        pytest.param([("X-Content-Security-Policy", POLICY)], BODY, True, id="an old name"),
        pytest.param([(WITH_NONCE[0], "default-src *"), WITH_NONCE], BODY, True, id="two lines"),
        pytest.param([("Content-Security-Policy", f"default-src *, {POLICY}")], BODY, True, id="two policies"),
        pytest.param([("Content-Security-Policy", "script-src 'NONCE-abc123='")], BODY, True, id="upper case"),
        pytest.param([("Content-Security-Policy", "script-src 'nonce-zzz' 'nonce-abc123='")], BODY, True, id="two nonces"),
        pytest.param([WITH_NONCE], b'<meta name="n" content="abc123=">', True, id="in another tag"),
        pytest.param([WITH_NONCE], b"<script src=a></script>", False, id="not in the body"),
        pytest.param([("Content-Security-Policy", "script-src 'nonce-zzz'")], BODY, False, id="another one"),
        pytest.param([("Content-Security-Policy", "script-src 'sha256-abc123='")], BODY, False, id="a hash"),
        pytest.param([("X-Other", POLICY)], BODY, False, id="another field"),
        pytest.param([], BODY, False, id="no policy"),
        pytest.param(
            [], META + BODY, True, id="in the body itself"
        ),
        pytest.param(
            [], ESCAPED + BODY, True, id="escaped"
        ),
        pytest.param(
            [], META, False, id="used by none"
        ),
        pytest.param([], b"<p>Content-Security-Policy: 'nonce-abc123='</p>" + BODY, False, id="a text about policies"),
        pytest.param(
            [WITH_NONCE, ("Content-Encoding", "gzip")], gzip.compress(BODY), True, id="compressed"
        ),
        pytest.param(
            [WITH_NONCE, ("Content-Encoding", "gzip")], gzip.compress(b"-"), False, id="compressed, without"
        ),
        pytest.param(
            [WITH_NONCE, ("Content-Encoding", "deflate")], zlib.compress(BODY), True, id="deflated"
        ),
        pytest.param([WITH_NONCE, ("Content-Encoding", "gzip")], b"broken", True, id="broken"),
        pytest.param([WITH_NONCE, ("Content-Encoding", "br")], b"...", True, id="a coding that can't be read"),
        pytest.param([("Content-Encoding", "br")], b"...", False, id="that coding, without a nonce"),
        pytest.param([WITH_NONCE, ("Content-Encoding", "identity")], BODY, True, id="no coding"),
    ],
)  # fmt: skip
def test_a_nonce_of_the_policy_is_found_in_the_body(fields: list[tuple[str, str]], body: bytes, expected: bool) -> None:
    assert has_nonce_in_body(fields, body) is expected


@pytest.mark.parametrize(
    ("body", "nonces"),
    [
        (b"<script nonce=abc>", ["abc"]),
        (b"<script src='a' nonce='a+b/c='></script><STYLE NONCE = \"d\">", ["a+b/c=", "d"]),
        (b"<link rel=preload nonce=x as=script>", ["x"]),
        (b"<script\n  nonce=\"x\"\n>", ["x"]),
        (b"<script nonce=''>", []),
        (b"<script data-nonce='x'>", []),
        (b"<p nonce=x> <script>nonce='y'</script>", []),
        (b"<script" * 50_000 + b" nonce=", []),
    ],
    ids=range(8),
)  # fmt: skip
def test_nonces_are_found_in_tags(body: bytes, nonces: list[str]) -> None:
    assert list(nonce_attributes([], body)) == nonces
    assert list(nonce_attributes([("Content-Encoding", "gzip")], gzip.compress(body))) == nonces


def test_a_bomb_is_not_blown_up() -> None:
    bomb = gzip.compress(b"\0" * 100_000_000, 9)
    assert len(decoded([("Content-Encoding", "gzip")], bomb) or b"") == 32 * 1024 * 1024


def test_a_304_has_no_nonce() -> None:
    kept = [("Content-Security-Policy", "script-src 'self'"), ("X-Why", POLICY)]
    assert without_nonces([WITH_NONCE, *kept, ("x-webkit-csp", POLICY)]) == kept
