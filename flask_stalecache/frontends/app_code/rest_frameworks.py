"""Makes responses from the values that methods of flask-restful's and flask-restx's resources return.

There, a string becomes JSON, and ``None, 204`` is a valid answer: the API of a resource turns the value of a method into a response
after the method has returned. For a cached method, that has to be done before its page can be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Response
from werkzeug.wrappers import Response as AnyResponse

from ..flask_internals.contexts import RequestContext

_PACKAGES = frozenset({"flask_restful", "flask_restx"})


def make_response(context: RequestContext, value: Any, args: tuple[Any, ...]) -> Response:
    """Make a response from the value that a view has returned.

    :param context: the context of the request.
    :param value: the value.
    :param args: the positional arguments of the view; those of a method begin with the resource.
    """
    if args and not isinstance(value, AnyResponse) and _is_resource(args[0]):
        view = context.app.view_functions.get(context.request.endpoint or "")
        api = getattr(args[0], "api", None) or _api_of(view)
        if api is not None:
            return context.app.make_response(_converted(context, value, args[0], api))
    return context.app.make_response(value)


def _is_resource(target: object) -> bool:
    return any(base.__module__.partition(".")[0] in _PACKAGES and base.__name__ == "Resource" for base in type(target).__mro__)


def _converted(context: RequestContext, value: Any, resource: Any, api: Any) -> Any:
    """Convert a value as ``Resource.dispatch_request`` and then ``Api.output`` do."""
    data, status, headers = _unpacked(value)
    own: Mapping[str, Callable[..., Any]] = resource.representations or {}
    media_type = context.request.accept_mimetypes.best_match(own) if own else None
    if media_type is None:
        return api.make_response(data, status, headers=headers)
    response = own[media_type](data, status, headers)
    response.headers["Content-Type"] = media_type
    return response


def _unpacked(value: Any) -> tuple[Any, int, Mapping[str, str]]:
    """Return data, status and fields of a value, as ``unpack`` of both packages does."""
    if isinstance(value, tuple) and len(value) == 3:
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return value[0], value[1], {}
    return value, 200, {}


def _api_of(view: Any) -> Any:
    """Return the API that a view belongs to: flask-restful keeps it only in the closure of the function around the view."""
    while view is not None:
        for cell in getattr(view, "__closure__", None) or ():
            if _is_api(cell.cell_contents):
                return cell.cell_contents
        view = getattr(view, "__wrapped__", None)
    return None


def _is_api(target: object) -> bool:
    return any(base.__module__.partition(".")[0] in _PACKAGES and base.__name__ == "Api" for base in type(target).__mro__)
