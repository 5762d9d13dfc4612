"""The page on which an operator sees what the cache does, and acts on it: ``cache.dashboard``."""
