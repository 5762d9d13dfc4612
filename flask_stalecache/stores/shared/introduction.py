"""Detects two apps that use one name at the server: each of them may serve pages and values of the other.

An app is recognised by its routes. They change little from one deployment to the next, while two different apps have next to none
in common. The server keeps a sample of the routes of the app that was seen last.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ...core.formatting import printable
from .logs import BEGIN, LogClient, prefix_of

logger = logging.getLogger("flask_stalecache")

#: Routes in a sample: those with the lowest digests, so that samples of similar apps are similar.
_MOST = 64
#: Two samples that have less than one route in so many in common are of different apps.
_ONE_IN = 5
#: Microseconds after which an app that was not seen again is forgotten: a week.
_FORGOTTEN = 604_800_000_000

#: ARGV: name of the app, digests of routes. Returns the name of the other app, or "".
_INTRODUCE = (
    (
        BEGIN
        + """
local old, count, common = redis.call('HGET', m, 'a'), 0, 0
if old then
  local other, mine = cjson.decode(old), {}
  for i = 2, #ARGV do mine[ARGV[i]] = true end
  for _, route in ipairs(other.routes) do if mine[route] then common = common + 1 end end
  local least = math.min(#other.routes, #ARGV - 1)
  if common * @ONE_IN < least and now - other.at < @FORGOTTEN then return other.name end
end
redis.call('HSET', m, 'a', cjson.encode({name = ARGV[1], at = now, routes = {unpack(ARGV, 2)}}))
return ''
"""
    )
    .replace("@ONE_IN", str(_ONE_IN))
    .replace("@FORGOTTEN", str(_FORGOTTEN))
)


class Identity(NamedTuple):
    """The name and routes by which an app is recognised.

    :ivar name: its name.
    :ivar routes: digests of its routes.
    """

    name: str
    routes: frozenset[str]


class Introduction:
    """Introduces an app to the server.

    :param commands: the client.
    :param name: the name of the cache.
    :param where: the name of the server for messages.
    """

    def __init__(self, commands: LogClient, name: str, where: str) -> None:
        self._commands = commands
        self._name = name
        self._where = where
        #: Returns the identity of the app; ``None`` if it is unknown.
        self.identify: Callable[[], Identity | None] = lambda: None

    def make(self) -> None:
        """Introduce the app, and log a warning if another app uses the name.

        :raises StoreError: if the server can't be used.
        """
        identity = self.identify()
        if identity is None or not identity.routes:
            return
        answer: Any = self._commands.run(_INTRODUCE, (f"{prefix_of(self._name)}m",), (identity.name, *_sample(identity.routes)))
        other = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
        if other:
            logger.warning(
                "%s: another app (%s) than this one (%s) uses the name %s there, so that each may serve pages of the other: give "
                "each a STALECACHE_SHARED_NAME of its own",
                self._where, json.dumps(printable(other)), json.dumps(printable(identity.name)), json.dumps(printable(self._name)),
            )  # fmt: skip


def _sample(routes: Iterable[str]) -> list[str]:
    return sorted(routes)[:_MOST]
