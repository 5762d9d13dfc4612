"""A response of a cached view, and what was seen of the call that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from werkzeug.wrappers import Response

from ...core.http.cache_control import Directives
from ...core.model.inputs import RequestInputs
from ...core.model.reasons import Refusal
from ...core.rules.cacheability import Cacheability
from ...engine.origin import Start


class Seen(NamedTuple):
    """What was seen of a call besides its response.

    :ivar names: the names that it depends on beyond its key.
    :ivar carried: those of them that this request carries.
    :ivar unnamed: what it has read that no name tells, if anything.
    :ivar refusal: the effect of the view that keeps it from the store, if any.
    """

    names: RequestInputs
    carried: RequestInputs
    unnamed: Refusal | None
    refusal: Refusal | None

    @property
    def is_anybodys(self) -> bool:
        """Whether every request without the names would have been answered alike."""
        return not self.carried and self.unnamed is None


@dataclass(frozen=True, slots=True)
class Made:
    """A response of the view, and what was seen while it was made.

    :ivar fields: its fields as they are stored: without those that are unset.
    :ivar word: what the view said of storing it.
    :ivar refusal: why it can't be stored, as far as the response does not tell that.
    :ivar now: when it was made, in seconds since the epoch.
    """

    response: Response
    fields: list[tuple[str, str]]
    directives: Directives
    start: Start
    word: Cacheability
    seen: Seen
    refusal: Refusal | None
    now: float
