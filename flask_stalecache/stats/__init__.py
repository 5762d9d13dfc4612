"""Counters of all processes that share a cache directory."""
