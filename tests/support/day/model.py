"""A day of a site: the model, which says what each visit must show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from support.day.site import ARCHIVE, STATUSES, Outcome, Page, Script
from support.day.terms import FIRST_PAUSE, HALF, INACTIVE, LONGEST_PAUSE

#: Seconds of a hit-for-miss: for so long, visitors of a page that can't be stored do not wait for each other.
UNSTORABLE_FOR = 10


@dataclass(slots=True)
class Stored:
    """What is stored of a page.

    :ivar run: the run of the view that made it.
    :ivar fresh_for: seconds of freshness, shortened by jitter, by the view itself and by soft purges.
    :ivar ended: whether a soft purge has ended its freshness.
    :ivar deployed: when the app was deployed that stored it.
    :ivar wanted_until: until when it is in one of the windows that it was stored with.
    :ivar used_at: when it was used last, as far as the sweep knows.
    """

    run: int
    status: int
    answered: float
    fresh_for: float
    version: str
    deployed: float
    wanted_until: float
    used_at: float
    ended: bool = False


@dataclass(slots=True)
class Failures:
    """The note of a page: failures in a row and when to try again, or the end of a hit-for-miss."""

    used_at: float
    count: int = 0
    retry_at: float = 0.0
    unqueued_until: float = 0.0


class Expected(NamedTuple):
    """How a visitor is answered."""

    word: str
    status: int
    run: int


@dataclass(frozen=True)
class Release:
    """A deployed version of the app."""

    version: str
    deployed: float


class Model:
    """What visitors should see, one visitor at a time, by the table in ``flask_stalecache/core/rules/serving.py``.

    :ivar stored: stored pages, by path.
    :ivar failures: notes of pages, by path.
    :ivar runs: how often the view of each page ran.
    :ivar purged: the names that were purged.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.stored: dict[str, Stored] = {}
        self.failures: dict[str, Failures] = {}
        self.runs: Counter[str] = Counter()
        self.purged: set[str] = set()
        self.purge_during: dict[str, bool] = {}
        self.words: Counter[str] = Counter()
        self._pages: dict[str, Page] = {}
        self._used: set[str] = set()
        self._dead: set[str] = set()

    # -- a visit -------------------------------------------------------------------------------------------------

    def visit(self, page: Page, release: Release, now: float, *, prefers: bool) -> Expected:
        """Return how a visitor must be answered, and change the model as the visit does."""
        expected = self._answer(page, release, now, prefers or page.kind is ARCHIVE)
        self.words[expected.word] += 1
        return expected

    def _answer(self, page: Page, release: Release, now: float, prefers: bool) -> Expected:
        stored, kind = self.stored.get(page.path), page.kind
        if stored is None:
            return self._fetch("MISS", page, release, now, None)
        self._used.add(page.path)
        backing_off = self._backing_off(page, now)
        swr, sie = (0, 0) if kind.never_stale else kind.windows[1:]
        if self._is_fresh(stored, release, now):
            if now >= stored.answered + stored.fresh_for - kind.options.get("refresh_ahead", 0) and not backing_off:
                self._run(page, release, now)
            return self._show("HIT", stored)
        if within(stored, swr, now):
            if not backing_off:
                self._run(page, release, now)
            return self._show("UPDATING" if backing_off else "STALE", stored)
        if prefers and not kind.never_stale:
            if not backing_off:
                self._run(page, release, now)
            return self._show("STALE", stored)
        if not within(stored, sie, now):
            return self._fetch("EXPIRED", page, release, now, None)
        if backing_off:
            return self._show("STALE", stored)
        if kind.wait == 0:
            self._run(page, release, now)
            return self._show("STALE", stored)
        return self._fetch("EXPIRED", page, release, now, stored)

    def _is_fresh(self, stored: Stored, release: Release, now: float) -> bool:
        is_old = stored.version != release.version and stored.deployed <= release.deployed
        return not is_old and not stored.ended and now < stored.answered + stored.fresh_for

    def _backing_off(self, page: Page, now: float) -> bool:
        failures = self.failures.get(page.path)
        return failures is not None and now < failures.retry_at

    @staticmethod
    def _show(word: str, stored: Stored) -> Expected:
        return Expected(word, stored.status, stored.run)

    def _fetch(self, word: str, page: Page, release: Release, now: float, stand_in: Stored | None) -> Expected:
        failures = self.failures.get(page.path)
        if failures is not None and now >= failures.unqueued_until:
            # The page is looked up before the call, which counts as a use.
            self._used.add(page.path)
        outcome = self._run(page, release, now)
        if outcome is not Outcome.DOWN:
            return Expected(word, STATUSES[outcome], self.runs[page.path])
        if stand_in is not None:
            return self._show("STALE", stand_in)
        # The app's own handler answers the exception, without ``X-Cache-Status``.
        return Expected("" if page.kind.needs == "raises" else word, 503, self.runs[page.path])

    # -- a run of the view ---------------------------------------------------------------------------------------

    def _run(self, page: Page, release: Release, now: float) -> Outcome:
        """Run the view, and change the stored page or the note by its outcome."""
        self.runs[page.path] += 1
        outcome = self.script.outcome(page, now)
        if outcome is Outcome.DOWN:
            failures = self.failures.get(page.path)
            count = 0 if failures is None else failures.count
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**count) * (1 + HALF / 4)
            self.failures[page.path] = Failures(now, count + 1, now + pause)
        elif outcome is Outcome.PRIVATE:
            self._refuse(page, now)
        else:
            self._store(page, release, now, STATUSES[outcome])
        return outcome

    def _refuse(self, page: Page, now: float) -> None:
        """The page can't be stored any more."""
        known = self.failures.get(page.path)
        if known is None or now >= known.unqueued_until:
            self.stored.pop(page.path, None)
            self.failures[page.path] = Failures(now, unqueued_until=now + UNSTORABLE_FOR)

    def _store(self, page: Page, release: Release, now: float, status: int) -> None:
        path, fresh_for = page.path, page.kind.fresh_for(status)
        soft = self.purge_during.pop(path, None)
        if soft is not None:
            self.purge(f"path:{path}", now, soft=soft)
        if soft is False:
            # It was begun before the purge.
            return
        stale_for = 0 if page.kind.never_stale else max(page.kind.windows[1:])
        self._pages[path] = page
        self.failures.pop(path, None)
        self.stored[path] = Stored(
            run=self.runs[path],
            status=status,
            answered=now,
            fresh_for=0 if soft else fresh_for,
            version=release.version,
            deployed=release.deployed,
            wanted_until=now + fresh_for + stale_for,
            used_at=now,
            ended=bool(soft),
        )

    # -- purges and the sweep ------------------------------------------------------------------------------------

    def purge(self, name: str, now: float, *, soft: bool) -> None:
        """Purge the pages that have a name."""
        self.purged.add(name)
        for path in [path for path in self.stored if name in self._pages[path].names]:
            stored = self.stored[path]
            if soft:
                stored.ended, stored.fresh_for = True, min(stored.fresh_for, now - stored.answered)
            else:
                del self.stored[path]
                self._dead.add(path)

    def sweep(self, now: float) -> None:
        """Record which pages were used since the last sweep, and remove unused and purged ones."""
        for path in self._used:
            for known in filter(None, (self.stored.get(path), self.failures.get(path))):
                known.used_at = now
        for path in self.stored.keys() | self.failures.keys():
            stored, failures = self.stored.get(path), self.failures.get(path)
            used_at = max(known.used_at for known in (stored, failures) if known is not None)
            is_idle = now - used_at > INACTIVE and (stored is None or now >= stored.wanted_until)
            if is_idle or (stored is None and path in self._dead):
                self.stored.pop(path, None)
                self.failures.pop(path, None)
        self._used.clear()
        self._dead.clear()


def within(stored: Stored, window: int, now: float) -> bool:
    """Whether a stale window is open; one of no seconds never is."""
    return window > 0 and now < stored.answered + stored.fresh_for + window
