"""Looks through a cache directory: for what to evict, what to remove, and what is stored."""
