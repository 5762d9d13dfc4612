"""``cache.dashboard``: who may see it, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, abort, current_app, redirect, request, session, url_for
from flask.sansio.app import App
from jinja2 import Environment, PackageLoader, StrictUndefined
from werkzeug.wrappers import Response as AnyResponse

from ..errors import ConfigError, StaleCacheError
from .acting import Acting, act
from .forgery import is_ours, token

#: In ``app.extensions``: who decides, by the name under which the blueprint is registered.
_DOORS = "stalecache.dashboard"
#: In the session: what the next page says.
_SAID = "_stalecache_said"
_HOW = 'app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=is_admin)'
#: No script, style or form of anybody else's; and the pages in nobody's frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_FIELDS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Browsers keep the Origin of a form from its own host under no other policy that is as strict.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Dashboard(Blueprint):
    """A blueprint with one page, which an app registers together with who may see it.

    ::

        app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=is_admin)

    ``authorize`` is called without arguments before every answer, in the request. ``True`` lets the visitor in, ``False`` or
    ``None`` is answered with 403, and a response that it returns is sent, such as a redirect to a login. If it raises, nobody
    gets in.

    :param cache: what it shows and acts on.
    """

    def __init__(self, cache: Acting) -> None:
        # A path of its own for what is static, so that it is found without a url_prefix too.
        super().__init__("stalecache", __name__, static_folder="static", static_url_path="/stalecache-static")
        self._cache = cache
        # Not the app's: what it configures, overrides and adds to its templates is not for this page.
        self._templates = Environment(
            loader=PackageLoader("flask_stalecache.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.before_request(_admit)
        self.after_request(_protect)
        self.add_url_rule("/", "page", self._page)
        self.add_url_rule("/act", "act", self._act, methods=["POST"])

    def register(self, app: App, options: dict[str, Any]) -> None:
        """Register it with an app: ``app.register_blueprint(cache.dashboard, url_prefix=…, authorize=…)``.

        :raises ConfigError: without an ``authorize`` that can be called.
        """
        authorize = options.get("authorize")
        if not callable(authorize):
            said = "without authorize=" if authorize is None else f"with authorize={authorize!r}, which can't be called"
            raise ConfigError(f"the dashboard was registered {said}, and would be open to everybody: write {_HOW}")
        options = {name: value for name, value in options.items() if name != "authorize"}
        prefix, name = options.get("name_prefix", ""), options.get("name", self.name)
        app.extensions.setdefault(_DOORS, {})[f"{prefix}.{name}".lstrip(".")] = authorize
        super().register(app, options)

    def _page(self) -> str:
        return self._templates.get_template("page.html").render(
            token=token(), said=session.pop(_SAID, None), url_for=url_for, app_name=current_app.name
        )

    def _act(self) -> AnyResponse:
        if not is_ours(request):
            abort(403, "This form was not sent from the dashboard. Reload it and try again.")
        asked = request.form
        try:
            said = act(self._cache, asked.get("action", ""), asked.get("by", ""), asked.get("value", ""))
        except StaleCacheError as error:
            session[_SAID] = ["problem", str(error)]
        else:
            session[_SAID] = ["done", said]
        return redirect(url_for(".page"), 303)


def _admit() -> AnyResponse | None:
    """Let a visitor in, or return what is answered instead."""
    authorize: Callable[[], object] = current_app.extensions[_DOORS][request.blueprint]
    answer = current_app.ensure_sync(authorize)()
    if isinstance(answer, AnyResponse):
        return answer
    if answer is not None and not isinstance(answer, int):
        # Anything else is true in Python: a text such as "no", or a tuple with a status.
        raise TypeError(f"authorize of the dashboard returned {type(answer).__name__}: return True or False, or a response")
    if not answer:
        abort(403)
    return None


def _protect(response: Response) -> Response:
    """Keep an answer out of all caches, our own gateway too, and out of other sites' frames."""
    response.headers.update(_FIELDS)
    is_static = request.endpoint is not None and request.endpoint.endswith(".static")
    response.headers["Cache-Control"] = "private, no-cache" if is_static else "no-store"
    return response
