"""The stores: the :class:`~flask_stalecache.stores.base.Store` protocol and its implementations."""
