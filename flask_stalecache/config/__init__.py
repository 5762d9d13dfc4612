"""The configuration of an app: the ``STALECACHE_*`` keys, and the values that they accept."""
