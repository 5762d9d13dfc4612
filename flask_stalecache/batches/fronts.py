"""The form in which requests for the pages of a host arrive, learned from the stored pages.

Behind a proxy, visitors type one URL, and another one arrives at the app, with X-Forwarded fields, which are in the key. The base
URL of an app may be the one that visitors type: a warming request must then arrive as their requests do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from urllib.parse import unquote_to_bytes

from ..core.addressing.arrival import place_of_path
from ..core.addressing.base_url import Address, Base
from ..core.addressing.keys import host_of, raw_path
from ..core.addressing.recipe import IN_EVERY_KEY, PageRecipe
from ..core.model.entry import Entry
from ..core.model.environ import with_variables
from ..core.model.query import NamePatterns
from ..core.rules.request_changes import changed_parts
from ..errors import StoreError
from ..stores.base import Store

#: Maximum number of entries that are read. The entries of one site are alike.
MOST = 2000


@dataclass(frozen=True, slots=True)
class Front:
    """One form in which visitors' requests arrive at an app.

    :param sample: a request as it arrives, without path and query.
    :param before: the path before that of the app, as it arrives.
    :param root: the script root that the app sees.
    :param unsent: the part of the path that was not sent, but added by middleware around the cache; ``None``: the server does not
        provide the raw path.
    """

    sample: PageRecipe
    before: str
    root: str
    unsent: str | None

    def is_direct(self, base: Base) -> bool:
        """Whether requests for a host arrive as they are sent."""
        host = Base.of_url(f"{self.sample.scheme}://{dict(self.sample.fields).get('HTTP_HOST')}")
        is_forwarded = any(value is not None for name, value in self.sample.fields if name != "HTTP_HOST")
        is_same = host is not None and (host.scheme, host.host, self.sample.script_root) == (base.scheme, base.host, base.root)
        return is_same and not is_forwarded and self.before == self.root

    def recipe(self, address: Address) -> PageRecipe | None:
        """Return the request for a URL as it arrives; ``None`` if that is not known.

        :param address: the URL, as visitors type it.
        """
        arrived, seen = ({"SCRIPT_NAME": root, "PATH_INFO": "/"} for root in (self.before, self.root))
        place = place_of_path(address.raw.partition("?")[0], arrived, seen)
        if place is None:
            return None
        script_root = self.sample.script_root
        is_below = place.path == script_root or place.path.startswith(f"{script_root}/")
        sent = None if self.unsent is None else place.raw.removeprefix(self.unsent)
        raw = f"{sent}?{address.query}" if address.query and sent is not None else sent
        return PageRecipe(
            scheme=self.sample.scheme,
            server=self.sample.server,
            script_root=script_root if is_below else "",
            path=place.path.removeprefix(script_root) if is_below else place.path,
            query=address.query,
            raw=() if raw is None else (("RAW_URI", raw),),
            fields=self.sample.fields,
        )


class Fronts:
    """The fronts of an app, by the hosts that visitors type. The most frequent front of the pages of a host counts.

    :param store: the pages.
    :param ignored: query parameters that are not in keys.
    """

    def __init__(self, store: Store, ignored: NamePatterns) -> None:
        self._store = store
        self._ignored = ignored
        self._found: dict[tuple[str, str], Front] | None = None

    def of(self, base: Base) -> Front | None:
        """Return the front of a host; ``None`` if requests for it arrive as they are sent, or if its front is not known.

        :param base: has the scheme and the host.
        """
        if self._found is None:
            # Two threads may both look: that is harmless.
            self._found = self._look()
        front = self._found.get((base.scheme, base.host))
        return None if front is None or front.is_direct(base) else front

    def _look(self) -> dict[tuple[str, str], Front]:
        counts: dict[tuple[str, str], Counter[Front]] = {}
        try:
            for stored in islice(self._store.walk(), MOST):
                if (known := self._front_of(stored.entry)) is not None:
                    host, front = known
                    counts.setdefault(host, Counter())[front] += 1
        except StoreError:
            # Requests are sent as they would be to an empty store.
            return {}
        return {host: found.most_common(1)[0][0] for host, found in counts.items()}

    def _front_of(self, entry: Entry) -> tuple[tuple[str, str], Front] | None:
        """Return the host of a page and its front; ``None`` if a request made from the front would not reach the page again."""
        if "scheme" not in entry.recipe:
            return None
        try:
            recipe = PageRecipe.from_json(entry.recipe)
        except (LookupError, TypeError, ValueError):
            return None
        arrived = recipe.to_environ()
        seen = with_variables(arrived, dict(recipe.seen))
        below, came = seen.get("PATH_INFO", ""), recipe.script_root + recipe.path
        sent = raw_path(arrived)
        unsent = None if sent is None else _without(came, unquote_to_bytes(sent).decode("latin-1"))
        host = Base.of_url(f"{seen.get('wsgi.url_scheme')}://{host_of(seen)}")
        before, is_odd = _without(came, below), sent is not None and unsent is None
        if host is None or before is None or is_odd or changed_parts(arrived, seen, self._ignored):
            return None
        fields = tuple((name, value) for name, value in recipe.fields if name in IN_EVERY_KEY)
        sample = PageRecipe(recipe.scheme, recipe.server, recipe.script_root, "", "", (), fields)
        return (host.scheme, host.host), Front(sample, before, seen.get("SCRIPT_NAME", ""), unsent)


def _without(path: str, end: str) -> str | None:
    """Return a path without an ending; ``None`` if it does not have that ending."""
    return path[: len(path) - len(end)] if path.endswith(end) else None
