"""Request fields that identify the client. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model.environ import environ_name
from ..model.inputs import NO_NAMES, RequestInputs

#: Fields that clients send, and fields in which proxies pass on the user whose login they have checked.
CREDENTIAL_FIELDS = (
    "cookie",
    "authorization",
    "proxy-authorization",
    "remote-user",
    "x-remote-user",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-access-token",
    "x-auth-token",
    "x-access-token",
    "x-api-key",
    "x-user",
    "x-user-id",
    "x-authenticated-user",
    "x-webauth-user",
    "x-client-cert",
    "x-ssl-client-cert",
    "x-ssl-client-dn",
    "x-ssl-client-s-dn",
    "ssl-client-cert",
    "x-amzn-oidc-identity",
    "x-amzn-oidc-data",
    "x-amzn-oidc-accesstoken",
    "x-goog-authenticated-user-email",
    "x-goog-authenticated-user-id",
    "x-goog-iap-jwt-assertion",
    "x-ms-client-principal",
    "x-ms-client-principal-id",
    "x-ms-client-principal-name",
    "cf-access-jwt-assertion",
    "cf-access-authenticated-user-email",
    "tailscale-user-login",
)
_IN_ENVIRON = tuple((environ_name(name), name) for name in CREDENTIAL_FIELDS)


def credentials_in(environ: Mapping[str, Any]) -> RequestInputs:
    """Return the credential fields that a request carries, even if their values are empty.

    :param environ: the WSGI environ of the request.
    """
    carried = tuple(name for variable, name in _IN_ENVIRON if variable in environ)
    return RequestInputs(headers=carried) if carried else NO_NAMES
