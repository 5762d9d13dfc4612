"""Bulk operations on stored entries, for both public classes, the shell and the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.addressing.base_url import Base, environ_fields
from ..engine.handover.warm_files import WarmFiles
from ..engine.scheduling.thread_pool import drain_all
from ..stores.base import DirectoryStore
from .batch import Batch
from .fronts import Fronts
from .handed_over import HandedOver, RefreshOutcome
from .purged import Purged
from .scheduler import BatchScheduler, drain_all_batches, drain_with
from .selector import Scope, Selection, Selector
from .warm_call import WarmCall
from .warm_elsewhere import HandedWarmings, WarmElsewhere
from .warmer import Urls, Warmer, checked_flag
from .workers import concurrency_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@dataclass(frozen=True, slots=True)
class WarmTarget:
    """The app that ``warm`` sends its requests to.

    :param app: the app, with all middleware.
    :param base: its base URL; ``None`` if it is not known: then each full URL determines it.
    :param unknown_base: why a path can't be warmed without a base URL, and what to write.
    :param root: the script root, as in the environ, for full URLs without a base URL.
    :param with_raw: whether its server passes on the raw path of the request.
    :param path_of: returns the path or URL for an endpoint and its values; ``None``: the app has no endpoints.
    :param version: the version of its pages; ``None``: no worker runs this app.
    """

    app: WSGIApplication
    base: Base | None
    with_raw: bool
    path_of: Callable[[str, Mapping[str, Any]], str] | None
    unknown_base: str = ""
    root: str = ""
    version: str | None = None


class BulkOperations:
    """Checks the arguments of bulk operations on one store, and starts their batches.

    :param scheduler: runs the batches.
    :param endpoints: the app's endpoints, by which entries can be selected; ``None``: it has none.
    :param warm_target: returns where ``warm`` sends its requests.
    """

    def __init__(self, scheduler: BatchScheduler, endpoints: Collection[str] | None, warm_target: Callable[[], WarmTarget]) -> None:
        self._scheduler = scheduler
        self._engine = scheduler.engine
        self._scope = Scope(scheduler.engine.settings.ignored_parameters, endpoints)
        self._warm_target = warm_target
        store = scheduler.engine.store
        self._files = WarmFiles(store.directory) if isinstance(store, DirectoryStore) else None
        self.handed_over = HandedOver(scheduler.engine, scheduler.renewal_of)
        self.handed_warmings = HandedWarmings(scheduler.engine, self._files, self._warm_call)

    def selector(self, selection: Selection, what: str) -> Selector:
        """Check a selection and return its selector.

        :param what: the operation, for the error.
        :raises ConfigError: unless there is exactly one selector, with a valid value.
        """
        return selection.resolve(what, self._scope)

    def purge(self, selection: Selection, *, soft: object) -> Batch | Purged:
        """Purge the selected entries. Return a batch if they have to be searched for.

        :raises ConfigError: for a selection or flag that is not accepted.
        :raises StoreError: if the store can't be written.
        """
        is_soft = checked_flag("soft", soft)
        return self._scheduler.purge(self.selector(selection, "a purge"), soft=is_soft)

    def refresh(self, selection: Selection, concurrency: object) -> Batch:
        """Refresh the selected entries in the background.

        :raises ConfigError: for a selection or concurrency that is not accepted.
        """
        return self._scheduler.refresh(self.selector(selection, "a refresh"), concurrency_of(concurrency))

    def publish(self, selection: Selection, concurrency: object) -> Batch:
        """Purge the selected entries softly, and refresh them in the background.

        :raises ConfigError: for a selection or concurrency that is not accepted.
        :raises StoreError: if the store can't be written.
        """
        return self._scheduler.refresh(self.selector(selection, "a publish"), concurrency_of(concurrency), publish=True)

    def warm(self, urls: Urls, concurrency: object, force: object, headers: object) -> Batch:
        """Request URLs of the app in the background, so that it stores its responses.

        :raises ConfigError: for an argument that is not accepted. Then no request was sent.
        """
        threads, target, settings = concurrency_of(concurrency), self._warm_target(), self._engine.settings
        warmer = Warmer(
            call=self._call_of(target),
            elsewhere=self._elsewhere(target),
            fronts=Fronts(self._engine.store, settings.ignored_parameters),
            base=target.base,
            unknown_base=target.unknown_base,
            root=target.root,
            fields=environ_fields(headers),
            with_raw=target.with_raw,
            force=checked_flag("force", force),
            path_of=target.path_of,
        )
        tasks = warmer.tasks(urls)
        # With caching off nothing would be stored.
        return self._scheduler.run("warm", tasks if settings.enabled else [], threads)

    def _warm_call(self) -> tuple[WarmCall, str | None]:
        """Return the call that sends warming requests in this process, and the version of the app."""
        target = self._warm_target()
        return self._call_of(target), target.version

    def _elsewhere(self, target: WarmTarget) -> WarmElsewhere | None:
        if self._files is None or target.version is None:
            return None
        return WarmElsewhere(self._engine, self._files, target.version)

    def _call_of(self, target: WarmTarget) -> WarmCall:
        settings = self._engine.settings
        return WarmCall(target.app, settings.max_entry_size, settings.refresh_remote_addr)

    def run_refresh(self, job: object) -> str:
        """Run a refresh that another process has handed over, in this thread, and return its outcome.

        :raises RefreshRefused: if it can't be run here.
        """
        # With caching off nothing would be stored.
        outcome = self.handed_over.run(job) if self._engine.settings.enabled else RefreshOutcome.EXPIRED
        return outcome.value

    def drain(self, timeout: float | None = None) -> bool:
        """Wait for the batches and refreshes of this process. Return whether all have ended.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        return drain_with(self._scheduler.drain, self._engine.runtime.drain, timeout)


def drain_all_apps(timeout: float | None = None) -> bool:
    """Wait for the batches and refreshes of all apps in this process. Return whether all have ended.

    :param timeout: seconds to wait at most, for all together. Default: no limit.
    """
    return drain_with(drain_all_batches, drain_all, timeout)
