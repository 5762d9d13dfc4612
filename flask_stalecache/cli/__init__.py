"""``flask stalecache``: look into the cache, empty it, fill it and look after it from the shell."""
