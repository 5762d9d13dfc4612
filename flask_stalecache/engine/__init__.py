"""Serves entries, collapses misses and refreshes in the background, for any origin and any store."""
