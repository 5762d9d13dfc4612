"""What is done to many stored pages at once: purged, refreshed, published."""

from __future__ import annotations

from collections.abc import Mapping

from flask import current_app, has_app_context

from .app_state import State, app_of_context, state_of
from .batches.batch import Batch, concurrency_of
from .batches.scheduler import drain_all_scans, drain_with
from .batches.selector import Selector
from .batches.warmer import Urls
from .engine.thread_pool import drain_all
from .errors import ConfigError
from .frontends.flask_urls import warm


class Operations:
    """The part of :class:`~flask_stalecache.StaleCache` that works on what is stored."""

    def purge(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        endpoint: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        soft: bool = False,
    ) -> Batch | None:
        """Drop stored pages: every worker sees it at its next request, whatever is under way.

        It takes the same time however many there are, but for ``prefix``. It needs an app context.

        :param url: a path with its query, on all hosts; or a full URL, on its own. Parameters that the page ignores are left out.
        :param tag: the pages with this tag.
        :param endpoint: the pages of this endpoint, such as ``"news.article"``.
        :param prefix: the pages whose path begins so, on all hosts; or those whose full URL does. They have to be looked for,
            which happens in the background.
        :param all: all pages of the store, those of other apps in it too.
        :param soft: only end their freshness; they are served as stale, and renewed, as their windows say. Default false.
        :return: with ``prefix`` a :class:`Batch`, which tells how far it is; else ``None``: it is done.
        :raises ConfigError: unless exactly one of ``url``, ``tag``, ``endpoint``, ``prefix`` and ``all`` is given, and it makes
            sense.
        :raises StoreError: if the store can't be written. Then it may or may not have taken place: do it again.
        """
        if not isinstance(soft, bool):
            raise ConfigError(f"soft={soft!r}: give True or False")
        state = state_of(app_of_context("purge()"))
        return state.scans.purge(_selector(state, "a purge", url, tag, endpoint, prefix, all), soft=soft)

    def refresh(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        endpoint: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Make stored pages and values of fetch functions again, fresh or not, in the background.

        It returns at once. What is stored is served meanwhile, and stays if it can't be made again. Each is made under the lock of
        its key, so once at a time over all workers. It needs an app context.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many are made at a time, 1 to 64. Default 4.
        :return: how far it is, and what came of each.
        :raises ConfigError: unless exactly one thing is selected, and it makes sense; or for another ``concurrency``.
        """
        state = state_of(app_of_context("refresh()"))
        return state.scans.refresh(_selector(state, "a refresh", url, tag, endpoint, prefix, all), concurrency_of(concurrency))

    def publish(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        endpoint: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Purge softly, and refresh what that was of: the old pages are stale from now on, and are renewed at once.

        The purge has taken place when it returns, but for ``prefix``; the rest happens in the background. It needs an app context.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many are made at a time, 1 to 64. Default 4.
        :return: how far it is, and what came of each.
        :raises ConfigError: unless exactly one thing is selected, and it makes sense; or for another ``concurrency``.
        :raises StoreError: if the store can't be written. Then it may or may not have taken place: do it again.
        """
        state = state_of(app_of_context("publish()"))
        selector = _selector(state, "a publish", url, tag, endpoint, prefix, all)
        return state.scans.refresh(selector, concurrency_of(concurrency), publish=True)

    def warm(
        self,
        urls: Urls,
        *,
        concurrency: int = 4,
        force: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Batch:
        """Fill the store before visitors come: ask the app for URLs, in this process and in the background.

        Each is a visit without cookies, for which :attr:`refreshing` is true, and is answered as a visitor's would be: what is
        fresh is left as it is, what is missing or stale is made and stored. Redirects are not followed. It needs an app context.

        :param urls: a path as visitors see it, or a full URL; a pair of an endpoint and its values; a list of those; or a sitemap:
            the path of a file that ends in ``.xml`` or ``.xml.gz``, or a path or URL of the app that does.
        :param concurrency: how many are asked for at a time, 1 to 64. Default 4.
        :param force: make what is fresh again too. Default false.
        :param headers: request fields to send, where pages depend on some: ``{"Accept-Language": "de"}``, or what a proxy adds.
        :return: how far it is, and what came of each.
        :raises ConfigError: if ``STALECACHE_BASE_URL`` and ``SERVER_NAME`` are missing; for a URL of another host, what is no URL
            or no sitemap, or a value that is not accepted. Then nothing has been asked for.
        """
        state = state_of(app_of_context("warm()"))
        return warm(state, urls, concurrency_of(concurrency), force, headers)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the refreshes that this process handed over are done, and its batches; return whether they are.

        In an app context those of that app, else those of all apps.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        if has_app_context():
            state = state_of(current_app)
            return drain_with(state.scans.drain, state.engine.drain, timeout)
        return drain_with(drain_all_scans, drain_all, timeout)


def _selector(state: State, what: str, url: object, tag: object, endpoint: object, prefix: object, everything: object) -> Selector:
    return Selector.of(
        url,
        tag,
        endpoint,
        prefix,
        everything,
        state.settings.ignored_parameters,
        what=what,
        endpoints=state.pages.app.view_functions,
    )
