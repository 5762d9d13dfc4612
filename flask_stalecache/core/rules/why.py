"""Explains in plain words why a page is cached or not, from the accounts of two requests for it. Pure.

The first sentence says whether the page is cached, and why not. Its words come from the reasons, so that a new reason needs no
change here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..formatting import spell
from ..model.entry import Entry
from ..model.holes import labels_of
from ..model.inputs import NO_NAMES, RequestInputs
from ..model.reasons import BypassReason, MissReason, Reason, Refusal, StoreRefusal
from .advice import FrontEnd, InputKind, fix_of, fix_of_name, fix_of_reason
from .status import CacheStatus

#: For these reasons, the explanation is made from the names of the request and their readers.
_OF_NAMES = frozenset({StoreRefusal.READ_BY, StoreRefusal.MADE_FOR_VISITOR, StoreRefusal.DEPENDS_ON})


class ReadName(NamedTuple):
    """A name of the request that was read.

    :ivar reader: the module; "" if unknown.
    """

    kind: InputKind
    name: str
    reader: str

    @property
    def text(self) -> str:
        """The name and its reader in words."""
        is_known = self.reader not in ("", "the session")
        return f"the {self.kind.word} {self.name}" + (f", read by {self.reader}" if is_known else "")


@dataclass(frozen=True, slots=True)
class Account:
    """How a request was answered.

    :param front: the front end that answered it.
    :param who: the name of what answered, as in the log.
    :param endpoint: its endpoint; "" if it has none.
    :param pattern: the pattern of the gateway's rule for its path; "" if there is none.
    :param key: the key in a readable form; "" if there is none.
    :param status: the cache status of the answer.
    :param why: why it was not answered from the store; ``None`` if it was.
    :param refusal: why its answer was not stored, in full; ``None`` if it was, or came from the store.
    :param entry: the stored entry, if any.
    :param reads: the names that the page depends on beyond its key.
    :param carried: the names among ``reads`` that kept the answer out of the store, since the request has them.
    """

    front: FrontEnd
    who: str
    endpoint: str = ""
    pattern: str = ""
    key: str = ""
    status: CacheStatus = CacheStatus.BYPASS
    why: Reason | None = None
    refusal: Refusal | None = None
    entry: Entry | None = None
    reads: tuple[ReadName, ...] = ()
    carried: RequestInputs = NO_NAMES

    @property
    def is_from_store(self) -> bool:
        """Whether it was answered from the store."""
        return self.why is None

    @property
    def is_stored(self) -> bool:
        """Whether its answer was stored."""
        return isinstance(self.why, MissReason)


class Outside(NamedTuple):
    """A request that reached no front end of the cache.

    :ivar endpoint: the endpoint of its URL; ``None`` if the URL matches none.
    :ivar view: the name of the endpoint's view.
    :ivar is_cached: the view is under ``cached``.
    :ivar is_on: caching is on.
    :ivar answer: the status line of the answer, or the exception that the app raised.
    :ivar is_known: the host of the site is known.
    """

    endpoint: str | None
    view: str
    is_cached: bool
    is_on: bool
    answer: str
    is_known: bool = True


class Diagnosis(NamedTuple):
    """Why a page is cached or not.

    :ivar first: the first sentence.
    :ivar write: what to write so that the page is cached; "" if there is nothing to write.
    """

    first: str
    write: str = ""


def explain_outside(path: str, outside: Outside) -> Diagnosis:
    """Return why a page is not cached if its request reached no front end of the cache."""
    if not outside.is_on:
        return Diagnosis(f"{path} is not cached: STALECACHE_ENABLED is false", "set STALECACHE_ENABLED = True")
    if outside.endpoint is None:
        told = f"{path} is not cached: it matches no endpoint of the app, which answered {outside.answer}"
        return Diagnosis(told, "" if outside.is_known else "give a full URL if the app answers other hosts alone")
    if outside.is_cached:
        return Diagnosis(f"{path} is not cached: a hook, middleware or decorator answered {outside.answer} before {outside.view}")
    return Diagnosis(
        f"{path} is not cached: nothing stores the answers of its view {outside.view}",
        "write @cache.cached(max_age=…) directly above it, or give it a rule in STALECACHE_GATEWAY",
    )


def explain_two(path: str, one: Account, two: Account) -> Diagnosis:
    """Return why a page is cached or not.

    :param one: the first request.
    :param two: the same request again.
    """
    if two.is_from_store and two.entry is not None:
        return Diagnosis(f"{path} is cached: {_how_long(two)}")
    if two.why is MissReason.CONFIRMED:
        return Diagnosis(
            f"{path} is stored, but its view runs at each request to confirm it, since it is never fresh",
            "give it a lifetime: max_age=…, or Cache-Control: max-age=…",
        )
    if one.is_stored and two.is_stored and one.key != two.key:
        return Diagnosis(f"{path} is not cached: each request has another key", _fix_of_key(two.front))
    if two.is_stored and isinstance(one.refusal, Refusal):
        return Diagnosis(f"{path} is cached from now on; before, {one.refusal.text}")
    if two.why is MissReason.RENEWED:
        return Diagnosis(
            f"{path} is stored, but renew asks for a new answer at each request", "let renew return False for visitors"
        )
    if two.is_stored:
        return Diagnosis(f"{path} is stored, but is never fresh: its max_age is 0", "give it a max_age")
    return _explain_refused(path, two)


def _how_long(account: Account) -> str:
    entry = account.entry
    assert entry is not None
    if account.status is CacheStatus.HIT:
        return f"the second request was answered from the store; it is fresh for {spell(entry.windows.max_age)}"
    return f"the second request was answered from the store, though it is never fresh (max_age {spell(entry.windows.max_age)})"


def _fix_of_key(front: FrontEnd) -> str:
    return f"take out of key= or vary= in {front.place} what differs from request to request"


def _explain_refused(path: str, account: Account) -> Diagnosis:
    why, refusal = account.why, account.refusal
    if isinstance(why, BypassReason):
        return Diagnosis(f"{path} is not cached for this request: {why.text}", fix_of_reason(why, account.front))
    if refusal is None or why is None:
        return Diagnosis(f"{path} is not cached")
    if account.carried and refusal.reason in _OF_NAMES:
        told = " and ".join(read.text for read in account.reads if read.name in getattr(account.carried, read.kind))
        # Of several names the first is told: each has a line of its own in the log.
        fixes = dict.fromkeys(
            fix_of_name(kind, name, account.front) for kind in InputKind for name in getattr(account.carried, kind)
        )
        return Diagnosis(
            f"{path} is not cached for this visitor: it depends on {told}, which this visitor has and the key lacks",
            "; ".join(fixes),
        )
    return Diagnosis(f"{path} is not cached: {refusal.reason.text.replace('{}', refusal.subject)}", fix_of(refusal, account.front))


def tell_visitors(account: Account) -> Iterator[str]:
    """Yield sentences: who is served the stored page, who is not, and which parts are made for each visitor."""
    if account.entry is not None and account.entry.holes:
        yield f"each visitor has their own {' and '.join(labels_of(account.entry.holes))}"
    names = NO_NAMES if account.entry is None else account.entry.absent
    if not names:
        yield "everybody is served the stored page" if account.entry is not None else "nothing is stored for anybody"
        return
    spoken = list(_spoken(names))
    without = f"without {spoken[0]}" if len(spoken) == 1 else "with none of these"
    yield f"visitors {without} are served the stored page; the others go to the app"


def _spoken(names: RequestInputs) -> Iterator[str]:
    return (f"the {kind.word} {name}" for kind in InputKind for name in getattr(names, kind))
