"""The page on which an operator monitors and controls the cache: ``cache.dashboard``."""
