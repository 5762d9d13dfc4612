"""Serve Flask pages from the cache immediately, even stale ones, and refresh them after the response is sent."""

from .batches.batch import Batch, Outcome
from .batches.purged import Purged
from .core.model.entry import Entry
from .core.model.policy import Policy
from .core.rules.status import CacheStatus
from .engine.signals import (
    entry_evicted,
    entry_stored,
    origin_failed,
    purged,
    refresh_done,
    refresh_failed,
    scan_moved,
    stale_served,
)
from .errors import (
    BatchQueueFull,
    ConfigError,
    OriginBusy,
    OriginSuspended,
    OriginTimeout,
    PurgedHereOnly,
    RefreshRefused,
    StaleCacheError,
    StoreError,
    UnkeyableArgument,
)
from .extension import StaleCache
from .frontends.gateway.gateway_cache import GatewayCache
from .frontends.memoize.function import MemoizedFunction
from .stores.base import Checked, Store, Stored, Usage
from .stores.file_store import FileStore
from .stores.shared.store import RedisStore

__all__ = [
    "Batch",
    "BatchQueueFull",
    "CacheStatus",
    "Checked",
    "ConfigError",
    "Entry",
    "FileStore",
    "GatewayCache",
    "MemoizedFunction",
    "OriginBusy",
    "OriginSuspended",
    "OriginTimeout",
    "Outcome",
    "Policy",
    "Purged",
    "PurgedHereOnly",
    "RedisStore",
    "RefreshRefused",
    "StaleCache",
    "StaleCacheError",
    "Store",
    "StoreError",
    "Stored",
    "UnkeyableArgument",
    "Usage",
    "entry_evicted",
    "entry_stored",
    "origin_failed",
    "purged",
    "refresh_done",
    "refresh_failed",
    "scan_moved",
    "stale_served",
]
