"""A response of a cached view, and the observations of the call that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from werkzeug.wrappers import Response

from ...core.http.cache_control import Directives, response_directives
from ...core.model.entry import Entry
from ...core.model.holes import Hole
from ...core.model.inputs import RequestInputs
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.rules.cacheability import Cacheability
from ...core.rules.variant_index import Fields
from ...engine.origin import Start


class Seen(NamedTuple):
    """The observations of a call, besides its response.

    :ivar names: the names that the response depends on beyond its key.
    :ivar carried: the names among them that this request carries.
    :ivar unnamed: the refusal because of a read that can't be recorded as names, if any.
    :ivar refusal: the refusal because of a side effect of the view, if any.
    :ivar fields: the selectors of the Accept fields that the response depends on.
    :ivar is_aimed: requests that wait for this one agree with it in these selectors.
    """

    names: RequestInputs
    carried: RequestInputs
    unnamed: Refusal | None
    refusal: Refusal | None
    fields: Fields = ()
    is_aimed: bool = True

    @property
    def is_anybodys(self) -> bool:
        """Whether every request without these names would have got the same answer."""
        return not self.carried and self.unnamed is None


class Filling(NamedTuple):
    """The entries to store.

    :ivar beside: the index of variants that leads to the entry, if it changes.
    """

    entry: Entry
    beside: Entry | None


@dataclass(frozen=True, slots=True)
class Made:
    """A response of the view, and what was seen while it was made.

    :ivar fields: its fields as they are stored: without those that ``unset`` removes.
    :ivar word: the cacheability hints that were given while it was made.
    :ivar refusal: why it can't be stored, if the reason is not in the response itself.
    :ivar now: when it was made, in seconds since the epoch.
    :ivar holes: the places in it that are filled for each visitor.
    """

    response: Response
    fields: list[tuple[str, str]]
    directives: Directives
    start: Start
    word: Cacheability
    seen: Seen
    refusal: Refusal | None
    now: float
    holes: tuple[Hole, ...] = ()

    @property
    def is_altered(self) -> bool:
        """Whether its holes were plain calls, so that it is one visitor's for a reason that has no name."""
        return self.refusal is not None and self.refusal.reason is StoreRefusal.HOLE_ALTERED


def refusal_in_code(tags: tuple[str, ...] | None, word: Cacheability) -> Refusal | None:
    """Return why the developer's code keeps a response out of the store; ``None`` if it does not.

    :param tags: its tags; ``None`` if the developer's callable failed to return them.
    """
    if tags is None:
        return Refusal(StoreRefusal.TAGS_UNKNOWN)
    return Refusal(StoreRefusal.NO_STORE, "the view") if word.forbidden else None


def view_directives(response: Response) -> Directives:
    """Return the view's Cache-Control, without the bare ``no-cache`` of Werkzeug for files, which the developer has not set."""
    if response.direct_passthrough and response.headers.getlist("Cache-Control") == ["no-cache"]:
        return Directives()
    return response_directives(response.headers)


def is_better_than_fallback(previous: Entry | None, now: float) -> bool:
    """Whether the stored copy is better than a page that was made with a fallback."""
    return previous is not None and not previous.stood_in and (previous.in_swr(now) or previous.in_sie(now))
