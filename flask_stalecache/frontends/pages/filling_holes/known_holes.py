"""The holes of extensions that give each visitor something of their own on every page: see ``STALECACHE_HOLES``.

====================  ==================================================================================================
extension             what it does, and how its values are kept out of stored pages
====================  ==================================================================================================
Flask-WTF             ``generate_csrf`` takes its token from ``g``, where it finds a mark
Flask-SeaSurf         likewise; its hook, which looks for the token in the session, only sets ``g``
Flask-Talisman        the nonce is an attribute of the request, where the page finds a mark
Flask-Login           its context processor loads the user for each template: ours gives the template the proxy instead
Flask-Principal       its hook looks up the identity in the session, and only sets ``g``
====================  ==================================================================================================

The mark of a token or nonce need not be in the page: each form makes a token, even if the page does not show it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from flask import Flask

from ....core.model.holes import HoleCall
from ....core.rules.hole_marks import HoleMarks
from ....engine.log import RateLimitedLog
from ...app_code.function_names import name_of
from ...flask_internals.contexts import RequestContext, outer_context, request_context
from ...response.holes import Making, page_being_made
from ..watching.hook_reads import SetsG, calling_apart, globals_watched, has_hook_reads

#: The names of the holes in stored pages.
_WTF, _SEASURF, _NONCE = "csrf_token of Flask-WTF", "csrf_token of Flask-SeaSurf", "csp_nonce of Flask-Talisman"
#: The hooks that only set ``g``, by the module of their object and their name, and their extensions.
_HOOKS = {
    ("flask_principal", "_on_before_request"): "flask_principal",
    ("flask_seasurf", "_before_request"): "flask_seasurf",
}
_MISSING: Any = object()
_SEASURF_TOKEN = "seasurf_csrf_token"


class KnownHoles:
    """The holes of extensions in one app.

    :param app: the app.
    :param chosen: the extensions whose holes are on.
    :param hooks: the names of the app's own hooks that only set values in ``g``.
    :param is_for_page: whether a request is for a page that is stored by the app itself.
    :param log: warns about hooks that do not exist.
    """

    def __init__(
        self,
        app: Flask,
        chosen: frozenset[str],
        hooks: frozenset[str],
        is_for_page: Callable[[RequestContext], bool],
        log: RateLimitedLog,
    ) -> None:
        self._app = app
        self._chosen = chosen
        self._hooks = hooks
        self._is_for_page = is_for_page
        self._log = log

    def prepare(self) -> None:
        """Prepare the app before its first request, when its extensions and hooks are registered."""
        found: set[str] = set()
        for hooks in self._app.before_request_funcs.values():
            for index, hook in enumerate(hooks):
                name = name_of(hook)
                if isinstance(hook, SetsG) or iscoroutinefunction(hook):
                    found.add(name_of(hook.hook) if isinstance(hook, SetsG) else "")
                elif name in self._hooks or self._is_known(hook):
                    found.add(name)
                    hooks[index] = SetsG(hook, self._is_for_page)
        for name in sorted(self._hooks - found):
            self._log.warn_once(
                ("hook", name),
                "STALECACHE_HOOKS_SET_G names %s, but no function of that name is registered with before_request",
                name,
            )
        if "flask_login" in self._chosen:
            self._prepare_login()
        if "flask_wtf" in self._chosen:
            _watch_forms()

    def _is_known(self, hook: Any) -> bool:
        owner = getattr(hook, "__self__", None)
        return _HOOKS.get((type(owner).__module__, getattr(hook, "__name__", ""))) in self._chosen

    def _prepare_login(self) -> None:
        utils, manager = sys.modules.get("flask_login.utils"), getattr(self._app, "login_manager", None)
        if utils is None or manager is None:
            return
        processors = self._app.template_context_processors[None]
        for index, processor in enumerate(processors):
            if processor is getattr(utils, "_user_context_processor", None):
                processors[index] = partial(_user_later, utils.current_user)
        load = manager._load_user
        if not isinstance(load, _Loads):
            manager._load_user = _Loads(load, self._is_for_page)

    # -- while a view runs -------------------------------------------------------------------------------------------

    @contextmanager
    def around(self, context: RequestContext, page: Making) -> Iterator[None]:
        """Put marks where the extensions keep a visitor's values while a view runs, and watch which values of ``g`` it reads."""
        marks = page.marks
        if marks is None:
            yield
            return
        with self._marked(context, marks) as names:
            counts = has_hook_reads(context)
            if not (counts or names):
                yield
                return
            with globals_watched(names) as watch:
                try:
                    yield
                finally:
                    page.reads_globals = page.reads_globals or (counts and watch.is_read)
                    marks.taken = marks.taken or watch.is_mark_read

    @contextmanager
    def _marked(self, context: RequestContext, marks: HoleMarks) -> Iterator[frozenset[str]]:
        outer = outer_context()
        own: dict[str, Any] = {} if outer is None else getattr(outer.g, "__dict__", {})
        places: list[tuple[dict[str, Any], str, HoleCall]] = []
        if self._is_there("flask_wtf", "flask_wtf.csrf") and self._app.config.get("WTF_CSRF_SECRET_KEY", self._app.secret_key):
            places.append((own, self._app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token"), HoleCall(_WTF)))
        if self._is_there("flask_seasurf", "flask_seasurf") and own.get(_SEASURF_TOKEN) and self._seasurf() is not None:
            places.append((own, _SEASURF_TOKEN, HoleCall(_SEASURF)))
        if self._is_there("flask_talisman", "flask_talisman") and context.request.__dict__.get("csp_nonce"):
            places.append((context.request.__dict__, "csp_nonce", HoleCall(_NONCE)))
        put = [(state, name, state.get(name, _MISSING), marks.mark(call, must_show=False)) for state, name, call in places]
        for state, name, _, mark in put:
            state[name] = mark
            # Reads of the attributes of a request are not recorded: the mark may be in the page.
            marks.taken = marks.taken or state is not own
        try:
            yield frozenset(name for state, name, _, _ in put if state is own)
        finally:
            for state, name, before, mark in put:
                if state.get(name) is not mark:
                    # The view has put a value of its own there.
                    continue
                if before is _MISSING:
                    del state[name]
                else:
                    state[name] = before

    def _is_there(self, extension: str, module: str) -> bool:
        return extension in self._chosen and module in sys.modules

    def _seasurf(self) -> Any:
        for hook in self._app.before_request_funcs.get(None, ()):
            owner = getattr(hook.hook if isinstance(hook, SetsG) else hook, "__self__", None)
            if type(owner).__module__ == "flask_seasurf":
                return owner
        return None

    # -- for a visitor -----------------------------------------------------------------------------------------------

    def found(self, call: HoleCall) -> Callable[[], Any] | None:
        """Return the function that fills a hole; ``None`` if it is no hole of an extension, or if its extension is not there."""
        if call.name == _WTF and self._is_there("flask_wtf", "flask_wtf.csrf"):
            return sys.modules["flask_wtf.csrf"].generate_csrf  # type: ignore[no-any-return]
        if call.name == _SEASURF and (seasurf := self._seasurf()) is not None:
            return seasurf._get_token  # type: ignore[no-any-return]
        if call.name == _NONCE and self._is_there("flask_talisman", "flask_talisman"):
            # A request may have no nonce: Flask-Talisman's own function returns "" then, too.
            return lambda: getattr(request_context().request, "csp_nonce", "")
        return None


def _user_later(current_user: Any) -> dict[str, Any]:
    """Stand in for the context processor of Flask-Login."""
    return {"current_user": current_user}


class _Loads:
    """Loads the user for Flask-Login. Reads by ``login_required`` above a cached view are kept apart: a hit runs it too."""

    def __init__(self, load: Callable[..., Any], is_for_page: Callable[[RequestContext], bool]) -> None:
        self._load = load
        self._is_for_page = is_for_page

    def __call__(self) -> Any:
        if page_being_made() is None and _is_called_by_decorator():
            return calling_apart(request_context(), self._load, self._is_for_page)
        return self._load()


def _is_called_by_decorator() -> bool:
    """Whether there is only code of Flask-Login, Werkzeug and this package between Flask's dispatch and the caller."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("flask_login", "werkzeug", "flask_stalecache"):
            return module == "flask.app"
        frame = frame.f_back
    return False


def _watch_forms() -> None:
    """Have pages with a form that has a secret of its own made without marks: the hole of Flask-WTF has only the app's secret."""
    csrf = sys.modules.get("flask_wtf.csrf")
    kind: Any = getattr(csrf, "_FlaskFormCSRF", None)
    if kind is None or hasattr(kind.generate_csrf_token, "stalecache_is_ours"):
        return
    original = kind.generate_csrf_token

    def generate_csrf_token(self: Any, field: Any) -> Any:
        page, app = page_being_made(), request_context().app if page_being_made() is not None else None
        if page is not None and page.marks is not None and app is not None:
            usual = app.config.get("WTF_CSRF_SECRET_KEY", app.secret_key)
            if self.meta.csrf_secret not in (None, usual):
                page.marks.altered = page.marks.altered or "a form has a csrf_secret of its own"
        return original(self, field)

    generate_csrf_token.stalecache_is_ours = True  # type: ignore[attr-defined]
    kind.generate_csrf_token = generate_csrf_token
