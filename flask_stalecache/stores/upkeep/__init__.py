"""Looks through a cache directory: to evict entries, remove what is due, and list what is stored."""
