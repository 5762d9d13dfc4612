"""A shared cache between an app and its visitors, which knows only what HTTP says: it is not to be trusted with more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flask_stalecache.core.http.vary import STAR
from support.client import Seen

Fields = Mapping[str, str]


@dataclass
class Cdn:
    """Stores every response that may be stored, for ever, and selects by Vary (RFC 9111 section 4.1).

    :param ask: passes a request on: path, fields and method.
    """

    ask: Callable[[str, Fields, str], Seen]
    stored: dict[str, list[tuple[Fields, Seen]]] = field(default_factory=dict)

    def visit(self, path: str = "/", headers: Fields | None = None, method: str = "GET") -> Seen:
        """Answer from what is stored, or pass the request on."""
        asked = {name.lower(): value for name, value in (headers or {}).items()}
        for chosen, seen in self.stored.get(path, ()):
            if all(asked.get(name) == value for name, value in chosen.items()):
                return seen
        seen = self.ask(path, headers or {}, method)
        names = [name.strip().lower() for line in seen.headers.getlist("Vary") for name in line.split(",")]
        said = seen.headers.get("Cache-Control", "")
        if (
            method == "GET"
            and STAR not in names
            and "max-age" in said
            and "private" not in said
            and "Set-Cookie" not in seen.headers
        ):
            self.stored.setdefault(path, []).append(({name: asked.get(name) for name in names}, seen))  # type: ignore[misc]
        return seen
