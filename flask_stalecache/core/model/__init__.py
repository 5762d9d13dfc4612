"""The values that the cache works with: policies, keys, entries, notes, recipes."""
