"""Names of Flask-Caching, and what to write here instead. Pure."""

from __future__ import annotations

from collections.abc import Mapping

#: Parameters of its decorators.
PARAMETERS: Mapping[str, str] = {
    "timeout": "a lifetime is max_age=, a wait for the renewal is wait=, one for the lock is lock_timeout=",
    "key_prefix": "the URL is in the key; write key= for another one, or tags= to purge several pages together",
    "query_string": "the query is always in the key; ignored_parameters= leaves parameters out, sort_query=True their order",
    "make_cache_key": "write key=, a callable without parameters that returns strings and numbers",
    "make_name": "the key of a value has the module and name of its function",
    "forced_update": "write renew=, a callable that says whether a request replaces the stored page",
    "is_stale": "purge the page when it becomes stale, or shorten its freshness by cache.max_age(seconds) in the view",
    "response_filter": "raise an exception for values that may not be stored, or write failures=",
    "hash_method": "the digests in keys can't be chosen",
    "cache_none": "None is stored as any other value is",
    "source_check": "set STALECACHE_VERSION: with a new one, older entries are stale",
    "args_to_ignore": "write ignored_args=",
    "response_hit_indication": "each response says it in Cache-Status",
}
#: Parameters of its ``Cache`` and of ``init_app``.
SETUP: Mapping[str, str] = {
    "config": "write STALECACHE_* keys into app.config before init_app(app)",
    "with_jinja2_ext": "leave it out: init_app(app) gives templates the tag {% cache %}",
}
#: Attributes of its memoized functions.
ATTRIBUTES: Mapping[str, str] = {
    "cache_timeout": "write max_age= in @cache.memoize; cache.max_age(seconds) in the function shortens it",
    "make_cache_key": "write key= in @cache.memoize, a callable with the function's parameters",
    "delete_memoized": "write function.purge(arguments) for one value, or function.purge_all() for all of them",
}
_VALUES = "values are stored by @cache.memoize(max_age=…), on the function that fetches them"
_PURGE = "write cache.purge() by URL, tag=, endpoint=, function= or prefix="
#: Methods of its ``Cache``.
METHODS: Mapping[str, str] = {
    "clear": "write cache.purge(all=True)",
    **dict.fromkeys(("get", "get_many", "get_dict", "has", "set", "set_many", "add", "inc", "dec"), _VALUES),
    **dict.fromkeys(("delete", "delete_cached", "delete_many", "unlink"), _PURGE),
    "delete_memoized": "write function.purge(arguments) for one value, or function.purge_all() for all of them",
    "delete_memoized_verhash": "write function.purge_all()",
    "memoize_make_cache_key": "memoized functions have no names to make keys of; write key=",
}
