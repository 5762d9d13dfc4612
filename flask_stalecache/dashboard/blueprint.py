"""``cache.dashboard``: the blueprint with its access control, routes and templates."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any, NamedTuple

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, redirect, request, session, url_for
from flask.sansio.app import App
from jinja2 import Environment, PackageLoader, StrictUndefined
from werkzeug.wrappers import Response as AnyResponse

from ..core.formatting import shortened
from ..errors import ConfigError, StaleCacheError, StoreError
from ..frontends.memoize.bound_function import FetchFunction
from .actions import SELECTORS, act, selector_of
from .charts import STATUSES
from .csrf import is_ours, token
from .data import DashboardData, Lists, SearchResult
from .url_lookup import arriving, request_for

#: Key in ``app.extensions``; maps the name of a registered blueprint to its :class:`Registered`.
_REGISTERED = "stalecache.dashboard"
#: Key in the session: the message that the next page shows.
_SAID = "_stalecache_said"
_HOW = 'app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=is_admin)'
#: Scripts, styles and forms only from this host; and no other site may frame the pages.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_FIELDS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # The strictest policy under which browsers still send the Origin of a form to its own host.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
#: The fields of a form.
_ASKED = ("action", "by", "value")
#: The largest number of characters in a search or a message: servers limit URLs, and browsers limit cookies.
LONGEST = 800
#: The panels that an open page updates. To add one: a name here, its template ``templates/NAME.html`` (which is rendered with
#: ``now``, the :class:`.Overview`), a section of ``page.html`` with ``data-part="NAME"`` that includes it, and its data in
#: ``overview.py``. The script needs no change.
PANELS = ("health", "tiles", "hosts", "worker", "origins", "reasons", "hour")

#: The panels that are shown only if there is something to show.
_SOMETIMES = {"hosts", "worker"}


class Registered(NamedTuple):
    """The dashboard of one app.

    :ivar authorize: returns whether the current visitor may see it.
    :ivar data: its statistics and entries.
    """

    authorize: Callable[[], object]
    data: DashboardData


class EntrySearch(NamedTuple):
    """A search for entries.

    :ivar by: one of :data:`.actions.SELECTORS`, or ``key``.
    :ivar find: the value to search for; for ``key`` its digest, since a key may contain more than a link should reveal.
    :ivar problem: why the search is not possible; "" if it is.
    """

    by: str = "url"
    find: str = ""
    problem: str = ""


class Links(NamedTuple):
    """The links of the page."""

    page: str
    act: str
    now: str
    entry: Callable[[str], str]
    longer: str


class Dashboard(Blueprint):
    """A blueprint with one page. An app registers it together with a function that authorizes visitors.

    ::

        app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=is_admin)

    ``authorize`` is called without arguments before every answer, in the request. ``True`` lets the visitor in, ``False`` is
    answered with 403, and a response that it returns is sent, such as a redirect to a login. If it raises or returns anything
    else, that is an error, and nobody gets in.

    :param memos: the known fetch functions.
    """

    def __init__(self, memos: Collection[FetchFunction]) -> None:
        # A path of its own for static files, so that they are found without a url_prefix too.
        super().__init__("stalecache", __name__, static_folder="static", static_url_path="/stalecache-static")
        self._memos = memos
        self.before_request(_admit)
        self.after_request(_protect)
        self.add_url_rule("/", "page", self._page)
        self.add_url_rule("/now", "now", self._now)
        self.add_url_rule("/act", "act", self._act, methods=["POST"])

    def register(self, app: App, options: dict[str, Any]) -> None:
        """Register the dashboard with an app: ``app.register_blueprint(cache.dashboard, url_prefix=…, authorize=…)``.

        :raises ConfigError: without an ``authorize`` that can be called.
        """
        authorize = options.get("authorize")
        if not callable(authorize):
            said = "without authorize=" if authorize is None else f"with authorize={authorize!r}, which can't be called"
            raise ConfigError(f"the dashboard was registered {said}, and would be open to everybody: write {_HOW}")
        assert isinstance(app, Flask)
        options = {name: value for name, value in options.items() if name != "authorize"}
        name = f"{options.get('name_prefix', '')}.{options.get('name', self.name)}".lstrip(".")
        data = DashboardData(app, self._memos)
        app.extensions.setdefault(_REGISTERED, {})[name] = Registered(authorize, data)
        super().register(app, options)

    # -- answers -------------------------------------------------------------------------------------------------

    def _page(self) -> str:
        data = _registered().data
        asked = EntrySearch(request.args.get("by", "url"), request.args.get("find", "").strip())
        asked, found = _found(data, asked) if asked.find else (asked, None)
        return self._render(
            "page.html",
            now=data.numbers(request.args.get("series", "")),
            asked=asked,
            found=found,
            lists=_lists(data),
            token=token(),
            said=session.pop(_SAID, None),
            app_name=current_app.name,
            links=_links(asked),
            static=lambda name: url_for(".static", filename=name),
            selectors=SELECTORS,
        )

    def _now(self) -> Response:
        """Answer with the updated panels. An open page asks every few seconds, so this never walks through the store."""
        now, drawn = _registered().data.now(request.args.get("series", ""), request.args.get("after", 0.0, float))
        return jsonify(
            clock=now.clock,
            headline=now.health.headline,
            parts={name: self._render(f"{name}.html", now=now) for name in PANELS if name not in _SOMETIMES or getattr(now, name)},
            charts=drawn,
        )

    def _act(self) -> AnyResponse:
        if not is_ours(request):
            abort(403, "This form was not sent from the dashboard. Reload it and try again.")
        asked = request.form
        try:
            kind, said = "done", act(_registered().data.state, *(asked.get(name, "") for name in _ASKED))
        except StaleCacheError as error:
            kind, said = "problem", str(error)
        # The session may be a cookie, and browsers drop one that is too long.
        session[_SAID] = [kind, shortened(said, LONGEST)]
        by, find = asked.get("back_by"), asked.get("back_find", "")
        return redirect(url_for(".page", by=by, find=find) if by and 0 < len(find) <= LONGEST else url_for(".page"), 303)

    def _render(self, name: str, **values: object) -> str:
        return _templates().get_template(name).render(statuses=STATUSES, **values)


@cache
def _templates() -> Environment:
    """Return the environment of the page, the same for all apps of the process.

    It does not belong to an app: the settings, overrides and globals of an app must not change this page.
    """
    return Environment(
        loader=PackageLoader("flask_stalecache.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _registered() -> Registered:
    registered: Registered = current_app.extensions[_REGISTERED][request.blueprint]
    return registered


def _links(asked: EntrySearch) -> Links:
    return Links(
        page=url_for(".page"),
        act=url_for(".act"),
        now=url_for(".now"),
        entry=lambda address: url_for(".page", by="key", find=address, _anchor="find"),
        longer=url_for(".page", by=asked.by, find=asked.find, long="1", _anchor="find"),
    )


def _found(data: DashboardData, asked: EntrySearch) -> tuple[EntrySearch, SearchResult | None]:
    """Search for entries. Return the search, with its problem if it is not possible, and the result."""
    try:
        if asked.by == "key":
            return asked, data.one(asked.find)
        matches, takes_long = selector_of(data.state, asked.by, asked.find).matches, "long" in request.args
        if asked.by == "url":
            wanted = request_for(asked.find, request.environ)
            return asked, data.of_url(wanted, arriving(wanted, request.environ), matches, takes_long=takes_long)
        return asked, data.matching(matches, takes_long=takes_long)
    except StaleCacheError as error:
        return asked._replace(problem=str(error)), None


def _lists(data: DashboardData) -> Lists:
    try:
        return data.lists(request.host_url.rstrip("/"))
    except StoreError as error:
        return Lists(f"The store can't be read: {error}", [], [], [])


def _admit() -> AnyResponse | None:
    """Let a visitor in, or return the response to send instead."""
    authorize = _registered().authorize
    answer = current_app.ensure_sync(authorize)()
    if answer is True:
        return None
    if answer is False:
        abort(403)
    if isinstance(answer, AnyResponse):
        return answer
    # Many values that mean "no", such as 403, "no" or a coroutine, are true in Python.
    name = getattr(authorize, "__qualname__", repr(authorize))
    raise TypeError(
        f"nobody can see the dashboard: its authorize, {name}, returned {shortened(ascii(answer), 80)}; "
        "return True, False or a response"
    )


def _protect(response: Response) -> Response:
    """Keep a response out of all caches, our gateway included, and out of other sites' frames."""
    response.headers.update(_FIELDS)
    is_static = request.endpoint is not None and request.endpoint.endswith(".static")
    response.headers["Cache-Control"] = "private, no-cache" if is_static else "no-store"
    return response
